"""How large a network is: units, weights, connections and receptive fields, layer by layer.

Systems   B14 B15 D4
Command   python examples/sizes.py
Time      6 s on 2 cores
Expected
    From I maps of W by H to J, fully connected: W² H² I J weights and as many connections.
    A K by K convolution of the same maps: K² I J weights, W H K² I J connections; both W H J units.
    The four 32x32 networks have 2,776,088, 2,864,152, 2,746,200 and 2,145,000 weights.
    AlexNet: 99 % of the units, 92 % of the connections are in convolutions, 4 % of the weights.
    In all of the four so are most units and connections, and, but for 2-layer, most weights too.
    The computed receptive field of every layer is what its middle unit's gradient reaches.
    The last units of regular see 37 pixels across, more than the image has; those of 2-layer 8.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, bars, figure, label, save
from story import arguments, confirm, table

import fnn


class Shape(NamedTuple):
    """A network for 32x32 images of three colours and ten classes.

    Attributes:
        kernels, widths: of the convolutions, each "SAME" and followed by a ReLU.
        halvings: how often 2x2 max pooling follows each of them.
        hidden: sizes of the dense layers before the last one.
    """

    kernels: tuple[int, ...]
    widths: tuple[int, ...]
    halvings: tuple[int, ...]
    hidden: tuple[int, ...]


FOUR = {
    "regular": Shape((4, 4, 4, 4, 4, 3, 3, 3), (128,) * 8, (0,) * 5 + (1,) * 3, (500, 500)),
    "shallow": Shape((4, 4, 4), (256, 256, 128), (1, 1, 1), (500, 500)),
    "extra shallow": Shape((4, 4), (700, 128), (2, 1), (500, 500)),
    "2-layer": Shape((5,), (3000,), (2,), ()),
}
ALEXNET = [  # window, maps in each group, maps, groups, stride, padding, whether to pool
    (11, 3, 96, 1, 4, 0, True),
    (5, 48, 256, 2, 1, 2, True),
    (3, 256, 384, 1, 1, 1, False),
    (3, 192, 384, 2, 1, 1, False),
    (3, 192, 256, 2, 1, 1, True),
]
COUNTS = ("units", "weights", "connections")


def init(key, net):
    side = 32 >> sum(net.halvings)
    maps = list(itertools.pairwise((3, *net.widths)))
    sizes = list(itertools.pairwise((side**2 * net.widths[-1], *net.hidden, 10)))
    keys = iter(jax.random.split(key, len(maps) + len(sizes)))
    return {
        "conv": [
            fnn.init_conv(next(keys), (k, k), *m) for k, m in zip(net.kernels, maps, strict=True)
        ],
        "dense": [fnn.init_dense(next(keys), *s) for s in sizes],
    }


def features(params, x, net, act=fnn.relu, pool=fnn.max_pool, conv=fnn.conv):
    """What every convolution and every pooling gives, in turn."""
    found = []
    for layer, halvings in zip(params["conv"], net.halvings, strict=True):
        x = act(conv(x, **layer))
        found.append(x)
        for _ in range(halvings):
            x = pool(x, 2)
            found.append(x)
    return found


def logits(params, x, net, act=fnn.relu, conv=fnn.conv):  # (n, 32, 32, 3)
    x = fnn.flatten(features(params, x, net, act, conv=conv)[-1])
    for layer in params["dense"][:-1]:
        x = act(fnn.dense(x, **layer))
    return fnn.dense(x, **params["dense"][-1])


def alexnet(params, x):  # (n, 227, 227, 3)
    for layer, (*_, groups, stride, padding, pooled) in zip(params["conv"], ALEXNET, strict=True):
        x = fnn.relu(fnn.conv(x, **layer, groups=groups, stride=stride, padding=padding))
        x = fnn.max_pool(x, 3, stride=2) if pooled else x
    x = fnn.flatten(x)
    for layer in params["dense"]:
        x = fnn.relu(fnn.dense(x, **layer))
    return x


def shaped(*sizes):
    """An array of this shape, for counting only: nothing is allocated."""
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def layer(*w):
    return {"w": shaped(*w), "b": shaped(w[-1])}


def shapes_of(net):
    return jax.eval_shape(functools.partial(init, net=net), jax.random.key(0))


def sizes_of(net):
    return fnn.analysis.summary(logits, shapes_of(net), shaped(1, 32, 32, 3), net)


def sizes_of_alexnet():
    params = {
        "conv": [layer(k, k, a, b) for k, a, b, *_ in ALEXNET],
        "dense": [layer(*pair) for pair in itertools.pairwise((9216, 4096, 4096, 1000))],
    }
    return fnn.analysis.summary(alexnet, params, shaped(1, 227, 227, 3))


def single(w, h, i, j, k):
    """A fully connected layer and a convolution from i maps of w by h to j."""
    full = layer(w * h * i, w * h * j)
    (dense,) = fnn.analysis.summary(
        lambda p, x: fnn.dense(x, **p), full, shaped(1, w * h * i)
    ).layers
    (conv,) = fnn.analysis.summary(
        lambda p, x: fnn.conv(x, **p), layer(k, k, i, j), shaped(1, w, h, i)
    ).layers
    return [tuple(getattr(each, name) for name in COUNTS) for each in (dense, conv)]


def share(size, name):
    """The convolutions' share of this count."""
    counts = {x.name: getattr(x, name) for x in size.layers if x.weights}
    return sum(n for k, n in counts.items() if k.startswith("conv")) / sum(counts.values())


def fields(net):
    """Of every layer: the receptive field as computed, and the box that its gradient reaches.

    The image is of 64x64 here, as the field of regular is larger than 32x32. For the gradient to
    reach all of a field, the weights are ones, pooling is by averages, and there is no ReLU.
    """
    narrow = net._replace(widths=(1,) * len(net.widths))
    params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes_of(narrow))
    size = fnn.analysis.summary(lambda p, x: features(p, x, net)[-1], params, shaped(1, 64, 64, 3))

    def reached(x):
        def middle(x, i):
            h = features(params, x, net, fnn.identity, fnn.avg_pool)[i]
            return h[0, h.shape[1] // 2, h.shape[2] // 2, 0]

        return [jax.grad(middle)(x, i) for i in range(len(size.layers))]

    gradients = jax.jit(reached)(jnp.ones((1, 64, 64, 3)))
    boxes = [np.ptp(np.nonzero(np.asarray(g)), axis=1)[1:3] + 1 for g in gradients]
    return [x.field for x in size.layers], [tuple(map(int, box)) for box in boxes]


def main(argv=None):
    args = arguments(__doc__, argv)

    w, h, i, j, k = 6, 5, 3, 4, 3
    dense, conv = single(w, h, i, j, k)
    four = {name: sizes_of(net) for name, net in FOUR.items()}
    shares = {name: [share(size, count) for count in COUNTS] for name, size in four.items()}
    large = sizes_of_alexnet()
    shares["AlexNet"] = [share(large, count) for count in COUNTS]
    seen = {name: fields(net) for name, net in FOUR.items()}
    print(f"{four['regular']}\n")
    everything = {**four, "AlexNet": large}
    table(
        ["network", "weights", "in convolutions:", *COUNTS],
        [(n, f"{size.total['weights']:,}", "", *(f"{s:.1%}" for s in shares[n]))
         for n, size in everything.items()],
    )  # fmt: skip

    made, axes = figure(2, 2, width=5.4)
    for at, name in zip(axes, ("AlexNet", "regular"), strict=False):
        rows = [row for row in everything[name].layers if row.weights]
        total = everything[name].total
        groups = {c: [100 * getattr(row, c) / total[c] for row in rows] for c in COUNTS}
        bars(at, [row.name for row in rows], groups)
        label(at, f"{name}: where its numbers are", "", "share of all layers, %", legend=True)
    weights = {name: [row for row in size.layers if row.weights] for name, size in four.items()}
    stacks = {
        kind: [sum(row.weights for row in rows if row.name.startswith(kind)) / 1e6
               for rows in weights.values()]
        for kind in ("conv", "dense")
    }  # fmt: skip
    bars(axes[2], list(FOUR), stacks)
    label(axes[2], "the four networks", "", "weights, millions", legend=True)
    for line, (name, (computed, _)) in zip(LINES, seen.items(), strict=False):
        steps = range(1, len(computed) + 1)
        axes[3].plot(steps, [f[0] for f in computed], **{**line, "markevery": 1}, label=name)
    axes[3].axhline(32, color="0.4", linewidth=0.8)
    axes[3].text(1, 32.5, "the image", fontsize=8)
    label(axes[3], "receptive field", "convolution or pooling", "pixels across", legend=True)
    save(made, args.out, "sizes")

    confirm(
        __doc__,
        dense == (w * h * j, w**2 * h**2 * i * j, w**2 * h**2 * i * j),
        conv == (w * h * j, k**2 * i * j, w * h * k**2 * i * j),
        [s.total["weights"] for s in four.values()] == [2_776_088, 2_864_152, 2_746_200, 2_145_000],
        [round(s, 2) for s in shares["AlexNet"]] == [0.99, 0.04, 0.92],
        all(shares[n][0] > 0.5 and shares[n][2] > 0.5 for n in FOUR)
        and [n for n in FOUR if shares[n][1] < 0.5] == ["2-layer"],
        all(computed == reached for computed, reached in seen.values()),
        seen["regular"][0][-1] == (37, 37) and seen["2-layer"][0][-1] == (8, 8),
    )


if __name__ == "__main__":
    main()
