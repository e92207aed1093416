"""Pooling by shifted slices: every tap of the window is one strided slice of the input.

Values are a chain of maxima or sums over the taps, which XLA fuses into one loop. The gradient is
one loop as well, without the scatter of `lax.reduce_window`'s gradient (`_max_tangent`); that of a
maximum over large planes with stride 1 is one for every block of examples.

A window of many taps is pooled axis by axis, last axis first: sums of sums, norms of norms, and
maxima of maxima, whose first maximum is the first of its row in the first such row.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.compiler import kept_apart, root_computed_once
from fnn.dtypes import computed_wide, is_floating, widen
from fnn.kernels.pool.blocks import in_blocks
from fnn.kernels.pool.form import (
    PoolKernel,
    along,
    combined,
    comparable,
    least,
    taps_inside,
)
from fnn.kernels.pool.norm import p_norm, slope
from fnn.windows import Axis, Windows


def _more(a: Axis) -> bool:
    """Whether to stop once more along an axis, for the caller to drop: where it keeps its length.

    Else a tap of each layer, or of its gradient, would be the whole array before it, and XLA, which
    fuses any chain of operations on equal indices, would repeat in every layer of a stack all
    layers before it.
    """
    return a.s == 1 and a.k > 1 and a.o == a.i


def _longer(windows: Windows, spatial: tuple[int, ...]) -> Windows:
    pads = tuple((a.lo, a.hi + _more(a)) for a in windows.axes(spatial))
    return windows._replace(padding=pads)


def _drop(y: jax.Array, windows: Windows, spatial: tuple[int, ...]) -> jax.Array:
    return lax.slice(y, (0,) * y.ndim, (y.shape[0], *windows.output(spatial), y.shape[-1]))


def _pad(x: jax.Array, value: Any, edges: Sequence[tuple[int, int]]) -> jax.Array:
    config = ((0, 0, 0), *((lo, hi, 0) for lo, hi in edges), (0, 0, 0))
    return lax.pad(x, np.asarray(value, x.dtype), config)


def _at(x: jax.Array, places: np.ndarray, axis: int) -> jax.Array:
    """x at these places of an axis: a slice if they ascend in even steps."""
    if not len(places):
        return lax.slice_in_dim(x, 0, 0, 1, axis)
    steps = set(np.diff(places).tolist())
    step = max(steps, default=1)
    if len(steps) < 2 and step > 0:
        return lax.slice_in_dim(x, int(places[0]), int(places[-1]) + 1, step, axis)
    return x.at[(slice(None),) * axis + (places,)].get(mode="promise_in_bounds")


def _padded_taps(x: jax.Array, windows: Windows) -> Iterator[jax.Array]:
    """What each tap sees at every stop of the window, in window order; 0 in the padding."""
    x, spatial = _pad(x, 0, windows.padding), x.shape[1:-1]
    for taps in itertools.product(*map(range, windows.size)):
        seen = x
        for axis, (tap, a) in enumerate(zip(taps, windows.axes(spatial), strict=True), 1):
            seen = _at(seen, np.arange(a.o) * a.s + tap * a.d, axis)
        yield seen


def _nearest(a: Axis, tap: int) -> np.ndarray:
    """Return which tap is read for this one at every stop: the nearest that lies inside."""
    nearest: np.ndarray = np.clip(tap, *taps_inside(a))
    return nearest


def _nearest_taps(x: jax.Array, windows: Windows) -> Iterator[tuple[jax.Array, list[np.ndarray]]]:
    """What each tap sees at every stop, in window order, and the terms, by axis, of its number.

    A tap in the padding stands for the nearest of its window inside the input, which changes no
    maximum. It reads that one, and saves a padded copy of the input, which would cost as much as
    the pooling; only along axes of stride 1, where no such copy is larger than the result, it reads
    the least value.
    """
    spatial = x.shape[1:-1]
    pads = _longer(windows, spatial).padding  # of one length for both loops, that share the copy
    edges = [p if s == 1 else (0, 0) for p, s in zip(pads, windows.stride, strict=True)]
    x = _pad(x, least(x.dtype), edges)
    for taps in itertools.product(*map(range, windows.size)):
        seen, number, weight = x, list[np.ndarray](), math.prod(windows.size)
        for axis, (tap, a) in enumerate(zip(taps, windows.axes(spatial), strict=True), 1):
            read = _nearest(a, tap)
            offset = tap * a.d if a.s == 1 else read * a.d - a.lo
            seen = _at(seen, np.arange(a.o) * a.s + offset, axis)
            weight //= a.k
            number.append(along(read * weight, axis, x.ndim))
        yield seen, number


def _max_value(x: jax.Array, windows: Windows) -> jax.Array:
    """Maximum of every window, each tap by one comparison.

    A comparison with NaN is false: so a NaN stays the maximum if the chain starts with it.
    """
    spatial = x.shape[1:-1]
    seen = [tap for tap, _ in _nearest_taps(x, _longer(windows, spatial))]
    best = seen[0]
    if is_floating(x.dtype):
        best = functools.reduce(lambda first, tap: jnp.where(tap != tap, tap, first), seen)
    for tap in seen[1:]:
        best = jnp.where(tap > best, tap, best)
    return _drop(best, windows, spatial)


def _winner(x: jax.Array, windows: Windows) -> jax.Array:
    """Number of each window's first tap that holds its maximum.

    The numbers are floats, as wide as the values compared, to keep the loop in vectors.
    """

    def squared(number: list[np.ndarray]) -> jax.Array:
        return jnp.asarray(combined(operator.add, number, x.dtype) ** 2)

    taps = ((comparable(seen), number) for seen, number in _nearest_taps(x, windows))
    best, number = next(taps)
    square = jnp.broadcast_to(squared(number), best.shape)
    for seen, number in taps:
        more = seen > best
        best = jnp.where(more, seen, best)
        square = jnp.where(more, squared(number), square)
    return root_computed_once(square)


class _Blocks(NamedTuple):
    """The padded input in blocks of one stride, by which the gradient goes.

    Along an axis of stride s stop o of the window starts at block o, and its tap k lies m blocks
    further, at phase r of that block: ``(m, r) = divmod(k d, s)``. So for each shift m one pass
    over whole blocks finds at every phase one tap or none.

    Attributes:
        axes: the spatial axes.
        last: shift of the last tap, per axis.
        blocks: how many there are, per axis.
    """

    axes: list[Axis]
    last: list[int]
    blocks: list[int]

    @classmethod
    def of(cls, windows: Windows, spatial: tuple[int, ...]) -> "_Blocks":
        each = windows.axes(spatial)
        last = [(a.k - 1) * a.d // a.s for a in each]
        return cls(each, last, [a.o + m + _more(a) for a, m in zip(each, last, strict=True)])

    def cut(self, x: jax.Array) -> jax.Array:
        """(n, *spatial, c) as (n, block, phase, block, phase, ..., c)."""
        sizes = [*zip(self.blocks, (a.s for a in self.axes), strict=True)]
        edges = [(a.lo, q * s - a.lo - a.i) for a, (q, s) in zip(self.axes, sizes, strict=True)]
        x = _pad(x, 0, edges)
        for axis, size in reversed([*enumerate(sizes, 1)]):  # one by one, for explicit meshes
            x = x.reshape(*x.shape[:axis], *size, *x.shape[axis + 1 :])
        return x

    def shifts(self) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Every shift, with the number of the tap at each phase, or a negative one for none."""
        rank, weight = 2 * len(self.axes) + 2, math.prod(a.k for a in self.axes)
        tables, none = [], -weight
        for axis, a in enumerate(self.axes):
            weight //= a.k
            table = np.full((self.last[axis] + 1, a.s), none)
            table[np.divmod(np.arange(a.k) * a.d, a.s)] = np.arange(a.k) * weight
            rows = {m: row for m, row in enumerate(table) if row.max() >= 0}
            tables.append({m: along(row, 2 * axis + 2, rank) for m, row in rows.items()})
        for shift in itertools.product(*tables):
            yield shift, sum(table[m] for table, m in zip(tables, shift, strict=True))

    def padded(self, y: jax.Array, value: Any) -> jax.Array:
        """(n, *out, c) with as many stops around as reach into the blocks, for `before`."""
        edges = [(m, q - a.o) for a, m, q in zip(self.axes, self.last, self.blocks, strict=True)]
        return jnp.expand_dims(_pad(y, value, edges), self.phases)

    def before(self, y: jax.Array, shift: tuple[int, ...]) -> jax.Array:
        """Of padded stops, for every block the one that starts ``shift`` blocks before it."""
        for axis, (n, m, q) in enumerate(zip(self.last, shift, self.blocks, strict=True)):
            y = lax.slice_in_dim(y, n - m, n - m + q, 1, 2 * axis + 1)
        return y

    def summed(self, terms: dict[tuple[int, ...], jax.Array]) -> jax.Array:
        """Sum cut arrays over all phases, each read ``shift`` blocks after the stop."""
        moved = []
        for shift, x in terms.items():
            edges = [e for n, m in zip(self.last, shift, strict=True) for e in ((n - m, m), (0, 0))]
            moved.append(_pad(x, 0, edges).sum(self.phases))
        y = functools.reduce(jnp.add, moved)
        ends = zip(self.axes, self.last, self.blocks, strict=True)
        return _pad(y, 0, [(-m, a.o - q) for a, m, q in ends])

    @property
    def phases(self) -> tuple[int, ...]:
        return tuple(range(2, 2 * len(self.axes) + 1, 2))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max(x: jax.Array, windows: Windows) -> jax.Array:
    return computed_wide(lambda x: _max_value(x, windows), x)  # or every tap is rounded again


@_max.defjvp
def _max_tangent(
    windows: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Sum of each window's taps whose number is the winner's; written for its transpose.

    There `summed` pads the cotangent once, of which every shift reads a slice, as of the winners.
    """
    (x,), (t,) = primals, tangents

    def taken(x: jax.Array, t: jax.Array) -> jax.Array:
        blocks = _Blocks.of(windows, x.shape[1:-1])
        (apart,) = kept_apart(x)
        winner = blocks.padded(_winner(apart, windows), math.prod(windows.size))
        cut = blocks.cut(t)
        terms = {
            shift: jnp.where(blocks.before(winner, shift) == number.astype(cut.dtype), cut, 0)
            for shift, number in blocks.shifts()
        }
        return blocks.summed(terms)

    x_wide, t_wide = lax.stop_gradient(widen(x)), widen(t)
    blocked = x.ndim == 4 and max(windows.stride) == 1  # else blocks are no faster
    tangent = in_blocks(taken, x_wide, t_wide) if blocked else taken(x_wide, t_wide)
    return _max(x, windows), tangent.astype(t.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum(x: jax.Array, windows: Windows) -> jax.Array:
    spatial = x.shape[1:-1]
    taps = _padded_taps(x, _longer(windows, spatial))
    return _drop(functools.reduce(jnp.add, taps), windows, spatial)


@_sum.defjvp
def _sum_tangent(
    windows: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    blocks = _Blocks.of(windows, x.shape[1:-1])
    cut = blocks.cut(t)
    terms = {shift: jnp.where(number >= 0, cut, 0) for shift, number in blocks.shifts()}
    return _sum(x, windows), blocks.summed(terms)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _norm(x: jax.Array, windows: Windows, p: int | float) -> jax.Array:
    spatial = x.shape[1:-1]
    taps = _padded_taps(x, _longer(windows, spatial))
    return _drop(p_norm(tuple(taps), p), windows, spatial)


@_norm.defjvp
def _norm_tangent(
    windows: Windows, p: int | float, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    y, blocks, terms = _norm(x, windows, p), _Blocks.of(windows, x.shape[1:-1]), {}
    stops = blocks.padded(jnp.ones(y.shape, bool), False)
    around, cut_x, cut_t = blocks.padded(y, jnp.inf), blocks.cut(x), blocks.cut(t)
    for shift, number in blocks.shifts():
        read = (number >= 0) & blocks.before(stops, shift)  # by no stop: there may be a NaN
        seen = jnp.where(read, cut_x, 0)  # or the derivative of a slope that is left out is NaN
        slopes = slope(seen, blocks.before(around, shift), p)
        terms[shift] = jnp.where(read, slopes, 0) * cut_t
    return y, blocks.summed(terms)


def _max_at_once(x: jax.Array, windows: Windows) -> jax.Array:
    return (_max if is_floating(x.dtype) else _max_value)(x, windows)


def _by_axes(windows: Windows) -> list[Windows]:
    """One pass per axis, last axis first."""
    rank = len(windows.size)
    passes = []
    for axis in reversed(range(rank)):
        one: list[Any] = [(1, 1, (0, 0), 1)] * rank
        one[axis] = tuple(field[axis] for field in windows)
        passes.append(Windows(*zip(*one, strict=True)))
    return passes


AT_ONCE = PoolKernel("at once", _max_at_once, _sum, _norm)
BY_AXES = PoolKernel(
    "by axes",
    lambda x, windows: computed_wide(  # between its passes as well the gradient stays wide
        lambda x: functools.reduce(_max_at_once, _by_axes(windows), x), x
    ),
    lambda x, windows: functools.reduce(_sum, _by_axes(windows), x),
    lambda x, windows, p: functools.reduce(functools.partial(_norm, p=p), _by_axes(windows), x),
)
