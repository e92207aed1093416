"""Winograd's minimal filtering F(m, k): m outputs from m + k - 1 products per axis, not k m.

Polynomials are multiplied by evaluating both at points, multiplying, and interpolating. The
transpose of that map is a correlation, ``y = A^T [(G w) * (B^T x)]``: ``A`` and ``G`` are the
Vandermonde matrices of the points, for m and k coefficients, and ``B^T`` is the transposed inverse
of the one for m + k - 1 (`fnn/kernels/conv/transforms.py`).

In two dimensions the matrices act on both axes, and the sum over channels is one matrix product per
point. In three they act on the last two axes, and the taps of the first count as channels. With a
dilation of d every d-th place belongs to one of d phases, and tiles are made of one phase each.
What keeps it fast:

- Both axes are transformed by one product with the Kronecker product of their matrices. That is
  more arithmetic than one axis after the other, but at the speed of a matrix product.
- Few points exist at a time: a loop goes over the groups, and one over blocks of examples, or
  stretches of their rows, or parts of a large window (`fnn/kernels/conv/tiling.py`).
- Two blocks are made at once where XLA computes a block's products, one after the other, on one
  core.

A kernel has a fixed number of points per axis: with 6 of them a window of 3 is F(4, 3), one of 5 is
F(2, 5). The matrices' entries grow with the number of points, and the error with them. Largest
error over largest entry, against float64, for 64 channels of standard normal float32, of output /
input gradient / window gradient:

    axes  library            F(2, 3)            F(4, 3)
    1     7e-7  6e-7  5e-7   3e-7  4e-7  7e-7   9e-7  9e-7  1e-6
    2     8e-7  8e-7  2e-6   4e-7  4e-7  7e-7   2e-6  3e-6  4e-6
    3     4e-7  4e-7  4e-7   6e-7  5e-7  7e-7   4e-6  4e-6  3e-6

A NaN or an infinity in x reaches all outputs of its tiles, not only those whose window holds it. So
does an overflow: by the sums of the rows of two axes' matrices, a number on the way is at most 9216
times (with 4 points, 16 times) the largest entry of an operand, or the largest sum of products.
Test: `tests/layers/test_conv_large.py`.

Source: A. Lavin, S. Gray, Fast algorithms for convolutional neural networks (2016).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.compiler import only_after
from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import nothing, of_narrower, read
from fnn.kernels.conv.axes import merging
from fnn.kernels.conv.form import (
    INPUT,
    OUTPUT,
    WINDOW,
    Form,
    Kernel,
    Map,
    by_device,
)
from fnn.kernels.conv.loops import beside, by_group, summed
from fnn.kernels.conv.tiling import (
    AXES,
    NARROW,
    Blocks,
    Filter,
    blocks,
    filter_of,
    has_many,
    part_of,
)
from fnn.kernels.conv.views import by_itself, views

# The window gradient sums over tiles. JAX 0.12 multiplies a batch of matrices on all cores if none
# must be transposed, so the output's points then come as rows, at the price of a slower copy. JAX
# 0.10 does not, and gains nothing.
BY_ROWS = jax.__version_info__ >= (0, 12)
# JAX 0.10 transposes the input's points. So where the input has so many times more channels than
# the cotangent, the two are exchanged.
TIMES = 2


def _act(matrix: np.ndarray | jax.Array, x: jax.Array) -> jax.Array:
    """Apply a transform to the first axis of x."""
    return jnp.tensordot(jnp.asarray(matrix, x.dtype), x, 1, precision="highest")


def _tiles(
    x: jax.Array,
    step: jax.Array,
    f: Filter,
    read: Callable[[jax.Array, jax.Array], jax.Array],
    sizes: tuple[int, ...],
    starts: tuple[int, ...],
    before: Sequence[tuple[int, int]] = (),
    channels_first: bool = False,
) -> jax.Array:
    """Block ``step`` of x, zero-padded: ``(prod(sizes), n, ..., *counts, c)``.

    ``read(x, step)`` is what the block reads. The axis before the tiled ones is padded by
    ``before``. With a dilation, the phases follow each of the counts. Channels come
    out before n if asked for.
    """
    axes = len(sizes)

    def padded(x: jax.Array, step: jax.Array) -> jax.Array:
        x = read(x, step)
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
            x = views(x, [place], np.arange(size)[:, None], [(count - 1) * m + 1], [m], 0)
            place += 1 - f.split  # to the axis before, which the one stacked in front has moved
        return x

    x = by_itself(tiled, f.form)(by_itself(padded, f.form)(x, step))
    return x.reshape(-1, *x.shape[axes:])


def _input_tiles(x: jax.Array, step: jax.Array, cut: Blocks) -> jax.Array:
    """Block ``step`` of x: ``(points, n, ..., *counts, c)``."""
    f, win = cut.f, cut.f.form.windows
    sizes = tuple(m + k - 1 for m, k in zip(f.m, win.size[-AXES:], strict=True))
    starts = tuple(lo for lo, _ in win.padding[-AXES:])
    return _tiles(x, step, f, cut.pieces.inputs, sizes, starts, win.padding[:-AXES])


def _input_points(tiles: jax.Array, f: Filter) -> jax.Array:
    """``B^T x`` for every tile: ``(points, tiles, taps of the axis before * c)``."""
    win, points = f.form.windows, _act(f.bt, tiles)
    if len(win.size) > AXES:
        places = [t * win.dilation[0] for t in range(win.size[0])]
        seen = [points[:, :, t : t + f.form.out[0]] for t in places]
        points = jnp.concatenate(seen, -1)
    return points.reshape(len(points), -1, points.shape[-1])


def _window_points(g: jax.Array, w: jax.Array, f: Filter) -> jax.Array:
    """``G w``: ``(points, taps of the axis before * c, c_out)``."""
    axes = len(f.m)
    w = jnp.moveaxis(w, range(-2 - axes, -2), range(axes))
    points = _act(g, w.reshape(g.shape[1], -1))
    return points.reshape(len(points), -1, w.shape[-1])


def _output_tiles(y: jax.Array, step: jax.Array, cut: Blocks) -> jax.Array:
    """Block ``step`` of y: ``(outputs of a tile, n, ..., *counts, c_out)``, or c_out before n."""
    m, read = cut.f.m, cut.pieces.outputs
    return _tiles(y, step, cut.f, read, m, (0,) * len(m), channels_first=BY_ROWS)


def _output_points(tiles: jax.Array, f: Filter) -> jax.Array:
    """``A y`` for every tile: ``(points, tiles, c_out)``, or ``(points, c_out, tiles)``."""
    points = _act(f.a, tiles)
    shape = (tiles.shape[1], -1) if BY_ROWS else (-1, tiles.shape[-1])
    return points.reshape(len(points), *shape)


def _output_of(points: jax.Array, f: Filter) -> jax.Array:
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


def _window_of(points: jax.Array, f: Filter) -> jax.Array:
    """``G^T points``, of `_product`, to ``(*window, c, c_out)``."""
    size, axes = f.form.windows.size, len(f.m)
    w = _act(f.g.T, points)
    w = jnp.swapaxes(w, 1, 2) if BY_ROWS else w
    w = w.reshape(*size[-axes:], *size[:-axes], -1, w.shape[-1])
    return jnp.moveaxis(w, range(axes), range(-2 - axes, -2))


def _through(
    product: Callable[[jax.Array], Callable[[jax.Array], jax.Array]],
    x: jax.Array,
    w: jax.Array,
    f: Filter,
    axis: int,
) -> jax.Array:
    """Transform x to its points, multiply, and transform to the result, block by block.

    ``product(w)`` multiplies points by those of a window, whose outputs are along ``axis``.
    """
    cut = blocks(f, OUTPUT, x.shape[-1], w.shape[axis], x)
    f = cut.f
    if cut.parts > 1:
        points = _input_points(_input_tiles(x, jnp.uint32(0), cut), f)

        def part(place: jax.Array) -> jax.Array:
            return _output_of(product(part_of(w, place, cut.parts, axis, f))(points), f)

        return beside(part, cut.parts, -1, x, w)
    multiply = product(w)

    def block(step: jax.Array) -> jax.Array:
        tiles = _input_tiles(x, step, cut)
        points = _input_points(tiles, f)
        return cut.apart(_output_of(multiply(points), f), tiles, points)

    steps, total = cut.pieces.steps, len(x) * f.cut.parts
    return f.cut.joined(beside(block, steps, 0, x, w, at_once=cut.at_once, total=total))


def _output(x: jax.Array, w: jax.Array, f: Filter) -> jax.Array:
    def product(w: jax.Array) -> Callable[[jax.Array], jax.Array]:
        ws = _window_points(only_after(x, f.g), w, f)
        return lambda xs: jnp.einsum("ptc,pco->pto", xs, ws)

    return _through(product, x, w, f, -1)


def _input(y: jax.Array, w: jax.Array, f: Filter) -> jax.Array:
    """Convolve with the flipped window, its channels exchanged; the transform does most flips.

    A narrow window is copied for that: to read it across for every block costs more.
    """
    before = tuple(range(len(f.form.windows.size) - AXES))

    def product(w: jax.Array) -> Callable[[jax.Array], jax.Array]:
        g = only_after(y, f.g[:, ::-1])
        if before or y.shape[-1] < NARROW:
            ws = _window_points(g, jnp.flip(jnp.swapaxes(w, -1, -2), before), f)
            return lambda ys: jnp.einsum("pto,poc->ptc", ys, ws)
        ws = _window_points(g, w, f)  # the product reads the channels exchanged: no copy of w
        return lambda ys: jnp.einsum("pto,pco->ptc", ys, ws)

    return _through(product, y, w, f, -2)


def _product(xs: jax.Array, ys: jax.Array) -> jax.Array:
    """Sum over tiles: ``(points, c, c_out)``, or ``(points, c_out, c)`` if ys comes by rows."""
    if BY_ROWS:
        return jnp.einsum("pot,ptc->poc", ys, xs)
    return jnp.einsum("ptc,pto->pco", xs, ys)


def _window(x: jax.Array, y: jax.Array, f: Filter) -> jax.Array:
    cut = blocks(f, WINDOW, x.shape[-1], y.shape[-1], x)
    f = cut.f
    if cut.parts > 1:
        points = _input_points(_input_tiles(x, jnp.uint32(0), cut), f)

        def part(place: jax.Array) -> jax.Array:
            some = part_of(y, place, cut.parts, -1, f)
            ys = _output_points(_output_tiles(some, jnp.uint32(0), cut), f)
            return _window_of(_product(points, ys), f)

        return beside(part, cut.parts, -1, y, x)

    def block(step: jax.Array) -> jax.Array:
        x_tiles, y_tiles = _input_tiles(x, step, cut), _output_tiles(y, step, cut)
        xs, ys = _input_points(x_tiles, f), _output_points(y_tiles, f)
        return cut.apart(_product(xs, ys), x_tiles, y_tiles, xs, ys)

    return _window_of(summed(block, cut.pieces.steps, y, x, at_once=cut.at_once), f)


def _by_groups(one: Callable[..., jax.Array], points: int, slot: str) -> Map:
    """Make the map of all groups from that of one; sums are formed in float32 at least.

    Where two gradients have no loop, XLA takes operations of each by turns, and the points of both
    are in memory. So one of many points is compiled by itself. An output is not, or what follows it
    could not be merged with it. Test: `tests/kernels/conv/test_compiled.py`.
    """

    def whole(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
        a, b = (v.astype(accumulator(v.dtype)) for v in (a, b))
        f = filter_of(form, points)
        group = functools.partial(one, f=f)
        c_out = b.shape[-2 if slot == INPUT else -1]
        if slot != OUTPUT and form.groups == 1 and has_many(f, slot, c_out, a):
            return by_itself(group, form)(a, b)
        return by_group(group, form.groups, a, b)

    return whole


def winograd(name: str, points: int) -> Kernel:
    """The kernel with this many points per axis, 4 or 6."""
    slots = {OUTPUT: _output, INPUT: _input, WINDOW: _window}
    maps = {slot: _by_groups(one, points, slot) for slot, one in slots.items()}
    if not BY_ROWS:
        maps[WINDOW] = of_narrower(maps[WINDOW], TIMES)
    output, of_read, window = (by_device(one, slot) for slot, one in maps.items())

    def of_input(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
        y, plain = read(y, form)
        return nothing(y, w, form) if 0 in y.shape else of_read(y, w, plain)

    def refuses(form: Form, dtype: Any) -> str | None:
        win = form.windows
        if max(win.stride) > 1 or max(win.size[-AXES:]) >= points:
            return f"a window of at most {points - 1}, stride 1"
        return None if jnp.issubdtype(dtype, jnp.floating) else "a floating dtype"

    return merging(Kernel(name, output, of_input, window, refuses))


WINOGRAD2, WINOGRAD4 = winograd("winograd2", 4), winograd("winograd", 6)
