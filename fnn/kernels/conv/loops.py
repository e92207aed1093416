"""Loops over blocks: what they write, or sum, and what they begin with.

To XLA, equal zeros are one array, whichever loop begins with them. Each loop gets a copy, and all
copies are made when the program starts: they took 75 of the 715 MB of a step of ResNet-18. So the
zeros of a loop are its own, and made when its turn comes.

The steps of a loop follow each other, but several blocks within one do not: what XLA computes on
one core it can then compute for each of them at the same time, if they share no memory
(`fnn.compiler.kept_until`). Tests: `tests/kernels/conv/test_compiled.py`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from fnn.compiler import as_bits, from_bits, on_all_cores, only_after
from fnn.placement import varying

AT_ONCE = 2  # blocks; on two cores, four of half the size are no faster


def zeros(shape: tuple[int, ...], dtype: DTypeLike, x: jax.Array, *more: jax.Array) -> jax.Array:
    """Zeros for one loop, made once x is known. They vary over meshes as all the arrays do."""
    zero = only_after(x, np.zeros(())).astype(dtype)
    start, *_ = varying(jnp.broadcast_to(zero, shape), x, *more)
    return start


def beside(
    block: Callable[[jax.Array], jax.Array],
    steps: int,
    axis: int,
    x: jax.Array,
    *more: jax.Array,
    at_once: int = 1,
    total: int | None = None,
) -> jax.Array:
    """``block(step)`` for every step, side by side along an axis.

    A step has no sign, so that none counts from the end. ``x`` and ``more`` are what block reads,
    the one that is ready last comes first. ``at_once`` blocks depend on nothing but these. If
    ``total`` is less than the size of all together, the last one ends there, and begins early.
    """
    if steps == 1:
        return block(jnp.uint32(0))
    like = jax.eval_shape(block, np.uint32(0))
    # Of shape and dtype alone: JAX takes no type of manual axes without its mesh.
    bits = jax.eval_shape(as_bits, jax.ShapeDtypeStruct(like.shape, like.dtype))
    shape, size = list(like.shape), np.uint32(like.shape[axis])
    shape[axis] = total or steps * shape[axis]

    def put(y: jax.Array, new: jax.Array, step: jax.Array) -> jax.Array:
        updated: jax.Array = lax.dynamic_update_slice_in_dim(y, as_bits(new), step * size, axis)
        return updated

    start = zeros(tuple(shape), bits.dtype, x, *more)
    return from_bits(_loop(block, put, start, steps, at_once), like.dtype)


def by_group(
    one: Callable[[jax.Array, jax.Array], jax.Array],
    groups: int,
    a: jax.Array,
    b: jax.Array,
    *,
    at_once: int = 1,
) -> jax.Array:
    """What ``one`` gives for each group of the channels of both, side by side along the last axis.

    A group's channels are read, and copied, when its turn comes.
    """
    if groups == 1:
        return one(a, b)

    def of(array: jax.Array, place: jax.Array) -> jax.Array:
        size = array.shape[-1] // groups
        part: jax.Array = lax.dynamic_slice_in_dim(array, place * np.uint32(size), size, -1)
        return part

    def group(place: jax.Array) -> jax.Array:
        return one(of(a, place), of(b, place))

    return beside(group, groups, -1, a, b, at_once=at_once)


def stacked(
    block: Callable[[jax.Array], jax.Array],
    steps: int,
    x: jax.Array,
    *more: jax.Array,
    at_once: int = 1,
) -> jax.Array:
    """``block(step)`` for every step, as in `beside`, along a new first axis."""
    return beside(lambda step: block(step)[None], steps, 0, x, *more, at_once=at_once)


def summed(
    block: Callable[[jax.Array], jax.Array],
    steps: int,
    x: jax.Array,
    *more: jax.Array,
    at_once: int = 1,
) -> jax.Array:
    """The sum of ``block(step)`` over all steps, as in `beside`."""
    if steps == 1:
        return block(jnp.uint32(0))
    like = jax.eval_shape(block, np.uint32(0))
    start = zeros(like.shape, like.dtype, x, *more)
    return _loop(block, lambda y, new, step: y + new, start, steps, at_once)


def _loop(
    block: Callable[[jax.Array], jax.Array],
    join: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    y: jax.Array,
    steps: int,
    at_once: int,
) -> jax.Array:
    """Join what all steps give to y. Those that no turn of the loop takes go before it."""

    def several(y: jax.Array, first: jax.Array, count: int) -> jax.Array:
        places = [first + np.uint32(k) for k in range(count)]
        for place, new in zip(places, map(block, places), strict=True):
            y = join(y, new, place)
        return y

    left = steps % at_once

    def body(turn: jax.Array, y: jax.Array) -> jax.Array:
        first = on_all_cores(turn) * np.uint32(at_once) + np.uint32(left)
        return several(y, first, at_once)

    looped: jax.Array = lax.fori_loop(0, steps // at_once, body, several(y, jnp.uint32(0), left))
    return looped
