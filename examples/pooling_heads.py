"""Flattening or pooling: three heads for the same convolutions, on four classes of digits.

Systems   A12 A13 B16
Command   python examples/pooling_heads.py
Time      20 s on 2 cores
Expected
    2x2 pooling of the text's 4x4 map gives [[5, 7], [10, 8]]; min and average are right too.
    Global pooling needs less than a fiftieth of the weights that flattening needs in the head.
    On centred digits flattening and the global maximum get over 95 % right, the mean over 85 %.
    Shifted by two pixels, flattening gets less than half right; global pooling loses none.
    The same global weights read 12x12 and 24x24, within 8 points; flattening refuses both.
    A shift moves the map of a convolution exactly; it changes pooled values less, global ones not.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, label, save
from story import arguments, confirm, table

import fnn

CLASSES, SIDE, CHANNELS = (1, 4, 7, 9), 16, 16  # digits that look alike, in a 16x16 field
HEADS = {
    "flatten": fnn.flatten,
    "global average": fnn.global_avg_pool,
    "global max": fnn.global_max_pool,
}
SHIFTS = range(4)  # pixels; the digit stays inside the field


def four_classes(data, side=SIDE):
    """The digits of four classes, in the middle of a larger black field."""
    chosen = np.isin(data.y, CLASSES)
    margin = (side - 8) // 2
    x = np.pad(data.x[chosen], ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    return fnn.data.Dataset(*jax.device_put((x, np.searchsorted(CLASSES, data.y[chosen]))))


def init(key):
    """Start all networks with the same convolutions."""
    k1, k2, k3 = jax.random.split(key, 3)
    body = {
        "conv1": fnn.init_conv(k1, (3, 3), 1, CHANNELS // 2),
        "conv2": fnn.init_conv(k2, (3, 3), CHANNELS // 2, CHANNELS),
    }
    place = jnp.zeros((1, SIDE // 2, SIDE // 2, CHANNELS))
    sizes = {name: head(place).shape[-1] for name, head in HEADS.items()}
    return {name: {**body, "head": fnn.init_dense(k3, n, 4)} for name, n in sizes.items()}


def first(params, x):
    # JAX's own convolution: it compiles sooner, which counts in a run as short as this.
    return fnn.relu(fnn.conv_lax(x, **params["conv1"]))


def logits(params, x, head):  # (n, side, side, 1)
    x = fnn.max_pool(first(params, x), 2)  # (n, side / 2, side / 2, 8)
    x = fnn.relu(fnn.conv_lax(x, **params["conv2"]))  # (n, side / 2, side / 2, 16)
    return fnn.dense(head(x), **params["head"])  # (n, 4)


def loss(params, batch):
    """The three networks share nothing but the batches: the sum trains each by itself."""
    each = [fnn.cross_entropy(logits(params[n], batch.x, HEADS[n]), batch.y) for n in HEADS]
    return sum(each).mean()


@functools.partial(jax.jit, static_argnames="heads")
def right(params, data, heads=tuple(HEADS)):
    """The share of the images that each network gets right."""
    return {n: fnn.accuracy(logits(params[n], data.x, HEADS[n]), data.y).mean() for n in heads}


def training(train, test, epochs):
    """Train all networks; return their parameters and their accuracies after every epoch."""
    k1, k2 = jax.random.split(jax.random.key(0))
    curves = []
    for report in fnn.train(
        loss, init(k1), fnn.adam(1e-2), train, batch_size=32, epochs=epochs, key=k2
    ):
        curves.append(right(report.params, test))
    return report.params, curves


def shifted(x, pixels):
    return jnp.roll(x, pixels, 2)


@jax.jit
def changes(params, x):
    """How far a shift moves what each stage gives, and the maps of a convolution, moved back."""
    stages = {"convolution": lambda y: y, "2x2 max pooling": lambda y: fnn.max_pool(y, 2),
              "global average": fnn.global_avg_pool}  # fmt: skip
    y = first(params, x)
    moved = [first(params, shifted(x, d)) for d in SHIFTS]
    found = {
        name: [jnp.linalg.norm(f(m) - f(y)) / jnp.linalg.norm(f(y)) for m in moved]
        for name, f in stages.items()
    }
    gaps = [jnp.abs(m - shifted(y, d)).max() for m, d in zip(moved, SHIFTS, strict=True)]
    return found, jnp.stack(gaps).max()


def pooled_by_hand():
    """The text's map, pooled over its 2x2 windows and over all of it."""
    x = jnp.array([[1.0, 2, 3, 1], [1, 5, 2, 7], [10, 1, 2, 4], [8, 9, 1, 8]])[None, :, :, None]
    local = [f(x, 2)[0, :, :, 0].tolist() for f in (fnn.max_pool, fnn.min_pool, fnn.avg_pool)]
    whole = [f(x).item() for f in (fnn.global_max_pool, fnn.global_min_pool, fnn.global_avg_pool)]
    return local, whole


def other_size(params, data, name):
    """The share right, or None where the head refuses images of this size."""
    try:
        return float(right(params, data, heads=(name,))[name])
    except ValueError:  # of fnn.dense: its weights are for another number of features
        return None


def draw(folder, curves, sizes, by_shift, moved):
    made, axes = figure(1, 3)
    for line, name in zip(LINES, HEADS, strict=False):
        curve = [100 * shares[name] for shares in curves]
        axes[0].plot(
            range(1, len(curve) + 1), curve, **line, label=f"{name}, {sizes[name]:,} parameters"
        )
    for at, lines, scale in ((axes[1], by_shift, 100), (axes[2], moved, 1)):
        for line, (name, values) in zip(LINES, lines.items(), strict=False):
            at.plot(SHIFTS, scale * np.array(values), **{**line, "markevery": 1}, label=name)
        at.set_xticks(SHIFTS)
    right = "new digits right, %"
    label(axes[0], "three heads learn 1, 4, 7 and 9", "epoch", right, legend=True)
    label(axes[1], "trained in the centre, tested off centre", "shift, pixels", right, legend=True)
    size = "change / size of the features"
    label(axes[2], "what a shift changes", "shift, pixels", size, legend=True)
    save(made, folder, "pooling_heads")


def percent(share):
    return "refused" if share is None else f"{share:.1%}"


def main(argv=None):
    args = arguments(__doc__, argv)
    train, held = fnn.data.digits()
    train, test, small, large = (
        four_classes(train), *(four_classes(held, side) for side in (SIDE, 12, 24)),
    )  # fmt: skip
    local, whole = pooled_by_hand()

    params, curves = training(train, test, 16 if args.quick else 40)
    sizes = {name: fnn.count(params[name]["head"]) for name in HEADS}
    by_shift = [right(params, test._replace(x=shifted(test.x, d))) for d in SHIFTS]
    by_shift = {name: [float(shares[name]) for shares in by_shift] for name in HEADS}
    other = {name: [other_size(params, data, name) for data in (small, large)] for name in HEADS}
    moved, gap = changes(params["flatten"], test.x)
    table(
        ["head", "parameters", "new digits right", "2 pixels aside", "12x12", "24x24"],
        [(n, sizes[n], *map(percent, (s[0], s[2], *other[n]))) for n, s in by_shift.items()],
    )

    draw(args.out, curves, sizes, by_shift, moved)
    pooled = [n for n in HEADS if n != "flatten"]
    centred = {n: s[0] for n, s in by_shift.items()}
    confirm(
        __doc__,
        local == [[[5, 7], [10, 8]], [[1, 1], [1, 1]], [[2.25, 3.25], [7, 3.75]]]
        and whole == [10, 1, 65 / 16],
        all(50 * params[n]["head"]["w"].size < params["flatten"]["head"]["w"].size for n in pooled),
        min(centred["flatten"], centred["global max"]) > 0.95 and centred["global average"] > 0.85,
        by_shift["flatten"][2] < 0.5 and all(by_shift[n][2] == centred[n] for n in pooled),
        other["flatten"] == [None, None]
        and all(abs(share - centred[n]) < 0.08 for n in pooled for share in other[n]),
        gap < 1e-5
        and all(moved["2x2 max pooling"][d] < moved["convolution"][d] for d in SHIFTS[1:])
        and max(moved["global average"]) < 1e-5,
    )


if __name__ == "__main__":
    main()
