"""Pooling by the library's `lax.reduce_window`.

The library's own derivative of a maximum fails for dilated windows and lets -inf padding win. Here
the derivative is one more `reduce_window`, over pairs (value, position) with ties to the earlier
position, and a gather at the winning positions, whose transpose is a scatter.

A p-norm that is scaled window by window is no such reduction: it goes by halves of the window.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import is_floating, nan_where, widen
from fnn.kernels.pool.form import PoolKernel, along, comparable, least
from fnn.kernels.pool.norm import p_norm
from fnn.windows import Windows


def _reduce(x: Any, start: Any, op: Callable[..., Any], windows: Windows) -> Any:
    return lax.reduce_window(
        x,
        start,
        op,
        (1, *windows.size, 1),
        (1, *windows.stride, 1),
        ((0, 0), *windows.padding, (0, 0)),
        window_dilation=(1, *windows.dilation, 1),
    )


def winner(x: jax.Array, windows: Windows) -> jax.Array:
    """Position, over all spatial axes, of each window's first maximum."""
    spatial = x.shape[1:-1]
    nowhere = np.int32(math.prod(spatial))
    place = jnp.arange(nowhere, dtype=jnp.int32).reshape(1, *spatial, 1)

    def better(
        a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        (value_a, place_a), (value_b, place_b) = a, b
        keep = (value_a > value_b) | ((value_a == value_b) & (place_a < place_b))
        return jnp.where(keep, value_a, value_b), jnp.where(keep, place_a, place_b)

    pair = comparable(x), jnp.broadcast_to(place, x.shape)
    found: jax.Array = _reduce(pair, (least(x.dtype), nowhere), better, windows)[1]
    return found


def _max_value(x: jax.Array, windows: Windows) -> jax.Array:
    y: jax.Array = _reduce(x, least(x.dtype), lax.max, windows)
    return y


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max(x: jax.Array, windows: Windows) -> jax.Array:
    # XLA's own maximum of a window on a CPU passes over a NaN (openxla/xla#21461).
    unknown = _reduce(jnp.isnan(x), np.zeros((), bool), lax.bitwise_or, windows)
    return nan_where(unknown, _max_value(x, windows))


@_max.defjvp
def _max_tangent(
    windows: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    y, place = _max(x, windows), winner(lax.stop_gradient(x), windows)
    n, outputs, c = x.shape[0], math.prod(y.shape[1:-1]), x.shape[-1]
    wide = widen(t).reshape(n, math.prod(x.shape[1:-1]), c)
    tangent = jnp.take_along_axis(wide, place.reshape(n, outputs, c), 1, mode="promise_in_bounds")
    return y, tangent.reshape(y.shape).astype(t.dtype)


def _max_library(x: jax.Array, windows: Windows) -> jax.Array:
    return (_max if is_floating(x.dtype) else _max_value)(x, windows)


def _sum_library(x: jax.Array, windows: Windows) -> jax.Array:
    y: jax.Array = _reduce(x, np.zeros((), x.dtype), lax.add, windows)
    return y


def _running_norm(
    x: jax.Array, starts: np.ndarray, k: int, d: int, axis: int, p: int | float
) -> jax.Array:
    """p-norm of k taps, d apart, from these places on along an axis: of two halves, and a rest.

    From other places on it is 0, so that no NaN there meets the gradient, which is 0 there too.
    """
    if k == 1:
        return x
    offset, length = k // 2 * d, x.shape[axis] - (k - 1) * d
    half = _running_norm(x, np.union1d(starts, starts + offset), k // 2, d, axis, p)
    parts = [(half, 0), (half, offset)] + [(x, (k - 1) * d)] * (k % 2)
    wanted = along(np.isin(np.arange(length), starts), axis, x.ndim)
    seen = [lax.slice_in_dim(y, place, place + length, 1, axis) for y, place in parts]
    return p_norm(tuple(jnp.where(wanted, y, 0) for y in seen), p)


def _norm_library(x: jax.Array, windows: Windows, p: int | float) -> jax.Array:
    each = windows.axes(x.shape[1:-1])
    if not all(a.o for a in each):
        return jnp.zeros((x.shape[0], *(a.o for a in each), x.shape[-1]), x.dtype)
    for axis, a in reversed([*enumerate(each, 1)]):
        edges, starts = [(0, 0, 0)] * x.ndim, np.arange(a.o) * a.s
        edges[axis] = (a.lo, a.hi, 0)
        x = _running_norm(lax.pad(x, np.zeros((), x.dtype), edges), starts, a.k, a.d, axis, p)
        x = lax.slice_in_dim(x, 0, (a.o - 1) * a.s + 1, a.s, axis)
    return p_norm((x,), p)  # |x| where there is one tap


LIBRARY = PoolKernel("lax", _max_library, _sum_library, _norm_library)
