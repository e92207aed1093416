"""Pooling by shifted slices: every tap of the window is one strided slice of the input.

Values are a chain of maxima or sums over the taps, which XLA fuses into one loop. Derivatives go by
phases: with stride s, input position ``p = s q + r`` has phase r, and the windows over it are those
at ``q - m`` for a few shifts m, in each of which it is tap ``(p + lo - s (q - m)) / d`` or none. So
splitting every axis into ``(q, r)``, a reshape, makes the tangent a sum of shifted, masked arrays,
and its transpose a sum of shifted, masked broadcasts of the cotangent: again one loop, without the
scatter of `lax.reduce_window`'s gradient.

In the gradient every shift is a slice of one padded copy: of the cotangent, and of the numbers of
the winning taps. Of the input there is one only along axes of stride 1: along others, where a copy
costs as much as pooling, a tap in the padding reads a tap of its window inside the input again,
which changes no maximum.

A window of many taps is pooled axis by axis, last axis first: sums of sums, and maxima of maxima,
whose first maximum is the first of its row in the first such row.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.pool.form import PoolKernel, is_float, least
from fnn.windows import Windows


def _longer(w: Windows, spatial: tuple[int, ...]) -> Windows:
    """One more stop, for the caller to drop, along every axis that keeps its length.

    Without it a tap of each layer, or of its gradient, would be the whole array before it, and XLA,
    which fuses any chain of operations on equal indices, would repeat in every layer of a stack all
    layers before it.
    """
    keeps = [
        s == 1 and k > 1 and o == i
        for s, k, o, i in zip(w.stride, w.size, w.output(spatial), spatial, strict=True)
    ]
    pads = [(lo, hi + more) for (lo, hi), more in zip(w.padding, keeps, strict=True)]
    return w._replace(padding=tuple(pads))


def _drop(y: jax.Array, w: Windows, spatial: tuple[int, ...]) -> jax.Array:
    return lax.slice(y, (0,) * y.ndim, (len(y), *w.output(spatial), y.shape[-1]))


def _pad(x: jax.Array, value: np.ndarray, edges: Sequence[tuple[int, int]]) -> jax.Array:
    return lax.pad(x, value, ((0, 0, 0), *((lo, hi, 0) for lo, hi in edges), (0, 0, 0)))


def _padded_taps(x: jax.Array, w: Windows) -> Iterator[jax.Array]:
    """What each tap sees at every stop of the window, in window order; 0 in the padding."""
    out = w.output(x.shape[1:-1])
    padded = _pad(x, np.zeros((), x.dtype), w.padding)
    for place in itertools.product(*map(range, w.size)):
        start = [k * d for k, d in zip(place, w.dilation, strict=True)]
        stop = [a + (o - 1) * s + 1 for a, o, s in zip(start, out, w.stride, strict=True)]
        limits = (x.shape[0], *stop, x.shape[-1])
        yield lax.slice(padded, (0, *start, 0), limits, (1, *w.stride, 1))


def _read(x: jax.Array, index: np.ndarray, axis: int) -> jax.Array:
    """x at these positions of an axis: a slice if they are evenly spaced."""
    steps = set(np.diff(index).tolist())
    if len(steps) < 2 and min(steps, default=1) > 0:
        return lax.slice_in_dim(x, int(index[0]), int(index[-1]) + 1, max(steps, default=1), axis)
    return x.at[(slice(None),) * axis + (index,)].get(mode="promise_in_bounds")


def _taps(x: jax.Array, w: Windows, nearest: bool) -> Iterator[tuple[jax.Array, np.ndarray]]:
    """What each tap sees at every stop, in window order, and its number there.

    In padding, along an axis of stride 1, it sees the least value; along others it is taken for the
    ``nearest`` tap inside, or for the first. XLA would store a gather that two loops share, so the
    maximum and its winner read differently.
    """
    spatial, out = x.shape[1:-1], w.output(x.shape[1:-1])
    pads = _longer(w, spatial).padding  # of one length for both, so that they share the copy
    edges = [p if s == 1 else (0, 0) for p, s in zip(pads, w.stride, strict=True)]
    x = _pad(x, least(x.dtype), edges)
    for place in itertools.product(*map(range, w.size)):
        seen, number = x, np.zeros((1,) * x.ndim, np.int64)
        for axis, (tap, k, s, d, (lo, _), o, i) in enumerate(
            zip(place, w.size, w.stride, w.dilation, w.padding, out, spatial, strict=True), 1
        ):
            start = np.arange(o) * s - lo
            first, last = np.maximum(0, -(start // d)), np.minimum(k - 1, (i - 1 - start) // d)
            other = np.clip(tap, first, last) if nearest else first
            inside = np.where((first <= tap) & (tap <= last), tap, other)
            index = np.arange(o) + tap * d if s == 1 else np.clip(start + inside * d, 0, i - 1)
            seen = _read(seen, index, axis)
            later = np.maximum(tap, first)
            later = later[:1] if (later == tap).all() else later
            number = number * k + np.expand_dims(later, [a for a in range(x.ndim) if a != axis])
        yield seen, number


def _shifts(k: int, s: int, d: int, lo: int) -> list[tuple[int, list[int]]]:
    """Along one axis: each shift m, and for each phase r which tap it is there, or -1."""
    taps: dict[int, list[int]] = {}
    for tap in range(k):
        m, r = divmod(d * tap - lo, s)
        taps.setdefault(m, [-1] * s)[r] = tap
    return sorted(taps.items())


def _by_phases(t: jax.Array, w: Windows, winner: jax.Array | None = None) -> jax.Array:
    """Sum each window's taps, or only the one that has the number ``winner``; linear in t.

    Written for its transpose, the gradient: there the closing crop becomes the padded copy of the
    cotangent that the shifts read slices of.
    """
    spatial, rank = t.shape[1:-1], t.ndim - 2
    out = w.output(spatial)
    more = [hi - h for (_, hi), (_, h) in zip(_longer(w, spatial).padding, w.padding, strict=True)]
    whole = [-(-i // s) + m for i, s, m in zip(spatial, w.stride, more, strict=True)]
    zero = np.zeros((), t.dtype)
    t = _pad(t, zero, [(0, q * s - i) for q, s, i in zip(whole, w.stride, spatial, strict=True)])
    split = itertools.chain.from_iterable(zip(whole, w.stride, strict=True))
    t = t.reshape(len(t), *split, t.shape[-1])
    axes = [
        _shifts(k, s, d, lo)
        for k, s, d, (lo, _) in zip(w.size, w.stride, w.dilation, w.padding, strict=True)
    ]
    edges = [
        (shifts[-1][0], q - o - shifts[0][0])
        for shifts, s, q, o in zip(axes, w.stride, whole, out, strict=True)
    ]
    phases = tuple(range(2, 2 * rank + 1, 2))
    if winner is not None:
        none = np.asarray(math.prod(w.size), winner.dtype)
        winner = jnp.expand_dims(_pad(winner, none, edges), phases)
    sizes = [lo + o + hi for o, (lo, hi) in zip(out, edges, strict=True)]
    y = jnp.zeros((len(t), *sizes, t.shape[-1]), t.dtype)
    for shifts in itertools.product(*axes):
        number = np.zeros((), np.int64)
        for k, (_, taps) in zip(w.size, shifts, strict=True):
            new = np.asarray(taps)
            number = np.where((number[..., None] < 0) | (new < 0), -1, number[..., None] * k + new)
        number = np.expand_dims(number, [0, *range(1, 2 * rank, 2), 2 * rank + 1])
        move = [
            edge
            for (m, _), (lo, _), n, q in zip(shifts, edges, sizes, whole, strict=True)
            for edge in ((lo - m, n - q - lo + m), (0, 0))
        ]
        mask = number >= 0 if winner is None else winner == number.astype(t.dtype)
        y = y + jnp.where(mask, _pad(t, zero, move), zero).sum(phases)
    return _pad(y, zero, [(-lo, -hi) for lo, hi in edges])


def _winner(x: jax.Array, w: Windows) -> jax.Array:
    """Number of each window's first tap that holds its maximum; a NaN counts as infinity.

    The square root is exact, and an operation that XLA on CPU will not repeat for every position
    that reads it, as it would the search, and with it whatever x is computed by.
    The numbers are floats, as wide as the values compared, to keep the loop in vectors.
    """
    inf = np.asarray(np.inf, x.dtype)
    taps = _taps(x, w, nearest=False)
    finite = ((jnp.where(seen < inf, seen, inf), number) for seen, number in taps)
    best, number = next(finite)
    square = jnp.broadcast_to(jnp.asarray(number**2, x.dtype), best.shape)
    for seen, number in finite:
        more = seen > best
        best = jnp.where(more, seen, best)
        square = jnp.where(more, jnp.asarray(number**2, x.dtype), square)
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
    """Maximum of every window, each tap by one comparison.

    A comparison with NaN is false: so a NaN stays the maximum if the chain starts with it.
    """
    seen = [tap for tap, _ in _taps(x, _longer(w, x.shape[1:-1]), nearest=True)]
    best = seen[0]
    if is_float(x):
        nan = functools.reduce(jnp.logical_or, [tap != tap for tap in seen])
        best = jnp.where(nan, jnp.full_like(best, jnp.nan), best)
    for tap in seen[1:]:
        best = jnp.where(tap > best, tap, best)
    return _drop(best, w, x.shape[1:-1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max(x: jax.Array, w: Windows) -> jax.Array:
    return _max_value(x, w)


@_max.defjvp
def _max_tangent(
    w: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    y = _max(x, w)
    wide = accumulator(t.dtype)  # the transpose of the tangent adds up the cotangents of a position
    winner = _winner(lax.stop_gradient(x.astype(wide)), w)
    tangent = _by_phases(t.astype(wide), w, winner)
    return y, tangent.astype(t.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum(x: jax.Array, w: Windows) -> jax.Array:
    spatial = x.shape[1:-1]
    return _drop(functools.reduce(jnp.add, _padded_taps(x, _longer(w, spatial))), w, spatial)


@_sum.defjvp
def _sum_tangent(
    w: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    return _sum(x, w), _by_phases(t, w)


def _max_at_once(x: jax.Array, w: Windows) -> jax.Array:
    return _max(x, w) if is_float(x) else _max_value(x, w)


AT_ONCE = PoolKernel(_max_at_once, _sum)
BY_AXES = PoolKernel(
    lambda x, w: functools.reduce(_max_at_once, _by_axes(w), x),
    lambda x, w: functools.reduce(_sum, _by_axes(w), x),
)
