"""Data that stays on the device: arrays of examples, read in a fresh order every epoch.

Where the examples are on several devices of a mesh, so are those of every batch: then the compiler
makes each device take its part of every step. As the order is random, each has examples of every
batch, and they exchange them: 64 digits are 17 kB at each step of a small CNN, whose gradients are
24 kB. Batches that come as an iterable are where they are needed, and are not exchanged.
"""

import dataclasses
import functools
from collections.abc import Generator, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array

from fnn.checks import LAST, check_array, check_fits, check_int, count_examples, describe, wrong
from fnn.compiler import by_itself
from fnn.training.loop import Call, Place, epoch_keys, moved
from fnn.training.report import Run


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["data", "order"], meta_fields=["size", "spread"]
)
@dataclasses.dataclass(frozen=True)
class Shuffled:
    """One epoch: batches of ``size`` examples of the data in this order; a `Feed`.

    ``spread`` has the sharding of every array of the data whose examples are on several devices.
    """

    data: Any
    order: Array
    size: int
    spread: tuple[NamedSharding | None, ...]

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
        leaves, structure = jax.tree.flatten(self.data)
        read = [read_rows(x, rows, spread) for x, spread in zip(leaves, self.spread, strict=True)]
        return jax.tree.unflatten(structure, read)


def read_rows(x: Array, rows: Array, spread: NamedSharding | None) -> Any:
    """Return these rows, on as many devices as all are."""
    where = jax.typeof(x).sharding
    explicit = where if where.mesh.explicit_axes else None

    def read(x: Array, rows: Array) -> Array:
        some: Array = x.at[rows].get(mode="promise_in_bounds", out_sharding=explicit)
        return some

    if spread is None and x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu":
        return by_itself(read)(x, rows)  # or all is changed before the loop over batches
    some = read(x, rows)
    return lax.with_sharding_constraint(some, spread) if spread and not explicit else some


def spread_of(x: Array) -> NamedSharding | None:
    """Return the sharding of an array whose examples are on several devices of a mesh.

    A traced array's placement is known from its type alone, which shows explicit axes only.
    """
    where = jax.typeof(x).sharding if isinstance(x, jax.core.Tracer) else x.sharding
    return where if isinstance(where, NamedSharding) and where.spec and where.spec[0] else None


def check_parts(function: str, data: Any, batch_size: int) -> None:
    """Raise where the devices that the examples are on cannot take equal parts of a batch."""
    for x in jax.tree.leaves(data):
        spread = spread_of(x)
        parts = x.shape[0] // spread.shard_shape(x.shape)[0] if spread else 1
        if batch_size % parts:
            needed = f"a multiple of {parts}, as the examples are on {parts} devices"
            raise wrong(function, "batch_size", batch_size, needed)


def array_calls(data: Any, size: int, run: Run, epochs: int, every: int) -> Generator[Call]:
    """Yield the calls of a run over arrays, one per report.

    Args:
        data: arrays with one common leading axis.
        size: examples in a batch.
        run: where to begin.
        epochs: how many there are.
        every: steps between two reports, counted within the epoch.
    """
    leaves = jax.tree.leaves(data)
    n, spread = leaves[0].shape[0], tuple(map(spread_of, leaves))
    steps = -(-n // size)
    batch, before = run.batch, run.step - run.batch
    for epoch in range(run.epoch, epochs):
        with moved():
            order, noise = draw_order(run.key, epoch, n=n)
        feed, place = Shuffled(data, order, size, spread), Place(noise, 0, before)
        while batch < steps:
            stop = min(batch // every * every + every, steps)
            examples = min(stop * size, n) - batch * size
            yield Call(feed, place, batch, stop, epoch, examples, stop == steps, True)
            batch = stop
        batch, before = 0, before + steps


@functools.partial(jax.jit, static_argnames="n")
def draw_order(key: Array, epoch: Any, *, n: int) -> tuple[Array, Array]:
    """Return the order of the n examples in this epoch, and the key of its steps' randomness.

    Sorts repeatedly by random bits, as `jax.random.permutation` does, but packs bits and position
    into one word: on a CPU one array sorts several times faster than keys that carry values.
    """
    shuffle, noise = epoch_keys(key, epoch)
    width = max(1, (n - 1).bit_length())  # of a position; the rest of the word is random
    rounds = -(-3 * width // (32 - width))  # so 3 width random bits in all: ties have odds 1 / n
    position = jnp.arange(n, dtype=jnp.uint32)

    def deal(i: Array, order: Array) -> Array:
        bits = jax.random.bits(jax.random.fold_in(shuffle, i), (n,), jnp.uint32)
        packed = lax.sort((bits >> width << width) | position)
        return order[packed & (2**width - 1)]

    return lax.fori_loop(0, rounds, deal, position), noise


def check_examples(function: str, data: Any, batch_size: Any) -> int:
    """Return how many examples the arrays have, or raise where they are none of one length."""
    for path, leaf in jax.tree.leaves_with_path(data, is_leaf=lambda x: isinstance(x, Iterator)):
        place = "data" + jax.tree_util.keystr(path)
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            needed = (
                "arrays, as np.asarray makes of lists; without batch_size, an iterable of batches"
            )
            raise wrong(function, place, describe(leaf), needed, TypeError)
        if isinstance(leaf, np.ndarray):
            check_array(function, place, leaf)
            check_fits(function, place, leaf)
    n = count_examples(function, data)
    if n > LAST:  # their places are of int32
        needed = f"at most {LAST:,}, or an iterable of batches"
        raise wrong(function, "data", f"{n:,} examples", needed)
    check_int(function, "batch_size", batch_size, 1)
    return n
