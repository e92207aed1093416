"""The reference systems of training: the algorithms of the courses, written out in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from tests.check import close
from tests.oracles import backprop as oracle
from tests.training.cases import DATA, KEY, X, Y, squares

RNG = np.random.default_rng(0)
SIZES, N = (3, 6, 5, 4), 40
IMAGES = RNG.standard_normal((N, SIZES[0])).astype(np.float32)
LABELS = RNG.integers(0, SIZES[-1], N)


def start() -> Any:
    """Xavier's weights, zero biases."""
    keys = jax.random.split(KEY, len(SIZES) - 1)
    pairs = zip(keys, SIZES[:-1], SIZES[1:], strict=True)
    return [fnn.init_dense(key, d_in, d_out) for key, d_in, d_out in pairs]


def network(params: Any, x: Any) -> Any:
    for layer in params[:-1]:
        x = fnn.tanh(fnn.dense(x, **layer))
    return fnn.dense(x, **params[-1])


def wide(params: Any) -> Any:
    """The same in float64 NumPy, as pairs (W, b)."""
    return [tuple(np.asarray(layer[k], np.float64) for k in ("w", "b")) for layer in params]


def apart(params: Any, layers: Any, steps: int) -> None:
    for layer, (w, b) in zip(params, layers, strict=True):
        close(layer["w"], w, length=steps * N)
        close(layer["b"], b, length=steps * N)


def test_A4_the_whole_algorithm() -> None:
    """A fresh random subset at every step; lambda in the cost; weights, biases and costs."""
    rate, strength, mu, size, steps = 0.1, 0.01, 0.9, 8, 30
    subsets = [RNG.choice(N, size, replace=False) for _ in range(steps)]

    def cost(params: Any, batch: Any) -> Any:
        x, y = batch
        penalty = fnn.l2_penalty(params, mask=lambda path: path.endswith("w"))
        return fnn.cross_entropy(network(params, x), y).mean() + strength * penalty

    batches = [(IMAGES[chosen], LABELS[chosen]) for chosen in subsets]
    optimizer = fnn.momentum(rate, mu)
    run = fnn.train(cost, start(), optimizer, batches, epochs=1, key=KEY, report_every=1)
    *_, last = reports = list(run)

    layers = wide(start())
    assert all((b == 0).all() for _, b in layers)
    velocity = [(np.zeros_like(w), np.zeros_like(b)) for w, b in layers]
    costs = []
    for chosen in subsets:
        loss, grads = oracle.softmax_network(layers, IMAGES[chosen], LABELS[chosen], "tanh")
        costs.append(loss + strength / 2 * sum((w**2).sum() for w, _ in layers))
        for i, ((w, b), (dw, db)) in enumerate(zip(layers, grads, strict=True)):
            vw, vb = velocity[i]
            velocity[i] = mu * vw - rate * (dw + strength * w), mu * vb - rate * db
            layers[i] = w + velocity[i][0], b + velocity[i][1]
    close(np.float32([report.loss for report in reports]), costs, length=steps)
    apart(last.params, layers, steps)


def test_C2_single_samples_drawn_uniformly() -> None:
    """theta <- theta - eta grad l_i for one i at a time, drawn anew, whatever came before."""
    rate, draws = 0.1, RNG.integers(0, len(X), 60)
    assert len(set(draws[: len(X)])) < len(X)  # no pass over the data
    batches = [jax.tree.map(lambda a, i=i: a[[i]], DATA) for i in draws]
    params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    *_, last = fnn.train(squares, params, fnn.sgd(rate), batches, epochs=1, key=KEY)
    w, b = np.zeros(3), 0.0
    for i in draws:
        slope = 2 * (X[i].astype(np.float64) @ w + b - Y[i])
        w, b = w - rate * slope * X[i], b - rate * slope
    close(last.params["w"], w, length=len(draws))
    close(last.params["b"], b, length=len(draws))


def test_D1_a_multi_layer_softmax_network_by_recursion() -> None:
    """With columns: delta_l = W_(l+1)^T (delta_(l+1) * act'(Z_(l+1))), d rho/dU = -(e(Y) - f)."""
    rate, draws = 0.2, RNG.integers(0, N, 40)
    batches = [(IMAGES[[i]], LABELS[[i]]) for i in draws]

    def rho(params: Any, batch: Any) -> Any:
        return fnn.cross_entropy(network(params, batch[0]), batch[1]).mean()

    *_, last = fnn.train(rho, start(), fnn.sgd(rate), batches, epochs=1, key=KEY)

    (w1, b1), (w2, b2), (c, bc) = [(w.T, b) for w, b in wide(start())]
    for i in draws:
        x = IMAGES[i].astype(np.float64)
        h1 = np.tanh(w1 @ x + b1)
        h2 = np.tanh(w2 @ h1 + b2)
        e, f = np.eye(SIZES[-1])[LABELS[i]], oracle.softmax(c @ h2 + bc)
        to_u = -(e - f)
        delta2 = c.T @ to_u
        delta1 = w2.T @ (delta2 * (1 - h2**2))
        c, bc = c - rate * np.outer(to_u, h2), bc - rate * to_u
        w2, b2 = w2 - rate * np.outer(delta2 * (1 - h2**2), h1), b2 - rate * delta2 * (1 - h2**2)
        w1, b1 = w1 - rate * np.outer(delta1 * (1 - h1**2), x), b1 - rate * delta1 * (1 - h1**2)
    apart(last.params, [(w1.T, b1), (w2.T, b2), (c.T, bc)], len(draws))
