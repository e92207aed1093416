"""Lengths: what is padded is not there, to the last bit, in values and in gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close

N, TIME, F, UNITS = 4, 6, 3, 5
LENGTHS = np.array([6, 0, 1, 4], np.int32)
REAL = (np.arange(TIME) < LENGTHS[:, None])[..., None]
LAYERS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "rnn": (fnn.rnn, 1, {}),
    "lstm": (fnn.lstm, 4, {}),
    "lstm remat": (fnn.lstm, 4, {"remat": 4}),
    "lstm peephole": (fnn.lstm, 4, {"peephole": np.ones((3, UNITS), np.float32)}),
    "lstm_scan": (fnn.lstm_scan, 4, {}),
    "gru": (fnn.gru, 3, {}),
    "gru before": (fnn.gru, 3, {"reset": "before"}),
}


def draw(name: str) -> tuple[Any, ...]:
    rng, columns = np.random.default_rng(len(name)), LAYERS[name][1] * UNITS
    shapes = ((N, TIME, F), (F, columns), (UNITS, columns), (N, UNITS))
    return tuple(rng.standard_normal(s).astype(np.float32) for s in shapes)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_padding_changes_no_bit(name: str, reverse: bool) -> None:
    """Other numbers, infinities and NaN behind the lengths: everything is bitwise the same."""
    fn, _, config = LAYERS[name]
    x, wx, wh, h = draw(name)
    state = (h, h) if name.startswith("lstm") else h

    @jax.jit
    def everything(x: Any, wx: Any, wh: Any, state: Any, lengths: Any) -> Any:
        def loss(*args: Any) -> Any:
            y, last = fn(*args[:3], state=args[3], lengths=lengths, reverse=reverse, **config)
            return sum(jnp.sin(a).sum() for a in jax.tree.leaves((y, last))), (y, last)

        return jax.grad(loss, (0, 1, 2, 3), has_aux=True)(x, wx, wh, state)

    want = jax.tree.map(np.asarray, everything(x, wx, wh, state, LENGTHS))
    gradients, (y, last) = want
    for bad in np.float32([1e30, np.inf, np.nan]):
        got = everything(np.where(REAL, x, bad), wx, wh, state, LENGTHS)
        jax.tree.map(np.testing.assert_array_equal, got, want)
    assert (y[~REAL[..., 0]] == 0).all()
    assert (gradients[0][~REAL[..., 0]] == 0).all()
    assert all((s[1] == h[1]).all() for s in jax.tree.leaves(last))
    assert all((g[1] != 0).any() for g in jax.tree.leaves(gradients[3]))
    # As each sequence alone, without lengths.
    alone = {
        i: jax.tree.map(lambda a, i=i: a[i : i + 1], (x[:, : LENGTHS[i]], state)) for i in (2, 3)
    }
    layer = lambda x, s: fn(x, wx, wh, state=s, reverse=reverse, **config)
    results = jax.jit(lambda parts: [layer(*part) for part in parts])(list(alone.values()))
    for i, (y_alone, last_alone) in zip(alone, jax.tree.map(np.asarray, results), strict=True):
        close(y[i, : LENGTHS[i]], y_alone[0], length=F + UNITS)
        jax.tree.map(lambda a, b, i=i: close(a[i], b[0], length=F + UNITS), last, last_alone)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_sequence_without_steps_may_begin_with_nan(name: str, reverse: bool) -> None:
    """Its state is in no gradient to what the others share."""
    fn, _, config = LAYERS[name]
    x, wx, wh, h = draw(name)

    @jax.jit
    def gradients(h: Any) -> Any:
        state = (h, h) if name.startswith("lstm") else h

        def loss(*args: Any) -> Any:
            y, _ = fn(*args, state=state, lengths=LENGTHS, reverse=reverse, **config)
            return jnp.sin(y).sum()

        return jax.grad(loss, (0, 1, 2))(x, wx, wh)

    want = gradients(h)
    got = gradients(np.where(LENGTHS[:, None] == 0, np.float32(np.nan), h))
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_length_out_of_range_inside_jit_gives_nan(reverse: bool) -> None:
    x, wx, wh, _ = draw("gru")
    lengths = np.array([7, -1, 6, 2])
    y, h = jax.jit(lambda n: fnn.gru(x, wx, wh, lengths=n, reverse=reverse))(lengths)
    for a in map(np.asarray, (y, h)):
        assert np.isnan(a[:2]).all()
        assert np.isfinite(a[2:]).all()


def test_a_time_that_is_a_symbol_is_not_computed_again() -> None:
    x, wx, wh, _ = draw("gru")
    like = jax.ShapeDtypeStruct((4, *jax.export.symbolic_shape("t"), x.shape[2]), jnp.float32)
    program = jax.export.export(jax.jit(lambda x, n: fnn.gru(x, wx, wh, lengths=n)[0]))
    want = fnn.gru(x, wx, wh, lengths=LENGTHS)[0]
    close(program(like, jax.typeof(LENGTHS)).call(x, LENGTHS), want, length=F + UNITS)
    with pytest.raises(ValueError, match=r"gru: remat: got 2; needed None where .* x float32\[4,t"):
        jax.export.export(jax.jit(lambda x: fnn.gru(x, wx, wh, remat=2)))(like)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_any_number_of_sequences(kind: str) -> None:
    """One exported program, with the gradient, for few sequences and for many."""
    x, wx, wh, _ = draw(kind)

    def run(x: Any) -> Any:
        y, pull = jax.vjp(lambda x: getattr(fnn, kind)(x, wx, wh)[0], x)
        return y, *pull(y)

    like = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("n"), *x.shape[1:]), jnp.float32)
    program = jax.export.export(jax.jit(run))(like)
    for some in (x[:2], x):
        for got, want in zip(program.call(some), run(some), strict=True):
            close(got, want, length=4 * (F + UNITS))


def test_every_integer_dtype_and_no_list() -> None:
    x, wx, wh, _ = draw("rnn")
    want, _ = fnn.rnn(x, wx, wh, lengths=LENGTHS)
    for dtype in (np.int8, np.uint8, np.uint32, np.int64):
        got, _ = fnn.rnn(x, wx, wh, lengths=LENGTHS.astype(dtype))
        np.testing.assert_array_equal(got, want)
    with pytest.raises(TypeError, match=r"lengths: .* jnp\.asarray"):
        fnn.rnn(x, wx, wh, lengths=[6, 0, 1, 4])
