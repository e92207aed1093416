"""dropout: how much it drops, what it keeps, and its messages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

KEY = jax.random.key(7)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_is_the_fraction_dropped_and_the_mean_is_kept(rate: float) -> None:
    n = 20_000
    y = np.asarray(fnn.dropout(jnp.full(n, 2.0), rate, KEY))
    dropped = (y == 0).mean()
    deviation = np.sqrt(rate * (1 - rate) / n)
    assert abs(dropped - rate) < 4 * deviation
    np.testing.assert_allclose(y[y != 0], 2 / (1 - rate), rtol=1e-6)
    assert abs(y.mean() - 2) < 4 * 2 * deviation / (1 - rate)


def test_every_entry_is_drawn_by_itself() -> None:
    """No row, no column and no pair of neighbours is dropped together."""
    z = 2.0 * np.asarray(fnn.dropout(jnp.ones((100, 200)), 0.5, KEY) > 0) - 1
    for axis in (0, 1):
        assert abs(z.mean(axis)).max() < 5 / z.shape[axis] ** 0.5
    pairs = z[:, 1:] * z[:, :-1], z[1:] * z[:-1]
    assert max(abs(p.mean()) for p in pairs) < 5 / z.size**0.5


def test_no_key_and_rate_zero_are_the_identity() -> None:
    x = jnp.array([1.0, -2.0, jnp.inf])
    np.testing.assert_array_equal(fnn.dropout(x, 0.5, None), x)
    np.testing.assert_array_equal(fnn.dropout(x, 0.0, KEY), x)


def test_the_key_decides_and_the_gradient_has_the_mask_of_the_value() -> None:
    x = jnp.arange(1.0, 101.0)
    y, pullback = jax.vjp(lambda x: fnn.dropout(x, 0.25, KEY), x)
    np.testing.assert_array_equal(pullback(x)[0], y)  # linear and diagonal
    np.testing.assert_array_equal(fnn.dropout(x, 0.25, KEY), y)
    assert (fnn.dropout(x, 0.25, jax.random.key(8)) != y).any()


def test_a_dropped_infinity_leaves_zero_and_finite_gradients() -> None:
    x = jnp.full(50, jnp.inf)
    y, pullback = jax.vjp(lambda x: fnn.dropout(x, 0.5, KEY), x)
    assert set(np.asarray(y).tolist()) == {0.0, np.inf}
    assert jnp.isfinite(pullback(jnp.ones(50))[0]).all()


def test_the_derivative_by_the_rate_sees_nothing_that_is_dropped() -> None:
    """Neither an infinity in x nor one in the cotangent."""
    x = jnp.arange(1.0, 51.0)
    dropped = fnn.dropout(x, 0.5, KEY) == 0
    want = jnp.where(dropped, 0, x).sum() / 0.5**2
    hidden = jnp.where(dropped, jnp.inf, x)
    cts = jnp.where(dropped, jnp.inf, 1)
    for given, ct in ((hidden, jnp.ones(50)), (x, cts), (hidden, cts)):
        _, pullback = jax.vjp(lambda rate, x=given: fnn.dropout(x, rate, KEY), 0.5)
        np.testing.assert_allclose(pullback(ct)[0], want, rtol=1e-6)
        _, slope = jax.jvp(lambda rate, x=given: fnn.dropout(x, rate, KEY), (0.5,), (1.0,))
        np.testing.assert_allclose(slope.sum(), want, rtol=1e-6)


def test_a_rate_that_rounds_to_1_leaves_zero_and_gradients_of_zero() -> None:
    """As 0.99999999 does in float32, and as one that is traced may be."""
    x = jnp.arange(1.0, 101.0)
    assert not fnn.dropout(x, 0.99999999, KEY).any()
    total = lambda x, rate: fnn.dropout(x, rate, KEY).sum()
    for gradient in (jax.grad(total), jax.jit(jax.grad(total, (0, 1)))):
        assert not any(jnp.any(g) for g in gradient(x, 0.99999999))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype: Any) -> None:
    y = fnn.dropout(jnp.ones(100, dtype), 0.5, KEY)
    assert y.dtype == dtype
    assert set(np.asarray(y, np.float32).tolist()) == {0.0, 2.0}


def test_half_precision_scales_by_the_rate_itself() -> None:
    """1 - rate is no bfloat16: rounded to one, the mean would be off by 0.2 %."""
    y = np.asarray(fnn.dropout(jnp.full(10, 243.0, jnp.bfloat16), 0.1, KEY), np.float32)
    assert set(y.tolist()) <= {0.0, 270.0}
    rate = jnp.bfloat16(0.1)
    with jax.disable_jit():
        y = np.asarray(fnn.dropout(np.ones(50, np.float32), rate, KEY))
    np.testing.assert_allclose(y[y > 0], 1 / (1 - np.float32(rate)), rtol=1e-6)


def test_the_draws_depend_on_key_and_rate_alone() -> None:
    x = np.ones(200, np.float32)
    want = fnn.dropout(x, 0.3, KEY) > 0
    with jax.enable_x64(True):
        for dtype in (jnp.bfloat16, jnp.float64):
            for rate in (0.3, np.float64(0.3), jnp.float32(0.3)):
                got = fnn.dropout(jnp.asarray(x, dtype), rate, KEY) > 0
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_messages(rate: float) -> None:
    with pytest.raises(ValueError, match="rate") as error:
        fnn.dropout(jnp.ones(3), rate, KEY)
    wanted = f"fnn.dropout: rate: got {rate}; needed a number in [0, 1)"
    assert str(error.value) == wanted


def test_a_seed_is_no_key() -> None:
    for key in (0, np.uint32(3), jax.random.split(KEY)):
        with pytest.raises(TypeError, match=r"dropout: key: got .*; needed one random key"):
            fnn.dropout(jnp.ones(3), 0.5, key)
    with pytest.raises(TypeError, match=r"fnn.dropout: rate: got str 'a'; needed a number in \[0"):
        fnn.dropout(jnp.ones(3), "a", KEY)
    with pytest.raises(TypeError, match=r"fnn.dropout: x: got list"):
        fnn.dropout([1.0], 0.5, KEY)
