"""The learning rate against the curvature: what gradient descent does on a quadratic and near one.

Systems   E1 E2 E3 B7
Command   python examples/descent.py
Time      12 s on 2 cores
Expected
    On x1^2 + 2 x2^2 every step multiplies each coordinate by 1 - rate * curvature.
    Newton's method is at the minimum after one step, the diagonal one too where the axes are apart.
    Along an eigenvector a rate times lambda below 1 decays, below 2 oscillates, above 2 diverges.
    The mean of the mini-batch gradients is the gradient, whatever the batch size.
    Noise in the gradient leaves a local minimum that gradient descent does not leave.
    Near a minimum of a trained network 0.98 of 2 / lambda_max stays, 1.02 leaves.
    Far from a minimum the bound does not hold: there the network still learns at 1.02 of its bound.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, contours, figure, label, save
from story import arguments, confirm, table

import fnn

START = np.array([-5.0, -2.0], np.float32)


def bowl(x):
    return x[..., 0] ** 2 + 2 * x[..., 1] ** 2


def wells(x):  # a local minimum near 1, a deeper one near -1
    return jnp.sum((x**2 - 1) ** 2 + 0.3 * x)


def network(key):
    """A small tanh network on 64 digits of two classes, and its loss."""
    train, _ = fnn.data.digits()
    chosen = np.flatnonzero(np.isin(train.y, (3, 8)))[:64]
    x, y = jnp.asarray(train.x[chosen].reshape(64, -1)), jnp.asarray(train.y[chosen] == 8, float)
    k1, k2 = jax.random.split(key)
    params = {"hidden": fnn.init_dense(k1, 64, 8), "head": fnn.init_dense(k2, 8, 1)}

    def loss(params):
        h = fnn.tanh(fnn.dense(x, **params["hidden"]))
        fit = fnn.binary_cross_entropy(fnn.dense(h, **params["head"])[:, 0], y).mean()
        return fit + 0.02 * fnn.l2_penalty(params)  # the penalty makes the minimum one

    return params, loss


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def settle(params, loss, steps):
    return jax.tree.map(
        lambda x: x[-1], fnn.trajectory(loss, params, fnn.sgd(0.5, momentum=0.9), steps).params
    )


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def leaving(params, loss, share, steps):
    """The distance from the minimum at every step, from near it, at a share of 2 / lambda_max."""
    key = jax.random.key(3)
    bound = fnn.max_stable_step(loss, params, key=key, iterations=100)
    noise = jax.tree.map(lambda x: 1e-3 * jax.random.normal(key, x.shape), params)
    moved = jax.tree.map(jnp.add, params, noise)
    run = fnn.trajectory(loss, moved, fnn.sgd(share * bound), steps)
    gaps = jax.tree.map(lambda at, x: at - x, run.params, params)
    return jax.vmap(fnn.trees.global_norm)(gaps)


@jax.jit
def noisy(x, key, scale):
    """Gradient descent with noise that shrinks to nothing."""
    steps = 400

    def move(x, t):
        noise = scale * (1 - t / steps) * jax.random.normal(jax.random.fold_in(key, t), x.shape)
        return x - 0.05 * (jax.grad(wells)(x) + noise), x

    return jax.lax.scan(move, x, jnp.arange(steps))[0]


def main(argv=None):
    args = arguments(__doc__, argv)

    runs = {
        rate: np.asarray(fnn.trajectory(bowl, START, fnn.sgd(rate), 20).params)
        for rate in (0.05, 0.2, 0.4)
    }
    factors = {rate: (1 - 2 * rate, 1 - 4 * rate) for rate in runs}
    predicted = {
        rate: START * np.array(f) ** np.arange(21.0)[:, None] for rate, f in factors.items()
    }
    exact = max(float(np.abs(runs[r] - predicted[r]).max()) for r in runs)
    table(["rate", "factor x1", "factor x2", "distance"],
          [(r, *factors[r], float(np.linalg.norm(runs[r][-1]))) for r in runs])  # fmt: skip

    newton = fnn.trajectory(bowl, START, fnn.newton(), 1).params[-1]
    diagonal = fnn.trajectory(bowl, START, fnn.diagonal_newton(), 1).params[-1]

    regimes = {
        a: fnn.trajectory(lambda x: (x**2).sum() / 2, jnp.array([1.0]), fnn.sgd(a), 12).params[:, 0]
        for a in (0.5, 1.5, 2.1)
    }
    decays, swings, grows = (np.asarray(regimes[a]) for a in (0.5, 1.5, 2.1))
    regime = (
        (decays > 0).all() and np.all(swings[:-1] * swings[1:] < 0) and abs(swings[-1]) < 0.1
        and abs(grows[-1]) > 1
    )  # fmt: skip

    params, loss = network(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (60, 3))
    gradient = jax.jit(jax.grad(lambda w, x: (jnp.tanh(x @ w) ** 2).mean()))
    w = jnp.array([0.3, -0.2, 0.5])
    batches = {b: jax.vmap(gradient, (None, 0))(w, x.reshape(-1, b, 3)) for b in (1, 5, 20)}
    whole = gradient(w, x)
    unbiased = max(float(np.abs(np.mean(g, 0) - whole).max()) for g in batches.values())

    ends = jax.vmap(lambda k: noisy(jnp.array([0.9]), k, 6.0))(
        jax.random.split(jax.random.key(2), 64)
    )
    left, stayed = (
        float(np.mean(np.asarray(ends) < 0)),
        float(noisy(jnp.array([0.9]), jax.random.key(2), 0.0)[0]),
    )
    print(f"{left:.0%} of 64 noisy runs leave the local minimum; without noise: x = {stayed:.3f}\n")

    minimum = settle(params, loss, 2000)
    steps = 400
    near = {share: np.asarray(leaving(minimum, loss, share, steps)) for share in (0.98, 1.02)}
    table(["share of 2 / lambda_max", "distance at first", "in the end"],
          [(s, float(d[0]), float(d[-1])) for s, d in near.items()])  # fmt: skip
    bound = fnn.max_stable_step(loss, params, key=jax.random.key(3))
    far = fnn.trajectory(loss, params, fnn.sgd(1.02 * bound), 200).loss

    made, axes = figure(1, 3)
    contours(axes[0], bowl, (-6, 4), (-3, 3))
    for line, (rate, points) in zip(LINES, runs.items(), strict=False):
        axes[0].plot(*points.T, **line, label=f"rate {rate}")
    axes[0].plot(*np.stack([START, newton]).T, color="0.2", linewidth=0.9, label="Newton")
    label(axes[0], "x1² + 2 x2²", "x1", "x2", legend=True)
    for line, (a, points) in zip(LINES, regimes.items(), strict=False):
        axes[1].plot(points, **line, label=f"rate · λ = {a}")
    label(axes[1], "one eigen-coordinate", "step", "coordinate", legend=True)
    for line, (share, distance) in zip(LINES, near.items(), strict=False):
        axes[2].semilogy(distance, **line, label=f"{share} of 2 / λ_max")
    label(axes[2], "distance from a trained network's minimum", "step", "|θ - θ*|", legend=True)
    save(made, args.out, "descent")

    confirm(
        __doc__,
        exact < 1e-4,
        np.abs(newton).max() < 1e-5 and np.abs(diagonal).max() < 1e-5,
        regime,
        unbiased < 1e-6,
        left > 0.5 and stayed > 0.8,
        near[0.98][-1] < 0.01 * near[0.98][0] and near[1.02][-1] > 1.5 * near[1.02][0],
        far[-1] < 0.9 * far[0],
    )


if __name__ == "__main__":
    main()
