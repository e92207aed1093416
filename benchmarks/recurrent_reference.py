"""What recurrent contestants are compared with: LSTM and GRU and their gradients in float64 NumPy.

Back-propagation through time as the textbooks have it, step by step, independent of fnn.
"""

from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, ...]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def gradient(kind: str, x: Any, wx: Any, wh: Any, b: Any, g: Any) -> Arrays:
    """Return the outputs y, and the gradients of ``<y, g>`` to x, wx, wh and b."""
    x, wx, wh, b, g = (np.asarray(a, np.float64) for a in (x, wx, wh, b, g))
    return {"lstm": lstm, "gru": gru}[kind](x, wx, wh, b, g)


def lstm(x: np.ndarray, wx: np.ndarray, wh: np.ndarray, b: np.ndarray, g: np.ndarray) -> Arrays:
    n, time, _ = x.shape
    h = c = np.zeros((n, wh.shape[0]))
    kept, y = [], np.empty_like(g)
    for t in range(time):
        i, f, m, o = np.split(x[:, t] @ wx + h @ wh + b, 4, axis=1)
        i, f, m, o = sigmoid(i), sigmoid(f), np.tanh(m), sigmoid(o)
        new = f * c + i * m
        kept.append((h, c, i, f, m, o, np.tanh(new)))
        h, c = o * np.tanh(new), new
        y[:, t] = h
    dx, dwx, dwh, db = (np.zeros_like(a) for a in (x, wx, wh, b))
    dh = dc = np.zeros_like(h)
    for t in reversed(range(time)):
        before, c, i, f, m, o, tanh = kept[t]
        dh = dh + g[:, t]
        dc = dc + dh * o * (1 - tanh**2)
        parts = (
            dc * m * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - m**2),
            dh * tanh * o * (1 - o),
        )
        dz = np.concatenate(parts, 1)
        dx[:, t] = dz @ wx.T
        dwx, dwh, db = dwx + x[:, t].T @ dz, dwh + before.T @ dz, db + dz.sum(0)
        dh, dc = dz @ wh.T, dc * f
    return y, dx, dwx, dwh, db


def gru(x: np.ndarray, wx: np.ndarray, wh: np.ndarray, b: np.ndarray, g: np.ndarray) -> Arrays:
    n, time, _ = x.shape
    h = np.zeros((n, wh.shape[0]))
    kept, y = [], np.empty_like(g)
    for t in range(time):
        xr, xz, xn = np.split(x[:, t] @ wx + b, 3, axis=1)
        hr, hz, hn = np.split(h @ wh, 3, axis=1)
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        m = np.tanh(xn + r * hn)
        kept.append((h, r, z, m, hn))
        h = (1 - z) * m + z * h
        y[:, t] = h
    dx, dwx, dwh, db = (np.zeros_like(a) for a in (x, wx, wh, b))
    dh = np.zeros_like(h)
    for t in reversed(range(time)):
        before, r, z, m, hn = kept[t]
        dh = dh + g[:, t]
        dn = dh * (1 - z) * (1 - m**2)
        dr, dz = dn * hn * r * (1 - r), dh * (before - m) * z * (1 - z)
        to_x, to_h = np.concatenate([dr, dz, dn], 1), np.concatenate([dr, dz, dn * r], 1)
        dx[:, t] = to_x @ wx.T
        dwx, dwh, db = dwx + x[:, t].T @ to_x, dwh + before.T @ to_h, db + to_x.sum(0)
        dh = dh * z + to_h @ wh.T
    return y, dx, dwx, dwh, db
