"""Pooling by shifted slices: one strided slice of the padded input per tap of the window."""

import functools
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.windows import Windows


def taps(x: jax.Array, fill: jax.Array, w: Windows) -> Iterator[jax.Array]:
    """What each tap sees at every stop of the window, in window order (row by row)."""
    out = w.output(x.shape[1:-1])
    padded = lax.pad(x, fill, ((0, 0, 0), *((lo, hi, 0) for lo, hi in w.padding), (0, 0, 0)))
    for place in itertools.product(*map(range, w.size)):
        start = [k * d for k, d in zip(place, w.dilation, strict=True)]
        stop = [a + (o - 1) * s + 1 for a, o, s in zip(start, out, w.stride, strict=True)]
        yield lax.slice(
            padded,
            (0, *start, 0),
            (x.shape[0], *stop, x.shape[-1]),
            (1, *w.stride, 1),
        )


def least(dtype: jnp.dtype) -> np.ndarray:
    """The neutral element of the maximum."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(-np.inf, dtype)
    return np.asarray(jnp.iinfo(dtype).min, dtype)


def _first_inside(w: Windows, out: tuple[int, ...]) -> jax.Array:
    """Number of each window's first tap that is not in the padding."""
    number = jnp.zeros((1, *out, 1), jnp.int32)
    for axis, (k, s, d, (lo, _)) in enumerate(
        zip(w.size, w.stride, w.dilation, w.padding, strict=True), 1
    ):
        start = lo - s * lax.broadcasted_iota(jnp.int32, number.shape, axis)
        number = number * k + jnp.maximum(0, -(-start // d))
    return number


def _winner(x: jax.Array, w: Windows) -> jax.Array:
    """Number of each window's first tap that holds its maximum; a NaN is the maximum."""
    fill = least(x.dtype)
    first = _first_inside(w, w.output(x.shape[1:-1]))
    best = number = None
    for k, tap in enumerate(taps(x, fill, w)):
        if best is None:
            best, number = tap, jnp.broadcast_to(first, tap.shape)
            continue
        take = (tap > best) | ((tap != tap) & (best == best))
        best, number = jnp.where(take, tap, best), jnp.where(take, k, number)
    return number


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def max_slices(x: jax.Array, w: Windows) -> jax.Array:
    """Maximum of every window."""
    return functools.reduce(jnp.maximum, taps(x, least(x.dtype), w))


@max_slices.defjvp
def _max_jvp(w: Windows, primals, tangents):
    (x,), (t,) = primals, tangents
    y = max_slices(x, w)
    number = _winner(x, w)
    dy = jnp.zeros_like(y)
    for k, tap in enumerate(taps(t, np.zeros((), x.dtype), w)):
        dy = jnp.where(number == k, tap, dy)
    return y, dy


def sum_slices(x: jax.Array, w: Windows) -> jax.Array:
    """Sum of every window."""
    return functools.reduce(jnp.add, taps(x, np.zeros((), x.dtype), w))
