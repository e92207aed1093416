"""Long memory: a digit is read row by row, and must be named after a long wait in noise.

Each curve is one run. Plain networks at the limit of their memory end differently with rounding,
clipped or not; what is expected below leaves room for that.

Systems   C6 C7
Command   python examples/long_memory.py
Time      50 s on 2 cores, of processor time
Expected
    Named at once, every network gets over 85 % of new digits right.
    After 60 steps of noise the plain network is under 60 %; a guess is right in 25 %.
    From an orthogonal start it is over 70 % after 40 steps; gated (GRU, LSTM) over 65 % after 60.
    Held at ||W|| = 1 by spectral normalization it is under 40 %: tanh shrinks, and W may not grow.
    Through linear steps by W = g Q, Q orthogonal, a gradient of d steps ago is g^d: gone or huge.
    Clipped, the gradient that exploded has the norm 1.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, label, save
from story import arguments, confirm, table

import fnn

UNITS, CLASSES, ROWS, WAIT = 32, 4, 8, 60
# At 5e-3 the LSTM learns from four starts of five in so many steps; at 3e-3 from all.
RATE = {fnn.rnn: 5e-3, fnn.gru: 5e-3, fnn.lstm: 3e-3}
STEPS, NOISE = 300, 0.1


def normal(scale):
    return fnn.initializers.normal(scale / UNITS**0.5)


def held_open(layer):
    """Start with gates that keep: the bias of f (LSTM) or z (GRU), the second block, at 4."""
    b = np.array(layer["b"])
    b[UNITS : 2 * UNITS] = 4.0
    return {**layer, "b": b}


def networks(key):
    """By name: the layer, its start, the clipping norm, and whether ||W|| is held at 1."""
    plain = fnn.init_rnn(key, ROWS, UNITS, recurrent=normal(1.0))
    orthogonal = fnn.init_rnn(key, ROWS, UNITS)
    gru, lstm = (held_open(f(key, ROWS, UNITS)) for f in (fnn.init_gru, fnn.init_lstm))
    return {
        "plain": (fnn.rnn, plain, jnp.inf, False),
        "clipping": (fnn.rnn, plain, 1.0, False),
        "orthogonal start": (fnn.rnn, orthogonal, 1.0, False),
        "spectral norm": (fnn.rnn, orthogonal, 1.0, True),
        "GRU": (fnn.gru, gru, 1.0, False),
        "LSTM": (fnn.lstm, lstm, 1.0, False),
    }


def sequences(key, images):
    """Eight rows of a digit, then noise (n, 68, 8); how much of it is read is said by lengths."""
    rows = jnp.pad(images.reshape(-1, 8, 8), ((0, 0), (0, WAIT), (0, 0)))
    noise = NOISE * jax.random.normal(key, rows.shape)
    return jnp.where(jnp.arange(ROWS + WAIT)[:, None] < ROWS, rows, noise)


def logits(f, params, held, x, lag):
    """The scores of the classes; where held, W is divided by its spectral norm."""
    wh = params["layer"]["wh"]
    scaled, _ = fnn.spectral_norm(wh, jnp.ones(wh.shape[1]), iterations=10)
    layer = {**params["layer"], "wh": jnp.where(held, scaled, wh)}
    _, state = f(x, **layer, lengths=jnp.full(len(x), ROWS + lag))
    return fnn.dense(jax.tree.leaves(state)[0], **params["head"])


@functools.partial(jax.jit, static_argnames=("f", "batch"))
def accuracy(f, layers, clips, held, lags, train, test, batch):
    """Train from every start, for its lag, all at once; return the shares of new digits right."""
    head = fnn.init_dense(jax.random.key(1), UNITS, CLASSES)

    def run(layer, clip, held, lag):
        def loss(params, batch):
            return fnn.cross_entropy(logits(f, params, held, batch.x, lag), batch.y).mean()

        optimizer = fnn.chain(fnn.clip_by_global_norm(clip), fnn.adam(RATE[f]))
        step = fnn.make_step(loss, optimizer)

        def advance(carry, key):
            draw, noise = jax.random.split(key)
            rows = jax.random.randint(draw, (batch,), 0, len(train.y))
            examples = fnn.data.Dataset(sequences(noise, train.x[rows]), train.y[rows])
            params, state, _ = step(*carry, examples)
            return (params, state), None

        start = {"layer": layer, "head": head}
        keys = jax.random.split(jax.random.key(2), STEPS)
        (params, _), _ = jax.lax.scan(advance, (start, optimizer.init(start)), keys)
        x = sequences(jax.random.key(3), test.x)
        return fnn.accuracy(logits(f, params, held, x, lag), test.y).mean()

    return jax.vmap(run)(layers, clips, held, lags)


@jax.jit
def linear(scale, x):
    """The norm of the gradient by the state of so many steps ago, of steps by scale * Q."""
    w = scale * fnn.init_rnn(jax.random.key(4), ROWS, UNITS)["wh"]
    return fnn.analysis.gradient_by_time(
        lambda h, x: h @ w, lambda h: h[0, 0], jnp.zeros((1, UNITS)), x
    )


def few(data):
    return fnn.data.Dataset(*(a[data.y < CLASSES] for a in data))


def main(argv=None):
    args = arguments(__doc__, argv)
    train, test = map(few, fnn.data.digits())
    lags = np.array([0, 40, WAIT] if args.quick else [0, 20, 40, WAIT])
    batch = 16 if args.quick else 32
    runs = networks(jax.random.key(0))
    # A quick run trains only for the waits that the expected lines name.
    named = dict.fromkeys(runs, (0, WAIT)) | {"clipping": (0,), "orthogonal start": (0, 40)}

    right = {name: np.full(len(lags), np.nan) for name in runs}
    for f in (fnn.rnn, fnn.gru, fnn.lstm):  # one program each
        cells = [
            (name, i)
            for name in runs
            for i, lag in enumerate(lags)
            if runs[name][0] is f and (not args.quick or lag in named[name])
        ]
        starts = jax.tree.map(lambda *a: np.stack(a), *[runs[name][1:] for name, _ in cells])
        shares = accuracy(f, *starts, lags[[i for _, i in cells]], train, test, batch)
        for (name, i), share in zip(cells, shares, strict=True):
            right[name][i] = 100 * share

    steps = np.zeros((1, ROWS + WAIT, ROWS), np.float32)
    norms = {scale: np.asarray(linear(scale, steps)) for scale in (0.9, 1.0, 1.1)}
    clip = jax.jit(fnn.clip_by_global_norm(1.0).update)
    clipped, _ = clip(np.array([norms[1.1][-1], 0.0], np.float32), ())
    table(
        ["network", *[f"after {lag} steps" for lag in lags]],
        [
            (name, *["-" if np.isnan(v) else f"{v:.1f} %" for v in values])
            for name, values in right.items()
        ],
    )

    made, axes = figure(1, 2, width=5.5, height=3.8)
    styles = dict(zip(right, LINES, strict=True))
    for name, values in right.items():
        axes[0].plot(lags, values, **{**styles[name], "markevery": 1}, label=name)
    axes[0].axhline(25, color="0.6", linewidth=0.8)
    axes[0].text(1, 26, "a guess", fontsize=8, color="0.4")
    label(axes[0], "a digit, named after a wait", "wait, steps of noise", "new digits right, %")
    axes[0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for line, (scale, values) in zip(LINES, norms.items(), strict=False):
        axes[1].semilogy(values, **line, label=f"W = {scale} Q")
    label(axes[1], "linear steps by W, Q orthogonal", "distance in time, steps",
          "norm of the gradient", legend=True)  # fmt: skip
    save(made, args.out, "long_memory")

    last = {name: values[-1] for name, values in right.items()}
    confirm(
        __doc__,
        min(values[0] for values in right.values()) > 85,
        last["plain"] < 60,
        right["orthogonal start"][-2] > 70 and min(last["GRU"], last["LSTM"]) > 65,
        last["spectral norm"] < 40,
        all(np.allclose(v, g ** np.arange(len(v)), rtol=1e-3) for g, v in norms.items()),
        norms[1.1][-1] > 100 and abs(np.linalg.norm(clipped) - 1) < 1e-5,
    )


if __name__ == "__main__":
    main()
