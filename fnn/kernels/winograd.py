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
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.dtypes import accumulator
from fnn.kernels.adjoint import through_output
from fnn.kernels.form import Form, Kernel

TAPS = 3
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


def _act(matrix: np.ndarray, x: jax.Array, rank: int) -> jax.Array:
    """Apply the matrix along each of the first ``rank`` axes, by its nonzero entries only."""
    for axis in range(rank):
        parts = [jax.lax.index_in_dim(x, j, axis, keepdims=False) for j in range(x.shape[axis])]
        x = jnp.stack(
            [
                functools.reduce(
                    jnp.add, (float(v) * p for v, p in zip(row, parts, strict=True) if v)
                )
                for row in matrix
            ],
            axis,
        )
    return x


def _tiles(x: jax.Array, m: int, wide: int, counts: tuple[int, ...]) -> jax.Array:
    """``(n, *spatial, c)`` to ``(*wide, n, *counts, c)``: tiles of this width, m apart."""
    rank = len(counts)
    for count in reversed(counts):  # the axis to cut comes to place ``rank`` each time
        last = (count - 1) * m + 1
        x = jnp.stack([jax.lax.slice_in_dim(x, j, j + last, m, rank) for j in range(wide)])
    return x


def _counts(form: Form, m: int) -> tuple[int, ...]:
    return tuple(-(-o // m) for o in form.out)


def _input_points(x: jax.Array, form: Form, m: int) -> jax.Array:
    """``B^T x`` for every tile: ``(points, tiles, groups, c)``."""
    counts, rank = _counts(form, m), len(form.spatial)
    pads = [
        (lo, c * m + TAPS - 1 - lo - i)
        for (lo, _), c, i in zip(form.windows.padding, counts, form.spatial, strict=True)
    ]
    x = jnp.pad(x.astype(accumulator(x.dtype)), ((0, 0), *pads, (0, 0)))
    points = _act(transforms(m)[2], _tiles(x, m, m + TAPS - 1, counts), rank)
    return points.reshape((m + TAPS - 1) ** rank, -1, form.groups, x.shape[-1] // form.groups)


def _output(x: jax.Array, w: jax.Array, form: Form, *, m: int) -> jax.Array:
    counts, rank, wide = _counts(form, m), len(form.spatial), m + TAPS - 1
    a, g, _ = transforms(m)
    ws = _act(g, w.astype(accumulator(w.dtype)), rank)
    ws = ws.reshape(wide**rank, w.shape[-2], form.groups, -1)
    ys = jnp.einsum("pmgc,pcgo->pmgo", _input_points(x, form, m), ws)
    y = _act(a.T, ys.reshape(*(wide,) * rank, x.shape[0], *counts, -1), rank)
    pairs = [axis for r in range(rank) for axis in (rank + 1 + r, r)]  # tile, place in it
    y = y.transpose(rank, *pairs, 2 * rank + 1)
    y = y.reshape(x.shape[0], *(c * m for c in counts), -1)
    return y[(slice(None), *(slice(o) for o in form.out))]


def _window(x: jax.Array, y: jax.Array, form: Form, *, m: int) -> jax.Array:
    counts, rank, wide = _counts(form, m), len(form.spatial), m + TAPS - 1
    a, g, _ = transforms(m)
    pads = [(0, c * m - o) for c, o in zip(counts, form.out, strict=True)]
    y = jnp.pad(y.astype(accumulator(y.dtype)), ((0, 0), *pads, (0, 0)))
    ys = _act(a, _tiles(y, m, m, counts), rank).reshape(
        wide**rank, -1, form.groups, y.shape[-1] // form.groups
    )
    ws = jnp.einsum("pmgc,pmgo->pcgo", _input_points(x, form, m), ys)
    return _act(g.T, ws.reshape(*(wide,) * rank, ws.shape[1], -1), rank)


def _refuses(form: Form, dtype: Any) -> str | None:
    win, rank = form.windows, len(form.spatial)
    if (win.size, win.stride, win.dilation) != ((TAPS,) * rank, (1,) * rank, (1,) * rank):
        return "a window of 3 along every axis, stride 1, dilation 1"
    return None if jnp.issubdtype(dtype, jnp.floating) else "a floating dtype"


def winograd(m: int) -> Kernel:
    """The kernel with tiles of m outputs along each axis, m = 2 or 4."""
    output = functools.partial(_output, m=m)
    return Kernel(
        "winograd", output, through_output(output), functools.partial(_window, m=m), _refuses
    )


WINOGRAD2, WINOGRAD4 = winograd(2), winograd(4)
