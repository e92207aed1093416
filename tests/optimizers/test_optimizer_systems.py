"""The reference systems of optimization, against closed forms and the formulas of the courses."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.optimizers import schedules

START = np.array([-5.0, -2.0], np.float32)


def lecture(x: Any) -> Any:
    return 0.1 * x[0] ** 2 + 2 * x[1] ** 2


def slope(x: Any) -> Any:
    return np.array([0.2, 4.0]) * x


def test_A2_a_ball_with_friction() -> None:
    """V' = a V - e grad, x' = x + e V' with a = 1 - f e: the optimizer at the rate e^2."""
    friction, e = 2.0, 0.1
    optimizer = fnn.momentum(e**2, 1 - friction * e, rate_inside=True)
    x, v, state = START.astype(np.float64), np.zeros(2), optimizer.init(jnp.asarray(START))
    for _ in range(20):
        updates, state = optimizer.update(jnp.asarray(slope(x), jnp.float32), state)
        v = v + e * (-friction * v - slope(x))
        np.testing.assert_allclose(updates, e * v, rtol=1e-5)  # the rescaled velocity
        x = x + e * v
    path = fnn.trajectory(lecture, jnp.asarray(START), optimizer, 20).params
    np.testing.assert_allclose(path[-1], x, rtol=1e-5)
    still, plain = fnn.momentum(e**2, 0.0), fnn.sgd(e**2)  # f e = 1: no memory
    paths = [fnn.trajectory(lecture, jnp.asarray(START), o, 20).params for o in (still, plain)]
    np.testing.assert_array_equal(*paths)


def test_A2_small_steps_follow_the_differential_equation() -> None:
    """x'' = -f x' - k x from rest: a damped oscillation, up to an error of the order of e."""
    friction, k, e = 2.0, 17.0, 1e-3
    optimizer = fnn.momentum(e**2, 1 - friction * e)
    path = fnn.trajectory(lambda x: k * x**2 / 2, jnp.ones(()), optimizer, 3000).params
    t, w = e * np.arange(3001), np.sqrt(k - friction**2 / 4)
    exact = np.exp(-friction * t / 2) * (np.cos(w * t) + friction / (2 * w) * np.sin(w * t))
    assert np.abs(path - exact).max() < 5 * e
    assert path.min() < -0.4  # it swings


def test_E1_small_and_large_rates() -> None:
    """x^2 in one dimension; x1^2 + 2 x2^2 from (-5, -2): (1 - 2 eta)^k and (1 - 4 eta)^k."""
    rates, k = np.array([0.01, 0.1, 0.6, 1.1], np.float32), np.arange(21)[:, None]

    def runs(rate: Any) -> Any:
        one = fnn.trajectory(lambda x: x**2, jnp.float32(10.0), fnn.sgd(rate), 20)
        two = fnn.trajectory(lambda x: x[0] ** 2 + 2 * x[1] ** 2, START, fnn.sgd(rate), 20)
        return one.params, two.params

    one, two = jax.jit(jax.vmap(runs, out_axes=1))(rates)
    factor = 1 - 2 * rates.astype(np.float64)
    np.testing.assert_allclose(one, 10 * factor**k, rtol=1e-3, atol=1e-6)
    want = np.stack([-5 * factor**k, -2 * (2 * factor - 1) ** k], -1)
    np.testing.assert_allclose(two, want, rtol=1e-3, atol=1e-6)
    slow, good, one_diverges, both_diverge = np.abs(two[-1])
    assert (slow > 0.4).all()  # too small a rate has hardly moved x1
    assert (good < 0.1).all()
    assert one_diverges[0] < 1e-6 < 1e3 < one_diverges[1]
    assert (both_diverge > 100).all()


def test_E3_the_gradient_of_a_batch_is_unbiased() -> None:
    """Over all batches of b of n, its mean is the gradient; its variance falls as (n - b) / b."""
    x, y, w = (np.random.default_rng(0).standard_normal(s).astype("f") for s in ((6, 3), 6, 3))

    def loss(w: Any, x: Any, y: Any) -> Any:
        return fnn.squared_error(fnn.dense(x, w[:, None])[:, 0], y).mean()

    full = jax.jit(jax.grad(loss))(w, x, y)
    of_each = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))
    spread = {}
    for size in (1, 2, 3):
        batches = np.array(list(itertools.combinations(range(6), size)))
        gradients = np.asarray(of_each(w, x[batches], y[batches]), np.float64)
        np.testing.assert_allclose(gradients.mean(0), full, rtol=1e-5)
        spread[size] = gradients.var(0)
    for size in (2, 3):
        np.testing.assert_allclose(spread[size], spread[1] * (6 - size) / (5 * size), rtol=1e-4)


def test_E3_noise_leaves_a_local_minimum() -> None:
    """x^4 - 2 x^2 + x / 2 has a shallow minimum near 0.93 and a deep one near -1.06."""
    noise = 6 * np.tile(np.float32([1, -1]), 50)  # which cancels over all examples

    def loss(x: Any, c: Any) -> Any:
        return x**4 - 2 * x**2 + x / 2 + (c * x).mean()

    def last(batch_size: int) -> float:
        *_, report = fnn.train(
            loss, jnp.float32(1.0), fnn.sgd(schedules.power(0.1, -0.25)), noise,
            batch_size=batch_size, epochs=10, key=jax.random.key(0),
        )  # fmt: skip
        return float(report.params)

    assert last(100) == pytest.approx(0.93, abs=0.05)
    assert last(1) < -0.5


def test_E3_decays() -> None:
    t = np.arange(1, 30)
    for exponent in (-1.0, -0.5):
        rates = jax.jit(jax.vmap(schedules.power(0.3, exponent)))(t - 1)
        np.testing.assert_allclose(rates, 0.3 * t**exponent, rtol=1e-6)
    rates = jax.jit(jax.vmap(schedules.exponential(0.3, 0.95)))(t)
    np.testing.assert_allclose(rates, 0.3 * 0.95**t, rtol=1e-5)


def test_E4_momentum_of_the_lecture() -> None:
    """0.1 x1^2 + 2 x2^2: descent converges at 0.4, diverges in x2 at 0.6; momentum does not."""

    def path(optimizer: Any) -> Any:
        return fnn.trajectory(lecture, jnp.asarray(START), optimizer, 50).params

    assert abs(path(fnn.sgd(0.4))[-1, 1]) < 1e-6
    assert abs(path(fnn.sgd(0.6))[-1, 1]) > 1e6
    assert np.abs(path(fnn.momentum(0.6, 0.5))[-1]).max() < 0.1
    got = path(fnn.momentum(0.4, 0.5, rate_inside=True))
    x, v = START.astype(np.float64), np.zeros(2)
    for point in got:
        np.testing.assert_allclose(point, x, rtol=1e-4, atol=1e-5)
        v = 0.5 * v + 0.4 * slope(x)
        x = x - v


def test_E4_E6_weights_of_the_past() -> None:
    """v is the sum of g^i grad_(t-i), s of RMSProp that of (1 - g) g^i grad_(t-i)^2."""
    past, decay = np.float32([3.0, -1.0, 2.0, 5.0]), 0.9
    velocity, rms = fnn.momentum(0.5, decay), fnn.rmsprop(0.5, decay=decay)
    v, s = velocity.init(jnp.zeros(())), rms.init(jnp.zeros(()))
    for g in past:
        _, v = velocity.update(jnp.float32(g), v)
        _, s = rms.update(jnp.float32(g), s)
    weights = decay ** np.arange(3, -1, -1.0)
    np.testing.assert_allclose(v.moments["trace"], weights @ past, rtol=1e-6)
    np.testing.assert_allclose(s.moments["nu"], (1 - decay) * weights @ past**2, rtol=1e-6)


def test_B9_terminal_velocity() -> None:
    """A constant gradient ends at -a / (1 - mu) of it."""
    optimizer, gradient = fnn.momentum(0.5, 0.9), jnp.array([1.0, -2.0])
    state = optimizer.init(jnp.zeros(2))
    for _ in range(200):
        updates, state = optimizer.update(gradient, state)
    np.testing.assert_allclose(updates, [-0.5 / 0.1, 1.0 / 0.1], rtol=1e-6)
