"""Learning-rate schedules: functions from the number of steps taken to a rate.

``schedule(0)`` is the rate of the first step. A schedule takes an int or an integer array and
returns a scalar array, under `jax.jit` too, and stands wherever an optimizer takes a learning rate.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.checks import check_int, wrong
from fnn.optimizers.base import Schedule


def _of_float(formula: Callable[[Any], Any]) -> Schedule:
    """Make a schedule of a formula in a floating-point step number."""

    def schedule(step: Any) -> Float[Array, ""]:
        return jnp.asarray(formula(jnp.asarray(step).astype(float)), float)

    return schedule


def constant(rate: float) -> Schedule:
    """Return the schedule ``rate``.

    >>> float(constant(0.5)(100))
    0.5
    """
    return _of_float(lambda step: rate)


def power(rate: float, exponent: float) -> Schedule:
    """Return ``rate t^exponent`` with ``t = step + 1``; exponents -1 and -1/2 are the classics.

    Source: H. Robbins, S. Monro, A stochastic approximation method (1951).

    >>> float(power(1.0, -0.5)(3))
    0.5
    """
    return _of_float(lambda step: rate * (step + 1) ** exponent)


def exponential(rate: float, base: float, *, steps: int = 1, staircase: bool = False) -> Schedule:
    """Return ``rate base^(step / steps)``; ``staircase`` rounds the exponent down.

    >>> float(exponential(1.0, 0.5)(2)), float(exponential(1.0, 0.5, steps=4, staircase=True)(7))
    (0.25, 0.5)
    """
    check_int("schedules.exponential", "steps", steps, 1)

    def formula(step: Any) -> Any:
        exponent = step / steps
        return rate * base ** (jnp.floor(exponent) if staircase else exponent)

    return _of_float(formula)


def linear(start: float, end: float, steps: int) -> Schedule:
    """Return the line from ``start`` at step 0 to ``end`` at ``steps``, and ``end`` afterwards.

    ``linear(0.0, rate, steps)`` is the linear warm-up.

    >>> [float(linear(0.0, 1.0, 4)(step)) for step in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    check_int("schedules.linear", "steps", steps, 1)
    return _of_float(lambda step: start + (end - start) * jnp.minimum(step / steps, 1.0))


def _wave(start: float, end: float, part: Any) -> Any:
    """Half a cosine from ``start`` at part 0 to ``end`` at part 1."""
    near = (1 + jnp.cos(math.pi * jnp.clip(part, 0.0, 1.0))) / 2
    return start * near + end * (1 - near)


def cosine(rate: float, steps: int, *, end: float = 0.0) -> Schedule:
    """Return half a cosine wave from ``rate`` at step 0 to ``end`` at ``steps`` and afterwards.

    ``end + (rate - end) (1 + cos(pi step / steps)) / 2``.

    Source: I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts (2017).

    >>> [round(float(cosine(1.0, 4)(step)), 3) for step in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """
    check_int("schedules.cosine", "steps", steps, 1)
    return _of_float(lambda step: _wave(rate, end, step / steps))


def warmup_cosine(
    rate: float, steps: int, *, warmup: int, start: float = 0.0, end: float = 0.0
) -> Schedule:
    """Return a line from ``start`` to ``rate`` over ``warmup`` steps, then a cosine to ``end``.

    Args:
        rate: the peak, reached at step ``warmup``.
        steps: where the cosine ends, the warm-up included.
        warmup: steps of the line, fewer than ``steps``.
        start: the rate of step 0; as the first step is lost with 0, ``rate / warmup`` is an idea.
        end: the rate from ``steps`` on.

    >>> schedule = warmup_cosine(1.0, 6, warmup=2)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 2, 4, 6)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check_int("schedules.warmup_cosine", "warmup", warmup, 1)
    check_int("schedules.warmup_cosine", "steps", steps, warmup + 1)

    def formula(step: Any) -> Any:
        line = start + (rate - start) * step / warmup
        return jnp.where(step < warmup, line, _wave(rate, end, (step - warmup) / (steps - warmup)))

    return _of_float(formula)


def piecewise(rate: float, factors: Mapping[int, float]) -> Schedule:
    """Return ``rate`` times all factors whose step has been reached.

    Args:
        rate: the rate until the first factor.
        factors: step to factor, such as ``{3000: 0.1, 6000: 0.1}``; from that step on it counts.

    >>> [round(float(piecewise(1.0, {2: 0.5, 4: 0.1})(step)), 3) for step in (1, 2, 4)]
    [1.0, 0.5, 0.05]
    """
    for step in factors:
        check_int("schedules.piecewise", "factors", step, 0)

    def formula(step: Any) -> Any:
        value = jnp.full_like(step, rate)
        for start, factor in factors.items():
            value = value * jnp.where(step >= start, factor, 1.0).astype(value.dtype)
        return value

    return _of_float(formula)


def one_cycle(
    rate: float, steps: int, *, rise: float = 0.3, start: float = 25.0, end: float = 1e4
) -> Schedule:
    """Return half a cosine up from ``rate / start`` to ``rate``, then one down.

    Args:
        rate: the peak.
        steps: length of the cycle.
        rise: the part of the steps before the peak, in (0, 1).
        start: the peak over the first rate.
        end: the first rate over the last.

    Source: L. Smith, N. Topin, Super-convergence (2018).

    >>> [round(float(one_cycle(1.0, 10)(step)), 3) for step in (0, 3, 10)]
    [0.04, 1.0, 0.0]
    """
    check_int("schedules.one_cycle", "steps", steps, 1)
    peak = int(rise * steps)
    if not 0 < peak < steps:
        raise wrong("schedules.one_cycle", "rise", rise, f"a peak within the {steps} steps")
    first, last = rate / start, rate / start / end

    def formula(step: Any) -> jax.Array:
        up, down = step / peak, (step - peak) / (steps - peak)
        return jnp.where(step < peak, _wave(first, rate, up), _wave(rate, last, down))

    return _of_float(formula)
