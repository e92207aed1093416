"""Supervised pre-training and transfer: features learned on some classes serve for others.

Systems   B17
Command   python examples/transfer.py
Time      30 s on 2 cores
Expected
    With 2 examples a class, a new head on frozen features beats training from scratch.
    It still does with 5, and the advantage shrinks as examples are added.
    Freezing keeps no state for the features: the optimizer's state is that of the head.
"""

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, label, save
from story import arguments, confirm, table

import fnn

OLD, NEW = (0, 1, 2, 3, 4, 5), (6, 7, 8, 9)


def init_features(key):
    k1, k2 = jax.random.split(key)
    return {"conv1": fnn.init_conv(k1, (3, 3), 1, 16), "conv2": fnn.init_conv(k2, (3, 3), 16, 32)}


def init(key, classes):
    k1, k2 = jax.random.split(key)
    return {"features": init_features(k1), "head": fnn.init_dense(k2, 2 * 2 * 32, classes)}


def logits(params, x):
    p = params["features"]
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **p["conv1"])), 2)
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **p["conv2"])), 2)
    return fnn.dense(fnn.flatten(x), **params["head"])


def loss(params, batch):
    return fnn.cross_entropy(logits(params, batch.x), batch.y).mean()


def part(data, classes, each=None, rng=None):
    """The examples of some classes, renumbered from 0; ``each`` of every class or all of them."""
    rows = []
    for c in classes:
        found = np.flatnonzero(data.y == c)
        rows.append(found if each is None else rng.choice(found, each, replace=False))
    rows = np.concatenate(rows)
    places = {c: i for i, c in enumerate(classes)}
    return data._replace(x=data.x[rows], y=np.array([places[c] for c in data.y[rows]], np.int32))


def train(params, optimizer, data, epochs, key):
    size = min(64, len(data.y))
    *_, last = fnn.train(loss, params, optimizer, data, key=key, epochs=epochs, batch_size=size)
    return last.params


def accuracy(params, data):
    return float(fnn.accuracy(logits(params, jnp.asarray(data.x)), jnp.asarray(data.y)).mean())


def main(argv=None):
    args = arguments(__doc__, argv)
    data, held_out = fnn.data.digits()
    new = part(held_out, NEW)
    key = jax.random.key(0)

    before = train(init(key, len(OLD)), fnn.adam(3e-3), part(data, OLD), 10, key)
    pretrained = f"{accuracy(before, part(held_out, OLD)):.1%}"
    print(f"features trained on {OLD}: {pretrained} of these held-out digits\n")

    frozen = fnn.freeze(fnn.adam(1e-2), lambda path: path.startswith("features"))
    counts, repeats = ((2, 5), 2) if args.quick else ((2, 5, 10, 20, 50), 5)
    found = {"transfer": [], "from scratch": []}
    for each in counts:
        scores = {name: [] for name in found}
        for i in range(repeats):
            few = part(data, NEW, each, np.random.default_rng(i))
            fresh = init(jax.random.key(i + 1), len(NEW))
            kept = {**fresh, "features": before["features"]}
            scores["transfer"].append(accuracy(train(kept, frozen, few, 60, key), new))
            scores["from scratch"].append(accuracy(train(fresh, fnn.adam(3e-3), few, 60, key), new))
        for name, values in scores.items():
            found[name].append(float(np.mean(values)))
    table(["examples a class", *found], zip(counts, *found.values(), strict=True))

    made, axes = figure(1, 1)
    for line, (name, values) in zip(LINES, found.items(), strict=False):
        axes[0].plot(counts, values, **{**line, "markevery": 1}, label=name)
    axes[0].set_xscale("log")
    label(axes[0], "digits 6 to 9, features of digits 0 to 5", "examples a class",
          "held-out accuracy", legend=True)  # fmt: skip
    save(made, args.out, "transfer")

    ahead = np.array(found["transfer"]) - np.array(found["from scratch"])
    held = fnn.count(frozen.init(before)), 2 * fnn.count(before["head"])
    confirm(
        __doc__,
        ahead[0] > 0.02,
        ahead[1] > 0 and ahead[-1] < ahead[0],
        held[0] < held[1] + 10,
    )


if __name__ == "__main__":
    main()
