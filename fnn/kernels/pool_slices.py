"""Pooling by shifted slices: every tap of the window is one strided slice of the padded input.

Values are a chain of maxima or sums over the taps, which XLA fuses into one loop. Derivatives go by
phases: with stride s, input position ``p = s q + r`` has phase r, and the windows over it are those
at ``q - m`` for a few shifts m, in each of which it is tap ``(p + lo - s (q - m)) / d`` or none. So
splitting every axis into ``(q, r)``, a reshape, makes the tangent a sum of shifted, masked arrays,
and its transpose a sum of shifted, masked broadcasts of the cotangent: again one loop, without the
scatter of `lax.reduce_window`'s gradient.

A window of more than `MOST` taps is pooled axis by axis, last axis first: sums of sums, and maxima
of maxima, whose first maximum is the first of its row in the first such row. So is a maximum whose
stride is 1 along a window's axis: there XLA repeats the comparisons for every term of the gradient.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.pool_form import PoolKernel, is_float, least
from fnn.windows import Windows

MOST = 9  # taps in one loop; a choice: beyond, the program grows faster than it saves passes


def _taps(x: jax.Array, fill: np.ndarray, w: Windows) -> Iterator[jax.Array]:
    """What each tap sees at every stop of the window, in window order (row by row)."""
    out = w.output(x.shape[1:-1])
    padded = lax.pad(x, fill, ((0, 0, 0), *((lo, hi, 0) for lo, hi in w.padding), (0, 0, 0)))
    for place in itertools.product(*map(range, w.size)):
        start = [k * d for k, d in zip(place, w.dilation, strict=True)]
        stop = [a + (o - 1) * s + 1 for a, o, s in zip(start, out, w.stride, strict=True)]
        limits = (x.shape[0], *stop, x.shape[-1])
        yield lax.slice(padded, (0, *start, 0), limits, (1, *w.stride, 1))


def _shifts(k: int, s: int, d: int, lo: int) -> list[tuple[int, list[int]]]:
    """Along one axis: each shift m, and for each phase r which tap it is there, or -1."""
    taps: dict[int, list[int]] = {}
    for tap in range(k):
        m, r = divmod(d * tap - lo, s)
        taps.setdefault(m, [-1] * s)[r] = tap
    return sorted(taps.items())


Mask = Callable[[np.ndarray], jax.Array | np.ndarray]


def _by_phases(t: jax.Array, w: Windows, mask: Mask) -> jax.Array:
    """Sum over each window the taps that ``mask`` keeps; linear in t, with a fast transpose.

    ``mask`` gets tap numbers (-1: none), shaped to broadcast against ``(n, out_1, s_1, ..., c)``.
    """
    spatial, rank = t.shape[1:-1], t.ndim - 2
    out = w.output(spatial)
    whole = [-(-i // s) for i, s in zip(spatial, w.stride, strict=True)]
    fill = [(0, q * s - i, 0) for q, s, i in zip(whole, w.stride, spatial, strict=True)]
    zero = np.zeros((), t.dtype)
    split = itertools.chain.from_iterable(zip(whole, w.stride, strict=True))
    t = lax.pad(t, zero, ((0, 0, 0), *fill, (0, 0, 0))).reshape(len(t), *split, t.shape[-1])
    axes = [
        _shifts(k, s, d, lo)
        for k, s, d, (lo, _) in zip(w.size, w.stride, w.dilation, w.padding, strict=True)
    ]
    phases = tuple(range(2, 2 * rank + 1, 2))
    y = jnp.zeros((len(t), *out, t.shape[-1]), t.dtype)
    for shifts in itertools.product(*axes):
        number = np.zeros((), np.int64)
        for k, (_, taps) in zip(w.size, shifts, strict=True):
            new = np.asarray(taps)
            number = np.where((number[..., None] < 0) | (new < 0), -1, number[..., None] * k + new)
        number = np.expand_dims(number, [0, *range(1, 2 * rank, 2), 2 * rank + 1])
        move = [
            edge
            for (m, _), o, q in zip(shifts, out, whole, strict=True)
            for edge in ((-m, o + m - q, 0), (0, 0, 0))
        ]
        moved = lax.pad(t, zero, ((0, 0, 0), *move, (0, 0, 0)))
        y = y + jnp.where(mask(number), moved, zero).sum(phases)
    return y


def _first_inside(w: Windows, out: tuple[int, ...]) -> jax.Array:
    """Square of the number of each window's first tap outside the padding."""
    number = np.zeros((1,) * (len(out) + 2))
    for axis, (k, s, d, (lo, _), o) in enumerate(
        zip(w.size, w.stride, w.dilation, w.padding, out, strict=True), 1
    ):
        first = np.maximum(0, -((np.arange(o) * s - lo) // d))
        number = number * k + np.expand_dims(first, [a for a in range(number.ndim) if a != axis])
    return jnp.asarray(number**2, jnp.float32)


def _winner(x: jax.Array, w: Windows) -> jax.Array:
    """Number of each window's first tap that holds its maximum; a NaN is the maximum.

    The numbers are carried as squares: the closing square root is exact, and an operation that XLA
    on CPU will not repeat for every phase that reads it, as it would the chain of comparisons.
    They are float32, as wide as the values they are selected with, to keep the loop in vectors.
    """
    first, *rest = _taps(x, least(x.dtype), w)
    best, square = first, jnp.broadcast_to(_first_inside(w, first.shape[1:-1]), first.shape)
    for k, tap in enumerate(rest, 1):
        larger = ~(tap <= best) & (best == best)
        best, square = jnp.where(larger, tap, best), jnp.where(larger, np.float32(k * k), square)
    return jnp.sqrt(square)


def _by_axes(w: Windows) -> list[Windows]:
    """One pass per axis, last axis first."""
    rank = len(w.size)
    passes = []
    for axis in reversed(range(rank)):
        one = [(1, 1, (0, 0), 1)] * rank
        one[axis] = (w.size[axis], w.stride[axis], w.padding[axis], w.dilation[axis])
        passes.append(Windows(*zip(*one, strict=True)))
    return passes


def _max_value(x: jax.Array, w: Windows) -> jax.Array:
    return functools.reduce(jnp.maximum, _taps(x, least(x.dtype), w))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max(x: jax.Array, w: Windows) -> jax.Array:
    return _max_value(x, w)


@_max.defjvp
def _max_tangent(
    w: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    winner = jnp.expand_dims(
        _winner(lax.stop_gradient(x), w), tuple(range(2, 2 * (x.ndim - 2) + 1, 2))
    )
    wide = t.astype(accumulator(t.dtype))  # its transpose adds up the cotangents of a position
    tangent = _by_phases(wide, w, lambda number: winner == number.astype(np.float32))
    return _max(x, w), tangent.astype(t.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum(x: jax.Array, w: Windows) -> jax.Array:
    return functools.reduce(jnp.add, _taps(x, np.zeros((), x.dtype), w))


@_sum.defjvp
def _sum_tangent(
    w: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    return _sum(x, w), _by_phases(t, w, lambda number: number >= 0)


def _max_slices(x: jax.Array, w: Windows) -> jax.Array:
    few = math.prod(w.size) <= MOST
    strided = all(s > 1 or k == 1 for s, k in zip(w.stride, w.size, strict=True))
    for step in [w] if few and strided else _by_axes(w):
        x = _max(x, step) if is_float(x) else _max_value(x, step)
    return x


def _sum_slices(x: jax.Array, w: Windows) -> jax.Array:
    for step in [w] if math.prod(w.size) <= MOST else _by_axes(w):
        x = _sum(x, step)
    return x


SLICES = PoolKernel(_max_slices, _sum_slices)
