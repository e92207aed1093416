"""Pooling by the library's `lax.reduce_window`.

The library's own derivative of a maximum fails for dilated windows and lets -inf padding win. Here
the derivative is one more `reduce_window`, over pairs (value, position) with ties to the earlier
position, and a gather at the winning positions, whose transpose is a scatter.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.pool.form import PoolKernel, is_float, least
from fnn.windows import Windows


def _reduce(x: Any, start: Any, op: Callable[..., Any], w: Windows) -> Any:
    return lax.reduce_window(
        x,
        start,
        op,
        (1, *w.size, 1),
        (1, *w.stride, 1),
        ((0, 0), *w.padding, (0, 0)),
        window_dilation=(1, *w.dilation, 1),
    )


def _max_value(x: jax.Array, w: Windows) -> jax.Array:
    y: jax.Array = _reduce(x, least(x.dtype), lax.max, w)
    return y


def _winner(x: jax.Array, w: Windows) -> jax.Array:
    """Position, over all spatial axes, of each window's first maximum; a NaN is the maximum."""
    spatial = x.shape[1:-1]
    place = jnp.arange(math.prod(spatial), dtype=jnp.int32).reshape(1, *spatial, 1)
    nowhere = np.int32(math.prod(spatial))

    def better(
        a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        (value_a, place_a), (value_b, place_b) = a, b
        a_nan, b_nan = value_a != value_a, value_b != value_b
        tie = (value_a == value_b) | (a_nan & b_nan)
        keep = (tie & (place_a < place_b)) | (~tie & (a_nan | (value_a > value_b)))
        return jnp.where(keep, value_a, value_b), jnp.where(keep, place_a, place_b)

    pair = x, jnp.broadcast_to(place, x.shape)
    winner: jax.Array = _reduce(pair, (least(x.dtype), nowhere), better, w)[1]
    return winner


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max(x: jax.Array, w: Windows) -> jax.Array:
    return _max_value(x, w)


@_max.defjvp
def _max_tangent(
    w: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    y, winner = _max(x, w), _winner(lax.stop_gradient(x), w)
    n, c = x.shape[0], x.shape[-1]
    wide = t.astype(accumulator(t.dtype)).reshape(n, -1, c)
    tangent = jnp.take_along_axis(wide, winner.reshape(n, -1, c), 1, mode="promise_in_bounds")
    return y, tangent.reshape(y.shape).astype(t.dtype)


def _max_library(x: jax.Array, w: Windows) -> jax.Array:
    return _max(x, w) if is_float(x) else _max_value(x, w)


def _sum_library(x: jax.Array, w: Windows) -> jax.Array:
    y: jax.Array = _reduce(x, np.zeros((), x.dtype), lax.add, w)
    return y


LIBRARY = PoolKernel(_max_library, _sum_library)
