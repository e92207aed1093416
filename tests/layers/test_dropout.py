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


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype: Any) -> None:
    y = fnn.dropout(jnp.ones(100, dtype), 0.5, KEY)
    assert y.dtype == dtype
    assert set(np.asarray(y, np.float32).tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_messages(rate: float) -> None:
    with pytest.raises(ValueError, match="rate") as error:
        fnn.dropout(jnp.ones(3), rate, KEY)
    wanted = f"fnn.dropout: rate: got {rate}; needed a number in [0, 1)"
    assert str(error.value) == wanted
