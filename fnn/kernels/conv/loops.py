"""Loops over blocks: what they write, or sum, and what they begin with.

To XLA, equal zeros are one array, whichever loop begins with them. Each loop gets a copy, and all
copies are made when the program starts: they took 75 of the 715 MB of a step of ResNet-18. So the
zeros of a loop are its own, and made when its turn comes. Test:
`tests/kernels/conv/test_compiled.py`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from fnn.compiler import only_after
from fnn.kernels.conv.form import varying


def zeros(shape: tuple[int, ...], dtype: DTypeLike, x: jax.Array, *more: jax.Array) -> jax.Array:
    """Zeros for one loop, made once x is known. They vary over meshes as all the arrays do."""
    zero = only_after(x, np.zeros(())).astype(dtype)
    start, *_ = varying(jnp.broadcast_to(zero, shape), x, *more)
    return start


def beside(
    block: Callable[[jax.Array], jax.Array], steps: int, axis: int, x: jax.Array, *more: jax.Array
) -> jax.Array:
    """``block(step)`` for every step, side by side along an axis.

    A step has no sign, so that none counts from the end. ``x`` and ``more`` are what block reads,
    first what is known last.
    """
    if steps == 1:
        return block(jnp.uint32(0))
    like = jax.eval_shape(block, np.uint32(0))
    shape, size = list(like.shape), np.uint32(like.shape[axis])
    shape[axis] *= steps

    def put(y: jax.Array, step: jax.Array) -> jax.Array:
        updated: jax.Array = lax.dynamic_update_slice_in_dim(y, block(step), step * size, axis)
        return updated

    return _loop(put, zeros(tuple(shape), like.dtype, x, *more), steps)


def stacked(
    block: Callable[[jax.Array], jax.Array], steps: int, x: jax.Array, *more: jax.Array
) -> jax.Array:
    """``block(step)`` for every step, as in `beside`, along a new first axis."""
    return beside(lambda step: block(step)[None], steps, 0, x, *more)


def summed(
    block: Callable[[jax.Array], jax.Array], steps: int, x: jax.Array, *more: jax.Array
) -> jax.Array:
    """The sum of ``block(step)`` over all steps, as in `beside`."""
    if steps == 1:
        return block(jnp.uint32(0))
    like = jax.eval_shape(block, np.uint32(0))
    return _loop(lambda y, step: y + block(step), zeros(like.shape, like.dtype, x, *more), steps)


def _loop(
    advance: Callable[[jax.Array, jax.Array], jax.Array], y: jax.Array, steps: int
) -> jax.Array:
    def body(step: jax.Array, y: jax.Array) -> jax.Array:
        return advance(y, lax.convert_element_type(step, np.uint32))

    looped: jax.Array = lax.fori_loop(0, steps, body, y)
    return looped
