"""The matrices of minimal filtering, computed in exact fractions."""

import functools
from fractions import Fraction

import numpy as np

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
