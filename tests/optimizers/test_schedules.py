"""Schedules: optax's, the texts' formulas, and their first step."""

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
    "linear": (s.linear(0.1, 0.7, 40), optax.linear_schedule(0.1, 0.7, 40)),
    "cosine": (s.cosine(0.3, 40, end=0.03), optax.cosine_decay_schedule(0.3, 40, 0.1)),
    "warmup_cosine": (
        s.warmup_cosine(0.5, 45, warmup=9, start=0.1, end=0.05),
        optax.warmup_cosine_decay_schedule(0.1, 0.5, 9, 45, 0.05),
    ),
    "piecewise": (
        s.piecewise(0.3, {30: 0.1, 10: 0.5}),
        optax.piecewise_constant_schedule(0.3, {10: 0.5, 30: 0.1}),
    ),
    "one_cycle": (s.one_cycle(0.3, 50), optax.cosine_onecycle_schedule(50, 0.3)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_step(name: str) -> None:
    mine, theirs = CASES[name]
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        want = [float(theirs(jnp.float64(t))) for t in STEPS]  # of int32 it makes float32
        got = jax.jit(jax.vmap(mine))(STEPS)
        assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-12)
    at_once = mine(7)
    assert (at_once.shape, at_once.dtype) == ((), jnp.float32)
    np.testing.assert_allclose(at_once, want[7], rtol=1e-6)


def test_the_first_step_is_schedule_0() -> None:
    first = {name: float(mine(0)) for name, (mine, _) in CASES.items()}
    want = {"linear": 0.1, "warmup_cosine": 0.1, "one_cycle": 0.3 / 25}
    assert first == pytest.approx({name: want.get(name, 0.3) for name in CASES})


def test_one_trace_for_all_steps() -> None:
    traces = []

    @jax.jit
    def rate(step: Any) -> Any:
        traces.append(1)
        return s.warmup_cosine(1.0, 20, warmup=5)(step)

    for step in range(3):
        rate(jnp.int32(step))
    assert len(traces) == 1


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
        lambda: s.one_cycle(0.1, 3, rise=0.1): r"fnn.schedules.one_cycle: rise: got 0.1",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
