"""The texts' optimizers as they print them: plain float64 NumPy loops, one iterate per row.

Each takes the starting point, the gradient as a function, and the number of steps, and returns the
steps + 1 points. `gradient` is that of the reference systems: Rosenbrock's function on the first
two numbers, 0.1 x^2 + 2 y^2 on the next, x^2 + 2 y^2 on the last.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Gradient = Callable[[Any], Any]

START = np.array([-1.2, 1.0, -5.0, -2.0, -5.0, -2.0])


def gradient(p: Any) -> list[Any]:
    """Gradient of the reference systems at p, six numbers, from NumPy, JAX or PyTorch."""
    a, b, c, d, e, f = p
    return [
        -2 * (1 - a) - 400 * a * (b - a**2),
        200 * (b - a**2),
        0.2 * c,
        4 * d,
        2 * e,
        4 * f,
    ]


def points(x: Any, steps: int, step: Callable[[int, Any], Any]) -> Any:
    rows = [np.array(x, np.float64)]
    for t in range(1, steps + 1):
        rows.append(step(t, rows[-1].copy()))
    return np.stack(rows)


def descent(x: Any, g: Gradient, steps: int, eta: float) -> Any:
    """E1."""
    return points(x, steps, lambda t, x: x - eta * np.array(g(x)))


def decayed(x: Any, g: Gradient, steps: int, rate: Callable[[int], float]) -> Any:
    """E3: the step size is a function of t = 1, 2, ..."""
    return points(x, steps, lambda t, x: x - rate(t) * np.array(g(x)))


def ball(x: Any, g: Gradient, steps: int, friction: float, e: float) -> Any:
    """A2: dv/dt = -f v - grad, dx/dt = v by semi-implicit Euler with step e."""
    v = np.zeros_like(x)

    def step(t: int, x: Any) -> Any:
        nonlocal v
        v = v + e * (-friction * v - np.array(g(x)))
        return x + e * v

    return points(x, steps, step)


def velocity(x: Any, g: Gradient, steps: int, mu: float, rate: Callable[[int], float]) -> Any:
    """B9, E4: p <- mu p - a grad, theta <- theta + p; the rate inside the velocity."""
    p = np.zeros_like(x)

    def step(t: int, x: Any) -> Any:
        nonlocal p
        p = mu * p - rate(t) * np.array(g(x))
        return x + p

    return points(x, steps, step)


def nesterov(x: Any, g: Gradient, steps: int, mu: float, rate: Callable[[int], float]) -> Any:
    """Sutskever's form: v <- mu v - a grad(theta + mu v), theta <- theta + v; the points are those
    where it takes the gradient, theta + mu v."""
    v, theta = np.zeros_like(x), np.array(x, np.float64)

    def step(t: int, x: Any) -> Any:
        nonlocal v, theta
        v = mu * v - rate(t) * np.array(g(theta + mu * v))
        theta = theta + v
        return theta + mu * v

    return points(x, steps, step)


def adagrad(x: Any, g: Gradient, steps: int, eta: float, eps: float) -> Any:
    """E5."""
    s = np.zeros_like(x)

    def step(t: int, x: Any) -> Any:
        nonlocal s
        grad = np.array(g(x))
        s = s + grad**2
        return x - eta / (np.sqrt(s) + eps) * grad

    return points(x, steps, step)


def rmsprop(x: Any, g: Gradient, steps: int, eta: float, gamma: float, eps: float) -> Any:
    """E6."""
    s = np.zeros_like(x)

    def step(t: int, x: Any) -> Any:
        nonlocal s
        grad = np.array(g(x))
        s = gamma * s + (1 - gamma) * grad**2
        return x - eta / np.sqrt(s + eps) * grad

    return points(x, steps, step)


def adadelta(x: Any, g: Gradient, steps: int, rho: float, eps: float) -> Any:
    """E7."""
    s, dx = np.zeros_like(x), np.zeros_like(x)

    def step(t: int, x: Any) -> Any:
        nonlocal s, dx
        grad = np.array(g(x))
        s = rho * s + (1 - rho) * grad**2
        scaled = np.sqrt((dx + eps) / (s + eps)) * grad
        dx = rho * dx + (1 - rho) * scaled**2
        return x - scaled

    return points(x, steps, step)


def adam(x: Any, g: Gradient, steps: int, eta: float, b1: float, b2: float, eps: float) -> Any:
    """B10, E8."""
    v, s = np.zeros_like(x), np.zeros_like(x)

    def step(t: int, x: Any) -> Any:
        nonlocal v, s
        grad = np.array(g(x))
        v = b1 * v + (1 - b1) * grad
        s = b2 * s + (1 - b2) * grad**2
        return x - eta * (v / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + eps)

    return points(x, steps, step)
