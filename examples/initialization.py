"""Scale decides: what the first weights do to signals on their way through a deep network.

Systems   A3 B6
Command   python examples/initialization.py
Time      10 s on 2 cores
Expected
    Xavier's weights have variance 2 / (n_in + n_out), and biases start at zero.
    Through 12 linear layers Xavier keeps the variance within a factor of 2.
    Half of its scale loses nine tenths of the variance in two layers; twice gains as much.
    Four times Xavier's scale saturates over a third of the last layer's tanh units, Xavier none.
    With low biases every ReLU unit of the last layer is dead; from He's start four fifths live.
"""

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, label, save
from story import arguments, confirm, table

import fnn

DEPTH, WIDTH = 12, 128
SCALES = {"half": 0.5, "Xavier": 1.0, "twice": 2.0}


def scaled(scale):
    draw = fnn.initializers.glorot_normal()
    return lambda key, shape, dtype: scale * draw(key, shape, dtype)


def start(key, scale, bias=0.0):
    sizes = [64] + [WIDTH] * DEPTH
    keys = jax.random.split(key, DEPTH)
    layers = [
        fnn.init_dense(k, a, b, weights=scaled(scale))
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    return [{**layer, "b": layer["b"] + bias} for layer in layers]


def activities(layers, x, act):
    """What every layer gives, one after the other."""
    found = []
    for layer in layers:
        x = act(fnn.dense(x, **layer))
        found.append(x)
    return found


def main(argv=None):
    args = arguments(__doc__, argv)
    train, _ = fnn.data.digits()
    x = fnn.flatten(jnp.asarray(train.x[:512]))
    x = fnn.standardize(x, **fnn.fit_standardize(x))
    key = jax.random.key(0)

    w = fnn.init_dense(key, 300, 500)
    variance = float(w["w"].var()) * (300 + 500) / 2
    linear = {n: activities(start(key, s), x, fnn.identity) for n, s in SCALES.items()}
    spread = {n: np.array([float(h.var()) for h in hs]) for n, hs in linear.items()}
    wide = {**SCALES, "four times": 4.0}
    tanh = {n: activities(start(key, s), x, fnn.tanh) for n, s in wide.items()}
    flat = {n: [float((1 - h**2 < 0.1).mean()) for h in hs] for n, hs in tanh.items()}
    he = fnn.initializers.he_normal()
    rectified = {
        "He, bias 0": [
            {**layer, "w": he(k, layer["w"].shape, float)}
            for k, layer in zip(jax.random.split(key, DEPTH), start(key, 1.0), strict=True)
        ]
    }
    rectified["He, bias -3"] = [{**q, "b": q["b"] - 3} for q in rectified["He, bias 0"]]
    dead = {
        n: [float((h <= 0).all(0).mean()) for h in activities(layers, x, fnn.relu)]
        for n, layers in rectified.items()
    }
    table(
        ["scale", "variance, layer 1", f"layer {DEPTH}", "saturated tanh units"],
        [(n, spread[n][0], spread[n][-1], f"{flat[n][-1]:.1%}") for n in SCALES],
    )
    table(
        ["ReLU", "dead in layer 1", f"layer {DEPTH}"], [(n, d[0], d[-1]) for n, d in dead.items()]
    )

    made, axes = figure(1, 3)
    for line, (name, values) in zip(LINES, spread.items(), strict=False):
        axes[0].semilogy(range(1, DEPTH + 1), values, **line, label=name)
    label(axes[0], "linear layers: variance of the signal", "layer", "variance", legend=True)
    for line, (name, hs) in zip(LINES, tanh.items(), strict=False):
        counts, edges = np.histogram(np.asarray(hs[-1]), 40, (-1, 1), density=True)
        axes[1].step(edges[:-1], counts, where="post", color=line["color"],
                     linestyle=line["linestyle"], label=name)  # fmt: skip
    axes[1].set_yscale("log")
    label(axes[1], f"tanh units of layer {DEPTH}", "activation", "density", legend=True)
    for line, (name, shares) in zip(LINES, dead.items(), strict=False):
        axes[2].plot(range(1, DEPTH + 1), shares, **line, label=name)
    label(axes[2], "dead ReLU units", "layer", "share", legend=True)
    save(made, args.out, "initialization")

    ratio = {n: values[1:] / values[:-1] for n, values in spread.items()}
    confirm(
        __doc__,
        abs(variance - 1) < 0.02 and not w["b"].any(),
        0.5 < spread["Xavier"][-1] / spread["Xavier"][0] < 2,
        (ratio["half"][:-1] * ratio["half"][1:]).max() < 0.1
        and (ratio["twice"][:-1] * ratio["twice"][1:]).min() > 10,
        flat["four times"][-1] > 1 / 3 and flat["Xavier"][-1] == 0,
        dead["He, bias -3"][-1] == 1 and dead["He, bias 0"][-1] < 0.2,
    )


if __name__ == "__main__":
    main()
