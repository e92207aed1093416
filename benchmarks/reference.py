"""What the contestants' outputs are compared with: convolution and pooling in float64 NumPy.

Written over the taps of the window, independent of fnn: ``y[o] = sum_k x[o s + k d - lo] w[k]``;
the gradients are the same sum read the other way.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Pads = Sequence[tuple[int, int]]


def taps(
    out: Sequence[int], window: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Every tap of a window with the slices of the padded input that it meets."""
    for tap in itertools.product(*map(range, window)):
        yield (
            tap,
            tuple(
                slice(k * d, k * d + (o - 1) * s + 1, s)
                for k, d, o, s in zip(tap, dilation, out, stride, strict=True)
            ),
        )


def pad(x: np.ndarray, pads: Pads, value: float = 0.0) -> np.ndarray:
    return np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


def unpad(x: np.ndarray, pads: Pads) -> np.ndarray:
    inner = tuple(slice(lo, x.shape[a + 1] - hi) for a, (lo, hi) in enumerate(pads))
    return x[(slice(None), *inner)]


def grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """Split the channels of ``(..., channels)`` off in front: ``(groups, positions, channels)``."""
    return np.ascontiguousarray(np.moveaxis(x.reshape(-1, groups, x.shape[-1] // groups), 1, 0))


def joined(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.moveaxis(x, 0, 1).reshape(shape)


def convolution(
    x: Any, w: Any, g: Any, stride: Sequence[int], pads: Pads, dilation: Sequence[int], groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the convolution of x with w, and the gradients of ``<y, g>`` to x and to w."""
    x, w, g = (np.asarray(a, np.float64) for a in (x, w, g))
    wide, out = pad(x, pads), g.shape[1:-1]
    y, dwide, dw = 0.0, np.zeros_like(wide), np.zeros_like(w)
    g_groups = grouped(g, groups)
    for tap, where in taps(out, w.shape[:-2], stride, dilation):
        view = (slice(None), *where)
        part = wide[view]
        x_groups, w_groups = grouped(part, groups), grouped(w[tap], groups)
        y = y + x_groups @ w_groups
        dwide[view] += joined(g_groups @ np.swapaxes(w_groups, 1, 2), part.shape)
        dw[tap] = joined(np.swapaxes(x_groups, 1, 2) @ g_groups, w[tap].shape)
    return joined(y, g.shape), unpad(dwide, pads), dw


def pooling(
    kind: str, x: Any, g: Any, window: Sequence[int], stride: Sequence[int], pads: Pads
) -> tuple[np.ndarray, np.ndarray]:
    """Return the "max" or "avg" pooling of x and the gradient of ``<y, g>``, whole to the first."""
    x, g = np.asarray(x), np.asarray(g, np.float64)
    ones = (1,) * len(window)
    wide = pad(x, pads, -np.inf if kind == "max" else 0.0)
    dwide = np.zeros(wide.shape)
    steps = [(slice(None), *where) for _, where in taps(g.shape[1:-1], window, stride, ones)]
    if kind == "avg":
        y = sum(wide[view].astype(np.float64) for view in steps) / len(steps)
        for view in steps:
            dwide[view] += g / len(steps)
        return np.asarray(y), unpad(dwide, pads)
    y = wide[steps[0]].copy()
    for view in steps[1:]:
        np.maximum(y, wide[view], out=y)
    free = np.ones(y.shape, bool)
    for view in steps:
        first = free & (wide[view] == y)
        dwide[view] += np.where(first, g, 0.0)
        free &= ~first
    return y, unpad(dwide, pads)


def adam(
    params: Any, grads: Any, steps: int, rate: float, b1: float = 0.9, b2: float = 0.999
) -> np.ndarray:
    """Return params after this many Adam steps along the same gradient."""
    p, g = np.asarray(params, np.float64), np.asarray(grads, np.float64)
    m = v = np.zeros_like(p)
    for t in range(1, steps + 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = p - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
    return p
