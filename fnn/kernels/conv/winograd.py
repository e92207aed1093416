"""Winograd's minimal filtering F(m, k): m outputs from m + k - 1 products per axis, not k m.

Polynomials are multiplied by evaluating both at points, multiplying, and interpolating. The
transpose of that map is a correlation, ``y = A^T [(G w) * (B^T x)]``: ``A`` and ``G`` are the
Vandermonde matrices of the points, for m and k coefficients, and ``B^T`` is the transposed inverse
of the one for m + k - 1. All are computed in exact fractions from the points below and infinity.

In two dimensions the matrices act on both axes, and the sum over channels is one matrix product per
point. In three they act on the last two axes, and the taps of the first count as channels. With a
dilation of d every d-th place belongs to one of d phases, and tiles are made of one phase each.
What keeps it fast:

- Both axes are transformed by one product with the Kronecker product of their matrices. That is
  more arithmetic than one axis after the other, but at the speed of a matrix product.
- Only `BLOCK` bytes of points exist at a time: the loop goes over blocks of examples, or over
  stretches of their rows where one example has more.

A kernel has a fixed number of points per axis: with 6 of them a window of 3 is F(4, 3), one of 5 is
F(2, 5). The matrices' entries grow with the number of points, and the error with them. Largest
error over largest entry, against float64, for 64 channels of standard normal float32, of output /
input gradient / window gradient:

    axes  library            F(2, 3)            F(4, 3)
    1     7e-7  6e-7  5e-7   3e-7  4e-7  7e-7   9e-7  9e-7  1e-6
    2     8e-7  8e-7  2e-6   4e-7  4e-7  7e-7   2e-6  3e-6  4e-6
    3     4e-7  4e-7  4e-7   6e-7  5e-7  7e-7   4e-6  4e-6  3e-6

A NaN or an infinity in x reaches all outputs of its tiles, not only those whose window holds it.

Source: A. Lavin, S. Gray, Fast algorithms for convolutional neural networks (2016).
"""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.compiler import only_after
from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import nothing, read
from fnn.kernels.conv.form import (
    INPUT,
    OUTPUT,
    WINDOW,
    Form,
    Kernel,
    Map,
    by_device,
    by_group,
    divisor,
)
from fnn.kernels.conv.loops import stacked, summed
from fnn.kernels.conv.stretches import Stretches, fitting
from fnn.kernels.conv.views import by_itself, views

AXES = 2  # the last ones are filtered minimally; the taps of an axis before them count as channels
BLOCK = 12 * 2**20  # bytes of points; with 32 MB or more in all, every call gets fresh memory
WHOLE = 16 * 2**20  # that the window gradient leaves whole: its sums over few tiles use one core
# The window gradient sums over tiles. JAX 0.12 multiplies a batch of matrices on all cores if none
# must be transposed, so the output's points then come as rows, at the price of a slower copy. JAX
# 0.10 does not, and gains nothing.
BY_ROWS = jax.__version_info__ >= (0, 12)
POINTS = {4: (0, 1, -1), 6: (0, 1, -1, Fraction(1, 2), -2)}  # and infinity

Matrix = list[list[Fraction]]


def _vandermonde(points: int, columns: int) -> Matrix:
    """The powers of every point; infinity has its highest power only."""
    rows = [[Fraction(p) ** j for j in range(columns)] for p in POINTS[points]]
    return [*rows, [Fraction(int(j == columns - 1)) for j in range(columns)]]


def _inverse(a: Matrix) -> Matrix:
    """Invert by Gauss-Jordan elimination, in fractions."""
    n = len(a)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(a)]
    for column in range(n):
        pivot = next(r for r in range(column, n) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [v / rows[column][column] for v in rows[column]]
        for r in range(n):
            if r != column:
                factor = rows[r][column]
                rows[r] = [v - factor * u for v, u in zip(rows[r], rows[column], strict=True)]
    return [row[n:] for row in rows]


@functools.cache
def transforms(points: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``A (points, m)``, ``G (points, taps)`` and ``B^T (points, points)``, in float64.

    >>> a, g, bt = transforms(4, 3)
    >>> x, w = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 10.0, 100.0])
    >>> a.T @ ((g @ w) * (bt @ x))
    array([321., 432.])
    """
    a, g = _vandermonde(points, points - taps + 1), _vandermonde(points, taps)
    inverse = _inverse(_vandermonde(points, points))
    bt = [list(column) for column in zip(*inverse, strict=True)]
    # The denominators of B^T go to G: every tile of x is transformed, but w once.
    for i, row in enumerate(bt):
        scale = Fraction(np.lcm.reduce([v.denominator for v in row]))
        bt[i], g[i] = [v * scale for v in row], [v / scale for v in g[i]]
    return np.array(a, np.float64), np.array(g, np.float64), np.array(bt, np.float64)


class _Filter(NamedTuple):
    """How one form is filtered.

    Attributes:
        cut: how the rows of the form of one group are cut.
        m: outputs of a tile, per minimally filtered axis.
        a, g, bt: the transforms of these axes, all at once.
    """

    cut: Stretches
    m: tuple[int, ...]
    a: np.ndarray
    g: np.ndarray
    bt: np.ndarray

    @property
    def form(self) -> Form:
        """The form of one stretch."""
        return self.cut.form

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles, per minimally filtered axis."""
        axes = zip(self.form.out[-AXES:], self.m, self.phases, strict=True)
        return tuple(-(-o // (m * d)) for o, m, d in axes)

    @property
    def phases(self) -> tuple[int, ...]:
        """The dilation d of these axes. Every d-th place is of one phase, with its own tiles."""
        return self.form.windows.dilation[-AXES:]

    @property
    def split(self) -> int:
        """The axes of an array that such an axis becomes: places of a phase, and phases if any."""
        return 2 if max(self.phases) > 1 else 1


def _filter(form: Form, points: int) -> _Filter:
    taps = form.windows.size[-AXES:]
    m = tuple(points - k + 1 for k in taps)
    axes = zip(*(transforms(points, k) for k in taps), strict=True)
    both = (functools.reduce(np.kron, axis) for axis in axes)
    return _Filter(Stretches(form, form.out[0]), m, *both)


def _act(matrix: np.ndarray | jax.Array, x: jax.Array) -> jax.Array:
    """Apply a transform to the first axis of x."""
    return jnp.tensordot(jnp.asarray(matrix, x.dtype), x, 1, precision="highest")


def _tiles(
    x: jax.Array,
    step: jax.Array,
    f: _Filter,
    read: Callable[[jax.Array, jax.Array], jax.Array],
    sizes: tuple[int, ...],
    starts: tuple[int, ...],
    before: Sequence[tuple[int, int]] = (),
    channels_first: bool = False,
) -> jax.Array:
    """Block ``step`` of x, zero-padded: ``(prod(sizes), n, ..., *counts, c)``.

    ``x`` is ``(blocks, n, ..., *spatial, c)``; ``read`` takes a stretch of its rows, and the axis
    before the tiled ones is padded by ``before``. With a dilation, the phases follow each of the
    counts. Channels come out before n if asked for.
    """
    axes, stretches = len(sizes), np.uint32(f.cut.parts)

    def padded(x: jax.Array, step: jax.Array) -> jax.Array:
        x = lax.dynamic_index_in_dim(x, lax.div(step, stretches), keepdims=False)
        x = read(x, lax.rem(step, stretches))
        long = [(count - 1) * m + size for count, m, size in zip(f.counts, f.m, sizes, strict=True)]
        tiled = zip(starts, long, f.phases, x.shape[-1 - axes : -1], strict=True)
        edges = (*before, *((lo, d * each - lo - i) for lo, each, d, i in tiled), (0, 0))
        x = jnp.pad(x, (*((0, 0),) * (x.ndim - len(edges)), *edges))
        if f.split > 1:
            pairs = [size for pair in zip(long, f.phases, strict=True) for size in pair]
            x = x.reshape(*x.shape[: -1 - axes], *pairs, x.shape[-1])
        return jnp.moveaxis(x, -1, 0) if channels_first else x

    def tiled(x: jax.Array) -> jax.Array:
        place = x.ndim - f.split - (0 if channels_first else 1)
        for count, m, size in zip(f.counts[::-1], f.m[::-1], sizes[::-1], strict=True):
            x = views(x, place, range(size), (count - 1) * m + 1, m, 0)
            place += 1 - f.split  # to the axis before, which the one stacked in front has moved
        return x

    x = by_itself(tiled, f.form)(by_itself(padded, f.form)(x, step))
    return x.reshape(-1, *x.shape[axes:])


def _input_points(x: jax.Array, step: jax.Array, f: _Filter) -> jax.Array:
    """``B^T x`` for every tile: ``(points, tiles, taps of the axis before * c)``."""
    win = f.form.windows
    sizes = tuple(m + k - 1 for m, k in zip(f.m, win.size[-AXES:], strict=True))
    starts = tuple(lo for lo, _ in win.padding[-AXES:])
    tiles = _tiles(x, step, f, f.cut.inputs, sizes, starts, win.padding[:-AXES])
    points = _act(f.bt, tiles)
    if len(win.size) > AXES:
        places = [t * win.dilation[0] for t in range(win.size[0])]
        seen = [points[:, :, t : t + f.form.out[0]] for t in places]
        points = jnp.concatenate(seen, -1)
    return points.reshape(len(points), -1, points.shape[-1])


def _window_points(g: jax.Array, w: jax.Array, f: _Filter) -> jax.Array:
    """``G w``: ``(points, taps of the axis before * c, c_out)``."""
    axes = len(f.m)
    w = jnp.moveaxis(w, range(-2 - axes, -2), range(axes))
    points = _act(g, w.reshape(g.shape[1], -1))
    return points.reshape(len(points), -1, w.shape[-1])


def _output_points(y: jax.Array, step: jax.Array, f: _Filter) -> jax.Array:
    """``A y`` for every tile: ``(points, tiles, c_out)``, or ``(points, c_out, tiles)``."""
    tiles = _tiles(y, step, f, f.cut.outputs, f.m, (0,) * len(f.m), channels_first=BY_ROWS)
    points = _act(f.a, tiles)
    shape = (y.shape[-1], -1) if BY_ROWS else (-1, y.shape[-1])
    return points.reshape(len(points), *shape)


def _output_of(points: jax.Array, f: _Filter) -> jax.Array:
    """``A^T points``, tile beside tile: ``(points, tiles, c_out)`` to ``(n, *out, c_out)``."""
    axes, before, tiles = len(f.m), f.form.out[:-AXES], list(zip(f.counts, f.phases, strict=True))
    grid = [size for pair in tiles for size in pair[: f.split]]
    y = _act(f.a.T, points).reshape(*f.m, -1, *before, *grid, points.shape[-1])
    first = axes + 1 + len(before)  # axis of tiles
    order = [(first + r * f.split, r, first + r * f.split + 1) for r in range(axes)]
    places = [axis for each in order for axis in each[: 1 + f.split]]
    y = y.transpose(*range(axes, first), *places, y.ndim - 1)
    sizes = [count * m * d for (count, d), m in zip(tiles, f.m, strict=True)]
    y = y.reshape(len(y), *before, *sizes, y.shape[-1])
    return y[(slice(None), *(slice(o) for o in f.form.out))]


def _window_of(points: jax.Array, f: _Filter) -> jax.Array:
    """``G^T points``, of `_product`, to ``(*window, c, c_out)``."""
    size, axes = f.form.windows.size, len(f.m)
    w = _act(f.g.T, points)
    w = jnp.swapaxes(w, 1, 2) if BY_ROWS else w
    w = w.reshape(*size[-axes:], *size[:-axes], -1, w.shape[-1])
    return jnp.moveaxis(w, range(axes), range(-2 - axes, -2))


def _blocks(
    f: _Filter, c_in: int, c_out: int, whole: int, *arrays: jax.Array
) -> tuple[_Filter, int, list[jax.Array]]:
    """Cut ``(n, ...)`` to ``(blocks, examples, ...)``, with `BLOCK` bytes of points in a block.

    The rows of an example with more than ``whole`` are cut into stretches, which begin with a tile.
    How many blocks there are is returned too.
    """
    rows, tiled = f.form.out[0], len(f.form.out) <= AXES
    tiles = math.prod((*f.counts, *f.phases, *f.form.out[:-AXES]))
    width = math.prod(f.form.windows.size[:-AXES]) * c_in + c_out
    one = arrays[0].dtype.itemsize * len(f.a) * tiles * width
    arrays = tuple(a.reshape(-1, divisor(len(a), BLOCK // one), *a.shape[1:]) for a in arrays)
    if one > whole:
        m, count = (f.m[0] * f.phases[0], f.counts[0]) if tiled else (1, rows)
        rows = min(rows, m * fitting(count, one, BLOCK))
    cut = Stretches(f.form, rows)
    return f._replace(cut=cut), len(arrays[0]) * cut.parts, list(arrays)


def _through(
    product: Callable[[jax.Array], jax.Array], x: jax.Array, f: _Filter, c_out: int
) -> jax.Array:
    """Transform x to its points, multiply, and transform to the result, block by block."""
    f, steps, (x,) = _blocks(f, x.shape[-1], c_out, BLOCK, x)

    def block(step: jax.Array) -> jax.Array:
        return _output_of(product(_input_points(x, step, f)), f)

    y = stacked(block, steps, x)
    return f.cut.joined(y.reshape(-1, *f.form.out, c_out))


def _output(x: jax.Array, w: jax.Array, f: _Filter) -> jax.Array:
    ws = _window_points(only_after(x, f.g), w, f)
    return _through(lambda xs: jnp.einsum("ptc,pco->pto", xs, ws), x, f, w.shape[-1])


def _input(y: jax.Array, w: jax.Array, f: _Filter) -> jax.Array:
    """Convolve with the flipped window, its channels exchanged; the transform does most flips."""
    g = only_after(y, f.g[:, ::-1])
    if len(f.form.windows.size) > AXES:
        ws = _window_points(g, jnp.flip(jnp.swapaxes(w, -1, -2), 0), f)
        return _through(lambda ys: jnp.einsum("pto,poc->ptc", ys, ws), y, f, w.shape[-2])
    ws = _window_points(g, w, f)  # the product reads the channels exchanged: no copy of the window
    return _through(lambda ys: jnp.einsum("pto,pco->ptc", ys, ws), y, f, w.shape[-2])


def _product(xs: jax.Array, ys: jax.Array) -> jax.Array:
    """Sum over tiles: ``(points, c, c_out)``, or ``(points, c_out, c)`` if ys comes by rows."""
    if BY_ROWS:
        return jnp.einsum("pot,ptc->poc", ys, xs)
    return jnp.einsum("ptc,pto->pco", xs, ys)


def _window(x: jax.Array, y: jax.Array, f: _Filter) -> jax.Array:
    f, steps, (x, y) = _blocks(f, x.shape[-1], y.shape[-1], WHOLE, x, y)

    def block(step: jax.Array) -> jax.Array:
        return _product(_input_points(x, step, f), _output_points(y, step, f))

    return _window_of(summed(block, steps, y, x), f)


def _by_groups(one: Callable[..., jax.Array], points: int) -> Map:
    """Make the map of all groups from that of one; sums are formed in float32 at least."""

    def whole(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
        a, b = (v.astype(accumulator(v.dtype)) for v in (a, b))
        f = _filter(form, points)
        if form.groups == 1:
            return one(a, b, f)
        return by_group(jax.vmap(functools.partial(one, f=f)), a, b, form.groups)

    return whole


def winograd(name: str, points: int) -> Kernel:
    """The kernel with this many points per axis, 4 or 6."""
    slots = {OUTPUT: _output, INPUT: _input, WINDOW: _window}
    maps = (by_device(_by_groups(one, points), slot) for slot, one in slots.items())
    output, of_read, window = maps

    def of_input(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
        y, plain = read(y, form)
        return nothing(y, w, form) if 0 in y.shape else of_read(y, w, plain)

    def refuses(form: Form, dtype: Any) -> str | None:
        win = form.windows
        if max(win.stride) > 1 or max(win.size[-AXES:]) >= points:
            return f"a window of at most {points - 1}, stride 1"
        return None if jnp.issubdtype(dtype, jnp.floating) else "a floating dtype"

    return Kernel(name, output, of_input, window, refuses)


WINOGRAD2, WINOGRAD4 = winograd("winograd2", 4), winograd("winograd", 6)
