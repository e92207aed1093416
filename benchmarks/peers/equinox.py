"""Equinox: modules of one example, channels first, under vmap; arrays split off for one jit."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers.trainer import Batch, Trainer, held, softmax_loss
from benchmarks.shapes import RATE, STAGES, Params

KEY = jax.random.key(0)


class MLP(eqx.Module):
    hidden: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, inputs: int = 784):
        self.hidden = eqx.nn.Linear(inputs, 128, key=KEY)
        self.head = eqx.nn.Linear(128, 10, key=KEY)

    def __call__(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        return self.head(jax.nn.relu(self.hidden(x))), state


class CNN(eqx.Module):
    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    rest: MLP

    def __init__(self) -> None:
        self.conv1 = eqx.nn.Conv2d(1, 32, 3, padding=1, key=KEY)
        self.conv2 = eqx.nn.Conv2d(32, 64, 3, padding=1, key=KEY)
        self.rest = MLP(7 * 7 * 64)

    def __call__(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        for conv in (self.conv1, self.conv2):
            x = eqx.nn.MaxPool2d(2, 2)(jax.nn.relu(conv(x)))
        return self.rest(x.reshape(-1), state)


class Unit(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm

    def __init__(self, window: int, c_in: int, c_out: int, stride: int = 1):
        self.conv = eqx.nn.Conv2d(
            c_in, c_out, window, stride, padding=window // 2, use_bias=False, key=KEY
        )
        self.norm = eqx.nn.BatchNorm(c_out, axis_name="batch", mode="batch")

    def __call__(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        return self.norm(self.conv(x), state)


class Block(eqx.Module):
    one: Unit
    two: Unit
    short: Unit | None

    def __init__(self, c_in: int, c_out: int, stride: int):
        self.one, self.two = Unit(3, c_in, c_out, stride), Unit(3, c_out, c_out)
        self.short = Unit(1, c_in, c_out, stride) if stride > 1 else None

    def __call__(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        y, state = self.one(x, state)
        y, state = self.two(jax.nn.relu(y), state)
        if self.short is not None:
            x, state = self.short(x, state)
        return jax.nn.relu(y + x), state


class ResNet(eqx.Module):
    stem: Unit
    blocks: list[Block]
    head: eqx.nn.Linear

    def __init__(self) -> None:
        ins = [64, *(c for c, _ in STAGES)]
        self.stem = Unit(3, 3, 64)
        self.blocks = [Block(i, c, s) for i, (c, s) in zip(ins, STAGES, strict=False)]
        self.head = eqx.nn.Linear(512, 10, key=KEY)

    def __call__(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        x, state = self.stem(x, state)
        x = jax.nn.relu(x)
        for block in self.blocks:
            x, state = block(x, state)
        return self.head(x.mean((1, 2))), state


def arrays(task: str, params: Params) -> list[jax.Array]:
    """fnn's parameters in the order and layout of the model's leaves."""

    def conv(p: Params) -> list[Any]:
        w = np.moveaxis(p["w"], (-1, -2), (0, 1))
        return [w, p["b"].reshape(-1, 1, 1)] if "b" in p else [w]

    def dense(p: Params) -> list[Any]:
        return [p["w"].T, p["b"]]

    def unit(p: Params) -> list[Any]:
        return [*conv(p["conv"]), p["norm"]["scale"], p["norm"]["bias"]]

    if task == "resnet":
        blocks = [params[f"block{i}"] for i in range(len(STAGES))]
        units = [u for b in blocks for n in ("one", "two", "short") if n in b for u in unit(b[n])]
        own = [*unit(params["stem"]), *units, *dense(params["head"])]
    else:
        own = [*dense(params["hidden"]), *dense(params["head"])]
        if task == "cnn":  # its flattened images are channels first
            w = params["hidden"]["w"].reshape(7, 7, 64, 128).transpose(2, 0, 1, 3)
            own[0] = w.reshape(-1, 128).T
            own = [*conv(params["conv1"]), *conv(params["conv2"]), *own]
    return [jnp.array(a) for a in own]


def make(task: str, params: Params) -> Trainer:
    kind = {"mlp": MLP, "cnn": CNN, "resnet": ResNet}[task]
    model, state = eqx.nn.make_with_state(kind)()
    leaves, static = eqx.partition(model, eqx.is_inexact_array)
    leaves = jax.tree.unflatten(jax.tree.structure(leaves), arrays(task, params))
    tensors, fixed = eqx.partition(state, eqx.is_array)
    optimizer = optax.adam(RATE)

    def loss(leaves: Any, tensors: Any, batch: Any) -> tuple[jax.Array, Any]:
        model, state = eqx.combine(leaves, static), eqx.combine(tensors, fixed)
        each = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        logits, state = each(batch[0], state)
        return softmax_loss(logits, batch[1]), eqx.filter(state, eqx.is_array)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(leaves: Any, tensors: Any, memory: Any, batch: Any) -> tuple[Any, ...]:
        grad = jax.value_and_grad(loss, has_aux=True)
        (value, tensors), grads = grad(leaves, tensors, batch)
        updates, memory = optimizer.update(grads, memory, leaves)
        return optax.apply_updates(leaves, updates), tensors, memory, value

    def put(batch: Batch) -> Any:
        x = batch[0] if task == "mlp" else np.moveaxis(batch[0], -1, 1)
        return jax.device_put((np.ascontiguousarray(x), batch[1]))

    return held(step, leaves, tensors, optimizer.init(leaves), put=put)
