"""Depth at equal size: four networks for 32x32 images, one to eight convolutions deep.

Systems   D2 D4
Command   python examples/depth.py          narrow networks, of about 45,000 weights each
          python examples/depth.py --full   those of the text, of 2.1 to 2.9 million
Time      50 s on 2 cores; 6 min with --full
Images    the packaged digits, enlarged from 8x8 to 32x32, the same in all three colours
Rate      Adam's 1e-3; 1e-4 with --full, where 2-layer's outputs add up 192,000 numbers each, and
          a step changes all their weights by about the rate
Full run  3 epochs, 2026-11-26, 2 cores; its figure is figures/depth_full.png
    network          weights    loss  new digits right  gradients apart
    regular        2,776,088   0.085            97.2 %             13.5
    shallow        2,864,152   0.077            96.4 %             11.1
    extra shallow  2,746,200   0.101            97.8 %             19.3
    2-layer        2,145,000   0.243            93.1 %             62.6
Expected
    The four networks of the text have 2,776,088, 2,864,152, 2,746,200 and 2,145,000 weights.
    At the start, with ReLU, layers' gradients are within a factor of 20; of 70 in full 2-layer.
    With sigmoid, regular's first gradient is below 1e-4 of its last; that of 2-layer is not.
    In every epoch, narrow 2-layer has a lower loss than narrow regular, full 2-layer a higher one.
    All four learn: in the end over 90 % of new digits are right (over 40 % with --quick).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, heat, label, save
from sizes import FOUR, logits, shapes_of, sizes_of
from story import arguments, confirm, table

import fnn

NARROW = {
    "regular": FOUR["regular"]._replace(widths=(16,) * 8, hidden=(62, 62)),
    "shallow": FOUR["shallow"]._replace(widths=(32, 32, 16), hidden=(62, 62)),
    "extra shallow": FOUR["extra shallow"]._replace(widths=(88, 16), hidden=(62, 62)),
    "2-layer": FOUR["2-layer"]._replace(widths=(62,)),
}


def start(net, xavier=False):
    """He's or Xavier's weights, zero biases; from NumPy, as JAX compiles draws for every shape."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) == 1:
            return np.zeros(leaf.shape, np.float32)
        *window, c_in, c_out = leaf.shape
        fan = (c_in + c_out) / 2 if xavier else c_in / 2  # variance 1 / fan
        return np.float32(rng.standard_normal(leaf.shape) / np.sqrt(np.prod(window) * fan))

    return jax.device_put(jax.tree.map(draw, shapes_of(net)))


def weights_of(net):
    return sizes_of(net).total["weights"]


def halved(net):
    return net._replace(
        widths=tuple(n // 2 for n in net.widths), hidden=tuple(n // 2 for n in net.hidden)
    )


def enlarged(data, count):
    """The first digits as 32x32 images of three equal colours."""
    x, y = jax.device_put((data.x[:count], data.y[:count]))
    x = jax.image.resize(x, (len(x), 32, 32, 1), "bilinear")
    return fnn.data.images.Dataset(jnp.broadcast_to(x, (len(x), 32, 32, 3)), y)


def layers_of(tree):
    """The weights' entries of a result of `fnn.analysis.norms`, the first layer first."""
    return [value for path, value in tree.items() if path.endswith("/w")]


def observe(params, grads, updates, batch):
    """The norm of every layer's gradient, and how large its update is beside its weights."""
    found = layers_of(fnn.analysis.norms(params, grads, updates))
    return jnp.stack([n.gradient for n in found]), jnp.stack([n.ratio for n in found])


def mean_loss(params, batch, net, **options):
    return fnn.cross_entropy(logits(params, batch.x, net, **options), batch.y).mean()


def train(net, data, test, size, rate, epochs, conv):
    """The reports of a run, and the share of new digits that are right after every epoch."""
    loss = functools.partial(mean_loss, net=net, conv=conv)
    score = jax.jit(
        lambda params: fnn.accuracy(logits(params, test.x, net, conv=conv), test.y).mean()
    )
    reports, scores = [], []
    for report in fnn.train(loss, start(net), fnn.adam(rate), data,
                            batch_size=size, epochs=epochs, key=jax.random.key(1),
                            observe=observe):  # fmt: skip
        reports.append(report)
        scores.append(float(score(report.params)))
    return reports, scores


def sigmoid_gradients(net, batch, conv):
    """The norm of every layer's gradient at the start, with sigmoid units and Xavier's weights."""
    params = start(net, xavier=True)
    loss = functools.partial(mean_loss, net=net, act=fnn.sigmoid, conv=conv)

    @jax.jit
    def norms(params, batch):
        grads = jax.grad(loss)(params, batch)
        return [n.gradient for n in layers_of(fnn.analysis.norms(params, grads, grads))]

    return np.array(norms(params, batch))


def main(argv=None):
    args = arguments(__doc__, argv, full="the networks of the text instead of narrow ones")

    counts = {name: weights_of(net) for name, net in FOUR.items()}
    full = args.full and not args.quick
    nets = FOUR if full else NARROW
    if args.quick:
        nets = {name: halved(net) for name, net in NARROW.items()}
    examples, held, size, epochs = (400, 200, 16, 2) if args.quick else (1408, None, 64, 3)
    rate = 1e-4 if full else 1e-3
    conv = fnn.conv if full else fnn.conv_lax  # which is as fast here, and compiles sooner
    train_part, test_part = fnn.data.digits()
    data, test = enlarged(train_part, examples), enlarged(test_part, held)
    statistics = fnn.fit_standardize(data.x)
    data, test = (part._replace(x=fnn.standardize(part.x, **statistics)) for part in (data, test))

    runs = {}
    for name, net in nets.items():
        runs[name] = train(net, data, test, size, rate, epochs, conv)
        print(f"{name}: {runs[name][0][-1]}", flush=True)
    observed = {
        name: [np.concatenate(rows) for rows in zip(*(r.observed for r in reports), strict=True)]
        for name, (reports, _) in runs.items()
    }
    first = jax.tree.map(lambda x: x[:size], data)
    flat = {n: sigmoid_gradients(nets[n], first, conv) for n in ("regular", "2-layer")}
    apart = {name: float(g[0].max() / g[0].min()) for name, (g, _) in observed.items()}
    table(
        ["network", "weights", "in the text", "loss", "new digits right", "gradients apart"],
        [(n, f"{weights_of(nets[n]):,}", f"{counts[n]:,}", reports[-1].loss,
          f"{scores[-1]:.1%}", apart[n]) for n, (reports, scores) in runs.items()],
    )  # fmt: skip

    draw(args.out, runs, observed, flat)

    losses = {name: np.array([r.loss for r in reports]) for name, (reports, _) in runs.items()}
    ends = [scores[-1] for _, scores in runs.values()]
    confirm(
        __doc__,
        list(counts.values()) == [2_776_088, 2_864_152, 2_746_200, 2_145_000],
        all(x < (70 if full and name == "2-layer" else 20) for name, x in apart.items()),
        flat["regular"][0] < 1e-4 * flat["regular"][-1]
        and flat["2-layer"][0] > 1e-4 * flat["2-layer"][-1],
        ((losses["2-layer"] > losses["regular"]) == full).all(),
        min(ends) > (0.4 if args.quick else 0.9),
    )


def draw(folder, runs, observed, flat):
    made, axes = figure(2, 3)
    epochs = range(1, 1 + max(len(scores) for _, scores in runs.values()))
    for line, (name, (reports, scores)) in zip(LINES, runs.items(), strict=False):
        line = {**line, "markevery": 1}
        axes[0].plot(epochs, [report.loss for report in reports], **line, label=name)
        axes[1].plot(epochs, [100 * score for score in scores], **line, label=name)
        gradients, ratios = observed[name]
        numbers = range(1, gradients.shape[1] + 1)
        axes[3].plot(numbers, np.median(gradients, 0), **line, label=name)
        axes[4].plot(numbers, np.median(ratios, 0), **line, label=name)
        if name in flat:
            axes[5].semilogy(numbers, gradients[0], **line, label=f"{name}, ReLU")
            style = {**line, "fillstyle": "none", "linewidth": 0.8}
            axes[5].semilogy(numbers, flat[name], **style, label=f"{name}, sigmoid")
    label(axes[0], "loss, mean over the epoch", "epoch", "cross-entropy", legend=True)
    label(axes[1], "new digits", "epoch", "right, %", legend=True)
    label(axes[3], "gradient of the weights, median step", "layer", "norm", legend=True)
    label(axes[4], "update beside weights, median step", "layer", "|update| / |w|", legend=True)
    label(axes[5], "gradient at the start", "layer", "norm", legend=True)
    for at in axes[:2]:
        at.set_xticks(epochs)
    for at in axes[3:5]:
        at.set_ylim(bottom=0)
    norms = np.log10(observed["regular"][0].T)
    heat(axes[2], norms, (0, norms.shape[1]), (norms.min(), norms.max()), "log10 of the norm")
    label(axes[2], "regular: gradient of the weights", "step", "layer")
    save(made, folder, "depth")


if __name__ == "__main__":
    main()
