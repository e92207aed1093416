"""Depth and time are one product: how the gradient vanishes by layer and by distance in time.

Systems   C6 D2
Command   python examples/vanishing.py
Time      15 s on 2 cores
Expected
    Above layer 2, sigmoid layers of width 1 divide the gradient by 8.1 to 8.2; the bound says 2.
    A recurrence over 12 steps passes back the gradients of 12 layers with the same weights.
    A linear recurrence of s times an orthogonal matrix passes back s^d at distance d.
    A norm below 1 makes gradients vanish; one above 1 need not make them explode.
    Sigmoid between 8 layers: the first gradient is below 1/1000 of the last, nothing is learned.
    ReLU between them: all are within a factor of 20, and over 90 % of new digits are right.
    At the start the curvature of both has both signs, and 9 of 10 eigenvalues are near 0.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, heat, histograms, label, save
from story import arguments, confirm, table

import fnn

WIDTHS = [64] * 8 + [10]
ACTIVATIONS = {"sigmoid": fnn.sigmoid, "ReLU": fnn.relu}
CHAIN = 12  # layers
TIME = 30  # steps


def chain_gradients(depth):
    """|d (y - z_L)^2 / d w_l| for z_l = sigmoid(w_l z_(l-1)), w_l = 1/2, z_0 = 1, y = 0."""

    def loss(weights):
        z = 1.0
        for w in weights:
            z = fnn.sigmoid(w * z)
        return z**2

    return np.abs(jax.jit(jax.grad(loss))([0.5] * depth))


def by_depth(w, h, depth):
    """The gradient's norm at every output of equal tanh layers, the last one first."""

    def loss(h):
        for i in range(depth):
            h = fnn.tanh(fnn.analysis.watch(h, f"{i}") @ w)
        return fnn.analysis.watch(h, f"{depth}").sum()

    deltas = jax.jit(fnn.analysis.gradients_at(loss))(h)
    return np.array([np.linalg.norm(deltas[f"{i}"]) for i in reversed(range(depth + 1))])


@functools.partial(jax.jit, static_argnames=("time", "act"))
def by_time(w, h, time, act):
    """The gradient's norm at every distance back, in a recurrence without inputs."""
    none, nothing = jnp.zeros((1, len(w))), jnp.zeros((1, time, 1))
    return fnn.analysis.gradient_by_time(
        lambda h, x: fnn.rnn_cell(x, none, w, state=h, activation=act), jnp.sum, h, nothing
    )


def logits(params, x, act):
    for layer in params[:-1]:
        x = act(fnn.dense(x, **layer))
    return fnn.dense(x, **params[-1])


def mean_loss(params, batch, act):
    return fnn.cross_entropy(logits(params, fnn.flatten(batch.x), act), batch.y).mean()


def spectrum(params, act):
    """The density of the eigenvalues of the loss' Hessian, of 256 digits."""
    data, _ = fnn.data.digits()
    batch = jax.tree.map(lambda x: x[:256], data)
    loss = functools.partial(mean_loss, act=act)
    key = jax.random.key(3)
    found = fnn.analysis.spectral_density(loss, params, batch, key=key, iterations=40, samples=1)
    return jax.tree.map(np.asarray, found)


def observe(params, grads, updates, batch):
    return {f"{i}": layer["w"] for i, layer in enumerate(grads, 1)}  # small: 29,000 numbers


def spread(found):
    """The distribution of |g| over all entries and steps, in powers of 10; a NaN is in no bar."""
    sizes = {i: np.log10(np.where(g != 0, np.abs(g), np.nan)) for i, g in found.items()}
    return fnn.analysis.activity(sizes, bins=50, limits=(-11, 1))


def start(key):
    """Xavier's normal weights, zero biases."""
    keys = jax.random.split(key, len(WIDTHS) - 1)
    draw = fnn.initializers.glorot_normal()
    pairs = itertools.pairwise(WIDTHS)
    return [fnn.init_dense(k, *sizes, weights=draw) for k, sizes in zip(keys, pairs, strict=True)]


def train(params, act, epochs):
    """Gradients by layer, of every fourth step; the share of new digits that are right; losses."""
    data, new = fnn.data.digits()
    data = jax.tree.map(lambda x: x[:1408], data)  # 22 whole batches: one shape to compile

    loss = functools.partial(mean_loss, act=act)
    reports = list(
        fnn.train(loss, params, fnn.sgd(0.02, momentum=0.9), data, batch_size=64,
                  epochs=epochs, key=jax.random.key(1), observe=observe, observe_every=4)
    )  # fmt: skip
    found = jax.tree.map(lambda *rows: np.concatenate(rows), *[r.observed for r in reports])
    score = jax.jit(lambda p: fnn.accuracy(logits(p, fnn.flatten(new.x), act), new.y).mean())
    last = reports[-1]
    return found, float(score(last.params)), last.step, [report.loss for report in reports]


def main(argv=None):
    args = arguments(__doc__, argv)

    chain = chain_gradients(CHAIN)
    rates = chain[1:] / chain[:-1]
    bound = chain[-1] * 2.0 ** -np.arange(CHAIN)[::-1]

    key = jax.random.key(2)
    q = fnn.initializers.orthogonal()(key, (16, 16), float)
    h = jax.random.normal(key, (1, 16))
    layers, steps = by_depth(0.9 * q, h, CHAIN), by_time(0.9 * q, h, CHAIN, fnn.tanh)
    linear = {s: np.asarray(by_time(s * q, h, TIME, fnn.identity)) for s in (0.9, 1.0, 1.1)}
    powers = {s: norms[0] * s ** np.arange(TIME + 1.0) for s, norms in linear.items()}
    bent = np.array([[0.5, 2.0], [0.0, 0.5]], np.float32)  # its spectral radius is 1/2
    transient = np.asarray(by_time(bent, np.ones((1, 2), np.float32), TIME, fnn.identity))

    params, epochs = start(jax.random.key(0)), 6 if args.quick else 30
    runs = {name: train(params, act, epochs) for name, act in ACTIVATIONS.items()}
    curvature = {name: spectrum(params, act) for name, act in ACTIVATIONS.items()}
    norms = {
        name: np.stack([np.linalg.norm(g, axis=(1, 2)) for g in found.values()])
        for name, (found, *_) in runs.items()
    }
    ratio = {name: n[0] / n[-1] for name, n in norms.items()}
    apart = {name: n.max(0) / n.min(0) for name, n in norms.items()}
    table(
        ["units", "first gradient / last, largest", "largest / smallest", "new digits right"],
        [(n, float(ratio[n].max()), float(apart[n].max()), f"{run[1]:.1%}")
         for n, run in runs.items()],
    )  # fmt: skip

    made, axes = figure(2, 4, width=4.0)
    draw_products(axes[0], axes[4], chain, bound, linear, steps, layers, transient)
    for (top, below), (name, (found, _, last, _)) in zip(
        [(axes[1], axes[5]), (axes[2], axes[6])], runs.items(), strict=True
    ):
        heat(top, np.log10(norms[name]), (0, last), (-5, 1), "log10 of the norm")
        label(top, f"{name}: gradient of the weights in training", "step", "layer")
        histograms(below, spread(found))
        label(
            below,
            f"{name}: entries of the gradient, all steps",
            "log10 |entry|, zeros apart",
            "layer",
        )
    points = np.linspace(-1.5, 5, 400)
    for line, name in zip(LINES, ACTIVATIONS, strict=False):
        axes[3].plot(range(1, epochs + 1), runs[name][3], **line, label=name)
        axes[7].semilogy(points, curvature[name].at(points, 0.03), **line, label=name)
    label(axes[3], "loss", "epoch", "cross-entropy", legend=True)
    axes[7].set_ylim(1e-6, 1e2)
    label(axes[7], "curvature at the start", "eigenvalue of the Hessian", "density", legend=True)
    save(made, args.out, "vanishing")

    confirm(
        __doc__,
        rates[2:].round(1).min() >= 8.1 and rates[2:].max() < 8.2 and (chain <= bound).all(),
        np.allclose(layers, steps, rtol=1e-4),
        all(np.allclose(linear[s], powers[s], rtol=1e-4) for s in linear),
        linear[0.9][-1] < 0.05 * linear[0.9][0]
        and np.linalg.norm(bent, 2) > 2
        and transient.max() > 1.5 * transient[0]
        and transient[-1] < 1e-6,
        ratio["sigmoid"].max() < 1e-3 and runs["sigmoid"][1] < 0.15,
        apart["ReLU"].max() < 20 and runs["ReLU"][1] > 0.9,
        all(
            d.eigenvalues.min() < -0.1
            and d.eigenvalues.max() > 0.1
            and d.weights[abs(d.eigenvalues) < 0.05].sum() > 0.9
            for d in curvature.values()
        ),
    )


def draw_products(depth, lag, chain, bound, linear, steps, layers, transient):
    numbers = range(1, len(chain) + 1)
    depth.semilogy(numbers, chain, **LINES[0], label="gradient")
    depth.semilogy(numbers, bound, **LINES[1], label="bound, C 2^-(L - l)")
    label(depth, "12 sigmoid layers of width 1", "layer l", "|d loss / d w_l|", legend=True)
    for line, (s, norms) in zip(LINES, linear.items(), strict=False):
        lag.semilogy(norms, **line, label=f"linear, {s} Q")
    lag.semilogy(steps, **LINES[3], label="tanh, 0.9 Q")
    lag.semilogy(layers, "k+", label="12 tanh layers, 0.9 Q")
    lag.set_ylim(1e-7, 1e2)  # leaves room for the legend
    lag.semilogy(transient[:16], **LINES[4], label="linear, norm 2.1, radius 0.5")
    label(lag, "by distance back in time (Q orthogonal)", "steps", "norm of the gradient",
          legend=True)  # fmt: skip


if __name__ == "__main__":
    main()
