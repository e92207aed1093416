"""Comparison entry by entry, each relative to itself: for functions of one number at its extremes.

`tests.check.close` measures against the largest entry, which hides a derivative of 1e-9 that should
be 2e-9 beside one of 1. Here every entry is held to its own size.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.check import FACTOR

DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)


def three(fn: Callable[..., Any], x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Value, first and second derivative, entry by entry."""
    first = jax.grad(fn)
    return fn(x), jax.vmap(first)(x), jax.vmap(jax.grad(first))(x)


def assert_rounded(
    got: Any, oracle: Callable[[np.ndarray], np.ndarray], x: Any, *, kinks: tuple[float, ...] = ()
) -> None:
    """Assert that every entry is the oracle's, rounded.

    Allowed are ``FACTOR`` roundings of the result, and what it changes when x moves by as many,
    except across the kinks. What is larger than the dtype's largest number is infinite.
    """
    info = jnp.finfo(got.dtype)
    eps = FACTOR * float(info.eps)
    at = np.asarray(x, np.float64)
    want = oracle(at)
    moved = np.maximum(*(np.abs(oracle(at * (1 + s * eps)) - want) for s in (1, -1)))
    moved = np.where(np.isin(at, kinks), 0, moved)
    # Factors below the smallest normal number are flushed to 0: at most |x|^2 of it is lost.
    floor = float(info.tiny) * np.clip(np.abs(at), 1, 50) ** 2
    want = np.where(np.abs(want) > float(info.max), np.copysign(np.inf, want), want)
    got64 = np.asarray(got, np.float64)
    with np.errstate(invalid="ignore"):
        near = np.abs(got64 - want) <= eps * np.abs(want) + moved + floor
    bad = ~np.where(np.isinf(want), got64 == want, near)
    assert not bad.any(), [
        f"{got.dtype}: {got64[i]} at {at[i]}, oracle {want[i]}" for i in np.flatnonzero(bad)
    ]


def part(oracle: Callable[..., Any], order: int, *args: Any) -> Any:
    """The oracle's value (0), first (1) or second (2) derivative alone."""
    return oracle(*args)[order]
