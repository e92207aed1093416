"""stax (jax.example_libraries): (init, apply) pairs; parameters are nested tuples.

Its convolution always has a bias, also before a norm, where it changes nothing and starts at zero;
its batch norm keeps no running averages.
"""

from typing import Any

import numpy as np
from jax.example_libraries import stax

from benchmarks.peers.trainer import Trainer, softmax_loss, with_optax
from benchmarks.shapes import STAGES, Params

MLP = stax.serial(stax.Dense(128), stax.Relu, stax.Dense(10))
CNN = stax.serial(
    *(stax.Conv(32, (3, 3), padding="SAME"), stax.Relu, stax.MaxPool((2, 2), strides=(2, 2))),
    *(stax.Conv(64, (3, 3), padding="SAME"), stax.Relu, stax.MaxPool((2, 2), strides=(2, 2))),
    *(stax.Flatten, stax.Dense(128), stax.Relu, stax.Dense(10)),
)


def unit(size: int, channels: int, stride: int = 1) -> Any:
    conv = stax.Conv(channels, (size, size), (stride, stride), [(size // 2, size // 2)] * 2)
    return stax.serial(conv, stax.BatchNorm(epsilon=1e-5))


def block(channels: int, stride: int) -> Any:
    main = stax.serial(unit(3, channels, stride), stax.Relu, unit(3, channels))
    short = unit(1, channels, stride) if stride > 1 else stax.Identity
    return stax.serial(stax.FanOut(2), stax.parallel(main, short), stax.FanInSum, stax.Relu)


RESNET = stax.serial(
    *(unit(3, 64), stax.Relu, *(block(*stage) for stage in STAGES)),
    *(stax.AvgPool((4, 4)), stax.Flatten, stax.Dense(10)),
)


def dense(p: Params) -> Any:
    return p["w"], p["b"]


def conv(p: Params) -> Any:
    w = p["w"]
    return w, p.get("b", np.zeros(w.shape[-1], w.dtype)).reshape(1, 1, 1, -1)


def normed(p: Params) -> Any:
    return conv(p["conv"]), (p["norm"]["bias"], p["norm"]["scale"])


def residual(p: Params) -> Any:
    main = normed(p["one"]), (), normed(p["two"])
    return (), (main, normed(p["short"]) if "short" in p else ()), (), ()


def arrays(task: str, p: Params) -> Any:
    """fnn's parameters in the order of the model's layers."""
    if task == "mlp":
        return dense(p["hidden"]), (), dense(p["head"])
    if task == "cnn":
        return conv(p["conv1"]), (), (), conv(p["conv2"]), (), (), (), *arrays("mlp", p)
    blocks = (residual(p[f"block{i}"]) for i in range(len(STAGES)))
    return normed(p["stem"]), (), *blocks, (), (), dense(p["head"])


def make(task: str, params: Params) -> Trainer:
    _, apply = {"mlp": MLP, "cnn": CNN, "resnet": RESNET}[task]
    return with_optax(
        lambda p, batch: softmax_loss(apply(p, batch[0]), batch[1]), arrays(task, params)
    )
