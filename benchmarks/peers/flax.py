"""Flax NNX: modules, split once into a graph and a state that one jitted step donates."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import nnx

from benchmarks.peers.trainer import Trainer, held, softmax_loss
from benchmarks.shapes import RATE, STAGES, Params


class MLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, inputs: int = 784):
        self.hidden = nnx.Linear(inputs, 128, rngs=rngs)
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.hidden(x)))


class CNN(MLP):
    def __init__(self, rngs: nnx.Rngs):
        super().__init__(rngs, 7 * 7 * 64)
        self.conv1 = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in (self.conv1, self.conv2):
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
        return super().__call__(x.reshape(x.shape[0], -1))


class Unit(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, window: int, c_in: int, c_out: int, stride: int = 1):
        self.conv = nnx.Conv(
            *(c_in, c_out, (window, window), stride),
            padding=window // 2,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(c_out, use_running_average=False, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, c_in: int, c_out: int, stride: int):
        self.one = Unit(rngs, 3, c_in, c_out, stride)
        self.two = Unit(rngs, 3, c_out, c_out)
        if stride > 1:
            self.short = Unit(rngs, 1, c_in, c_out, stride)

    def __call__(self, x: jax.Array) -> jax.Array:
        short = self.short(x) if hasattr(self, "short") else x
        return nnx.relu(self.two(nnx.relu(self.one(x))) + short)


class ResNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem = Unit(rngs, 3, 3, 64)
        c_in = 64
        for i, (c_out, stride) in enumerate(STAGES):
            setattr(self, f"block{i}", Block(rngs, c_in, c_out, stride))
            c_in = c_out
        self.head = nnx.Linear(512, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        for i in range(len(STAGES)):
            x = getattr(self, f"block{i}")(x)
        return self.head(x.mean((1, 2)))


MODELS: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {"mlp": MLP, "cnn": CNN, "resnet": ResNet}


def load(module: Any, params: Params) -> None:
    """Copy fnn's parameters into the module of the same name."""
    for name, value in params.items():
        if isinstance(value, dict):
            load(getattr(module, name), value)
        else:
            leaf = getattr(module, {"w": "kernel", "b": "bias"}.get(name, name))
            leaf[...] = jax.numpy.asarray(value)


def make(task: str, params: Params) -> Trainer:
    model = MODELS[task](nnx.Rngs(0))
    load(model, params)
    optimizer = nnx.Optimizer(model, optax.adam(RATE), wrt=nnx.Param)
    graph, state = nnx.split((model, optimizer))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
        model, optimizer = nnx.merge(graph, state)
        value, grads = nnx.value_and_grad(lambda m: softmax_loss(m(batch[0]), batch[1]))(model)
        optimizer.update(model, grads)
        return nnx.state((model, optimizer)), value

    return held(step, state)
