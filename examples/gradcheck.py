"""Checking gradients: finite differences find a planted bug and say where it is.

Systems   B1
Command   python examples/gradcheck.py
Time      10 s on 2 cores
Expected
    Every entry of a right gradient agrees with two-sided differences to six digits.
    A bias's gradient that is a mean instead of a sum is found by its path, and nothing else is.
    A wrong derivative of an activation shows in all layers below it, and in none above.
    One-sided errors fall like h, two-sided ones like h²; rounding makes both grow like 1 / h.
    The default steps are near the best; two-sided is over 100 times as exact as one-sided.
    A ReLU at 0 is named as a kink and is no error.
    Reverse mode costs under 4 passes of the loss at any size, differences two for every entry.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, bars, figure, label, save
from story import arguments, confirm, table

import fnn

SIZES = (16, 8, 8, 10)


@jax.custom_vjp
def affine(x, w, b):
    """`fnn.dense` with a hand-written backward pass, which has a bug."""
    return x @ w + b


def backward(kept, ct):
    x, w = kept
    return ct @ w.T, x.T @ ct, ct.mean(0)  # the bug: the bias needs the sum over the examples


affine.defvjp(lambda x, w, b: (affine(x, w, b), (x, w)), backward)


@jax.custom_jvp
def careless_tanh(z):
    """`fnn.tanh` with a wrong derivative."""
    return jnp.tanh(z)


careless_tanh.defjvps(lambda tangent, y, z: (1 - y) * tangent)  # the bug: it is 1 - y²


def start(key, sizes):
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = itertools.pairwise(sizes)
    return [fnn.init_dense(k, *pair) for k, pair in zip(keys, pairs, strict=True)]


def loss(params, x, labels, *, second=fnn.dense, act=fnn.tanh):
    """Cross-entropy of three layers; the second layer and its activation may be others."""
    h = fnn.tanh(fnn.dense(x, **params[0]))
    h = act(second(h, **params[1]))
    return fnn.cross_entropy(fnn.dense(h, **params[2]), labels).mean()


def errors(steps, two_sided, *args):
    """The largest absolute error of any entry, for every step h."""
    checks = [fnn.analysis.check_gradients(loss, *args, h=h, two_sided=two_sided) for h in steps]
    return np.array([max(leaf.absolute for leaf in check.leaves) for check in checks])


def slope(steps, found, low, high):
    """By which power of h the error grows between two steps."""
    chosen = (steps >= low) & (steps <= high)
    return np.polyfit(np.log(steps[chosen]), np.log(found[chosen]), 1)[0]


def passes(width, x, labels):
    """Numbers in params, and the arithmetic of their gradient in passes of the loss."""
    sizes = (16, width, width, 10)
    params = jax.eval_shape(functools.partial(start, sizes=sizes), jax.random.key(0))
    one, all_of_it = (
        fnn.analysis.summary(f, params, x, labels).flops for f in (loss, jax.value_and_grad(loss))
    )
    return fnn.count(params), all_of_it / one


def main(argv=None):
    args = arguments(__doc__, argv)
    train, _ = fnn.data.digits()
    x = fnn.flatten(fnn.avg_pool(jnp.asarray(train.x[:32]), 2))  # 4x4 pixels: few weights to check
    labels = jnp.asarray(train.y[:32])
    params = start(jax.random.key(0), SIZES)

    versions = {
        "right": loss,
        "mean for sum": functools.partial(loss, second=affine),
        "1 - y for 1 - y²": functools.partial(loss, act=careless_tanh),
    }
    checks = {
        name: fnn.analysis.check_gradients(f, params, x, labels) for name, f in versions.items()
    }
    print(f"{checks['mean for sum']}\n")
    found = {
        name: {leaf.path: leaf.relative for leaf in check.leaves} for name, check in checks.items()
    }
    leaves = [f"{i}/{name}" for i in range(len(params)) for name in ("w", "b")]
    table(["leaf", *versions], [(p, *(found[name][p] for name in versions)) for p in leaves])
    kinked = fnn.analysis.check_gradients(lambda z: fnn.relu(z).sum(), jnp.array([-1.0, 0.0, 2.0]))

    steps = np.logspace(-13, -1, 13 if args.quick else 37)
    curves = {side: errors(steps, side == "two-sided", params, x, labels)
              for side in ("one-sided", "two-sided")}  # fmt: skip
    defaults = {"one-sided": 2.0**-26, "two-sided": 2.0 ** (-52 / 3)}
    at_default = {
        side: errors([h], side == "two-sided", params, x, labels)[0] for side, h in defaults.items()
    }
    costs = np.array([passes(width, x, labels) for width in (4, 16, 64, 256)])
    table(["numbers in params", "reverse mode, passes", "differences, passes"],
          [(int(n), float(cost), 2 * int(n)) for n, cost in costs])  # fmt: skip

    made, axes = figure(1, 3)
    for line, (side, values) in zip(LINES, curves.items(), strict=False):
        axes[0].loglog(steps, values, **line, label=side)
        axes[0].loglog(defaults[side], at_default[side], "o", color=line["color"], fillstyle="none",
                       markersize=11)  # fmt: skip
    axes[0].loglog([], [], "o", color="0.3", fillstyle="none", label="default h")
    label(axes[0], "error against the step", "h", "largest |gradient - difference|", legend=True)
    bars(axes[1], leaves, {n: [found[n][p] for p in leaves] for n in versions})
    axes[1].set(yscale="log", ylim=(1e-12, 1e4))
    label(axes[1], "a bug shows where it is", "layer and array", "relative error", legend=True)
    axes[2].loglog(costs[:, 0], costs[:, 1], **LINES[0], label="reverse mode")
    axes[2].loglog(costs[:, 0], 2 * costs[:, 0], **LINES[1], label="two-sided differences")
    label(axes[2], "cost of a whole gradient", "numbers in params", "passes of the loss",
          legend=True)  # fmt: skip
    save(made, args.out, "gradcheck")

    wrong = {n: [p for p in leaves if found[n][p] > 1e-5] for n in versions}
    confirm(
        __doc__,
        max(found["right"].values()) < 1e-6,
        wrong["mean for sum"] == ["1/b"] == [checks["mean for sum"].leaves[0].path],
        wrong["1 - y for 1 - y²"] == leaves[:4],
        abs(slope(steps, curves["one-sided"], 1e-6, 1e-2) - 1) < 0.1
        and abs(slope(steps, curves["two-sided"], 1e-4, 1e-2) - 2) < 0.1
        and all(abs(slope(steps, c, 1e-13, 1e-10) + 1) < 0.5 for c in curves.values()),
        all(at_default[side] < 10 * curves[side].min() for side in curves)
        and at_default["two-sided"] < 0.01 * at_default["one-sided"],
        kinked.leaves[0].kink == (1,) and kinked.leaves[0].relative < 1e-6,
        costs[:, 1].max() < 4,
    )


if __name__ == "__main__":
    main()
