"""The landscape of a loss: where it is flat, and what makes it convex or not."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fnn

TARGET = np.array([1.0, 0.0], np.float32)
FLAT = 1e-3
LOSSES: dict[str, tuple[Any, float, float]] = {  # the share that is flat, and flat and wrong
    "squared error": (lambda s: fnn.squared_error(fnn.sigmoid(s), TARGET).sum(), 0.1864, 0.0892),
    "cross-entropy": (lambda s: -(TARGET * fnn.log_sigmoid(s)).sum(), 0.1547, 0.0773),
    "binary cross-entropy": (lambda s: fnn.binary_cross_entropy(s, TARGET).sum(), 0.0239, 0),
    "softmax cross-entropy": (lambda s: fnn.cross_entropy(s, 0), 0.2143, 0),
}


def test_A1_shares_of_the_square_that_are_flat() -> None:
    """Two sigmoid outputs s in [-10, 10]^2, flat where all |d loss / d s| < 1e-3.

    On a grid of step 0.05 with both ends counted, squared error is flat on 0.188 of the points and
    flat and wrong on 0.091; of the square itself the shares are 0.186 and 0.089.
    With softmax the order breaks: it is flat on more than the squared error, and nowhere wrong.
    """
    slopes_of = jax.jit(
        lambda s: [jnp.abs(jax.vmap(jax.grad(loss))(s)).max(1) for loss, *_ in LOSSES.values()]
    )
    square = points((np.arange(800) + 0.5) / 40 - 10)  # the middles of the square's cells
    wrong = (square[:, 0] < 0) | (square[:, 1] > 0)
    softmax_wrong = square[:, 0] < square[:, 1]
    for (name, (_, flat, and_wrong)), slope in zip(LOSSES.items(), slopes_of(square), strict=True):
        low = np.asarray(slope) < FLAT
        assert abs(low.mean() - flat) < 5e-4, name
        mistaken = softmax_wrong if name.startswith("softmax") else wrong
        assert abs((low & mistaken).mean() - and_wrong) < 5e-4, name
    grid = points(np.arange(401) / 20 - 10)  # with both ends
    low = np.asarray(slopes_of(grid)[0]) < FLAT
    assert abs(low.mean() - 0.188) < 5e-4
    assert abs((low & ((grid[:, 0] < 0) | (grid[:, 1] > 0))).mean() - 0.091) < 5e-4


def points(axis: Any) -> Any:
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2).astype(np.float32)


def network(params: Any, x: Any) -> Any:
    return fnn.dense(fnn.tanh(fnn.dense(x, **params["hidden"])), **params["head"])[:, 0]


def trained() -> Any:
    """Three tanh units that have learned a parabola; the loss, and the inputs."""
    x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    keys = jax.random.split(jax.random.key(1))
    params = {"hidden": fnn.init_dense(keys[0], 1, 3), "head": fnn.init_dense(keys[1], 3, 1)}
    loss = lambda params: fnn.squared_error(network(params, x), 2 * x[:, 0] ** 2 - 1).mean()
    run = fnn.trajectory(loss, params, fnn.adam(0.05), 400)
    return jax.tree.map(lambda p: np.asarray(p)[-1], run.params), loss, x


def reordered(params: Any, order: Any) -> Any:
    """The hidden units in another order, with the weights that lead to and from them."""
    hidden, head = params["hidden"], params["head"]
    return {
        "hidden": {"w": hidden["w"][:, order], "b": hidden["b"][order]},
        "head": {"w": head["w"][order], "b": head["b"]},
    }


def test_B5_E11_the_order_of_hidden_units_and_convexity() -> None:
    """A network in any order computes the same; the average over all orders costs more.

    So its loss is not convex in its weights: Jensen's inequality fails.
    """
    params, loss, x = trained()
    orders = [reordered(params, list(order)) for order in itertools.permutations(range(3))]
    orders.append(jax.tree.map(lambda *leaves: np.mean(leaves, 0), *orders))
    *results, (_, mean) = jax.jit(lambda every: [(network(p, x), loss(p)) for p in every])(orders)
    for y, _ in results:
        np.testing.assert_allclose(y, results[0][0], atol=1e-5)
    costs = [float(cost) for _, cost in results]
    assert costs[0] < 0.01
    assert float(mean) > 10 * np.mean(costs)


def test_E11_losses_are_convex_in_the_prediction() -> None:
    """f(sum a_i x_i) <= sum a_i f(x_i) for weights a_i >= 0 of sum 1."""
    rng = np.random.default_rng(0)
    points = (5 * rng.standard_normal((200, 4, 3))).astype(np.float32)
    shares = rng.dirichlet(np.ones(4), 200).astype(np.float32)
    mixed = (shares[..., None] * points).sum(1)
    losses = {
        "squared error": lambda s: fnn.squared_error(s, jnp.ones_like(s)).sum(-1),
        "cross-entropy": lambda s: fnn.cross_entropy(s, jnp.ones(s.shape[:-1], jnp.int32)),
    }
    for name, f in losses.items():
        at_points, at_mixed = jax.jit(lambda a, b, f=f: (f(a), f(b)))(points, mixed)
        gap = np.asarray((shares * at_points).sum(1) - at_mixed)
        assert float(gap.min()) >= 0, name
        assert float(gap.max()) > 1, name  # far from linear


def test_E11_a_small_step_descends_by_the_squared_slope() -> None:
    """f(x - eta f') = f - eta f'^2 + O(eta^2): half the step, a quarter of the rest."""
    f = lambda x: x**4 - 3 * x
    x, rates = 1.7, np.array([2e-3, 1e-3])
    slope = 4 * x**3 - 3
    step = jax.vmap(lambda eta: fnn.trajectory(f, jnp.array(x), fnn.sgd(eta), 1).params[1])
    rests = f(np.asarray(step(rates), np.float64)) - (f(x) - rates * slope**2)
    np.testing.assert_allclose(rests, rates**2 * slope**2 * 6 * x**2, 0.05)
    np.testing.assert_allclose(rests[0] / rests[1], 4, rtol=0.05)
