"""Softmax, its logarithm and logsumexp: against loops, where entries are absent, at the ends."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import check, close
from tests.entries import DTYPES
from tests.oracles.activations import log_softmax


def test_against_the_oracle() -> None:
    rng = np.random.default_rng(1)
    x = 3 * rng.standard_normal((3, 5), np.float32)
    mask = rng.random((3, 5)) < 0.6
    for where in (None, mask):
        check(
            fnn.softmax,
            lambda a, where=None: np.exp(log_softmax(a, where)),
            x,
            length=5,
            where=where,
            batch=False,
        )
    check(fnn.log_softmax, log_softmax, x, length=5)
    check(
        functools.partial(fnn.logsumexp, axis=-1), lambda a: np.log(np.exp(a).sum(-1)), x, length=5
    )


def test_second_derivatives() -> None:
    with jax.enable_x64(True):
        x = np.array([0.3, -1.2, 2.0, -np.inf])
        p = np.exp(log_softmax(x))
        hessian = np.diag(p) - np.outer(p, p)
        first = lambda z: fnn.log_softmax(z)[0]
        both = jax.hessian(fnn.logsumexp), jax.jacobian(fnn.softmax)
        *got, negative = jax.jit(lambda x: [f(x) for f in (*both, jax.hessian(first))])(x)
    for value in got:
        np.testing.assert_allclose(value, hessian, atol=1e-15)
    np.testing.assert_allclose(negative, -hessian, atol=1e-15)


def test_absent_entries() -> None:
    x = np.array([[-np.inf] * 3, [0, 1, -np.inf], [1e4, -1e4, 0]], np.float32)
    masks = (None, np.array([[True, False, True], [True, True, True], [False] * 3]))
    fns = (fnn.softmax, fnn.log_softmax, functools.partial(fnn.logsumexp, axis=-1))

    def pulled(fn: Any, x: Any, mask: Any) -> Any:
        y, pull = jax.vjp(functools.partial(fn, where=mask), x)
        return y, pull(jnp.isfinite(y).astype(y.dtype))[0]

    results = jax.jit(lambda x: [[pulled(fn, x, mask) for fn in fns] for mask in masks])(x)
    for mask, found in zip(masks, results, strict=True):
        want = log_softmax(x if mask is None else np.where(mask, x, -np.inf))
        (shares, _), (log_shares, _), (totals, _) = found
        present = np.where(True if mask is None else mask, x, -np.inf).astype(np.float64)
        np.testing.assert_allclose(totals, np.logaddexp.reduce(present, -1), rtol=1e-6)
        np.testing.assert_allclose(log_shares, want, rtol=1e-6)
        np.testing.assert_allclose(shares, np.exp(want), rtol=1e-6)
        assert all(np.isfinite(gradient).all() for _, gradient in found)


def test_nan_masked_or_not_and_several_axes() -> None:
    hidden, zeros = np.array([0, np.nan], np.float32), np.zeros((2, 3), np.float32)
    seen = np.array([True, False])

    @jax.jit
    def results(hidden: Any, zeros: Any) -> Any:
        gradient = jax.grad(lambda z: fnn.logsumexp(z, where=seen))(hidden)
        kept = fnn.logsumexp(zeros, axis=1, keepdims=True)
        whole = fnn.logsumexp(zeros), fnn.softmax(zeros, axis=(0, 1))
        return gradient, fnn.softmax(hidden), *whole, kept

    gradient, shown, total, even, kept = results(hidden, zeros)
    np.testing.assert_array_equal(gradient, [1.0, 0.0])
    assert np.isnan(shown).all(), "a NaN that is not masked shows"
    np.testing.assert_allclose(total, np.log(6), rtol=1e-6)
    np.testing.assert_allclose(even, np.full((2, 3), 1 / 6))
    np.testing.assert_allclose(kept, np.log([[3], [3]]), rtol=1e-6)


def test_seventy_thousand_classes_in_half_precision() -> None:
    gradient = jax.jit(jax.grad(lambda z: fnn.log_softmax(z)[7]))(np.zeros(70_000, np.float16))
    gradient = np.asarray(gradient)
    assert float(gradient[7]) == 1
    np.testing.assert_allclose(np.float64(gradient[0]), -1 / 70_000, rtol=1e-2)


@pytest.mark.usefixtures("optimized")  # for the tests from here on
@pytest.mark.parametrize("dtype", DTYPES)
def test_at_the_ends_is_the_limit(dtype: Any) -> None:
    top, inf = float(jnp.finfo(dtype).max), np.inf
    ends = [[inf, 0, -inf], [inf, top, inf], [top, 0, -top], [-top, -top, -inf], [-inf, -inf, -inf]]
    with jax.enable_x64(True):

        @jax.jit
        def results(x: Any) -> Any:
            total, slope = jax.vmap(jax.value_and_grad(fnn.logsumexp))(x)
            curve = jax.vmap(jax.jacobian(fnn.softmax))(x)
            return fnn.log_softmax(x), fnn.softmax(x), total, slope, curve

        found = results(np.array(ends).astype(dtype))
    log_p, *shares, total, slope, curve = map(np.asarray, found)
    want = log_softmax(np.array(ends))
    p = np.exp(want)
    close(log_p[:2], want[:2])
    np.testing.assert_array_equal(np.asarray(log_p[2], float), [0, -top, -inf])
    for got in (*shares, slope):
        close(got, p)
    close(curve, [np.diag(row) - np.outer(row, row) for row in p])
    np.testing.assert_array_equal(np.asarray(total, float), [inf, inf, top, -top, -inf])
    assert np.isnan(fnn.softmax(np.array([np.nan, np.inf], np.float32))).all()
