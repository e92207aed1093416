"""What goes wrong in training, how it shows, and what helps: each trouble before and after.

Systems   B6 B8 B18
Command   python examples/remedies.py
Time      35 s on 2 cores, of processor time
Expected
    Local optima: of 64 starts at XOR some end high, where the gradient is almost 0; one ends low.
    Symmetry: from zeros the gradient of the weights is 0; from Xavier's start the loss falls.
    Rate: too low it hardly moves, too high the loss explodes; the range test finds one that learns.
    Momentum: at the same rate it is further after the same steps.
    Noise: at a constant rate the loss stays high; a decay and the average of iterates end lower.
    Dead units: with low biases over a third never fire; with zero biases they do, and learn.
    Off centre: logistic units have a mean near 1/2, tanh units near 0, and these learn faster.
    Ill-conditioning: normalised inputs, momentum, Adam and Newton all beat plain descent.
"""

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, label, save
from story import arguments, confirm, table

import fnn

WIDTH = 16
XAVIER, HE = fnn.initializers.glorot_normal(), fnn.initializers.he_normal()
XOR = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])


def mlp(key, act, bias=0.0, weights=XAVIER):
    """Return the start of a network 64-16-10, and its logits."""
    k1, k2 = jax.random.split(key)
    hidden = fnn.init_dense(k1, 64, WIDTH, weights=weights)
    hidden = {**hidden, "b": hidden["b"] + bias}
    return {"hidden": hidden, "head": fnn.init_dense(k2, WIDTH, 10, weights=weights)}, logits(act)


def logits(act):
    def model(params, x):
        z = fnn.analysis.watch(fnn.dense(x, **params["hidden"]), "hidden")
        return fnn.dense(act(z), **params["head"])

    return model


def objective(model, x, y):
    return lambda params: fnn.cross_entropy(model(params, x), y).mean()


def descent(loss, start, optimizer, steps):
    return fnn.trajectory(loss, start, optimizer, steps).loss


def restarts(steps):
    """A network of two hidden units at XOR, from 64 starts at once."""

    def loss(params):
        h = fnn.tanh(fnn.dense(XOR, **params["hidden"]))
        y = fnn.dense(h, **params["head"])[:, 0]
        return fnn.binary_cross_entropy(y, jnp.array([0.0, 1, 1, 0])).mean()

    def run(key):
        k1, k2 = jax.random.split(key)
        start = {"hidden": fnn.init_dense(k1, 2, 2), "head": fnn.init_dense(k2, 2, 1)}
        path = fnn.trajectory(loss, start, fnn.momentum(0.5, 0.9), steps)
        last = jax.tree.map(lambda x: x[-1], path.params)
        return path.loss, fnn.trees.global_norm(jax.grad(loss)(last))

    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 64))


def symmetry(x, y, steps):
    start, model = mlp(jax.random.key(0), fnn.tanh)
    loss = objective(model, x, y)
    zeros = jax.tree.map(np.zeros_like, start)
    starts = jax.tree.map(lambda *a: np.stack(a), zeros, start)
    curves = jax.vmap(lambda p: descent(loss, p, fnn.sgd(0.5), steps))(starts)
    slopes = jax.jit(jax.grad(loss))(zeros)
    weights = [float(np.abs(layer["w"]).max()) for layer in slopes.values()]
    return dict(zip(("zeros", "Xavier"), curves, strict=True)), max(weights)


def rates(x, y, steps):
    start, model = mlp(jax.random.key(0), fnn.tanh)

    def loss(params, batch):
        return fnn.cross_entropy(model(params, batch.x), batch.y).mean()

    found = fnn.analysis.rate_range(
        loss, start, fnn.sgd, fnn.data.Dataset(x, y), batch_size=64, key=jax.random.key(1),
        low=1e-4, high=1e3, steps=100,
    )  # fmt: skip
    tried = {"too low": 1e-4, "too high": 50.0, "range test's": found.suggestion}
    whole = objective(model, x, y)
    curves = jax.vmap(lambda r: descent(whole, start, fnn.sgd(r), steps))(
        jnp.array([*tried.values()])
    )
    return {f"{n}, {r:.2g}": c for (n, r), c in zip(tried.items(), curves, strict=True)}


def memory(x, y, steps):
    start, model = mlp(jax.random.key(0), fnn.tanh)
    loss = objective(model, x, y)
    curves = jax.vmap(lambda m: descent(loss, start, fnn.momentum(0.05, m), steps))(
        jnp.array([0.0, 0.9])
    )
    return dict(zip(("momentum 0", "momentum 0.9"), curves, strict=True))


def noise(x, y, steps):
    """Batches of two: the loss over all examples, at a constant rate, a falling one, averaged."""

    def model(params, x):
        return fnn.dense(x, **params)

    start = fnn.init_dense(jax.random.key(0), 64, 10)
    whole = objective(model, x, y)

    def run(rate):
        optimizer = fnn.chain(fnn.sgd(rate), fnn.average(0.99, debias=True))
        step = fnn.make_step(lambda p, rows: objective(model, x[rows], y[rows])(p), optimizer)

        def advance(carry, rows):
            params, state, _ = step(*carry, rows)
            return (params, state), (whole(params), whole(fnn.averaged(state)))

        rows = jax.random.randint(jax.random.key(1), (steps, 2), 0, len(y))
        return jax.lax.scan(advance, (start, optimizer.init(start)), rows)[1]

    constant, averaged = jax.jit(lambda: run(1.0))()
    decayed, _ = jax.jit(lambda: run(fnn.schedules.linear(1.0, 0.0, steps)))()
    return {"constant rate": constant, "falling rate": decayed, "average of iterates": averaged}


def units(x, y, steps, cases):
    """Train each case's hidden units; return the curves, and what the units did at the start."""
    curves, seen = {}, {}
    for name, (act, bias) in cases.items():
        start, model = mlp(jax.random.key(2), act, bias, HE)
        curves[name] = descent(objective(model, x, y), start, fnn.sgd(0.2), steps)
        z = jax.jit(fnn.analysis.watched(model))(start, x)
        seen[name] = fnn.analysis.activity(z, act)["hidden"]
    return curves, seen


def conditioning(x, y, steps):
    """Name one digit by least squares, from pixels as they are and normalised."""
    x, target = np.asarray(x), np.where(np.asarray(y) == 0, np.float32(1), np.float32(-1))
    varied = x[:, x.std(0) > 0.1]
    cases = {"plain": varied, "normalised": fnn.standardize(varied, **fnn.fit_standardize(varied))}

    def of(inputs):
        def loss(params):
            error = inputs @ params["w"] + params["b"] - target
            return (error**2).mean() / 2 + 1e-3 * fnn.l2_penalty(params["w"])

        return loss

    start = {"w": jnp.zeros(varied.shape[1]), "b": jnp.zeros(())}
    ends = {
        n: fnn.extreme_eigenvalues(of(v), start, key=jax.random.key(0)) for n, v in cases.items()
    }
    rate = {n: 1.0 / s.largest for n, s in ends.items()}
    runs = {
        "plain descent": ("plain", fnn.sgd(rate["plain"])),
        "normalised inputs": ("normalised", fnn.sgd(rate["normalised"])),
        "momentum 0.9": ("plain", fnn.momentum(rate["plain"], 0.9)),
        "Adam": ("plain", fnn.adam(0.03)),
        "Newton": ("plain", fnn.newton()),
    }
    best = {n: descent(of(v), start, fnn.newton(), 3)[-1] for n, v in cases.items()}
    curves = {n: descent(of(cases[c]), start, o, steps) - best[c] for n, (c, o) in runs.items()}
    return curves, {n: float(s.largest / s.smallest) for n, s in ends.items()}


def draw(folder, losses, panels):
    made, axes = figure(2, 4, width=3.6, height=3.0)
    for curve in losses[::4]:
        axes[0].plot(curve, color="0.7", linewidth=0.7)
    axes[0].plot([], [], color="0.7", label="every fourth of 64 starts")
    axes[0].plot(losses[losses[:, -1].argmin()], **LINES[0], label="the best of them")
    label(axes[0], "local optima: XOR", "step", "loss", legend=True)
    for at, (title, curves) in zip(axes[1:], panels.items(), strict=True):
        for line, (name, curve) in zip(LINES, curves.items(), strict=False):
            at.semilogy(
                np.maximum(curve, 1e-6), **{**line, "markevery": len(curve) // 6}, label=name
            )
        label(at, title, "step", "loss", legend=True)
    axes[2].set_ylim(0.05, 1e4)
    for at in (axes[5], axes[6]):
        at.yaxis.set_minor_formatter("")
        at.set_ylim(0.1, 4)
    axes[7].set(ylabel="loss - least loss", ylim=(1e-5, 1))
    save(made, folder, "remedies")


def main(argv=None):
    args = arguments(__doc__, argv)
    train, _ = fnn.data.digits()
    x, y = jax.device_put((train.x[:200].reshape(200, 64), train.y[:200]))
    steps = 60 if args.quick else 150

    losses, slopes = map(np.asarray, restarts(400))
    same, slope = symmetry(x, y, steps)
    rate = rates(x, y, steps)
    ball = memory(x, y, steps)
    noisy = noise(x, y, 600)
    fired, seen = units(x, y, steps, {"bias -3": (fnn.relu, -3.0), "bias 0": (fnn.relu, 0.0)})
    dead = {name: float(layer.dead) for name, layer in seen.items()}
    off, seen = units(x, y, steps, {"logistic": (fnn.sigmoid, 0.0), "tanh": (fnn.tanh, 0.0)})
    mean = {name: float(layer.mean) for name, layer in seen.items()}
    valley, ratio = conditioning(x, y, steps)

    stuck = losses[:, -1] > 0.3
    panels = {
        "symmetry: start": same, "learning rate": rate, "slow: momentum": ball,
        "noise: batches of 2": noisy, "dead units: first biases": fired,
        "off centre: hidden units": off, "ill-conditioning: least squares": valley,
    }  # fmt: skip
    ends = {title: {n: float(c[-1]) for n, c in curves.items()} for title, curves in panels.items()}
    table(
        ["what goes wrong", "case", "last loss"],
        [("local optima", f"{stuck.mean():.0%} of the starts", float(losses[stuck, -1].mean())),
         ("local optima", "best of 64 starts", float(losses[:, -1].min())),
         *[(t, n, value) for t, cases in ends.items() for n, value in cases.items()]],
    )  # fmt: skip
    table(
        ["seen by", "before", "after"],
        [("gradient of the stuck starts", float(slopes[stuck].max()), ""),
         ("gradient of the weights at zeros", slope, ""),
         ("dead units", dead["bias -3"], dead["bias 0"]),
         ("mean of hidden units", mean["logistic"], mean["tanh"]),
         ("largest / smallest curvature", ratio["plain"], ratio["normalised"])],
    )  # fmt: skip
    draw(args.out, losses, panels)

    same, rate, ball, noisy, fired, off, valley = ends.values()
    low, high, found = rate.values()
    confirm(
        __doc__,
        stuck.any() and slopes[stuck].max() < 1e-2 and losses[:, -1].min() < 0.01,
        slope == 0 and same["zeros"] > 2 and same["Xavier"] < 1,
        low > 2 and not high < 10 and found < 1,
        ball["momentum 0.9"] < ball["momentum 0"] / 2,
        max(noisy["falling rate"], noisy["average of iterates"]) < noisy["constant rate"] / 2,
        dead["bias -3"] > 1 / 3 and dead["bias 0"] < 0.1 and fired["bias 0"] < fired["bias -3"] / 2,
        abs(mean["logistic"] - 0.5) < 0.1
        and abs(mean["tanh"]) < 0.2
        and off["tanh"] < off["logistic"],
        all(v < valley["plain descent"] for n, v in valley.items() if n != "plain descent"),
    )


if __name__ == "__main__":
    main()
