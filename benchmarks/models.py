"""The models of the training benchmark, in fnn, and the numbers that all peers start from."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from benchmarks.shapes import DEEP_STAGES, INPUTS, STAGES, Inner, Params, Stages


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


def init_residual(key: jax.Array, stages: Stages, units: Mapping[str, tuple[int, int]]) -> Params:
    """A ResNet for 32x32 images: a 3x3 stem, and a block of these units for each of the stages.

    A unit has a window, and some times the channels of its stage.
    """
    keys = iter(jax.random.split(key, 64))
    params, c_in = {"stem": init_unit(next(keys), 3, 3, 64)}, 64
    for i, (channels, _) in enumerate(stages):
        block, c = {}, c_in
        for name, (window, times) in units.items():
            block[name] = init_unit(next(keys), window, c, times * channels)
            c = times * channels
        if c != c_in:
            block["short"] = init_unit(next(keys), 1, c_in, c)
        params[f"block{i}"], c_in = block, c
    return params | {"head": fnn.init_dense(next(keys), c_in, 10)}


def init_resnet(key: jax.Array) -> Params:
    return init_residual(key, STAGES, {"one": (3, 1), "two": (3, 1)})


def init_resnet50(key: jax.Array) -> Params:
    """Its blocks add nothing yet: with their last scales 1, gradients in float32 err by 2 %."""
    params = init_residual(key, DEEP_STAGES, {"one": (1, 1), "two": (3, 1), "three": (1, 4)})
    for i, (channels, _) in enumerate(DEEP_STAGES):
        params[f"block{i}"]["three"]["norm"]["scale"] = jnp.zeros(4 * channels)
    return params


def normed(x: jax.Array, unit: Params, stride: int = 1) -> jax.Array:
    """Convolution and batch normalization with the batch's own statistics."""
    pad = unit["conv"]["w"].shape[0] // 2  # on both sides, as PyTorch pads
    x = fnn.conv(x, **unit["conv"], stride=stride, padding=pad)
    mean, var = fnn.batch_stats(x)[:2]
    return fnn.batch_norm(x, **unit["norm"], mean=mean, var=var)


def basic(x: jax.Array, block: Params, stride: int) -> jax.Array:
    return normed(fnn.relu(normed(x, block["one"], stride)), block["two"])


def bottleneck(x: jax.Array, block: Params, stride: int) -> jax.Array:
    x = fnn.relu(normed(fnn.relu(normed(x, block["one"])), block["two"], stride))
    return normed(x, block["three"])


def residual(params: Params, x: jax.Array, *, stages: Stages, inner: Inner) -> jax.Array:
    x = fnn.relu(normed(x, params["stem"]))  # (n, 32, 32, 64)
    for i, (_, stride) in enumerate(stages):
        block = params[f"block{i}"]
        y = inner(x, block, stride)
        x = fnn.relu(y + (normed(x, block["short"], stride) if "short" in block else x))
    return fnn.dense(x.mean((1, 2)), **params["head"])


resnet = functools.partial(residual, stages=STAGES, inner=basic)
resnet50 = functools.partial(residual, stages=DEEP_STAGES, inner=bottleneck)

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
