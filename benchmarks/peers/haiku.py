"""Haiku: modules called inside a transformed function; parameters are a dict of dicts."""

import haiku as hk
import jax

from benchmarks.peers.trainer import Trainer, softmax_loss, with_optax
from benchmarks.shapes import Params


def mlp(x: jax.Array) -> jax.Array:
    return hk.Sequential([hk.Linear(128, name="hidden"), jax.nn.relu, hk.Linear(10, name="head")])(
        x
    )


def cnn(x: jax.Array) -> jax.Array:
    for name, channels in (("conv1", 32), ("conv2", 64)):
        x = jax.nn.relu(hk.Conv2D(channels, 3, name=name)(x))
        x = hk.max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return mlp(hk.Flatten()(x))


def make(task: str, params: Params) -> Trainer:
    model = hk.without_apply_rng(hk.transform({"mlp": mlp, "cnn": cnn}[task]))
    return with_optax(lambda p, b: softmax_loss(model.apply(p, b[0]), b[1]), params)
