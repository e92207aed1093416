"""Pooling of infinities, NaN and numbers at the ends of float32, by every algorithm."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close
from tests.layers.test_pooling_edges import KINDS, both, forms, pools, value_and_gradient
from tests.oracles import pooling as oracle

pytestmark = pytest.mark.usefixtures("optimized")

RNG = np.random.default_rng(0)
SPECIAL = [-np.inf, -np.inf, np.inf, 2.0, np.nan, 1.0, -np.inf, 3.0, 3.0, np.inf, np.inf, 0.0]


def test_a_nan_is_the_result_of_its_region() -> None:
    """On axes long enough for the compiler's vectors, in which its own maximum loses a NaN."""
    x = RNG.normal(size=(4, 50, 33)).astype(np.float32)
    x[1, 7, 5] = np.nan
    for pool in (fnn.global_max_pool, fnn.global_min_pool, fnn.global_avg_pool):
        assert np.argwhere(np.isnan(pool(x))).tolist() == [[1, 5]]
    for pool in (fnn.adaptive_max_pool, fnn.adaptive_avg_pool):
        assert np.argwhere(np.isnan(pool(x, 7))).tolist() == [[1, 0, 5], [1, 1, 5]]
    for pool in (fnn.max_pool, fnn.max_pool_lax, fnn.min_pool_lax):
        assert np.argwhere(np.isnan(pool(x, 10))).tolist() == [[1, 0, 5]]
    for zero in (0.0, -0.0):
        for pool in (fnn.global_max_pool, fnn.global_min_pool):
            assert str(pool(jnp.full((1, 5, 1), zero)).item()) == str(zero)
    blocks = [range(10), range(10, 50)]
    assert np.argwhere(np.isnan(fnn.partition_pool(x, blocks, axis=1))).tolist() == [[1, 0, 5]]


@forms
@pytest.mark.parametrize("config", [{"window": 2}, {"window": 3, "stride": 1, "padding": 1}])
def test_infinities_and_nan(form: str, config: dict[str, Any]) -> None:
    """Values by the oracle; of a maximum the gradient as well, which no padding ever gets."""
    x = np.array(SPECIAL, np.float32).reshape(1, 12, 1)
    named = pools(**config)
    for kind in KINDS:
        pool, told = named[kind + form]
        with np.errstate(invalid="ignore"):
            want = getattr(oracle, f"{kind}_pool")(x.astype(np.float64), **told)
        close(pool(x, **told), want)

    @jax.jit
    def gradients(x: Any, negative: Any, ct: Any) -> Any:
        pairs = (named["max" + form], x), (named["min" + form], negative)
        return [value_and_gradient(*row, at, ct)[1] for row, at in pairs]

    for value in (x, np.full_like(x, -np.inf)):
        ct = RNG.integers(1, 9, want.shape).astype(np.float32)
        wanted = oracle.max_pool_gradient(value, ct=ct, **config)
        for got in gradients(value, -value, ct):
            np.testing.assert_array_equal(got, wanted)
    rows = [(named[kind + form][0], {"window": 2}) for kind in ("sum", "avg")]
    for (_, got), each in zip(both(rows, x), (1.0, 0.5), strict=True):  # linear, whatever x is
        np.testing.assert_array_equal(got, np.full(x.shape, each))


def test_an_infinity_before_a_nan_keeps_the_index() -> None:
    x = jnp.array([jnp.inf, jnp.nan, jnp.nan, jnp.inf]).reshape(1, 4, 1)
    assert jnp.isnan(fnn.max_pool(x, 2)).all()
    assert fnn.max_pool_indices(x, 2).ravel().tolist() == [0, 2]


def test_a_mean_whose_sum_overflows_is_infinite() -> None:
    x = jnp.full((1, 2, 1), 3e38)
    means = fnn.global_avg_pool(x), fnn.adaptive_avg_pool(x, 1), fnn.avg_pool(x, 2)
    parts = fnn.partition_pool(x, [[0, 1]], "avg", axis=1)
    assert [y.item() for y in (*means, parts)] == [np.inf] * 4


@forms
def test_a_norm_of_infinities(form: str) -> None:
    pool = getattr(fnn, "lp_pool" + form)
    x = np.array([np.inf, 2, -np.inf, np.inf, np.nan, 1, 1, 0], np.float32).reshape(1, 8, 1)
    cases = {1: 1, 1.5: 0, 2: 0, 3: 0}
    results = both([(pool, {"window": 2, "p": p}) for p in cases], x)
    for (y, got), beside in zip(jax.tree.map(np.asarray, results), cases.values(), strict=True):
        np.testing.assert_array_equal(y.ravel(), [np.inf, np.inf, np.nan, 1])
        np.testing.assert_array_equal(got.ravel()[:4], [1, beside, -1, 1])
        np.testing.assert_array_equal(got.ravel()[6:], [1, 0])
        assert np.isnan(got.ravel()[4])


EXTREME = np.array(
    [
        *[3e38, 1e38, 0, 2e38],
        *[1.5e-38, -3e-38, 0, 2e-38],
        *[1e20, 1e-20, -1e10, 5],
        *[2e30, -1e30, 1e-30, -2e-30],
        *[0, 0, 0, -1],
        *[0, 0, 0, 0],
    ],
    np.float32,
).reshape(6, 4, 1)

POWERS = (1, 1.5, 2, 3, 7.5, 100)


@forms
@pytest.mark.parametrize("config", [{"window": 2}, {"window": 3, "stride": 1, "padding": 1}])
def test_a_norm_neither_overflows_nor_vanishes(form: str, config: dict[str, Any]) -> None:
    """Value and gradient over 76 decades; a power of a rounded number has p times its error."""
    pool, wide = getattr(fnn, "lp_pool" + form), EXTREME.astype(np.longdouble)
    wants = [oracle.lp_pool(wide, p=p, **config) for p in POWERS]
    fits = [want < np.finfo(np.float32).max for want in wants]

    @jax.jit
    def results(x: Any, cts: Any) -> Any:
        pairs = zip(POWERS, cts, strict=True)
        return [value_and_gradient(pool, config | {"p": p}, x, ct) for p, ct in pairs]

    found = jax.tree.map(np.asarray, results(EXTREME, [fit.astype(np.float32) for fit in fits]))
    for p, want, fit, (y, got) in zip(POWERS, wants, fits, found, strict=True):
        said = f"p = {p}"
        np.testing.assert_allclose(y[fit], want[fit].astype(float), rtol=1e-6, err_msg=said)
        slopes = oracle.lp_pool_gradient(wide, p=p, ct=fit.astype(np.longdouble), **config)
        slopes, atol = slopes.astype(float), 3e-7 * max(4, p)
        np.testing.assert_allclose(got, slopes, rtol=0, atol=atol, err_msg=said)


@forms
def test_the_norm_has_gradient_0_at_0(form: str) -> None:
    x = np.array([0, 3, 0, 0], np.float32).reshape(1, 4, 1)
    pool = getattr(fnn, "lp_pool" + form)
    for _, got in both([(pool, {"window": 2, "p": p}) for p in (1, 1.5, 2, 3)], x):
        np.testing.assert_array_equal(np.ravel(got), [0, 1, 0, 0])
    second = jax.jit(jax.hessian(lambda x: pool(x, 2, 2).sum()))(x[:, :2])
    np.testing.assert_allclose(np.reshape(second, (2, 2)), [[1 / 3, 0], [0, 0]], atol=1e-6)
    np.testing.assert_array_equal(jax.jit(jax.hessian(lambda x: pool(x, 2, 2).sum()))(x[:, 2:]), 0)


@forms
def test_the_second_derivative_of_a_norm_in_a_loop(form: str) -> None:
    """Before JAX 0.12 it is that of the value's own formula, and not of the derivative's."""
    x = np.array([0, 0, 3, -4, 2, 2, 0, 1], np.float32).reshape(1, 8, 1)
    pool = getattr(fnn, "lp_pool" + form)

    def loss(x: Any, p: float, loop: bool) -> Any:
        def body(total: Any, _: None) -> Any:
            return total + pool(x * (1 + total), 2, p).sum() / 100, None

        if loop:
            return jax.lax.scan(body, jnp.float32(0), None, 2)[0]
        return body(body(jnp.float32(0), None)[0], None)[0]

    @jax.jit
    def hessians(x: Any) -> Any:
        second = jax.jacrev(jax.jacrev(loss))
        return [[second(x, p, loop) for p in (2, 2.5, 3)] for loop in (True, False)]

    jax.tree.map(lambda got, want: close(got, want, length=16), *hessians(x))
