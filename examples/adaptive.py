"""A learning rate for every coordinate: Adagrad, RMSProp, Adadelta and Adam in a narrow valley.

Systems   E5 E6 E7 E8 B10
Command   python examples/adaptive.py
Time      8 s on 2 cores
Expected
    Each optimizer's first steps are those of its formula, written out in float64.
    Adagrad's effective rate only falls; RMSProp's comes back when the gradient has become small.
    RMSProp's mean square weighs the gradient of k steps ago by (1 - g) g^k, in sum almost 1.
    Adadelta's first step is sqrt(eps / (1 - decay)) along every coordinate: no rate is needed.
    Adam's first step is the learning rate along every coordinate, however steep.
"""

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, contours, figure, label, save
from story import arguments, confirm, table

import fnn

START = np.array([-5.0, -2.0])
STEPS = 60


def valley(x):
    return 0.1 * x[..., 0] ** 2 + 2 * x[..., 1] ** 2


def slope(x):
    return np.array([0.2, 4.0]) * x


def adagrad(x, steps, eps, rate=0.8):
    s = np.zeros(2)
    for _ in range(steps):
        g = slope(x)
        s = s + g**2
        x = x - rate / (np.sqrt(s) + eps) * g
        yield x


def rmsprop(x, steps, eps, rate=0.4, decay=0.9):
    s = np.zeros(2)
    for _ in range(steps):
        g = slope(x)
        s = decay * s + (1 - decay) * g**2
        x = x - rate / np.sqrt(s + eps) * g
        yield x


def adadelta(x, steps, eps, decay=0.9):
    s, d = np.zeros(2), np.zeros(2)
    for _ in range(steps):
        g = slope(x)
        s = decay * s + (1 - decay) * g**2
        scaled = np.sqrt((d + eps) / (s + eps)) * g
        d = decay * d + (1 - decay) * scaled**2
        x = x - scaled
        yield x


def adam(x, steps, eps, rate=0.4, b1=0.9, b2=0.999):
    m, v = np.zeros(2), np.zeros(2)
    for t in range(1, steps + 1):
        g = slope(x)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        x = x - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield x


METHODS = {
    "Adagrad": (adagrad, lambda eps: fnn.adagrad(0.8, initial=0.0, eps=eps, eps_in_root=False)),
    "RMSProp": (rmsprop, lambda eps: fnn.rmsprop(0.4, eps=eps)),
    "Adadelta": (adadelta, lambda eps: fnn.adadelta(eps=eps)),
    "Adam": (adam, lambda eps: fnn.adam(0.4, eps=eps)),
}
EPS = {"Adagrad": 1e-6, "RMSProp": 1e-6, "Adadelta": 1e-4, "Adam": 1e-8}


def path(name, eps, steps):
    _, make = METHODS[name]
    start = jnp.asarray(START, jnp.float32)
    return np.asarray(fnn.trajectory(valley, start, make(eps), steps).params)


def error(name):
    """Distance from the formula in ten steps; a large epsilon shows where it stands."""
    (formula, _), eps = METHODS[name], 0.1
    by_hand = np.stack([START, *formula(START, 10, eps=eps)])
    return float(np.abs(path(name, eps, 10) - by_hand).max())


def effective(points):
    """Step over gradient, coordinate by coordinate."""
    return np.abs(np.diff(points, axis=0) / slope(points[:-1]))


def mean_square(gradients):
    """What RMSProp keeps of these gradients."""
    optimizer = fnn.rmsprop(0.4)
    start = optimizer.init(gradients[0])
    state, _ = jax.lax.scan(lambda s, g: (optimizer.update(g, s)[1], None), start, gradients)
    return state.moments["nu"]


def main(argv=None):
    args = arguments(__doc__, argv)

    paths = {name: path(name, eps, STEPS) for name, eps in EPS.items()}
    errors = {name: error(name) for name in METHODS}
    plain = np.asarray(fnn.trajectory(valley, jnp.asarray(START), fnn.sgd(0.4), STEPS).params)
    table(
        ["method", "loss at the start", "after 20 steps", f"after {STEPS}", "from the formula"],
        [
            (name, *(float(valley(p[k])) for k in (0, 20, STEPS)), errors.get(name, 0.0))
            for name, p in {"gradient descent": plain, **paths}.items()
        ],
    )

    rates = {name: effective(p) for name, p in paths.items()}
    gradients = slope(paths["RMSProp"][:-1])
    weights = 0.1 * 0.9 ** np.arange(STEPS)[::-1]
    kept = mean_square(jnp.asarray(gradients, jnp.float32))

    made, axes = figure(1, 3)
    contours(axes[0], valley, (-6, 2), (-3, 3))
    for line, (name, points) in zip(
        LINES, {"gradient descent": plain, **paths}.items(), strict=False
    ):
        axes[0].plot(*points.T, **line, label=name)
    label(axes[0], "0.1 x² + 2 y²", "x", "y", legend=True)
    for line, name in zip(LINES, rates, strict=False):
        axes[1].semilogy(rates[name][:, 1], **line, label=name)
    label(axes[1], "effective rate of the steep coordinate", "step", "step / gradient", legend=True)
    for line, decay in zip(LINES, (0.95, 0.9, 0.8, 0.7), strict=False):
        axes[2].plot((1 - decay) * decay ** np.arange(40), **line, label=f"g = {decay}")
    label(axes[2], "weight of a past squared gradient", "steps ago", "weight", legend=True)
    save(made, args.out, "adaptive")

    first = np.abs(paths["Adam"][1] - START)
    confirm(
        __doc__,
        max(errors.values()) < 1e-4,
        np.all(np.diff(rates["Adagrad"][:20], axis=0) <= 1e-6)
        and rates["RMSProp"][20:, 1].max() > 2 * rates["RMSProp"][1, 1],
        np.allclose(kept, weights @ gradients**2, rtol=1e-4) and 0.98 < weights.sum() < 1,
        np.abs(np.abs(paths["Adadelta"][1] - START) - np.sqrt(1e-4 / 0.1)).max() < 1e-4,
        np.abs(first - 0.4).max() < 1e-5,
    )


if __name__ == "__main__":
    main()
