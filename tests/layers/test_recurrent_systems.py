"""The reference systems of recurrence: the use cases of a recurrent layer, and its remedies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from tests.check import close

N, TIME, F, UNITS, OUT = 3, 5, 2, 4, 3
KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = fnn.init_rnn(KEYS[0], F, UNITS)
P = np.asarray(jax.random.normal(KEYS[1], (UNITS, OUT)))
X = np.asarray(jax.random.normal(KEYS[2], (N, TIME, F)))


def steps(x: Any, h: Any = None) -> list[np.ndarray]:
    """h_t = tanh(W h_{t-1} + U x_t + b) of one sequence in float64, step by step."""
    wide = {k: np.asarray(a, np.float64) for k, a in PARAMS.items()}
    h, found = np.zeros(UNITS) if h is None else h, []
    for x_t in np.asarray(x, np.float64):
        h = np.tanh(wide["wh"].T @ h + wide["wx"].T @ x_t + wide["b"])
        found.append(h)
    return found


def test_C5_the_use_cases() -> None:
    """One or many inputs to one or many outputs ``y_t = P h_t``."""
    y, h = map(np.asarray, fnn.rnn(X, **PARAMS))
    outputs, p = y @ P, np.asarray(P, np.float64)
    hs = [steps(x) for x in X]
    close(outputs, np.array([[p.T @ h for h in one] for one in hs]), length=TIME * UNITS)
    close(h @ P, np.array([p.T @ one[-1] for one in hs]), length=TIME * UNITS)  # many to one
    one, _ = fnn.rnn(X[:, :1], **PARAMS)
    close(np.asarray(one)[:, 0], np.array([one[0] for one in hs]), length=UNITS)  # one to one

    first = X[:, :1]  # one to many: a single input, then nothing
    padded = np.concatenate([first, np.zeros((N, TIME - 1, F), np.float32)], 1)
    many, _ = fnn.rnn(padded, **PARAMS)
    close(many, np.array([steps(x) for x in padded]), length=TIME * UNITS)

    nothing = np.zeros((N, 2, F), np.float32)
    decoder, _ = fnn.rnn(nothing, **PARAMS, state=h)  # many to many: encode, decode
    want = [steps(np.zeros((2, F)), h=one[-1]) for one in hs]
    close(decoder, np.array(want), length=TIME * UNITS)


def test_C5_loss_over_sequences_of_different_lengths() -> None:
    """Summed over the time that a sequence has, averaged over samples: as each sequence alone."""
    lengths = np.array([5, 2, 3])
    targets = np.asarray(jax.random.normal(KEYS[3], (N, TIME, OUT)))

    def loss(params: Any, x: Any, targets: Any, lengths: Any) -> Any:
        y, _ = fnn.rnn(x, **params, lengths=lengths)
        errors = fnn.squared_error(y @ P, targets).sum(-1)
        real = jnp.arange(x.shape[1])[None] < lengths[:, None]
        return jnp.where(real, errors, 0).sum(1).mean()

    step = jax.jit(jax.value_and_grad(loss))
    value, gradients = step(PARAMS, X, targets, lengths)
    alone = [
        step(PARAMS, X[i : i + 1, :n], targets[i : i + 1, :n], lengths[i : i + 1])
        for i, n in enumerate([5, 2, 3])
    ]
    close(value, np.mean([v for v, _ in alone]), length=TIME * UNITS)
    for name, got in gradients.items():
        close(got, np.mean([g[name] for _, g in alone], 0), length=N * TIME * UNITS)


def reach(w: Any, steps: int = 100) -> Any:
    """The gradient by distance of a linear recurrence with these weights."""
    return fnn.analysis.gradient_by_time(
        lambda h, x: fnn.rnn_cell(x, PARAMS["wx"], w, state=h, activation=fnn.identity),
        lambda h: h.sum(),
        np.zeros((1, UNITS), np.float32),
        np.zeros((1, steps, F), np.float32),
    )


def test_C7_weights_of_norm_one_let_the_gradient_through() -> None:
    """An orthogonal start keeps it over 100 steps; spectral normalisation never lets it grow."""
    np.testing.assert_allclose(reach(PARAMS["wh"]), float(np.sqrt(UNITS)), rtol=1e-4)
    wild = 3 * np.asarray(jax.random.normal(KEYS[1], (UNITS, UNITS)))
    assert reach(wild, 20)[-1] > 1e8
    tame, _ = fnn.spectral_norm(wild, np.ones(UNITS, np.float32), iterations=50)
    assert abs(np.linalg.norm(tame, 2) - 1) < 1e-4
    norms = np.asarray(reach(tame))
    assert (norms[1:] <= norms[:-1] * (1 + 1e-4)).all()


def test_C7_clipping_bounds_an_exploding_step() -> None:
    wild = {**PARAMS, "wh": 5 * PARAMS["wh"]}

    def loss(params: Any) -> Any:
        return fnn.rnn(jnp.ones((1, 30, F)), **params, activation=fnn.identity)[1].sum()

    gradients = jax.jit(jax.grad(loss))(wild)
    clip = fnn.clip_by_global_norm(1.0)
    clipped, _ = jax.jit(clip.update)(gradients, clip.init(wild))
    wide = jax.tree.map(np.float64, (gradients, clipped))
    length = [np.sqrt(sum((a**2).sum() for a in tree.values())) for tree in wide]
    assert length[0] > 1e10
    assert abs(length[1] - 1) < 1e-4


KEPT = 1 / (1 + np.exp(-8.0))  # of a memory, at each step
ZEROS = fnn.initializers.zeros
LSTM = fnn.init_lstm(KEYS[0], F, UNITS, recurrent=ZEROS, forget=8.0)
GRU = fnn.init_gru(KEYS[0], F, UNITS, recurrent=ZEROS)
GRU = {**GRU, "b": GRU["b"].at[UNITS : 2 * UNITS].set(8.0)}  # h_t = (1 - z) n + z h_(t-1)


def test_C7_an_open_memory_lets_the_gradient_through() -> None:
    """With its gate open, a memory passes 100 steps that a small W does not."""
    zeros, x = np.zeros((1, UNITS), np.float32), np.zeros((1, 100, F), np.float32)
    by_time = fnn.analysis.gradient_by_time
    lstm = by_time(
        lambda s, x: fnn.lstm_cell(x, **LSTM, state=s), lambda s: s[1].sum(), (zeros, zeros), x
    )
    gru = by_time(lambda h, x: fnn.gru_cell(x, **GRU, state=h), jnp.sum, zeros, x)
    for norms in (lstm, gru):
        np.testing.assert_allclose(norms[-1], np.sqrt(UNITS) * KEPT**100, rtol=1e-3)
    assert reach(0.9 * PARAMS["wh"])[-1] < 1e-4


MEMORIES: dict[str, tuple[Any, Any]] = {
    "small": (fnn.rnn, {**PARAMS, "wh": 0.5 * PARAMS["wh"]}),
    "orthogonal": (fnn.rnn, PARAMS),
    "lstm": (fnn.lstm, LSTM),
    "gru": (fnn.gru, GRU),
}


def test_C7_the_first_of_100_inputs_is_remembered() -> None:
    """Its sign, read from the last state by least squares; the other feature is noise."""
    x = 0.05 * np.asarray(jax.random.normal(KEYS[3], (200, 100, F)))
    signs = np.tile([-1.0, 1.0], 100)
    x[..., 0] = 0
    x[:, 0, 0] = signs
    last = jax.jit(lambda x: [layer(x, **p)[0][:, -1] for layer, p in MEMORIES.values()])(x)
    right = {}
    for name, h in zip(MEMORIES, np.asarray(last, np.float64), strict=True):
        h = np.c_[h / np.abs(h).max(), np.ones(200)]
        readout = np.linalg.lstsq(h[:100], signs[:100])[0]
        right[name] = np.mean(np.sign(h[100:] @ readout) == signs[100:])
    assert right.pop("small") < 0.7
    assert min(right.values()) > 0.95, right
