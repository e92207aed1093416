"""The density of eigenvalues, and the noise scale, against NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.analysis import gradient_by_time, gradient_noise_scale, spectral_density
from tests.analysis.test_curvature import dense, form, network, problem, symmetric

KEY = jax.random.key(5)


def test_every_moment_of_the_density() -> None:
    """With all iterations, sum of w theta^p is v' H^p v for the start v: here by its own H."""
    with jax.enable_x64(True):
        params, batch = problem()
        h = dense(network, params, batch)
        density = spectral_density(network, params, batch, key=KEY, samples=300)
        got = jax.tree.map(np.asarray, density)
    np.testing.assert_allclose(got.weights.sum(), 1, rtol=1e-12)
    assert (np.diff(got.eigenvalues) >= 0).all()
    values = np.linalg.eigvalsh(h)
    np.testing.assert_allclose(got.eigenvalues, np.tile(values, (300, 1)), atol=1e-8)
    # v_i^2 of a random unit vector in n dimensions: mean 1 / n, variance 2 (n - 1) / n^2 (n + 2)
    n = len(values)
    deviation = np.sqrt(2 * (n - 1) / (n**2 * (n + 2)) / 300)
    share = got.weights.sum(0)
    assert np.abs(share - 1 / n).max() < 4.5 * deviation


def test_few_iterations_of_many_eigenvalues() -> None:
    """Moments below twice the iterations are exact for every start: trace(H^p) / n in the mean."""
    values = np.linspace(-1, 2, 400).astype(np.float32)
    got = spectral_density(
        lambda x, s: (s * x * x).sum() / 2,
        np.ones(400, np.float32),
        values,
        key=KEY,
        iterations=8,
        samples=32,
    )
    got = jax.tree.map(np.asarray, got)
    for p in range(4):
        want = (values.astype(np.float64) ** p).mean()
        spread = (values.astype(np.float64) ** p).std() * np.sqrt(2 / (400 * 32))
        np.testing.assert_allclose(
            (got.weights * got.eigenvalues**p).sum(), want, atol=4.5 * spread + 1e-5
        )


def test_the_density_is_smooth_and_has_the_area_of_one() -> None:
    loss = form(symmetric([1.0, 1.0, 1.0, 5.0]).astype(np.float32))
    ones = np.ones(4, np.float32)
    got = jax.jit(lambda key: spectral_density(loss, ones, key=key, samples=8))(KEY)
    points = np.linspace(-2, 8, 501, dtype=np.float32)
    height = np.asarray(jax.jit(lambda width: got.at(points, width))(0.2))
    np.testing.assert_allclose(height.sum() * 0.02, 1, rtol=1e-4)
    assert abs(points[height.argmax()] - 1) < 0.05
    gauss = np.exp(-(((points - 5) / 0.2) ** 2) / 2) / (0.2 * np.sqrt(2 * np.pi))
    near = points > 4
    share = np.asarray(got.weights)[np.asarray(got.eigenvalues) > 3].sum()
    np.testing.assert_allclose(height[near], share * gauss[near], atol=1e-4)
    of_key = lambda k: spectral_density(loss, ones, key=k)
    pair = jax.jit(jax.vmap(of_key))(jax.random.split(KEY))
    assert pair.weights.shape == (2, 8, 4)
    half = np.ones(3, jnp.bfloat16)
    twice = spectral_density(lambda x: (x * x).sum(), half, key=KEY, samples=1)
    np.testing.assert_allclose(twice.eigenvalues.tolist()[0], 2, rtol=0.02)


def test_derivatives_of_a_chain_that_ends_early() -> None:
    """Each moment is that of ``v' H^p v`` for the start v: by c of ``diag(1, 1, 1, 1, c)``."""

    def bowl(x: Any, c: Any) -> Any:
        return ((x[:4] ** 2).sum() + c * x[4] ** 2) / 2

    def density(c: Any) -> Any:
        return spectral_density(bowl, jnp.ones(5), c, key=KEY, samples=4)

    def moments(c: Any) -> Any:
        got = density(c)
        return jnp.stack([(got.weights * got.eigenvalues**p).sum() for p in (1, 2, 3)])

    with jax.enable_x64(True):
        got = density(3.0)
        share = float(got.weights[got.eigenvalues > 2].sum())  # the mean of v_5^2
        want = np.array([1, 2 * 3, 3 * 9]) * share
        for derivative in (jax.jacrev, jax.jacfwd):
            np.testing.assert_allclose(jax.jit(derivative(moments))(3.0), want, rtol=1e-10)


def test_derivatives_of_a_density_of_one_eigenvalue() -> None:
    def density(s: Any) -> Any:
        loss = lambda x, s: s * (x * x).sum()
        return spectral_density(loss, jnp.ones(5), s, key=KEY, samples=2)

    slope = jax.jacrev(lambda s: tuple(density(s)))(3.0)  # 2 s, of all weight
    np.testing.assert_allclose((slope[0] * density(3.0).weights).sum(), 2, rtol=1e-6)
    np.testing.assert_allclose(slope[1], 0, atol=1e-6)


def gradients(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of (x . w - y)^2, one row per example."""
    return np.asarray(2 * (x @ w - y)[:, None] * x)


def squares(params: Any, batch: Any) -> Any:
    x, y = batch
    w = jnp.concatenate([params["a"], params["b"]])
    return ((x @ w - y) ** 2).mean()


def regression(n: int) -> Any:
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((n, 5)), rng.standard_normal(5)
    return w, (x, x @ np.ones(5) + 0.1 * rng.standard_normal(n))


@pytest.mark.parametrize("size", [1, 4])
def test_noise_scale(size: int) -> None:
    w, (x, y) = regression(40)
    g = gradients(w, x, y).reshape(-1, size, 5).mean(1)
    trace = size * np.var(g, axis=0, ddof=1).sum()
    square = (g.mean(0) ** 2).sum() - trace / 40
    params = {"a": w[:2].astype(np.float32), "b": w[2:].astype(np.float32)}
    data = x.astype(np.float32), y.astype(np.float32)
    got = jax.jit(lambda p: gradient_noise_scale(squares, p, data, batch_size=size))(params)
    np.testing.assert_allclose(got, [trace / square, trace, square], rtol=1e-5)


def test_noise_scale_predicts_the_noise_of_a_batch() -> None:
    """The variance of a batch's gradient is trace / b: what the scale is for."""
    w, data = regression(4096)
    params = {"a": w[:2].astype(np.float32), "b": w[2:].astype(np.float32)}
    got = gradient_noise_scale(squares, params, jax.tree.map(np.float32, data))
    g = gradients(w, *data)
    apart = (g.reshape(-1, 16, 5).mean(1) - g.mean(0)) ** 2
    np.testing.assert_allclose(float(got.trace) / 16, apart.sum(1).mean(), rtol=0.2)


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e18, 1e30])
def test_noise_of_gradients_whose_squares_overflow_or_vanish(size: float) -> None:
    """The scale is their ratio, whatever they are; the first gradient may be far smaller."""
    loss = lambda w, x: (w * x * np.float32(size)).mean()
    for data in ([1, 2, 1, 3], [1e-9, 1, 1, 2], [1, 90, 100, 110]):
        x = np.array(data, np.float64)
        trace, square = x.var(ddof=1), x.mean() ** 2 - x.var(ddof=1) / 4
        got = gradient_noise_scale(loss, np.float32(1), np.float32(data))
        want = trace / square if square > 0 else np.inf
        np.testing.assert_allclose(got.scale, want, rtol=1e-5)
        with np.errstate(over="ignore"):
            squares = np.float32([trace * size**2, square * size**2])
        tiny = np.finfo(np.float32).tiny  # below which a CPU gives zero
        np.testing.assert_allclose([got.trace, got.square], squares, rtol=1e-5, atol=tiny)


def test_noise_without_a_gradient() -> None:
    data = np.array([-1, 1], np.float32)
    got = gradient_noise_scale(lambda w, x: (w * x).mean(), np.float32(1), data)
    assert tuple(map(float, got)) == (np.inf, 2, -1)
    ones = np.ones(4, jnp.bfloat16)
    same = gradient_noise_scale(lambda w, x: (w * x).mean(), ones[0], ones)
    assert tuple(map(float, same)) == (0, 0, 1)
    assert same.scale.dtype == jnp.float32
    unknown = np.array([1, np.nan], np.float32)
    assert np.isnan(gradient_noise_scale(lambda w, x: (w * x).mean(), np.float32(1), unknown)).all()


ONES = np.ones(6, np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectral_density(jnp.sum, ONES[:2], key=3), "spectral_density: key: got int 3"),
        (
            lambda: spectral_density(jnp.sum, ONES[:2], key=KEY, samples=0),
            "spectral_density: samples: got 0; needed an int >= 1",
        ),
        (
            lambda: spectral_density(jnp.sum, ONES[:2], key=KEY, iterations=0),
            "spectral_density: iterations: got 0; needed an int >= 1",
        ),
        (
            lambda: spectral_density(lambda x: x, ONES[:2], key=KEY),
            r"spectral_density: loss: got float32\[2\]; needed a scalar",
        ),
        (
            lambda: spectral_density(jnp.sum, ONES[:2], key=KEY).at(ONES[:1], 0.0),
            "spectral_density: width: got 0.0; needed a number > 0",
        ),
        (
            lambda: spectral_density(jnp.sum, ONES[:2], key=KEY).at([1.0, 2.0], 1.0),
            r"spectral_density: points: got list \[1.0, 2.0\]; needed an array",
        ),
        (
            lambda: spectral_density(ONES[:2], ONES[:2], key=KEY),
            r"spectral_density: loss: got float\d+\[\d,?\d?\]; needed a function loss\(params\)$",
        ),
        (
            lambda: spectral_density(lambda p: p.sum(), {"w": "x"}, key=KEY),
            r"spectral_density: params\['w'\]: got str 'x'; needed a floating-point array",
        ),
        (
            lambda: spectral_density(lambda p, x: p.sum(), ONES[:2], key=KEY),
            r"spectral_density: loss: got loss\(p, x\); needed loss\(params\)$",
        ),
        (
            lambda: gradient_noise_scale(lambda p: p.sum(), ONES[:2], ONES),
            r"gradient_noise_scale: loss: got loss\(p\); needed loss\(params, batch\)$",
        ),
        (
            lambda: gradient_noise_scale(ONES, ONES[:2], ONES),
            r"gradient_noise_scale: loss: got .*; needed a function loss\(params, batch\)$",
        ),
        (
            lambda: gradient_noise_scale(lambda p, x: p.sum(), {"w": "x"}, ONES),
            r"gradient_noise_scale: params\['w'\]: got str 'x'; needed a floating-point array",
        ),
        (
            lambda: gradient_noise_scale(jnp.sum, ONES[:2], (ONES[:2], ONES[:3])),
            r"gradient_noise_scale: data: got 2 examples in data\[0\], 3 examples in data\[1\]",
        ),
        (
            lambda: gradient_noise_scale(jnp.sum, ONES[:2], ONES, batch_size=4),
            "gradient_noise_scale: batch_size: got 4; needed a divisor of 6 examples",
        ),
        (
            lambda: gradient_noise_scale(lambda p, x: x.mean(), {}, ONES),
            "gradient_noise_scale: params: got no number; needed at least one",
        ),
        (
            lambda: gradient_noise_scale(lambda p, x: x, ONES[:2], ONES),
            r"gradient_noise_scale: loss: got float32\[1\]; needed a scalar",
        ),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"fnn.analysis.{message}"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: fnn.critical_point(lambda x: (x**4).sum(), x, key=KEY, iterations=2),
        lambda x: gradient_noise_scale(lambda w, x: ((w - x) ** 2).mean(), x[0], x),
        lambda x: spectral_density(lambda x: (x**4).sum(), x, key=KEY, iterations=2),
        lambda x: gradient_by_time(lambda h, x: h / 3, lambda h: (h**3).sum(), x, x[None, :, None]),
    ],
    ids=["critical_point", "gradient_noise_scale", "spectral_density", "gradient_by_time"],
)
def test_a_fresh_lambda_is_no_fresh_program(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    x = np.arange(13, dtype=np.float32)  # as many as no other test has
    for compiled in (True, False):
        caplog.clear()
        with jax.log_compiles():
            call(x)
        assert bool(caplog.records) == compiled


def test_arrays_of_numpy_without_jit() -> None:
    x = np.arange(8, dtype=np.float32)
    scale = lambda: gradient_noise_scale(lambda w, b: ((w - b) ** 2).mean(), jnp.ones(()), x)
    want = scale()
    with jax.disable_jit():
        np.testing.assert_allclose(scale(), want, rtol=1e-5)
