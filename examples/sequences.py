"""Five uses of a recurrent network: one or many steps in and out, of lengths that differ.

The network is a GRU, in place of the plain cell of the text.

Systems   C5
Command   python examples/sequences.py
Time      50 s on 2 cores, of processor time
Expected
    One to one: over 90 % of new digits are named from one step.
    One to many: the digits drawn from a label differ from the mean digit of it by less than 0.01.
    Many to one: two rows name fewer than 65 % of new digits, all eight over 80 %.
    Many to many, encoder and decoder: up to 3 digits are read, then named in reverse: over 60 %.
    Many to many, step by step: a letter of new lines costs 1 bit less than by frequency.
    Whatever stands behind the end of a sequence changes no loss and no gradient by a bit.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, label, save
from story import arguments, confirm, table

import fnn

UNITS, MOST = 64, 3
README = Path(__file__).parents[1] / "README.md"


def init(key, inputs, outputs):
    k1, k2 = jax.random.split(key)
    return {"layer": fnn.init_gru(k1, inputs, UNITS), "head": fnn.init_dense(k2, UNITS, outputs)}


def read(params, x, **options):
    """The outputs of every step (n, time, outputs), and the last state (n, units)."""
    h, state = fnn.gru(x, **params["layer"], **options)
    return fnn.dense(h, **params["head"]), state


def learn(loss, params, data, steps, batch=64):
    """Train for about so many steps; return the parameters, and the loss after every epoch."""
    epochs = max(1, steps * batch // len(jax.tree.leaves(data)[0]))
    reports = list(
        fnn.train(loss, params, fnn.adam(5e-3), data,
                  batch_size=batch, epochs=epochs, key=jax.random.key(1))
    )  # fmt: skip
    return reports[-1].params, [report.loss for report in reports]


def summed(errors, lengths):
    """The text's loss: summed over the real steps of each sequence, averaged over sequences."""
    real = jnp.arange(errors.shape[1]) < lengths[:, None]
    return jnp.where(real, errors, 0).sum(1).mean()


def one_to_one(train, test, steps):
    """A whole digit is one step of 64 features; its name is the output of that step."""

    def loss(params, batch):
        y, _ = read(params, batch.x.reshape(-1, 1, 64))
        return fnn.cross_entropy(y[:, 0], batch.y).mean()

    params, _ = learn(loss, init(jax.random.key(0), 64, 10), train, steps)
    y, _ = jax.jit(read)(params, test.x.reshape(-1, 1, 64))
    return float(fnn.accuracy(y[:, 0], test.y).mean())


def one_to_many(train, steps):
    """The name of a digit comes in the first step; then the network draws its 8 rows."""

    def rows(params, names):
        first = jnp.pad(jax.nn.one_hot(names, 10)[:, None], ((0, 0), (0, 7), (0, 0)))
        return read(params, first)[0]

    def loss(params, batch):
        errors = fnn.squared_error(rows(params, batch.y), batch.x[..., 0])
        return errors.sum(1).mean()

    params, _ = learn(loss, init(jax.random.key(0), 10, 8), train, steps)
    drawn = np.asarray(jax.jit(rows)(params, np.arange(10)))
    x, y = map(np.asarray, train)
    means = np.stack([x[y == c].mean(0)[..., 0] for c in range(10)])
    return drawn, float(((drawn - means) ** 2).mean())


def many_to_one(train, test, steps):
    """The first rows of a digit, 1 to 8 of them, are read one by one; the last state names it."""
    lengths = jax.random.randint(jax.random.key(2), (len(train.y),), 1, 9)

    def logits(params, x, lengths):
        _, state = read(params, x[..., 0], lengths=lengths)
        return fnn.dense(state, **params["head"])

    def loss(params, batch):
        images, names, lengths = batch
        return fnn.cross_entropy(logits(params, images, lengths), names).mean()

    params, _ = learn(loss, init(jax.random.key(0), 8, 10), (train.x, train.y, lengths), steps)

    @jax.jit
    def right(rows):
        y = logits(params, test.x, jnp.full(len(test.y), rows))
        return fnn.accuracy(y, test.y).mean()

    @jax.jit
    def both(fill):  # a value and a gradient, with this behind the ends
        hidden = jnp.arange(8)[:, None, None] >= lengths[:, None, None, None]
        x = jnp.where(hidden, fill, train.x)
        return jax.value_and_grad(loss)(params, (x, train.y, lengths))

    equal = jax.tree.map(np.array_equal, both(0.0), both(1e3))
    return [float(right(rows)) for rows in range(1, 9)], jax.tree.all(equal)


def encoder_decoder(train, test, steps, count):
    """Up to three digits are read, one picture a step; a second network names them in reverse."""

    @functools.partial(jax.jit, static_argnames="n")
    def numbers(key, data, n):
        k1, k2 = jax.random.split(key)
        which = jax.random.randint(k1, (n, MOST), 0, len(data.y))
        lengths = jax.random.randint(k2, (n,), 1, MOST + 1)
        places = jnp.clip(lengths[:, None] - 1 - jnp.arange(MOST), 0)  # the last one first
        return which, jnp.take_along_axis(data.y[which], places, 1), lengths

    def logits(params, x, lengths):
        _, state = read(params["encoder"], x.reshape(*x.shape[:2], 64), lengths=lengths)
        silence = jnp.zeros((len(x), MOST, 1))
        return read(params["decoder"], silence, state=state, lengths=lengths)[0]

    def loss(params, batch):
        which, names, lengths = batch
        return summed(fnn.cross_entropy(logits(params, train.x[which], lengths), names), lengths)

    k1, k2, k3, k4 = jax.random.split(jax.random.key(3), 4)
    start = {"encoder": init(k1, 64, 1), "decoder": init(k2, 1, 10)}
    params, _ = learn(loss, start, numbers(k3, train, count), steps)
    which, names, lengths = numbers(k4, test, 1000)
    named = jax.jit(logits)(params, test.x[which], lengths).argmax(-1)
    whole = ((named == names) | (jnp.arange(MOST) >= lengths[:, None])).all(1)
    return [float(whole.mean(where=lengths == n)) for n in range(1, MOST + 1)]


def text(most):
    """The first lines of README.md as numbers (n, time), their lengths, and the letters."""
    lines = [line[:60] for line in README.read_text().splitlines() if line.strip()][:most]
    letters = sorted(set("".join(lines)))
    codes = np.zeros((len(lines), 61), np.int32)  # 0 ends a line, and begins one
    for row, line in zip(codes, lines, strict=True):
        row[1 : len(line) + 1] = [letters.index(c) + 1 for c in line]
    return codes, np.array([len(line) + 1 for line in lines], np.int32), ["", *letters]


def following(codes, lengths):
    """What is to be said at every step of every line: its letters, then its end."""
    return np.concatenate([np.append(c, 0)[1 : n + 1] for c, n in zip(codes, lengths, strict=True)])


def synchronous(steps, lines):
    """Read a letter, say the next one, at every step."""
    codes, lengths, letters = text(lines)
    held = np.arange(len(codes)) % 10 == 0

    def bits(params, batch):
        codes, lengths = batch
        y, _ = read(params, jax.nn.one_hot(codes, len(letters)), lengths=lengths)
        after = jnp.pad(codes[:, 1:], ((0, 0), (0, 1)))
        return summed(fnn.cross_entropy(y, after), lengths) / jnp.log(2) / lengths.mean()

    data = codes[~held], lengths[~held]
    params, curve = learn(
        bits, init(jax.random.key(0), len(letters), len(letters)), data, steps, 16
    )
    new = float(jax.jit(bits)(params, (codes[held], lengths[held])))
    share = np.bincount(following(*data), minlength=len(letters)) + 1
    share = share / share.sum()
    by_frequency = -np.log2(share[following(codes[held], lengths[held])]).mean()
    return new, float(by_frequency), curve, said(params, letters)


def said(params, letters, lines=6):
    """Lines that the network writes itself, each letter drawn from what it says comes next."""

    def write(carry, key):
        code, state = carry
        state = fnn.gru_cell(jax.nn.one_hot(code, len(letters)), **params["layer"], state=state)
        code = jax.random.categorical(key, 1.4 * fnn.dense(state, **params["head"]))
        return (code, state), code

    start = jnp.zeros(lines, jnp.int32), jnp.zeros((lines, UNITS))
    _, codes = jax.lax.scan(write, start, jax.random.split(jax.random.key(4), 40))
    return ["".join(letters[c] for c in row).rstrip() for row in np.asarray(codes).T]


def draw(folder, single, pictures, by_rows, by_length, letters):
    bits, by_frequency, curve, lines = letters
    made, axes = figure(2, 3, width=4.0, height=3.0)
    axes[0].bar(["guess", "network"], [10, 100 * single], 0.5, color=["0.75", "#0b3d91"])
    label(axes[0], "one to one: a digit in one step", "", "new digits right, %")
    apart = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    grid = np.concatenate([np.concatenate(row, 1) for row in np.split(apart, 2)])
    axes[1].imshow(grid, cmap="gray_r", vmin=0, vmax=1)
    axes[1].axis("off")
    label(axes[1], "one to many: drawn from the names 0 to 9", "", "")
    axes[2].plot(range(1, 9), 100 * np.array(by_rows), **{**LINES[0], "markevery": 1})
    label(axes[2], "many to one: named by its first rows", "rows read", "new digits right, %")
    axes[3].bar(range(1, MOST + 1), 100 * np.array(by_length), 0.5, color="#0b3d91")
    axes[3].set_xticks(range(1, MOST + 1))
    title = "encoder, decoder: digits named in reverse"
    label(axes[3], title, "digits in the sequence", "all of them right, %")
    axes[4].plot(range(1, len(curve) + 1), curve, **LINES[0], label="lines in training")
    axes[4].axhline(by_frequency, color="0.5", linestyle=":", label="new lines, by frequency")
    axes[4].axhline(bits, color="#d1495b", linestyle="--", label="new lines, at the end")
    label(
        axes[4], "step by step: the next letter of README.md", "epoch", "bits a letter", legend=True
    )
    axes[5].axis("off")
    axes[5].set_title("lines that it writes itself", fontsize=10)
    shown = "\n".join(lines).replace("$", r"\$")  # no formulas
    axes[5].text(0, 0.9, shown, va="top", fontsize=8, family="monospace")
    save(made, folder, "sequences")


def main(argv=None):
    args = arguments(__doc__, argv)
    train, test = (fnn.data.Dataset(*map(jax.device_put, d)) for d in fnn.data.digits())
    steps = (100, 150, 200, 300, 100) if args.quick else (100, 300, 400, 800, 300)
    count, lines = (3200, 107) if args.quick else (4000, None)
    if args.quick:  # whole batches: one shape to compile
        train = fnn.data.Dataset(train.x[:1408], train.y[:1408])

    single = one_to_one(train, test, steps[0])
    pictures, error = one_to_many(train, steps[1])
    by_rows, same = many_to_one(train, test, steps[2])
    by_length = encoder_decoder(train, test, steps[3], count)
    letters = synchronous(steps[4], lines)
    table(
        ["use", "result"],
        [("one to one", f"{single:.1%} right"),
         ("one to many", f"squared error {error:.2g} to the mean digit"),
         ("many to one", f"{by_rows[1]:.1%} after 2 rows, {by_rows[-1]:.1%} after 8"),
         ("encoder, decoder", ", ".join(f"{v:.1%} of {n}" for n, v in enumerate(by_length, 1))),
         ("step by step", f"{letters[0]:.2f} bits a letter, by frequency {letters[1]:.2f}")],
    )  # fmt: skip
    draw(args.out, single, pictures, by_rows, by_length, letters)

    confirm(
        __doc__,
        single > 0.9,
        error < 0.01,
        by_rows[1] < 0.65 and by_rows[-1] > 0.8,
        min(by_length) > 0.6,
        letters[0] < letters[1] - 1,
        same,
    )


if __name__ == "__main__":
    main()
