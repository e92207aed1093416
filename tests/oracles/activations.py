"""Activations in plain NumPy: each returns its value, first and second derivative at x.

Written so that nothing cancels, with the logistic function s(x) as the only building block:
s'(x) = s(x) s(-x) and s''(x) = s(x) s(-x) (s(-x) - s(x)). At corners, the derivative is the
one that fnn documents. Given extended precision, whose exponents reach 4932, nothing vanishes or
overflows at any finite float64; LIMITS says what holds at the infinities.
"""

import math
from collections.abc import Callable

import numpy as np

Three = tuple[np.ndarray, np.ndarray, np.ndarray]


def _s(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def constant_slope(value: np.ndarray, slope: np.ndarray) -> Three:
    return value, slope.astype(float), np.zeros_like(value)


def unit_step(x: np.ndarray) -> Three:
    return constant_slope(np.where(x == 0, 0.5, x > 0), x * 0)


def sign(x: np.ndarray) -> Three:
    return constant_slope(np.sign(x), x * 0)


def identity(x: np.ndarray) -> Three:
    return constant_slope(x, x * 0 + 1)


def piecewise_linear(x: np.ndarray) -> Three:
    return constant_slope(np.clip(x + 0.5, 0, 1), np.abs(x) < 0.5)


def hard_tanh(x: np.ndarray) -> Three:
    return constant_slope(np.clip(x, -1, 1), np.abs(x) < 1)


def relu(x: np.ndarray) -> Three:
    return constant_slope(np.maximum(x, 0), x > 0)


def relu6(x: np.ndarray) -> Three:
    return constant_slope(np.clip(x, 0, 6), (x > 0) & (x < 6))


def hard_sigmoid(x: np.ndarray) -> Three:
    return constant_slope(np.clip(x + 3, 0, 6) / 6, (np.abs(x) < 3) / 6)


def hard_swish(x: np.ndarray) -> Three:
    inside = np.abs(x) < 3
    gate = np.clip(x + 3, 0, 6) / 6
    return x * gate, gate + inside * x / 6, inside / 3


def leaky_relu(x: np.ndarray) -> Three:
    return constant_slope(np.where(x > 0, x, 0.01 * x), np.where(x > 0, 1, 0.01))


def sigmoid(x: np.ndarray) -> Three:
    a, b = _s(x), _s(-x)
    return a, a * b, a * b * (b - a)


def tanh(x: np.ndarray) -> Three:
    slope = 4 * _s(2 * x) * _s(-2 * x)
    return np.tanh(x), slope, -2 * np.tanh(x) * slope


def softplus(x: np.ndarray) -> Three:
    value, slope, _ = sigmoid(x)
    return np.logaddexp(x, 0), value, slope


def log_sigmoid(x: np.ndarray) -> Three:
    value, slope, second = softplus(-x)
    return -value, slope, -second


def silu(x: np.ndarray) -> Three:
    f, g, h = sigmoid(x)
    return x * f, f + x * g, 2 * g + x * h


def mish(x: np.ndarray) -> Three:
    p, q, r = softplus(x)
    t, slope, second = tanh(p)
    f, g, h = t, slope * q, second * q**2 + slope * r
    return x * f, f + x * g, 2 * g + x * h


def gelu_tanh(x: np.ndarray) -> Three:
    c = np.sqrt(8 / np.longdouble(math.pi))
    s, g, h = sigmoid(c * (x + 0.044715 * x**3))
    u, v = c * (1 + 3 * 0.044715 * x**2), c * 6 * 0.044715 * x
    return x * s, s + x * g * u, 2 * g * u + x * (h * u**2 + g * v)


def gelu_exact(x: np.ndarray) -> Three:
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.longdouble(math.pi))
    z = np.maximum(np.abs(x), 4)
    ratio = z  # Laplace's continued fraction of the tail, z + 1 / (z + 2 / (z + 3 / ...))
    for k in range(200, 0, -1):
        ratio = z + k / ratio
    near = np.array([math.erfc(a * math.sqrt(0.5)) / 2 for a in np.abs(x)])
    tail = np.where(np.abs(x) < 4, near, density / ratio)
    below = np.where(x < 0, tail, 1 - tail)
    return x * below, below + x * density, (2 - x**2) * density


def softsign(x: np.ndarray) -> Three:
    size = 1 + np.abs(x)
    return x / size, size**-2, -2 * np.sign(x) * size**-3


def squareplus(x: np.ndarray) -> Three:
    root = np.hypot(x, 2)
    value = np.where(x > 0, (x + root) / 2, 2 / (root + np.abs(x)))
    return value, value / root, 2 / root**3


def _exponential(x: np.ndarray, alpha: float, width: float) -> Three:
    low = np.minimum(x, 0)
    tail = alpha / width * np.exp(low / width)
    return (
        np.where(x > 0, x, alpha * np.expm1(low / width)),
        np.where(x > 0, 1, tail),
        np.where(x > 0, 0, tail / width),
    )


def elu(x: np.ndarray) -> Three:
    return _exponential(x, 1.0, 1.0)


def celu(x: np.ndarray) -> Three:
    return _exponential(x, 2.0, 2.0)


def selu(x: np.ndarray) -> Three:
    f, g, h = _exponential(x, 1.6732632423543772848, 1.0)
    scale = 1.0507009873554804934
    return scale * f, scale * g, scale * h


ORACLES: dict[str, Callable[[np.ndarray], Three]] = {
    f.__name__: f
    for f in (
        *(unit_step, sign, identity, piecewise_linear, hard_tanh, relu, relu6, hard_sigmoid),
        *(hard_swish, leaky_relu, sigmoid, tanh, softplus, log_sigmoid, silu, mish, gelu_tanh),
        *(gelu_exact, softsign, squareplus, elu, celu, selu),
    )
}

STEP, RAMP = ((0, 0, 0), (1, 0, 0)), ((0, 0, 0), (np.inf, 1, 0))
LIMITS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # at -inf and at +inf
    **dict.fromkeys(("unit_step", "piecewise_linear", "hard_sigmoid", "sigmoid"), STEP),
    **dict.fromkeys(("sign", "hard_tanh", "tanh", "softsign"), ((-1, 0, 0), (1, 0, 0))),
    **dict.fromkeys(("relu", "hard_swish", "softplus", "squareplus"), RAMP),
    **dict.fromkeys(("silu", "mish", "gelu_tanh", "gelu_exact"), RAMP),
    "relu6": ((0, 0, 0), (6, 0, 0)),
    "identity": ((-np.inf, 1, 0), (np.inf, 1, 0)),
    "leaky_relu": ((-np.inf, 0.01, 0), (np.inf, 1, 0)),
    "log_sigmoid": ((-np.inf, 1, 0), (0, 0, 0)),
    "elu": ((-1, 0, 0), (np.inf, 1, 0)),
    "celu": ((-2, 0, 0), (np.inf, 1, 0)),
    "selu": ((-1.7580993408473766, 0, 0), (np.inf, 1.0507009873554805, 0)),
}


def log_softmax(x: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Along the last axis, row by row; -inf for what is absent; +inf outweighs what is not."""
    x = np.asarray(x, float)
    keep = (x != -np.inf) & np.broadcast_to(True if where is None else where, x.shape)
    highest = np.max(x, -1, keepdims=True, where=keep, initial=-np.inf)
    keep, x = keep & ((highest < np.inf) | (x == np.inf)), np.where(x == np.inf, 0, x)
    out = np.full(x.shape, -np.inf)
    for place in np.ndindex(x.shape[:-1]):
        row, here = x[place], keep[place]
        if here.any():
            top = row[here].max()
            with np.errstate(over="ignore"):
                below = row[here] - top
            out[place][here] = below - np.log(np.exp(below).sum())
    return out
