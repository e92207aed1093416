"""The models of the training benchmark, in fnn, and the numbers that all peers start from."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from benchmarks.shapes import DEEP_STAGES, INPUTS, STAGES, Params


class Task(NamedTuple):
    """One model to train: its name, input shape, batch size, and fnn's init and logits."""

    name: str
    shape: tuple[int, ...]
    batch: int
    init: Callable[[jax.Array], Params]
    logits: Callable[[Params, jax.Array], jax.Array]


def loss(logits: Callable[[Params, jax.Array], jax.Array]) -> Callable[[Params, Any], jax.Array]:
    def mean(params: Params, batch: Any) -> jax.Array:
        x, y = batch
        return fnn.cross_entropy(logits(params, x), y).mean()

    return mean


def init_mlp(key: jax.Array) -> Params:
    k1, k2 = jax.random.split(key)
    return {"hidden": fnn.init_dense(k1, 784, 128), "head": fnn.init_dense(k2, 128, 10)}


def mlp(params: Params, x: jax.Array) -> jax.Array:
    return fnn.dense(fnn.relu(fnn.dense(x, **params["hidden"])), **params["head"])


def init_cnn(key: jax.Array) -> Params:
    k1, k2, k3, k4 = jax.random.split(key, 4)
    return {
        "conv1": fnn.init_conv(k1, (3, 3), 1, 32),
        "conv2": fnn.init_conv(k2, (3, 3), 32, 64),
        "hidden": fnn.init_dense(k3, 7 * 7 * 64, 128),
        "head": fnn.init_dense(k4, 128, 10),
    }


def cnn(params: Params, x: jax.Array) -> jax.Array:  # (n, 28, 28, 1)
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv1"])), 2)  # (n, 14, 14, 32)
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv2"])), 2)  # (n, 7, 7, 64)
    x = fnn.relu(fnn.dense(fnn.flatten(x), **params["hidden"]))
    return fnn.dense(x, **params["head"])


def init_unit(key: jax.Array, window: int, c_in: int, c_out: int) -> Params:
    """A convolution without bias, and the normalization behind it."""
    conv = fnn.init_conv(key, (window, window), c_in, c_out)
    return {
        "conv": {"w": conv["w"]},
        "norm": {"scale": jnp.ones(c_out), "bias": jnp.zeros(c_out)},
    }


def init_resnet(key: jax.Array) -> Params:
    """ResNet-18 for 32x32 images: a 3x3 stem, four stages of two blocks."""
    keys = iter(jax.random.split(key, 64))
    params, c_in = {"stem": init_unit(next(keys), 3, 3, 64)}, 64
    for i, (c_out, stride) in enumerate(STAGES):
        sizes = {"one": (3, c_in, c_out), "two": (3, c_out, c_out)}
        if stride > 1:
            sizes["short"] = (1, c_in, c_out)
        params[f"block{i}"] = {name: init_unit(next(keys), *size) for name, size in sizes.items()}
        c_in = c_out
    return params | {"head": fnn.init_dense(next(keys), 512, 10)}


def normed(x: jax.Array, unit: Params, stride: int = 1) -> jax.Array:
    """Convolution and batch normalization with the batch's own statistics."""
    pad = unit["conv"]["w"].shape[0] // 2  # on both sides, as PyTorch pads
    x = fnn.conv(x, **unit["conv"], stride=stride, padding=pad)
    mean, var = fnn.batch_stats(x)[:2]
    return fnn.batch_norm(x, **unit["norm"], mean=mean, var=var)


def resnet(params: Params, x: jax.Array) -> jax.Array:  # (n, 32, 32, 3)
    x = fnn.relu(normed(x, params["stem"]))
    for i, (_, stride) in enumerate(STAGES):
        block = params[f"block{i}"]
        y = normed(fnn.relu(normed(x, block["one"], stride)), block["two"])
        x = fnn.relu(y + (normed(x, block["short"], stride) if "short" in block else x))
    return fnn.dense(x.mean((1, 2)), **params["head"])


def init_resnet50(key: jax.Array) -> Params:
    """ResNet-50 for 32x32 images: a 3x3 stem, 16 blocks of 1x1, 3x3 and 1x1, which add nothing yet.

    With their last scales 1, gradients in float32 would err by 2 % at this depth.
    """
    keys = iter(jax.random.split(key, 64))
    params, c_in = {"stem": init_unit(next(keys), 3, 3, 64)}, 64
    for i, (c, _) in enumerate(DEEP_STAGES):
        sizes = {"one": (1, c_in, c), "two": (3, c, c), "three": (1, c, 4 * c)}
        if c_in != 4 * c:
            sizes["short"] = (1, c_in, 4 * c)
        block = {name: init_unit(next(keys), *size) for name, size in sizes.items()}
        block["three"]["norm"]["scale"] = jnp.zeros(4 * c)
        params[f"block{i}"], c_in = block, 4 * c
    return params | {"head": fnn.init_dense(next(keys), 2048, 10)}


def resnet50(params: Params, x: jax.Array) -> jax.Array:  # (n, 32, 32, 3)
    x = fnn.relu(normed(x, params["stem"]))
    for i, (_, stride) in enumerate(DEEP_STAGES):
        block = params[f"block{i}"]
        y = fnn.relu(normed(fnn.relu(normed(x, block["one"])), block["two"], stride))
        short = normed(x, block["short"], stride) if "short" in block else x
        x = fnn.relu(normed(y, block["three"]) + short)
    return fnn.dense(x.mean((1, 2)), **params["head"])


TASKS = {
    "mlp": Task("MLP 784-128-10", INPUTS["mlp"], 32, init_mlp, mlp),
    "cnn": Task("small CNN", INPUTS["cnn"], 128, init_cnn, cnn),
    "resnet": Task("ResNet-18 at 32x32", INPUTS["resnet"], 64, init_resnet, resnet),
    "resnet50": Task("ResNet-50 at 32x32", INPUTS["resnet"], 16, init_resnet50, resnet50),
}


@functools.cache
def start(task: str) -> Params:
    """Return the parameters that every contestant starts from: float32, of NumPy."""
    return jax.tree.map(np.float32, TASKS[task].init(jax.random.key(0)))


def batches(task: str, count: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return this many random batches (images, labels)."""
    shape = (TASKS[task].batch, *TASKS[task].shape)
    return [
        (rng.standard_normal(shape, np.float32), rng.integers(0, 10, shape[0]).astype(np.int32))
        for _ in range(count)
    ]
