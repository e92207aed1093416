"""Learning-rate schedules: functions from the number of steps taken to a rate.

``schedule(0)`` is the rate of the first step, and of a step below 0, at which
`optax.join_schedules` asks a schedule whose turn has not come. A schedule takes an int of any size,
a float, or an array of either, under `jax.jit` too, and returns a scalar array; it stands wherever
an optimizer takes a learning rate. Rates, and every other ``float`` argument, may be traced.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fnn.checks import (
    NOT_NEGATIVE,
    Range,
    check_flags,
    check_int,
    check_number,
    check_takes,
    describe,
    wrong,
)
from fnn.dtypes import Number, is_real
from fnn.optimizers.base import Schedule, in_dtype, read_numbers


def constant(rate: Number) -> Schedule:
    """Return the schedule ``rate``.

    Args:
        rate: of every step.

    Raises:
        ValueError, TypeError: rate is NaN, or no number.

    >>> float(fnn.schedules.constant(0.5)(100))
    0.5
    """
    return _of_float("constant", lambda step, rate: rate, rate=rate)


def power(rate: Number, exponent: Number) -> Schedule:
    """Return ``rate t^exponent`` with ``t = step + 1``; exponents -1 and -1/2 are the classics.

    Args:
        rate: of the first step.
        exponent: below 0 for a rate that falls.

    Raises:
        ValueError, TypeError: an argument is NaN, or no number.

    Source: H. Robbins, S. Monro, A stochastic approximation method (1951).

    >>> float(fnn.schedules.power(1.0, -0.5)(3))
    0.5
    """

    def formula(step: Any, rate: Any, exponent: Any) -> Any:
        return rate * (step + 1) ** exponent

    return _of_float("power", formula, rate=rate, exponent=exponent)


def exponential(
    rate: Number, base: Number, *, steps: int = 1, staircase: bool = False, floor: Number = 0.0
) -> Schedule:
    """Return ``max(rate base^(step / steps), floor)``; ``staircase`` rounds the exponent down.

    Args:
        rate: of the first step.
        base: the factor of ``steps`` steps, finite and not negative.
        steps: in which the rate changes by the base, at least 1.
        staircase: whether it changes at once, at their end.
        floor: the rate below which it does not fall.

    Raises:
        ValueError: a base or steps out of this range.
        TypeError: an argument that is no number; a staircase that is no bool.

    >>> schedule = fnn.schedules.exponential(1.0, 0.5, floor=0.2)
    >>> [round(float(schedule(step)), 2) for step in (0, 1, 2, 3)]
    [1.0, 0.5, 0.25, 0.2]
    """
    check_flags("schedules.exponential", staircase=staircase)
    check_int("schedules.exponential", "steps", steps, 1)
    check_number("schedules.exponential", "base", base, Range(0, high_closed=False))

    def formula(step: Any, rate: Any, base: Any, floor: Any) -> Any:
        length = float(steps)  # `//` is exact, where a compiled `/` may fall short of the stair
        exponent = step // length if staircase else step / length
        value = rate * base**exponent
        if not isinstance(base, jax.Array) and (near := float(np.asarray(base, exponent.dtype))):
            # What rounding takes from the base: of a million steps by 0.99999 it is 1.4 %.
            # Bounded within float32: the power may be 0 or infinite, and 0 times infinity is NaN.
            value *= jnp.exp(jnp.clip(exponent * math.log1p((base - near) / near), -87.0, 87.0))
        return jnp.maximum(value, floor)

    return _of_float("exponential", formula, rate=rate, base=base, floor=floor)


def linear(start: Number, end: Number, steps: int) -> Schedule:
    """Return the line from ``start`` at step 0 to ``end`` at ``steps``, and ``end`` afterwards.

    ``linear(0.0, rate, steps)`` is the linear warm-up.

    Args:
        start: the rate of the first step.
        end: the rate from ``steps`` on.
        steps: length of the line, at least 1.

    Raises:
        ValueError: steps < 1.
        TypeError: a rate that is no number.

    >>> [float(fnn.schedules.linear(0.0, 1.0, 4)(step)) for step in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    check_int("schedules.linear", "steps", steps, 1)

    def formula(step: Any, start: Any, end: Any) -> Any:
        part = jnp.minimum(step / float(steps), 1.0)
        return start * (1 - part) + end * part  # which is end at the end, however small

    return _of_float("linear", formula, start=start, end=end)


def cosine(rate: Number, steps: int, *, end: Number = 0.0, exponent: Number = 1.0) -> Schedule:
    """Return half a cosine wave from ``rate`` at step 0 to ``end`` at ``steps`` and afterwards.

    ``end + (rate - end) ((1 + cos(pi step / steps)) / 2)^exponent``.

    Args:
        rate: of the first step.
        steps: length of the wave, at least 1.
        end: the rate from ``steps`` on.
        exponent: at least 0; above 1 the rate falls sooner.

    Raises:
        ValueError: steps < 1, exponent < 0.
        TypeError: a rate or an exponent that is no number.

    Source: I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts (2017).

    >>> [round(float(fnn.schedules.cosine(1.0, 4)(step)), 3) for step in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """
    check_int("schedules.cosine", "steps", steps, 1)
    check_number("schedules.cosine", "exponent", exponent, NOT_NEGATIVE)

    def formula(step: Any, rate: Any, end: Any, exponent: Any) -> Any:
        return _wave(rate, end, step / float(steps), exponent)

    return _of_float("cosine", formula, rate=rate, end=end, exponent=exponent)


def warmup_cosine(
    rate: Number,
    steps: int,
    *,
    warmup: int,
    start: Number = 0.0,
    end: Number = 0.0,
    exponent: Number = 1.0,
) -> Schedule:
    """Return a line from ``start`` to ``rate`` over ``warmup`` steps, then a cosine to ``end``.

    Args:
        rate: the peak, reached at step ``warmup``.
        steps: where the cosine ends, the warm-up included.
        warmup: steps of the line, fewer than ``steps``.
        start: the rate of step 0; ``rate / warmup`` is a sensible choice, as a rate of 0 wastes the
            first step.
        end: the rate from ``steps`` on.
        exponent: of the wave, as in `cosine`.

    Raises:
        ValueError: warmup < 1, steps <= warmup, exponent < 0.
        TypeError: a rate or an exponent that is no number.

    >>> schedule = fnn.schedules.warmup_cosine(1.0, 6, warmup=2)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 2, 4, 6)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check_int("schedules.warmup_cosine", "warmup", warmup, 1)
    check_int("schedules.warmup_cosine", "steps", steps, warmup + 1)
    check_number("schedules.warmup_cosine", "exponent", exponent, NOT_NEGATIVE)

    def formula(step: Any, rate: Any, start: Any, end: Any, exponent: Any) -> Any:
        line = start + (rate - start) * step / float(warmup)
        wave = _wave(rate, end, (step - float(warmup)) / float(steps - warmup), exponent)
        return jnp.where(step < float(warmup), line, wave)

    numbers = {"rate": rate, "start": start, "end": end, "exponent": exponent}
    return _of_float("warmup_cosine", formula, **numbers)


def piecewise(rate: Number, factors: Mapping[int, Number]) -> Schedule:
    """Return ``rate`` times all factors whose step has been reached.

    Args:
        rate: the rate until the first factor.
        factors: step to factor, such as ``{3000: 0.1, 6000: 0.1}``; from that step on it counts.

    Raises:
        ValueError: a step that is no int >= 0.
        TypeError: factors that are no dict of numbers; a rate that is no number.

    >>> schedule = fnn.schedules.piecewise(1.0, {2: 0.5, 4: 0.1})
    >>> [round(float(schedule(step)), 3) for step in (1, 2, 4)]
    [1.0, 0.5, 0.05]
    """
    if not isinstance(factors, Mapping):
        needed = "a dict of factors, by step"
        raise wrong("schedules.piecewise", "factors", describe(factors), needed, TypeError)
    for step, factor in factors.items():
        check_int("schedules.piecewise", "factors", step, 0)
        check_number("schedules.piecewise", f"factors[{step}]", factor)

    def formula(step: Any, rate: Any, **factors: Any) -> Any:
        value = jnp.full_like(step, rate)
        for start, factor in factors.items():
            value = value * jnp.where(step >= float(start), factor, 1.0).astype(value.dtype)
        return value

    named = {str(step): factor for step, factor in factors.items()}
    return _of_float("piecewise", formula, rate=rate, **named)


def one_cycle(
    rate: Number,
    steps: int,
    *,
    rise: Number = 0.3,
    div_factor: Number = 25.0,
    final_div_factor: Number = 1e4,
) -> Schedule:
    """Return half a cosine from ``rate / div_factor`` up to ``rate``, then one down.

    The last rate is ``rate / div_factor / final_div_factor``. Both factors are those of PyTorch's
    ``OneCycleLR`` and of ``optax.cosine_onecycle_schedule``, which this schedule equals, except
    where ``rise * steps`` is rounded to just below a whole number: 0.29 of 100 is 29 here, 28
    there. PyTorch's has its peak and its last rate one step earlier.

    Args:
        rate: the peak.
        steps: length of the cycle.
        rise: the part of the steps before the peak, in (0, 1); the peak is a whole step, rounded
            down.
        div_factor: the peak over the first rate, at least 1.
        final_div_factor: the first rate over the last, at least 1.

    Raises:
        ValueError: steps < 2, a factor below 1, a peak at the first or the last step.
        TypeError: an argument that is no number.

    Source: L. Smith, N. Topin, Super-convergence (2018).

    >>> [round(float(fnn.schedules.one_cycle(1.0, 10)(step)), 3) for step in (0, 3, 10)]
    [0.04, 1.0, 0.0]
    """
    check_int("schedules.one_cycle", "steps", steps, 2)
    part = Range(0, 1, low_closed=False, high_closed=False)
    check_number("schedules.one_cycle", "rise", rise, part)
    check_number("schedules.one_cycle", "div_factor", div_factor, Range(1))
    check_number("schedules.one_cycle", "final_div_factor", final_div_factor, Range(1))
    length = steps * (1 + 2**-22)  # so that 0.29 * 100, which is below 29, makes 29 in any dtype
    if isinstance(rise, jax.core.Tracer):
        peak: Any = jnp.clip(jnp.floor(rise * length), 1.0, float(steps - 1))
    else:
        peak = math.floor(float(rise) * length)
        if not 0 < peak < steps:
            raise wrong("schedules.one_cycle", "rise", rise, f"a peak within the {steps} steps")

    def formula(step: Any, rate: Any, peak: Any, div_factor: Any, final_div_factor: Any) -> Any:
        first = rate / div_factor
        up = _wave(first, rate, step / peak)
        down = _wave(rate, first / final_div_factor, (step - peak) / (float(steps) - peak))
        return jnp.where(step < peak, up, down)

    numbers = {"rate": rate, "peak": peak, "div_factor": div_factor}
    return _of_float("one_cycle", formula, **numbers, final_div_factor=final_div_factor)


def delay(schedule: Schedule, steps: int) -> Schedule:
    """Return the schedule begun ``steps`` later; until then, its first rate.

    Args:
        schedule: any function of the number of steps taken, fnn's, optax's or your own.
        steps: how long to wait.

    Raises:
        ValueError: steps < 0.
        TypeError: a schedule that is no function.

    >>> schedule = fnn.schedules.delay(fnn.schedules.linear(1.0, 0.0, 4), 10)
    >>> [float(schedule(step)) for step in (0, 10, 12, 14)]
    [1.0, 1.0, 0.5, 0.0]
    """
    check_int("schedules.delay", "steps", steps, 0)
    check_takes("schedules.delay", "schedule", schedule, "step")

    def delayed(step: Any) -> Any:
        if isinstance(step, int | np.integer):
            return schedule(max(int(step) - steps, 0))
        step = _count("delay", step)
        whole = jnp.issubdtype(step.dtype, jnp.integer)
        first = min(steps, jnp.iinfo(step.dtype).max) if whole else float(steps)
        return schedule(jnp.where(step < first, 0, step - first))

    return delayed


def _of_float(name: str, formula: Callable[..., Any], **numbers: Any) -> Schedule:
    """Make a schedule of a formula in a floating-point step number and other numbers."""
    numbers = read_numbers(f"schedules.{name}", **numbers)

    def schedule(step: Any) -> Float[Array, ""]:
        if isinstance(step, int | np.integer):  # of any size: float32 holds 1e10, int32 does not
            step = float(step)
        known = in_dtype(jnp.result_type(float), numbers)
        count = _count(name, step).astype(float)
        # What a formula makes of a step below 0 may be infinite, and its derivative then NaN.
        return jnp.asarray(formula(jnp.where(count < 0, 0, count), **known), float)

    return schedule


def _count(name: str, step: Any) -> Array:
    """Return the number of steps taken as an array, or raise where it is none."""
    with suppress(TypeError, ValueError):
        count = jnp.asarray(step)
        if is_real(count.dtype):
            return count
    needed = "the number of steps taken"
    raise wrong(f"schedules.{name}", "step", describe(step), needed, TypeError)


def _wave(start: Any, end: Any, part: Any, exponent: Any = 1.0) -> Any:
    """Half a cosine from ``start`` at part 0 to ``end`` at part 1."""
    near = ((1 + jnp.cos(math.pi * jnp.clip(part, 0.0, 1.0))) / 2) ** exponent
    return start * near + end * (1 - near)
