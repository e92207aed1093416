"""Winograd's minimal filtering F(m, 3): m outputs from m + 2 products per axis instead of 3 m.

A polynomial product is evaluation at points, multiplication, interpolation; transposed it is a
correlation: ``y = A^T [(G w) * (B^T x)]`` with ``A`` and ``G`` the Vandermonde matrices of the
points for m and 3 coefficients and ``B^T`` the inverse of the one for m + 2, transposed. All three
come from the interpolation points below (the last point is infinity), in exact fractions. In two
dimensions each matrix acts on either axis; the products over channels become one matrix product
per point. The matrices' entries grow with m, and the error with them. Largest error over largest
entry against float64, 64 channels of standard normal float32, output / input / window gradient:

    axes  library            F(2, 3)            F(4, 3)
    1     6e-7  7e-7  4e-7   3e-7  4e-7  8e-7   9e-7  8e-7  1e-6
    2     9e-7  9e-7  2e-6   3e-7  3e-7  1e-6   3e-6  2e-6  3e-6
    3     4e-7  4e-7  4e-7   3e-7  3e-7  1e-6   3e-6  4e-6  6e-6

Source: A. Lavin, S. Gray, Fast algorithms for convolutional neural networks (2016).
"""

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.adjoint import through_output
from fnn.kernels.form import Form, Kernel, Map, varying

TAPS = 3
AXES = 2  # the last ones are filtered minimally; the taps of an axis before are channels more
BLOCK = 32 * 2**20  # bytes of points, of the input's and of the output's
POINTS = {2: (0, 1, -1), 4: (0, 1, -1, Fraction(1, 2), -2)}  # by m; small and well spread

Matrix = list[list[Fraction]]


def _vandermonde(m: int, columns: int) -> Matrix:
    """Powers of every point; of infinity only the highest power is left."""
    rows = [[Fraction(p) ** j for j in range(columns)] for p in POINTS[m]]
    return [*rows, [Fraction(int(j == columns - 1)) for j in range(columns)]]


def _inverse(a: Matrix) -> Matrix:
    """Gauss-Jordan in fractions."""
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
def transforms(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``A (m + 2, m)``, ``G (m + 2, 3)`` and ``B^T (m + 2, m + 2)`` of F(m, 3), in float64.

    >>> a, g, bt = transforms(2)
    >>> x, w = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 10.0, 100.0])
    >>> a.T @ ((g @ w) * (bt @ x))
    array([321., 432.])
    """
    a, g = _vandermonde(m, m), _vandermonde(m, TAPS)
    inverse = _inverse(_vandermonde(m, m + TAPS - 1))
    bt = [list(column) for column in zip(*inverse, strict=True)]
    # Integers in B^T, fractions in G: x is transformed for every tile, w once.
    for i, row in enumerate(bt):
        scale = Fraction(np.lcm.reduce([v.denominator for v in row]))
        bt[i], g[i] = [v * scale for v in row], [v / scale for v in g[i]]
    return np.array(a, np.float64), np.array(g, np.float64), np.array(bt, np.float64)


def _act(matrix: np.ndarray, x: jax.Array, axes: int) -> jax.Array:
    """Apply the matrix along ``axes`` axes at once: x has them side by side as its first one."""
    whole = functools.reduce(np.kron, [matrix] * axes)
    return jnp.tensordot(jnp.asarray(whole, x.dtype), x, 1)


def _counts(form: Form, m: int) -> tuple[int, ...]:
    """How many tiles the minimally filtered axes have."""
    return tuple(-(-o // m) for o in form.out[-AXES:])


def _tiles(x: jax.Array, m: int, wide: int, counts: tuple[int, ...]) -> jax.Array:
    """``(n, ..., *spatial, c)`` to ``(wide**axes, n, ..., *counts, c)``: this wide, m apart."""
    place = x.ndim - 2
    for count in reversed(counts):  # what is stacked brings the axis before to the same place
        last = (count - 1) * m + 1
        x = jnp.stack([lax.slice_in_dim(x, j, j + last, m, place) for j in range(wide)])
    return x.reshape(wide ** len(counts), *x.shape[len(counts) :])


def _input_points(x: jax.Array, form: Form, m: int) -> jax.Array:
    """``B^T x`` for every tile: ``(points, tiles, taps of the axis before * c)``."""
    counts, padding = _counts(form, m), form.windows.padding
    ends = [
        (lo, c * m + TAPS - 1 - lo - i)
        for (lo, _), c, i in zip(padding[-AXES:], counts, form.spatial[-AXES:], strict=True)
    ]
    x = jnp.pad(x, ((0, 0), *padding[:-AXES], *ends, (0, 0)))
    points = _act(transforms(m)[2], _tiles(x, m, m + TAPS - 1, counts), len(counts))
    if len(form.spatial) > AXES:
        seen = [points[:, :, t : t + form.out[0]] for t in range(TAPS)]
        points = jnp.concatenate(seen, -1)
    return points.reshape(len(points), -1, points.shape[-1])


def _window_points(w: jax.Array, m: int) -> jax.Array:
    """``G w``: ``(points, taps of the axis before * c, c_out)``."""
    axes = min(AXES, w.ndim - 2)
    w = jnp.moveaxis(w, range(-2 - axes, -2), range(axes))
    points = _act(transforms(m)[1], w.reshape(TAPS**axes, -1), axes)
    return points.reshape(len(points), -1, w.shape[-1])


def _output_points(y: jax.Array, form: Form, m: int) -> jax.Array:
    """``A y`` for every tile: ``(points, tiles, c_out)``."""
    counts = _counts(form, m)
    ends = [(0, c * m - o) for c, o in zip(counts, form.out[-AXES:], strict=True)]
    y = jnp.pad(y, ((0, 0), *((0, 0) for _ in form.out[:-AXES]), *ends, (0, 0)))
    points = _act(transforms(m)[0], _tiles(y, m, m, counts), len(counts))
    return points.reshape(len(points), -1, y.shape[-1])


def _output_of(points: jax.Array, form: Form, m: int) -> jax.Array:
    """``A^T points``, each where it belongs: ``(points, tiles, c_out)`` to ``(n, *out, c_out)``."""
    counts, before = _counts(form, m), form.out[:-AXES]
    axes = len(counts)
    y = _act(transforms(m)[0].T, points, axes)
    y = y.reshape(*(m,) * axes, -1, *before, *counts, y.shape[-1])
    tiles = axes + 1 + len(before)  # the first axis of tiles
    pairs = [axis for r in range(axes) for axis in (tiles + r, r)]
    y = y.transpose(*range(axes, tiles), *pairs, y.ndim - 1)
    y = y.reshape(len(y), *before, *(c * m for c in counts), y.shape[-1])
    return y[(slice(None), *(slice(o) for o in form.out))]


def _window_of(points: jax.Array, form: Form, m: int) -> jax.Array:
    """``G^T points``: ``(points, taps before * c, c_out)`` to ``(*window, c, c_out)``."""
    size = form.windows.size
    axes = min(AXES, len(size))
    w = _act(transforms(m)[1].T, points, axes)
    w = w.reshape(*size[-axes:], *size[:-axes], -1, w.shape[-1])
    return jnp.moveaxis(w, range(axes), range(-2 - axes, -2))


def _blocks(a: jax.Array, form: Form, width: int, m: int) -> jax.Array:
    """``(n, ...)`` to ``(blocks, examples, ...)``: so many that the points stay in `BLOCK`."""
    counts = _counts(form, m)
    places = (m + TAPS - 1) ** len(counts) * math.prod(form.out[:-AXES]) * math.prod(counts)
    most = BLOCK // (a.dtype.itemsize * places * width)
    examples = next(d for d in range(max(1, min(len(a), most)), 0, -1) if len(a) % d == 0)
    return a.reshape(-1, examples, *a.shape[1:])


def _width(form: Form, c_in: int, c_out: int) -> int:
    return math.prod(form.windows.size[:-AXES]) * c_in + c_out


def _output(x: jax.Array, w: jax.Array, form: Form, m: int) -> jax.Array:
    ws = _window_points(w, m)

    def block(x: jax.Array) -> jax.Array:
        return _output_of(jnp.einsum("ptc,pco->pto", _input_points(x, form, m), ws), form, m)

    xs = _blocks(x, form, _width(form, *w.shape[-2:]), m)
    y = block(x) if len(xs) == 1 else lax.map(block, xs)
    return y.reshape(len(x), *form.out, -1)


def _window(x: jax.Array, y: jax.Array, form: Form, m: int) -> jax.Array:
    def block(x: jax.Array, y: jax.Array) -> jax.Array:
        xs, ys = _input_points(x, form, m), _output_points(y, form, m)
        return jnp.einsum("ptc,pto->pco", xs, ys)

    def add(total: jax.Array, parts: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + block(*parts), None

    width = _width(form, x.shape[-1], y.shape[-1])
    xs, ys = (_blocks(a, form, width, m) for a in (x, y))
    if len(xs) == 1:
        return _window_of(block(x, y), form, m)
    like = jax.eval_shape(block, xs[0], ys[0])
    total, *_ = varying(jnp.zeros(like.shape, like.dtype), x, y)
    return _window_of(lax.scan(add, total, (xs, ys))[0], form, m)


def _by_groups(one: Callable[..., jax.Array], m: int) -> Map:
    """The map of ``form.groups`` groups from that of one, summed in float32 or more."""

    def whole(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
        a, b = (v.astype(accumulator(v.dtype)) for v in (a, b))
        if form.groups == 1:
            return one(a, b, form, m)
        split = [jnp.moveaxis(v.reshape(*v.shape[:-1], form.groups, -1), -2, 0) for v in (a, b)]
        y = jax.vmap(functools.partial(one, form=form, m=m))(*split)
        return jnp.moveaxis(y, 0, -2).reshape(*y.shape[1:-1], -1)

    return whole


def _refuses(form: Form, dtype: Any) -> str | None:
    win, rank = form.windows, len(form.spatial)
    if (win.size, win.stride, win.dilation) != ((TAPS,) * rank, (1,) * rank, (1,) * rank):
        return "a window of 3 along every axis, stride 1, dilation 1"
    return None if jnp.issubdtype(dtype, jnp.floating) else "a floating dtype"


def winograd(m: int) -> Kernel:
    """The kernel with tiles of m outputs along each axis, m = 2 or 4."""
    output = _by_groups(_output, m)
    return Kernel("winograd", output, through_output(output), _by_groups(_window, m), _refuses)


WINOGRAD2, WINOGRAD4 = winograd(2), winograd(4)
