"""Recurrence in float64 NumPy: one example and one step after the other, as the formulas read."""

from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[np.ndarray, tuple[np.ndarray, ...]], tuple[np.ndarray, ...]]


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def over_time(
    step: Step, x: np.ndarray, state: tuple[np.ndarray, ...], lengths: Any, reverse: bool
) -> tuple[np.ndarray, ...]:
    """Outputs (n, time, units), then every part of the last state (n, units)."""
    n, time, _ = x.shape
    y = np.zeros((n, time, state[0].shape[1]))
    last = [np.array(s, np.float64) for s in state]
    for i in range(n):
        steps = range(time if lengths is None else int(lengths[i]))
        now = tuple(s[i] for s in last)
        for t in reversed(steps) if reverse else steps:
            now = step(x[i, t], now)
            y[i, t] = now[0]
        for part, value in zip(last, now, strict=True):
            part[i] = value
    return y, *last


def zeros(x: np.ndarray, wh: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    return (np.zeros((x.shape[0], wh.shape[0])),) * count


def rnn(
    x: Any,
    wx: Any,
    wh: Any,
    b: Any = 0.0,
    *,
    state: Any = None,
    lengths: Any = None,
    reverse: bool = False,
    activation: Callable[[Any], Any] = np.tanh,
) -> tuple[np.ndarray, ...]:
    def step(x: np.ndarray, state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return (activation(x @ wx + state[0] @ wh + b),)

    first = zeros(x, wh, 1) if state is None else (state,)
    return over_time(step, x, first, lengths, reverse)


def lstm(
    x: Any,
    wx: Any,
    wh: Any,
    b: Any = 0.0,
    peephole: Any = (0.0, 0.0, 0.0),
    *,
    state: Any = None,
    lengths: Any = None,
    reverse: bool = False,
) -> tuple[np.ndarray, ...]:
    def step(x: np.ndarray, state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        h, c = state
        i, f, g, o = np.split(x @ wx + h @ wh + b, 4)
        new = sigmoid(f + peephole[1] * c) * c + sigmoid(i + peephole[0] * c) * np.tanh(g)
        return sigmoid(o + peephole[2] * new) * np.tanh(new), new

    first = zeros(x, wh, 2) if state is None else state
    return over_time(step, x, first, lengths, reverse)


def gru(
    x: Any,
    wx: Any,
    wh: Any,
    b: Any = 0.0,
    bh: Any = 0.0,
    *,
    state: Any = None,
    lengths: Any = None,
    reverse: bool = False,
    reset: str = "after",
) -> tuple[np.ndarray, ...]:
    def step(x: np.ndarray, state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        (h,) = state
        xr, xz, xn = np.split(x @ wx + b, 3)
        wr, wz, wn = np.split(wh, 3, axis=1)
        r, z = sigmoid(xr + h @ wr), sigmoid(xz + h @ wz)
        candidate = r * (h @ wn + bh) if reset == "after" else (r * h) @ wn + bh
        n = np.tanh(xn + candidate)
        return ((1 - z) * n + z * h,)

    first = zeros(x, wh, 1) if state is None else (state,)
    return over_time(step, x, first, lengths, reverse)


def linear(x: Any, a: Any, state: Any = None, *, reverse: bool = False) -> np.ndarray:
    """``h_t = a_t h_{t-1} + x_t``."""
    a = np.broadcast_to(a, x.shape)
    h = np.zeros_like(x[:, 0]) if state is None else state
    y = np.zeros_like(x)
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        h = a[:, t] * h + x[:, t]
        y[:, t] = h
    return y
