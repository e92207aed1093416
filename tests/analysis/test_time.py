"""The gradient by distance in time, against products of Jacobians and in the linear case."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close

N, TIME, F, UNITS = 2, 6, 3, 4
gradient_by_time = fnn.analysis.gradient_by_time


def test_C6_against_products_of_jacobians() -> None:
    params = fnn.init_rnn(jax.random.key(0), F, UNITS)
    x = jax.random.normal(jax.random.key(1), (1, TIME, F))
    h0, p = jnp.full((1, UNITS), 0.1), jnp.arange(1.0, UNITS + 1)
    got = gradient_by_time(
        lambda h, x: fnn.rnn_cell(x, **params, state=h), lambda h: (h @ p).sum(), h0, x
    )
    wx, wh, b = (np.asarray(params[k], np.float64) for k in ("wx", "wh", "b"))
    h, jacobians = np.asarray(h0[0], np.float64), []
    for t in range(TIME):
        h = np.tanh(np.asarray(x[0, t], np.float64) @ wx + h @ wh + b)
        jacobians.append(wh * (1 - h**2))  # row i, column j: d h_j / d of the i-th before
    g, want = np.asarray(p, np.float64), [np.linalg.norm(p)]
    for jacobian in reversed(jacobians):
        g = jacobian @ g
        want.append(np.linalg.norm(g))
    close(got, np.array(want), length=TIME * UNITS)


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
def test_C6_the_linear_case_vanishes_stays_or_explodes(scale: float) -> None:
    """``||(s Q)^d v|| = s^d ||v||`` for an orthogonal Q."""
    params = fnn.init_rnn(jax.random.key(0), F, UNITS, bias=False)
    w = scale * params["wh"]

    def step(h: Any, x: Any) -> Any:
        return fnn.rnn_cell(x, params["wx"], w, state=h, activation=fnn.identity)

    x = jax.random.normal(jax.random.key(1), (N, 50, F))
    norms = jax.jit(
        lambda x: gradient_by_time(step, lambda h: (h**2).sum() / 2, jnp.zeros((N, UNITS)), x)
    )(x)
    np.testing.assert_allclose(norms, norms[0] * scale ** np.arange(51.0), rtol=1e-4)


def test_C6_a_norm_above_1_can_explode_and_a_spectral_radius_above_1_must() -> None:
    """The norm of both is above 4: with radius 1/2 the gradient grows first, then vanishes."""

    def norms(w: Any) -> Any:
        step = lambda h, x: fnn.rnn_cell(x, jnp.zeros((1, 2)), w, state=h, activation=fnn.identity)
        start = jnp.zeros((1, 2))
        return gradient_by_time(step, lambda h: h[0, 0], start, jnp.zeros((1, 40, 1)))

    both = jnp.array([[[0.5, 0.0], [4.0, 0.5]], [[1.1, 0.0], [4.0, 0.5]]])
    fading, exploding = np.asarray(jax.jit(jax.vmap(norms))(both))
    assert fading.max() > 4
    assert fading[-1] < 1e-6
    assert (exploding >= 1.1 ** np.arange(41) * (1 - 1e-5)).all()


def test_a_state_of_several_parts_and_no_step() -> None:
    params = fnn.init_lstm(jax.random.key(0), F, UNITS)
    state = (jnp.ones((N, UNITS)), jnp.ones((N, UNITS)))

    def step(state: Any, x: Any) -> Any:
        return fnn.lstm_cell(x, **params, state=state)

    def loss(state: Any) -> Any:
        return (3 * state[0]).sum() + (4 * state[1]).sum()

    norms = gradient_by_time(step, loss, state, jnp.ones((N, TIME, F)))
    assert norms.shape == (TIME + 1,)
    gradient = jax.grad(lambda s: loss(fnn.lstm(jnp.ones((N, TIME, F)), **params, state=s)[1]))
    close(norms[-1], norm(gradient(state)), length=64)
    none = gradient_by_time(step, loss, state, jnp.ones((N, 0, F)))
    close(none, np.array([norm(jax.jit(jax.grad(loss))(state))]))


def norm(tree: Any) -> float:
    return float(np.linalg.norm(np.concatenate([a.ravel() for a in jax.tree.leaves(tree)])))


def test_wrong_calls() -> None:
    h, x = jnp.zeros((N, UNITS)), jnp.zeros((N, TIME, F))
    with pytest.raises(ValueError, match=r"analysis\.gradient_by_time: loss: .* scalar"):
        gradient_by_time(lambda h, x: h, lambda h: h, h, x)
    with pytest.raises(ValueError, match=r"analysis\.gradient_by_time: step: .*\], as in state"):
        gradient_by_time(lambda h, x: h[:1], jnp.sum, h, x)
    with pytest.raises(ValueError, match=r"analysis\.gradient_by_time: x: .* \(n, time"):
        gradient_by_time(lambda h, x: h, jnp.sum, h, x[0, 0])
    with pytest.raises(TypeError, match=r"analysis\.gradient_by_time: x: .* an array"):
        gradient_by_time(lambda h, x: h, jnp.sum, h, [[1.0]])
    with pytest.raises(TypeError, match=r"gradient_by_time: step: got NoneType .* a function"):
        gradient_by_time(None, jnp.sum, h, x)
    with pytest.raises(TypeError, match=r"gradient_by_time: loss: got NoneType .* a function"):
        gradient_by_time(lambda h, x: h, None, h, x)
    with pytest.raises(TypeError, match=r"step\[0\]: got float32\[2,4\]; .* dtype of float16"):
        gradient_by_time(
            lambda h, x: (2 * h[0].astype(jnp.float32),), jnp.sum, (h.astype(jnp.float16),), x
        )
