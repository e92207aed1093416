"""Transfer: features learned on five digits are frozen, and a new head learns five others.

Systems   B17
Command   python examples/transfer.py
Time      35 s on 2 cores, of processor time
Expected
    With 1 to 5 examples a class, each at one place, frozen features beat training from scratch.
    The lead shrinks: with 20 examples a class it is less than half of that with 2.
    Put at another place in every step, training from scratch beats frozen features throughout.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, label, save
from story import arguments, confirm, table

import fnn

OLD, NEW = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
SIDE, HIDDEN = 12, (128, 64)
FEW = (1, 2, 3, 5, 10, 20)  # examples of each class


def of_classes(data, classes):
    chosen = np.isin(data.y, classes)
    y = np.searchsorted(classes, data.y[chosen])
    return fnn.data.Dataset(*jax.device_put((data.x[chosen], y)))


def place(key, batch):
    """Put every digit somewhere in a field of 12x12."""
    corners = jax.random.randint(key, (len(batch.x), 2), 0, SIDE - 8 + 1)

    def put(image, corner):
        return jax.lax.dynamic_update_slice(jnp.zeros((SIDE, SIDE, 1)), image, (*corner, 0))

    return batch._replace(x=jax.vmap(put)(batch.x, corners))


def init(key):
    k1, k2, k3 = jax.random.split(key, 3)
    he = fnn.initializers.he_normal()
    body = [
        fnn.init_dense(k1, SIDE**2, HIDDEN[0], weights=he),
        fnn.init_dense(k2, *HIDDEN, weights=he),
    ]
    return {"body": body, "head": fnn.init_dense(k3, HIDDEN[1], 5)}


def logits(params, x):
    x = fnn.flatten(x)
    for layer in params["body"]:
        x = fnn.relu(fnn.dense(x, **layer))
    return fnn.dense(x, **params["head"])


def loss(params, batch):
    return fnn.cross_entropy(logits(params, batch.x), batch.y).mean()


def pretrained(train, epochs):
    """Learn the old classes, at another place in every epoch; return the body."""
    reports = fnn.train(
        fnn.augmented(loss, place), init(jax.random.key(0)), fnn.adam(1e-3), train,
        batch_size=32, epochs=epochs, key=jax.random.key(1),
    )  # fmt: skip
    *_, report = reports
    return report.params["body"]


def draw(key, data):
    """Some examples of every class, in random order: the first few are the few."""
    order = jax.random.permutation(key, len(data.y))
    y = data.y[order]
    rows = [order[jnp.nonzero(y == c, size=FEW[-1])[0]] for c in range(5)]
    rows = jnp.stack(rows, 1).ravel()  # one of every class, then another of every class
    return fnn.data.Dataset(data.x[rows], data.y[rows])


@functools.partial(jax.jit, static_argnames=("frozen", "draws", "steps"))
def curve(body, train, test, *, frozen, moving, draws, steps):
    """The share of new digits right, for every draw (rows) and number of examples (columns)."""
    optimizer = fnn.adam(3e-3)
    if frozen:
        optimizer = fnn.freeze(optimizer, lambda path: path.startswith("body"))

    def run(key, few):
        k1, k2, k3, k4 = jax.random.split(key, 4)
        examples = draw(k1, train)
        taken = jnp.arange(len(examples.y)) < 5 * few

        def one(params, batch, key):
            batch = place(jnp.where(moving, key, k2), examples)
            return fnn.cross_entropy(logits(params, batch.x), batch.y).mean(where=taken)

        params = init(k3)
        params = {**params, "body": body} if frozen else params
        step = fnn.make_step(one, optimizer)

        def advance(carry, key):
            params, state, _ = step(*carry, (), key)
            return (params, state), None

        start = (params, optimizer.init(params))
        (params, _), _ = jax.lax.scan(advance, start, jax.random.split(k4, steps))
        return fnn.accuracy(logits(params, test.x), test.y).mean()

    keys = jax.random.split(jax.random.key(2), draws)
    return jax.vmap(jax.vmap(run, (None, 0)), (0, None))(keys, jnp.array(FEW))


CASES = {
    "frozen features": (True, False),
    "from scratch": (False, False),
    "frozen features, shifted": (True, True),
    "from scratch, shifted": (False, True),
}


def main(argv=None):
    args = arguments(__doc__, argv)
    train, test = fnn.data.digits()
    draws, epochs = (2, 20) if args.quick else (6, 40)
    old = of_classes(train, OLD)
    if args.quick:  # whole batches: one shape to compile
        old = jax.tree.map(lambda a: a[:704], old)
    body = pretrained(old, epochs)
    new, held = of_classes(train, NEW), place(jax.random.key(3), of_classes(test, NEW))
    shares = {
        name: 100 * np.asarray(
            curve(body, new, held, frozen=frozen, moving=moving, draws=draws, steps=100)
        )
        for name, (frozen, moving) in CASES.items()
    }  # fmt: skip
    mean = {name: s.mean(0) for name, s in shares.items()}
    error = {name: s.std(0, ddof=1) / draws**0.5 for name, s in shares.items()}
    table(
        ["new digits right, %", *[f"{few} a class" for few in FEW]],
        [(name, *[f"{a:.1f}±{b:.1f}" for a, b in zip(mean[name], error[name], strict=True)])
         for name in CASES],
    )  # fmt: skip

    made, axes = figure(1, 2, width=5.0)
    for i, name in enumerate(CASES):
        line = {**LINES[i % 2], "markevery": 1}
        axes[i // 2].errorbar(FEW, mean[name], error[name], **line, capsize=3, label=name)
    for at, title in zip(
        axes, ("each example stays at its place", "at another place in every step"), strict=True
    ):
        at.set(xscale="log", xticks=FEW, xticklabels=FEW, ylim=(15, 100))
        at.minorticks_off()
        label(at, title, "examples of each new class", "new digits right, %", legend=True)
    save(made, args.out, "transfer")

    lead = mean["frozen features"] - mean["from scratch"]
    confirm(
        __doc__,
        (lead[np.array(FEW) <= 5] > 2).all(),
        lead[FEW.index(20)] < lead[FEW.index(2)] / 2,
        (mean["from scratch, shifted"] > np.maximum(*list(mean.values())[::2])).all(),
    )


if __name__ == "__main__":
    main()
