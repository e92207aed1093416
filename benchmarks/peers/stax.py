"""stax (jax.example_libraries): (init, apply) pairs; parameters are nested tuples."""

from jax.example_libraries import stax

from benchmarks.peers.trainer import Trainer, softmax_loss, with_optax
from benchmarks.shapes import Params

MLP = stax.serial(stax.Dense(128), stax.Relu, stax.Dense(10))
CNN = stax.serial(
    *(stax.Conv(32, (3, 3), padding="SAME"), stax.Relu, stax.MaxPool((2, 2), strides=(2, 2))),
    *(stax.Conv(64, (3, 3), padding="SAME"), stax.Relu, stax.MaxPool((2, 2), strides=(2, 2))),
    *(stax.Flatten, stax.Dense(128), stax.Relu, stax.Dense(10)),
)


def make(task: str, params: Params) -> Trainer:
    _, apply = {"mlp": MLP, "cnn": CNN}[task]
    dense = [tuple(params[name][k] for k in ("w", "b")) for name in ("hidden", "head")]
    own = [dense[0], (), dense[1]]
    if task == "cnn":
        convs = [(params[n]["w"], params[n]["b"].reshape(1, 1, 1, -1)) for n in ("conv1", "conv2")]
        own = [convs[0], (), (), convs[1], (), (), (), *own]
    return with_optax(lambda p, batch: softmax_loss(apply(p, batch[0]), batch[1]), own)
