"""The same models in plain JAX: `lax` and `jax.numpy` only. In float64 they are the reference."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.peers.trainer import Trainer, softmax_loss, with_optax
from benchmarks.shapes import DEEP_STAGES, STAGES, Inner, Params, Stages


def conv(x: jax.Array, w: jax.Array, stride: int = 1) -> jax.Array:
    pad = w.shape[0] // 2
    return lax.conv_general_dilated(
        x, w, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def max_pool(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def normed(x: jax.Array, unit: Params, stride: int = 1) -> jax.Array:
    x = conv(x, unit["conv"]["w"], stride)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * lax.rsqrt(var + 1e-5) * unit["norm"]["scale"] + unit["norm"]["bias"]


def mlp(params: Params, x: jax.Array) -> jax.Array:
    x = jax.nn.relu(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return x @ params["head"]["w"] + params["head"]["b"]


def cnn(params: Params, x: jax.Array) -> jax.Array:
    for layer in (params["conv1"], params["conv2"]):
        x = max_pool(jax.nn.relu(conv(x, layer["w"]) + layer["b"]))
    return mlp(params, x.reshape(x.shape[0], -1))


def basic(x: jax.Array, block: Params, stride: int) -> jax.Array:
    return normed(jax.nn.relu(normed(x, block["one"], stride)), block["two"])


def bottleneck(x: jax.Array, block: Params, stride: int) -> jax.Array:
    x = jax.nn.relu(normed(jax.nn.relu(normed(x, block["one"])), block["two"], stride))
    return normed(x, block["three"])


def residual(params: Params, x: jax.Array, *, stages: Stages, inner: Inner) -> jax.Array:
    x = jax.nn.relu(normed(x, params["stem"]))
    for i, (_, stride) in enumerate(stages):
        block = params[f"block{i}"]
        y = inner(x, block, stride)
        x = jax.nn.relu(y + (normed(x, block["short"], stride) if "short" in block else x))
    return x.mean((1, 2)) @ params["head"]["w"] + params["head"]["b"]


resnet = functools.partial(residual, stages=STAGES, inner=basic)
resnet50 = functools.partial(residual, stages=DEEP_STAGES, inner=bottleneck)
MODELS = {"mlp": mlp, "cnn": cnn, "resnet": resnet, "resnet50": resnet50}


def loss(task: str) -> Any:
    return lambda params, batch: softmax_loss(MODELS[task](params, batch[0]), batch[1])


def make(task: str, params: Params) -> Trainer:
    return with_optax(loss(task), params)
