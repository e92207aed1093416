"""Data that stays on the device: arrays of examples, read in a fresh order every epoch."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from fnn.checks import check_int, wrong


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["data", "order", "noise"],
    meta_fields=["size"],
)
@dataclasses.dataclass(frozen=True)
class Shuffled:
    """One epoch: batches of ``size`` examples in this order, and the key of their randomness."""

    data: Any
    order: Array
    noise: Array
    size: int

    @property
    def whole(self) -> int:
        """How many batches have ``size`` examples."""
        return self.order.shape[0] // self.size

    @property
    def rest(self) -> int:
        """How many examples the last, smaller batch has."""
        return self.order.shape[0] % self.size

    def batch(self, i: Any, size: int) -> Any:
        """Return batch i, of this size."""
        rows = lax.dynamic_slice(self.order, (i * self.size,), (size,))
        return jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), self.data)


def shuffled(data: Any, size: int, key: Array, epoch: int) -> Shuffled:
    """Return one epoch of the run with this key."""
    order, noise = draw_order(key, epoch, n=jax.tree.leaves(data)[0].shape[0])
    return Shuffled(data, order, noise, size)


@functools.partial(jax.jit, static_argnames="n")
def draw_order(key: Array, epoch: Array, *, n: int) -> tuple[Array, Array]:
    """Return the order of the n examples in this epoch, and the key of its steps' randomness.

    Sorts repeatedly by random bits, as `jax.random.permutation` does, but packs bits and position
    into one word: on a CPU one array sorts several times faster than keys that carry values.
    """
    shuffle, noise = jax.random.split(jax.random.fold_in(key, epoch))
    width = max(1, (n - 1).bit_length())  # of a position; the rest of the word is random
    rounds = -(-3 * width // (32 - width))  # so 3 width random bits in all: ties have odds 1 / n
    position = jnp.arange(n, dtype=jnp.uint32)

    def deal(i: Array, order: Array) -> Array:
        bits = jax.random.bits(jax.random.fold_in(shuffle, i), (n,), jnp.uint32)
        packed = lax.sort((bits >> width << width) | position)
        return order[packed & (2**width - 1)]

    return lax.fori_loop(0, rounds, deal, position), noise


def check_data(data: Any, batch_size: int) -> int:
    """Return the number of examples, or raise: arrays of unequal lengths, a batch too large."""
    sizes = {
        "data" + jax.tree_util.keystr(path): jnp.shape(leaf)[0] if jnp.ndim(leaf) else None
        for path, leaf in jax.tree.leaves_with_path(data)
    }
    n = next(iter(sizes.values()), None)
    if not n or len(set(sizes.values())) > 1:
        got = ", ".join(f"{size or 'no'} examples in {path}" for path, size in sizes.items())
        needed = "arrays with one common leading axis, the examples, at least one"
        raise wrong("train", "data", got or "no array", needed)
    check_int("train", "batch_size", batch_size, 1)
    if batch_size > n:
        raise wrong("train", "batch_size", batch_size, f"an int >= 1 and at most the {n} examples")
    return n
