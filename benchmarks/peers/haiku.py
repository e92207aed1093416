"""Haiku: modules called inside a transformed function; parameters are a dict of dicts."""

import functools
from typing import Any

import haiku as hk
import jax
import numpy as np
import optax

from benchmarks.peers.trainer import Trainer, held, softmax_loss
from benchmarks.shapes import INPUTS, RATE, STAGES, Params


def mlp(x: jax.Array) -> jax.Array:
    return hk.Sequential([hk.Linear(128, name="hidden"), jax.nn.relu, hk.Linear(10, name="head")])(
        x
    )


def cnn(x: jax.Array) -> jax.Array:
    for name, channels in (("conv1", 32), ("conv2", 64)):
        x = jax.nn.relu(hk.Conv2D(channels, 3, name=name)(x))
        x = hk.max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return mlp(hk.Flatten()(x))


class Unit(hk.Module):
    def __call__(self, x: jax.Array, size: int, channels: int, stride: int = 1) -> jax.Array:
        pads = [(size // 2, size // 2)] * 2
        x = hk.Conv2D(channels, size, stride, padding=pads, with_bias=False, name="conv")(x)
        return hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training=True)


class Block(hk.Module):
    def __call__(self, x: jax.Array, channels: int, stride: int) -> jax.Array:
        y = jax.nn.relu(Unit("one")(x, 3, channels, stride))
        short = Unit("short")(x, 1, channels, stride) if stride > 1 else x
        return jax.nn.relu(Unit("two")(y, 3, channels) + short)


def resnet(x: jax.Array) -> jax.Array:
    x = jax.nn.relu(Unit("stem")(x, 3, 64))
    for i, stage in enumerate(STAGES):
        x = Block(f"block{i}")(x, *stage)
    return hk.Linear(10, name="head")(x.mean((1, 2)))


MODELS = {"mlp": mlp, "cnn": cnn, "resnet": resnet}


def named(params: Params, path: str = "") -> Params:
    """fnn's parameters under Haiku's names: ``block0/one/conv``."""
    found: Params = {}
    for name, value in params.items():
        if name == "norm":
            scale, offset = (value[key].reshape(1, 1, 1, -1) for key in ("scale", "bias"))
            found[path + name] = {"scale": scale, "offset": offset}
        elif "conv" in value or "one" in value:
            found |= named(value, f"{path}{name}/")
        else:
            found[path + name] = value
    return found


def make(task: str, params: Params) -> Trainer:
    model = hk.without_apply_rng(hk.transform_with_state(MODELS[task]))
    optimizer = optax.adam(RATE)

    def loss(params: Any, state: Any, batch: Any) -> tuple[jax.Array, Any]:
        logits, state = model.apply(params, state, batch[0])
        return softmax_loss(logits, batch[1]), state

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params: Any, state: Any, memory: Any, batch: Any) -> tuple[Any, ...]:
        grad = jax.value_and_grad(loss, has_aux=True)
        (value, state), grads = grad(params, state, batch)
        updates, memory = optimizer.update(grads, memory, params)
        return optax.apply_updates(params, updates), state, memory, value

    own = jax.tree.map(jax.numpy.array, named(params))
    x = np.zeros((1, *INPUTS[task]), np.float32)
    _, state = jax.jit(model.init)(jax.random.key(0), x)
    return held(step, own, state, optimizer.init(own))
