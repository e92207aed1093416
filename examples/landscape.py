"""The landscape of a loss: flat places, saddles, plateaux, and why a network's is not convex.

Systems   A1 B4 B5 E11
Command   python examples/landscape.py
Time      15 s on 2 cores
Expected
    For two sigmoids' inputs in [-10, 10]^2, squared error is flat on 0.186 of the square.
    The cross-entropy is flat on 0.155 of it, the binary cross-entropy on 0.024.
    Flat and wrong: 0.089, 0.077 and 0.000; with softmax 0.214 is flat, and nowhere wrong.
    Critical points are told apart by the signs of the Hessian's extreme eigenvalues.
    Exactly on a saddle gradient descent stays; a little beside it, it leaves.
    A wrong answer far off has no slope under 0-1 loss, hard threshold, or logistic least squares.
    Reordered hidden units compute the same; the average over all orders costs more.
    Squared error and cross-entropy are convex in the prediction, a network is not in its weights.
    A small step changes f by -rate |f'|^2, up to terms of the order of rate^2.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, contours, figure, label, save
from story import arguments, confirm, table

import fnn

TARGET = jnp.array([1.0, 0.0])
FLAT = 1e-3

LOSSES = {
    "squared error": lambda s: ((fnn.sigmoid(s) - TARGET) ** 2).sum(),
    "cross-entropy": lambda s: -(TARGET * fnn.log_sigmoid(s)).sum(),
    "binary cross-entropy": lambda s: fnn.binary_cross_entropy(s, TARGET).sum(),
    "softmax cross-entropy": lambda s: fnn.cross_entropy(s, 0),
}


def shares(loss, points):
    """The share of the points where all slopes are small, and where the answer is wrong besides."""
    slope = np.abs(jax.jit(jax.vmap(jax.grad(loss)))(points)).max(-1)
    softmax = loss is LOSSES["softmax cross-entropy"]  # whose answer is the larger of the two
    off = (points[:, 0] < 0) | (points[:, 1] > 0)
    flat, wrong = slope < FLAT, points[:, 0] < points[:, 1] if softmax else off
    return float(flat.mean()), float((flat & wrong).mean()), slope


@jax.jit
def network(params, x):
    return fnn.dense(fnn.tanh(fnn.dense(x, **params["hidden"])), **params["head"])[:, 0]


def reordered(params, order):
    hidden, head = params["hidden"], params["head"]
    order = np.asarray(order)
    return {
        "hidden": {"w": hidden["w"][:, order], "b": hidden["b"][order]},
        "head": {"w": head["w"][order], "b": head["b"]},
    }


def trained():
    """Four tanh units that have learned one period of a sine."""
    x = jnp.linspace(-1, 1, 64)[:, None]
    y = jnp.sin(np.pi * x[:, 0])
    k1, k2 = jax.random.split(jax.random.key(1))
    params = {"hidden": fnn.init_dense(k1, 1, 4), "head": fnn.init_dense(k2, 4, 1)}

    def loss(params):
        return fnn.squared_error(network(params, x), y).mean()

    run = fnn.trajectory(loss, params, fnn.adam(0.03), 600)
    return jax.tree.map(lambda p: np.asarray(p)[-1], run.params), loss, x


def between(a, b, loss, points=41):
    """The loss along the straight line from one set of parameters to another."""
    way = np.linspace(0, 1, points)
    mix = jax.jit(jax.vmap(lambda t: loss(jax.tree.map(lambda p, q: (1 - t) * p + t * q, a, b))))
    return way, np.asarray(mix(way))


def convex(f, pairs):
    """The largest violation of Jensen's inequality at the middle of pairs of points."""
    a, b = pairs
    ends, middle = jax.jit(jax.vmap(lambda a, b: ((f(a) + f(b)) / 2, f((a + b) / 2))))(a, b)
    return float(np.max(np.asarray(middle) - ends))


def main(argv=None):
    args = arguments(__doc__, argv)
    side = 800
    axis = (np.arange(side) + 0.5) * 20 / side - 10  # the middles of the square's cells
    square = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    found = {name: shares(loss, square) for name, loss in LOSSES.items()}
    table(["loss", "flat", "flat and wrong"], [(n, f, w) for n, (f, w, _) in found.items()])
    flat = {name: (round(f, 3), round(w, 3)) for name, (f, w, _) in found.items()}

    forms = {
        "minimum": lambda x: x[0] ** 2 + 3 * x[1] ** 2,
        "maximum": lambda x: -(x[0] ** 2) - x[1] ** 2,
        "saddle": lambda x: x[0] ** 2 - x[1] ** 2,
        "degenerate": lambda x: x[0] ** 2 + 0 * x[1],
    }
    kinds = {
        n: fnn.critical_point(f, jnp.zeros(2), key=jax.random.key(0)) for n, f in forms.items()
    }
    saddle = forms["saddle"]
    on, beside = (
        np.asarray(fnn.trajectory(saddle, jnp.array([1.0, y]), fnn.sgd(0.1), 60).params)
        for y in (0.0, 1e-3)
    )

    plateaux = {
        "0-1 loss": lambda z: (fnn.unit_step(z) - 1) ** 2 > 0.5,
        "hard threshold": lambda z: (fnn.unit_step(z) - 1.0) ** 2,
        "logistic, least squares": lambda z: (fnn.sigmoid(z) - 1) ** 2,
        "logistic, cross-entropy": lambda z: fnn.softplus(-z),
    }
    slopes = {n: jax.grad(lambda z, f=f: 1.0 * f(z).astype(float)) for n, f in plateaux.items()}
    steep = {n: abs(float(jax.jit(slope)(-12.0))) for n, slope in slopes.items()}
    table(["loss of a right unit at -12", "slope"], list(steep.items()))

    params, loss, x = trained()
    orders = list(itertools.permutations(range(4)))
    swapped = [reordered(params, order) for order in orders]
    y = np.asarray(network(params, x))
    same = max(float(np.abs(network(p, x) - y).max()) for p in swapped)
    mean = jax.tree.map(lambda *p: sum(p) / len(p), *swapped)
    costs = float(loss(params)), float(loss(mean))
    table(["", "loss"], [("trained", costs[0]), ("mean of its 24 orders", costs[1])])

    pairs = jax.random.normal(jax.random.key(2), (2, 500, 3)) * 3
    jensen = {
        "squared error": convex(lambda p: fnn.squared_error(p, jnp.ones(3)).sum(), pairs),
        "cross-entropy": convex(lambda p: fnn.cross_entropy(p, 1), pairs),
    }
    way, bump = between(params, reordered(params, (1, 0, 3, 2)), loss)

    f = jax.jit(lambda v: jnp.cosh(v[0]) + v[1] ** 4)
    point = np.array([0.7, 0.9], np.float32)
    slope = np.asarray(jax.jit(jax.grad(f))(point))
    rests = [abs(float(f(point - r * slope) - f(point) + r * slope @ slope)) for r in (1e-2, 5e-3)]

    made, axes = figure(1, 3)
    shown = found["squared error"][2].reshape(side, side) < FLAT
    axes[0].contourf(axis, axis, shown, [-0.5, 0.5, 1.5], colors=["0.97", "0.75"])
    axes[0].plot([0, 0, 10], [-10, 0, 0], color="0.3", linewidth=0.8)
    axes[0].grid(visible=False)
    label(axes[0], "squared error: grey is flat, right only lower right", "s1", "s2")
    contours(axes[1], lambda p: p[..., 0] ** 2 - p[..., 1] ** 2 + 4, (-1.2, 1.2), (-1.2, 1.2))
    for line, points, name in (
        (LINES[0], on, "on its ridge"),
        (LINES[1], beside[:35], "beside it"),
    ):
        axes[1].plot(*points.T, **line, label=name)
    axes[1].set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    label(axes[1], "a saddle", "x", "y", legend=True)
    axes[2].plot(way, bump, color="#0b3d91")
    label(axes[2], "from a network to itself, units reordered", "part of the way", "loss")
    save(made, args.out, "landscape")

    confirm(
        __doc__,
        abs(flat["squared error"][0] - 0.186) <= 0.001,
        abs(flat["cross-entropy"][0] - 0.155) <= 0.001
        and abs(flat["binary cross-entropy"][0] - 0.024) <= 0.001,
        np.allclose([flat[n][1] for n in LOSSES], [0.089, 0.077, 0.0, 0.0], atol=0.001)
        and abs(flat["softmax cross-entropy"][0] - 0.214) <= 0.001,
        all(kinds[name].kind == name for name in forms),
        on[-1][1] == 0 and np.abs(on[-1]).max() < 1e-4 and abs(beside[-1][1]) > 1,
        max(steep[n] for n in list(steep)[:3]) < 1e-4 and steep["logistic, cross-entropy"] > 0.99,
        same < 1e-5 and costs[1] > 3 * costs[0],
        max(jensen.values()) < 1e-5 and bump.max() > 2 * max(bump[0], bump[-1]),
        rests[0] < 1e-2 and 3.5 < rests[0] / rests[1] < 4.5,
    )


if __name__ == "__main__":
    main()
