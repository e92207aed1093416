"""Linear layers as sums over indices, in float64 NumPy."""

from typing import Any

import numpy as np


def dense(x: Any, w: Any, b: Any = None) -> Any:
    """``y[..., j] = b[j] + sum_i x[..., i] w[i, j]``."""
    y = np.zeros((*x.shape[:-1], w.shape[1]))
    for j in range(w.shape[1]):
        for i in range(w.shape[0]):
            y[..., j] += x[..., i] * w[i, j]
        if b is not None:
            y[..., j] += b[j]
    return y


def embed(ids: Any, table: Any) -> Any:
    """``y[..., :] = table[ids[...], :]``, NaN where there is no such row."""
    y = np.full((*ids.shape, table.shape[1]), np.nan)
    for place in np.ndindex(ids.shape):
        if 0 <= ids[place] < len(table):
            y[place] = table[ids[place]]
    return y
