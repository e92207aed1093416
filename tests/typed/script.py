"""What a user writes, with types: mypy --strict and pyright pass on it."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]  # optax ships no types
from jax import Array

import fnn

Params = dict[str, dict[str, Any]]  # of arrays: no checker knows which names a layer's dict has


def init(key: Array) -> Params:
    k1, k2, k3 = jax.random.split(key, 3)
    return {
        "conv1": fnn.init_conv(k1, (3, 3), 1, 16),
        "conv2": fnn.init_conv(k2, (3, 3), 16, 32),
        "head": fnn.init_dense(k3, 2 * 2 * 32, 10),
    }


def small(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return jax.random.uniform(key, shape, dtype, -0.1, 0.1)


def initialized(key: Array) -> None:
    fnn.init_dense(key, 3, 4, weights=small)
    fnn.init_embed(key, 3, 4, weights=lambda key, shape, dtype: small(key, shape, dtype) / 2)
    fnn.init_gru(key, 3, 4, weights=fnn.initializers.he_normal(), recurrent=small)


def logits(params: Params, x: Array) -> Array:
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv1"])), 2)
    x = fnn.conv_im2col(x, params["conv2"]["w"], params["conv2"]["b"], stride=(1, 1))
    x = fnn.max_pool(fnn.leaky_relu(x, negative_slope=0.1), 2, stride=2)
    return fnn.dense(fnn.flatten(x), **params["head"])


def layers(key: Array, x: Array, words: Array) -> None:
    fnn.conv_fft(x, **fnn.init_conv(key, (3, 3), 1, 4), padding="VALID")
    fnn.conv_transpose(x, **fnn.init_conv_transpose(key, (3, 3), 1, 4), stride=2)
    stats = fnn.batch_stats(x)
    fnn.batch_norm(x, **fnn.init_norm(1), mean=stats.mean, var=stats.var)
    fnn.layer_norm(x, **fnn.init_norm((8, 1)), eps=1e-6)
    rows = fnn.embed(words, **fnn.init_embed(key, 100, 3))
    fnn.rnn(rows, **fnn.init_rnn(key, 3, 4), activation=fnn.relu)
    outputs, _ = fnn.lstm(rows, **fnn.init_lstm(key, 3, 4), reverse=True)
    fnn.gru(outputs, **fnn.init_gru(key, 4, 4), reset="before")


def numbers(x: Array, number: Array, key: Array) -> None:
    """A sweep traces numbers, and arithmetic with NumPy makes its own kind."""
    for n in (number, np.float32(0.5), np.float64(0.5), np.int32(1), 1):
        schedules = fnn.schedules.cosine(n, 100, end=n), fnn.schedules.piecewise(0.1, {3: n})
        fnn.chain(fnn.clip_by_global_norm(n), fnn.adam(n, b1=n, eps=n), fnn.average(n))
        fnn.lookahead(fnn.add_weight_decay(fnn.sgd(schedules[0], momentum=n), n), slow_rate=n)
        fnn.dropout(fnn.leaky_relu(x, negative_slope=n), n, key)
        fnn.layer_norm(x, **fnn.init_norm(1), eps=n)
        fnn.cross_entropy(x, x, label_smoothing=n)
        fnn.binary_cross_entropy(x, x, pos_weight=n)
    fnn.muon(0.1, iterations=jnp.array(3))


def loss(params: Params, batch: fnn.data.Dataset) -> Array:
    cost = fnn.cross_entropy(logits(params, batch.x), batch.y, label_smoothing=0.1)
    return cost.mean() + 1e-4 * fnn.l2_penalty(params)


class Pair(NamedTuple):
    """An optimizer of one's own."""

    init: Callable[[Any], Array]
    update: Callable[[Any, Array, Any], tuple[Any, Array]]


def optimizers(params: Params) -> None:
    fnn.make_step(loss, Pair(lambda params: jnp.zeros(()), lambda g, state, params: (g, state)))
    state = fnn.adam(0.1).init(params)
    print(state.step, state.moments["mu"])
    updates, state = fnn.adam(0.1).update(params, state, params)
    print(updates["head"]["w"].shape, state.learning_rate)
    optax.chain(fnn.clip_by_global_norm(1.0), optax.add_decayed_weights(0.1), fnn.sgd(0.1))
    library: optax.GradientTransformation = fnn.chain(optax.clip(1.0), fnn.adam(0.1))
    init, update = library
    print(init(params), update(params, library.init(params)))


def accuracy(params: Params, part: fnn.data.Dataset) -> float:
    return float(fnn.accuracy(logits(params, part.x), part.y).mean())


def main(folder: Path) -> None:
    train, test = fnn.data.digits()
    optimizer = fnn.chain(fnn.clip_by_global_norm(1.0), fnn.adam(fnn.schedules.cosine(1e-2, 100)))
    params = init(jax.random.key(0))
    reports = fnn.train(
        loss, params, optimizer, train, batch_size=64, epochs=2, key=jax.random.key(1)
    )
    with closing(reports):
        for report in reports:
            print(report.epoch, report.loss, accuracy(report.params, test))
            fnn.save(folder / "digits.safetensors", report.params)
            if report.stopped is not None:
                print(report.stopped.gradient, report.stopped.run.step)

    library = optax.adam(1e-3)
    step = fnn.make_step(loss, library)
    state = library.init(params)
    params, state, value = step(params, state, train)
    print(float(value), fnn.count(params), fnn.output_size((8, 8), 3, padding="SAME"))


if __name__ == "__main__":
    main(Path("out"))
