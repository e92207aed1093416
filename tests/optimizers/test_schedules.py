"""Schedules: optax's, the texts' formulas, and their first step."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn.optimizers import schedules as s

STEPS = np.arange(60, dtype=np.int32)
CASES: dict[str, tuple[Any, Any]] = {
    "constant": (s.constant(0.3), optax.constant_schedule(0.3)),
    "power": (s.power(0.3, -0.5), lambda t: 0.3 * (t + 1.0) ** -0.5),
    "exponential": (s.exponential(0.3, 0.9), optax.exponential_decay(0.3, 1, 0.9)),
    "staircase": (
        s.exponential(0.3, 0.5, steps=7, staircase=True),
        optax.exponential_decay(0.3, 7, 0.5, staircase=True),
    ),
    "exponential, floor": (
        s.exponential(0.3, 0.9, floor=0.05),
        optax.exponential_decay(0.3, 1, 0.9, end_value=0.05),
    ),
    "linear": (s.linear(0.1, 0.7, 40), optax.linear_schedule(0.1, 0.7, 40)),
    "cosine": (s.cosine(0.3, 40, end=0.03), optax.cosine_decay_schedule(0.3, 40, 0.1)),
    "cosine, exponent": (
        s.cosine(0.3, 40, end=0.03, exponent=1.5),
        optax.cosine_decay_schedule(0.3, 40, 0.1, 1.5),
    ),
    "delay": (
        s.delay(s.exponential(0.3, 0.9, steps=3), 7),
        optax.exponential_decay(0.3, 3, 0.9, transition_begin=7),
    ),
    "warmup_cosine, exponent": (
        s.warmup_cosine(0.5, 45, warmup=9, start=0.1, end=0.05, exponent=2.0),
        optax.warmup_cosine_decay_schedule(0.1, 0.5, 9, 45, 0.05, 2.0),
    ),
    "warmup_cosine": (
        s.warmup_cosine(0.5, 45, warmup=9, start=0.1, end=0.05),
        optax.warmup_cosine_decay_schedule(0.1, 0.5, 9, 45, 0.05),
    ),
    "piecewise": (
        s.piecewise(0.3, {30: 0.1, 10: 0.5}),
        optax.piecewise_constant_schedule(0.3, {10: 0.5, 30: 0.1}),
    ),
    "one_cycle": (s.one_cycle(0.3, 50), optax.cosine_onecycle_schedule(50, 0.3)),
    "one_cycle, numbers": (
        s.one_cycle(0.3, 50, rise=0.4, div_factor=10.0, final_div_factor=100.0),
        optax.cosine_onecycle_schedule(50, 0.3, 0.4, 10.0, 100.0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_step(name: str) -> None:
    mine, theirs = CASES[name]
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        theirs = jax.jit(theirs)
        want = [float(theirs(np.float64(t))) for t in STEPS]  # of int32 it makes float32
        got = jax.jit(jax.vmap(mine))(STEPS)
        assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-12)
    at_once = mine(7)
    assert (at_once.shape, at_once.dtype) == ((), jnp.float32)
    np.testing.assert_allclose(at_once, want[7], rtol=1e-6)


def test_the_first_step_is_schedule_0() -> None:
    first = {name: float(mine(0)) for name, (mine, _) in CASES.items()}
    want = {"linear": 0.1, "one_cycle": 0.3 / 25, "one_cycle, numbers": 0.03}
    want |= dict.fromkeys(("warmup_cosine", "warmup_cosine, exponent"), 0.1)
    assert first == pytest.approx({name: want.get(name, 0.3) for name in CASES})


def test_a_schedule_of_another_library_is_delayed_too() -> None:
    mine = s.delay(optax.linear_schedule(0.3, 0.7, 40), 7)
    got = jax.jit(jax.vmap(mine))(STEPS)
    np.testing.assert_allclose(got, optax.linear_schedule(0.3, 0.7, 40, 7)(STEPS), rtol=1e-6)


def test_one_trace_for_all_steps() -> None:
    traces = []

    @jax.jit
    def rate(step: Any) -> Any:
        traces.append(1)
        return s.warmup_cosine(1.0, 20, warmup=5)(step)

    for step in range(3):
        rate(jnp.int32(step))
    assert len(traces) == 1


HUGE = int(1e10)
LONG = {
    "constant": (s.constant(0.3), 0.3),
    "power": (s.power(1e3, -0.5), 1e3 * (1e9 + 1) ** -0.5),
    "exponential": (s.exponential(0.3, 0.5, steps=HUGE), 0.3 * 0.5**0.1),
    "linear": (s.linear(0.0, 1.0, HUGE), 0.1),
    "cosine": (s.cosine(1000.0, HUGE), 975.52826),
    "warmup_cosine": (s.warmup_cosine(1.0, 2 * HUGE, warmup=HUGE), 0.1),
    "piecewise": (s.piecewise(1.0, {10**9: 0.5, HUGE: 0.5}), 0.5),
    "one_cycle": (s.one_cycle(1.0, HUGE, rise=0.1), 1.0),
    "delay": (s.delay(s.linear(0.0, 1.0, 10), HUGE), 0.0),
}


@pytest.mark.parametrize("base", [0.99999, 0.9999999, 1.00001, 0.5])
def test_a_base_that_float32_rounds(base: float) -> None:
    steps = 20 if base == 0.5 else int(3 / abs(math.log(base)))
    rate = s.exponential(0.1, base)
    for got in (rate(steps), jax.jit(rate)(jnp.float32(steps))):
        np.testing.assert_allclose(got, 0.1 * base**steps, rtol=1e-5)


@pytest.mark.parametrize(("base", "floor", "end"), [(0.9999, 0.0, 0.0), (0.9999, 1e-3, 1e-3),
                                                   (1.0001, 0.0, math.inf)])  # fmt: skip
def test_a_power_beyond_float32(base: float, floor: float, end: float) -> None:
    for step in (10**10, 10**12):
        assert float(s.exponential(0.1, base, floor=floor)(step)) == pytest.approx(end)


@pytest.mark.parametrize("name", LONG)
def test_counts_above_int32(name: str) -> None:
    """As lengths and, from Python, as steps: the last rate of each is that of an endless run."""
    schedule, want = LONG[name]
    assert float(schedule(10**9)) == pytest.approx(want, rel=1e-6)
    assert float(schedule(np.int32(10**9))) == pytest.approx(want, rel=1e-6)
    assert float(jax.jit(schedule)(jnp.int32(10**9))) == pytest.approx(want, rel=1e-6)
    end = {"power": 1e-3, "exponential": 0.0, "cosine": 0.0, "warmup_cosine": 0.0,
           "constant": 0.3, "piecewise": 0.25, "one_cycle": 4e-6}.get(name, 1.0)  # fmt: skip
    assert float(schedule(10**12)) == pytest.approx(end, rel=1e-5, abs=1e-6)


def test_every_number_may_be_traced() -> None:
    """As arguments of one program, the values with Python's numbers; no kind changes a dtype."""
    cases = {
        s.constant: {"rate": 0.3},
        s.power: {"rate": 0.3, "exponent": -0.5},
        s.exponential: {"rate": 0.3, "base": 0.9, "floor": 0.05},
        functools.partial(s.linear, steps=40): {"start": 0.1, "end": 0.7},
        functools.partial(s.cosine, steps=40): {"rate": 0.3, "end": 0.03, "exponent": 1.5},
        functools.partial(s.warmup_cosine, steps=45, warmup=9): {
            "rate": 0.5, "start": 0.1, "end": 0.05, "exponent": 2.0},
        functools.partial(s.one_cycle, steps=50): {
            "rate": 0.3, "rise": 0.3, "div_factor": 25.0, "final_div_factor": 1e3},
    }  # fmt: skip
    for make, numbers in cases.items():
        traced = jax.jit(lambda numbers, make=make: jax.vmap(make(**numbers))(STEPS))(numbers)
        np.testing.assert_allclose(traced, jax.jit(jax.vmap(make(**numbers)))(STEPS), rtol=1e-5)
        for kind in (np.float64, np.float32):
            assert make(**{k: kind(v) for k, v in numbers.items()})(7).dtype == jnp.float32
    rate = jax.jit(lambda rate, factor: s.piecewise(rate, {3: factor})(5))(0.5, 0.1)
    assert float(rate) == pytest.approx(0.05)


def test_every_stair_begins_at_its_step() -> None:
    """Compiled, ``n / n`` may be ``n (1 / n)``, which is below 1 for 41, 47, 55 and so on."""
    lengths = range(1, 130)

    @jax.jit
    def rates(n: Any) -> Any:
        stairs = [s.exponential(1.0, 0.5, steps=n, staircase=True) for n in lengths]
        return [[stair(step + i) for i in (-1, 0)] for stair, step in zip(stairs, n, strict=True)]

    for n, found in zip(lengths, rates([jnp.int32(n) for n in lengths]), strict=True):
        assert [float(rate) for rate in found] == [1.0, 0.5], n


def test_one_cycle_peaks_at_one_step_whatever_rise_is() -> None:
    """0.29 * 100 is 28.999... in double precision, and 29 in single."""
    known = s.one_cycle(1.0, 100, rise=0.29)(STEPS[29])
    array = s.one_cycle(1.0, 100, rise=jnp.float32(0.29))(STEPS[29])
    traced = jax.jit(lambda rise: s.one_cycle(1.0, 100, rise=rise)(STEPS[29]))(0.29)
    assert [float(rate) for rate in (known, array, traced)] == [1.0, 1.0, 1.0]


def test_errors() -> None:
    for call, message in {
        lambda: s.cosine(0.1, 0): r"fnn.schedules.cosine: steps: got 0; needed an int >= 1",
        lambda: s.linear(0.1, 0.2, 2.5): r"fnn.schedules.linear: steps: got 2.5",
        lambda: s.exponential(0.1, 0.9, steps=True): r"fnn.schedules.exponential: steps: got True",
        lambda: s.warmup_cosine(
            0.1, 5, warmup=5
        ): r"warmup_cosine: steps: got 5; needed an int >= 6",
        lambda: s.warmup_cosine(0.1, 5, warmup=0): r"warmup_cosine: warmup: got 0",
        lambda: s.piecewise(0.1, {-1: 0.1}): r"fnn.schedules.piecewise: factors: got -1",
        lambda: s.delay(s.constant(0.1), -1): r"fnn.schedules.delay: steps: got -1",
        lambda: s.exponential(0.1, -1.0): r"fnn.schedules.exponential: base: got -1.0",
        lambda: s.exponential(
            0.1, math.inf
        ): r"exponential: base: got inf; needed a number >= 0, and finite",
        lambda: s.cosine(
            0.1, 10, exponent=-1.0
        ): r"fnn.schedules.cosine: exponent: got -1.0; needed a number >= 0",
        lambda: s.warmup_cosine(
            0.1, 10, warmup=2, exponent=-1.0
        ): r"warmup_cosine: exponent: got -1.0; needed a number >= 0",
        lambda: s.one_cycle(
            0.1, 9, div_factor=1e-3
        ): r"schedules.one_cycle: div_factor: got 0.001; needed a number >= 1",
        lambda: s.one_cycle(
            0.1, 9, final_div_factor=1e-5
        ): r"schedules.one_cycle: final_div_factor: got 1e-05; needed a number >= 1",
        lambda: s.one_cycle(
            0.1, 3, rise=0.1
        ): r"fnn.schedules.one_cycle: rise: got 0.1; needed a peak within the 3",
        lambda: s.one_cycle(
            0.1, 9, rise=jnp.float32(5)
        ): r"fnn.schedules.one_cycle: rise: got 5.0; needed a number in \(0, 1\)",
        lambda: s.one_cycle(
            0.1, 9, rise=math.inf
        ): r"fnn.schedules.one_cycle: rise: got inf; needed a number in \(0, 1\)",
        lambda: s.one_cycle(0.1, 1): r"fnn.schedules.one_cycle: steps: got 1; needed an int >= 2",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    for factors, message in (
        ([3, 4], r"factors: got list \[3, 4\]; needed a dict of factors, by step"),
        ({3: "a"}, r"factors\[3\]: got str 'a'; needed a number$"),
    ):
        with pytest.raises(TypeError, match=f"fnn.schedules.piecewise: {message}"):
            s.piecewise(1.0, factors)  # type: ignore[arg-type]  # which is the mistake
    with pytest.raises(TypeError, match=r"fnn.schedules.cosine: rate: got str"):
        s.cosine("0.1", 5)  # type: ignore[arg-type]  # which is the mistake
    late = s.delay(optax.constant_schedule(0.1), 5)
    for schedule in (s.cosine(0.1, 5), s.piecewise(0.1, {5: 0.1}), late):
        for step in (None, "x", {"step": 1}, jax.random.key(0)):
            message = r"^fnn.schedules.\w+: step: got .*; needed the number of steps taken$"
            with pytest.raises(TypeError, match=message):
                schedule(step)
    with pytest.raises(TypeError, match=r"fnn.schedules.delay: schedule: got float 0.1"):
        s.delay(0.1, 5)  # type: ignore[arg-type]  # which is the mistake


def test_a_line_ends_at_its_end() -> None:
    """However far below the start, where start + (end - start) would be 0."""
    assert float(s.linear(1.0, 1e-9, 10)(10)) == np.float32(1e-9)


@pytest.mark.parametrize("name", CASES)
def test_before_the_first_step_the_rate_is_the_first(name: str) -> None:
    """As `optax.join_schedules` asks a schedule that is not yet its turn, and discards the rate."""
    mine, _ = CASES[name]
    for step in (-1, -2.0, np.int32(-3), jnp.int32(-100), jnp.float32(-1e6)):
        assert float(mine(step)) == float(mine(0))


def test_schedules_joined_by_optax_are_differentiated() -> None:
    """A rate discarded by `where` leaves NaN in the gradient if its own derivative is infinite."""
    makes: dict[str, Any] = {
        "power": lambda rate: s.power(rate, -0.5),
        "exponential": lambda rate: s.exponential(rate, 0.5),
        "cosine": lambda rate: s.cosine(rate, 5, exponent=0.5),
        "delay": lambda rate: s.delay(s.power(rate, -0.5), 1),
    }
    for name, make in makes.items():

        def joined(rate: Any, step: Any, make: Any = make) -> Any:
            return optax.join_schedules([s.linear(0.0, rate, 200), make(rate)], [200])(step)

        slope = jax.jit(jax.vmap(jax.grad(joined), (None, 0)))
        got = slope(0.5, jnp.array([0, 100, 199, 200, 203]))
        later = [make(1.0)(t) for t in (0, 3)]
        np.testing.assert_allclose(got, [0.0, 0.5, 0.995, *later], rtol=1e-6, err_msg=name)


def test_the_slope_at_the_first_step_is_that_of_the_steps_after_it() -> None:
    assert jax.grad(s.linear(0.0, 1.0, 4))(0.0) == 0.25


@pytest.mark.parametrize("name", CASES)
def test_a_step_may_be_a_float(name: str) -> None:
    mine, _ = CASES[name]
    want = float(mine(9))
    for step in (9.0, np.float64(9), np.float32(9), jnp.float32(9), jnp.float16(9), np.array(9.0)):
        assert float(mine(step)) == pytest.approx(want, rel=1e-6)
    traced = jax.jit(mine)(jnp.float32(9))
    assert float(traced) == pytest.approx(want, rel=1e-5)
