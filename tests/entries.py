"""Comparison entry by entry, each relative to itself: for functions of one number at its extremes.

`tests.check.close` measures against the largest entry, which hides a derivative of 1e-9 that should
be 2e-9 beside one of 1. Here every entry is held to its own size, in extended precision.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.check import FACTOR, precision, tolerance

DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)


def three(fn: Callable[..., Any], x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Value, first and second derivative, entry by entry."""
    first = jax.grad(fn)
    return fn(x), jax.vmap(first)(x), jax.vmap(jax.grad(first))(x)


def assert_rounded(
    got: Any, oracle: Callable[[np.ndarray], np.ndarray], x: Any, *, kinks: tuple[float, ...] = ()
) -> None:
    """Assert that every entry is the oracle's, rounded.

    Allowed are the `tolerance` of the result, and what it changes when x moves by ``FACTOR``
    roundings of what it is computed in, except across the kinks. What is larger than the dtype's
    largest number is infinite; a subnormal x, or result, may count as 0.
    """
    info = jnp.finfo(got.dtype)
    step, tiny = FACTOR * precision(got.dtype), float(info.tiny)
    at = np.asarray(np.asarray(x, np.float64), np.longdouble)
    want = oracle(at)
    moved = np.maximum(*(np.abs(oracle(at * (1 + s * step)) - want) for s in (1, -1)))
    moved = np.where(np.isin(at, kinks), 0, moved)
    moved = np.where(np.abs(at) < tiny, np.maximum(moved, np.abs(oracle(0 * at) - want)), moved)
    top = float(info.max) * (1 + float(info.eps) / 4)  # what is beyond it rounds to infinity
    want = np.where(np.abs(want) > top, np.copysign(np.inf, want), want)
    wide = np.asarray(np.asarray(got, np.float64), np.longdouble)
    with np.errstate(invalid="ignore"):
        near = np.abs(wide - want) <= tolerance(got.dtype) * np.abs(want) + moved + tiny
    bad = ~np.where(np.isinf(want), wide == want, near)
    assert not bad.any(), [
        f"{got.dtype}: {wide[i]} at {at[i]}, oracle {want[i]}" for i in np.flatnonzero(bad)
    ]


def part(oracle: Callable[..., Any], order: int, *args: Any) -> Any:
    """The oracle's value (0), first (1) or second (2) derivative alone."""
    return oracle(*args)[order]
