"""Where recurrent arrays start: the arguments' names, shapes, variances, and what is orthogonal."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close

D_IN, UNITS = 30, 50
LAYERS: dict[str, tuple[Any, Any, int]] = {
    "rnn": (fnn.rnn, fnn.init_rnn, 1),
    "lstm": (fnn.lstm, fnn.init_lstm, 4),
    "gru": (fnn.gru, fnn.init_gru, 3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_C7_the_start_of_every_block(name: str) -> None:
    """Recurrent blocks are orthogonal, so ``||W|| = 1``; input blocks have Xavier's variance."""
    layer, init, blocks = LAYERS[name]
    params = init(jax.random.key(0), D_IN, UNITS)
    y, _ = layer(jnp.ones((2, 3, D_IN)), **params)
    assert y.shape == (2, 3, UNITS)
    inputs, states = (np.split(np.asarray(params[k]), blocks, axis=1) for k in ("wx", "wh"))
    for block in states:
        close(block @ block.T, np.eye(UNITS), length=UNITS)
        assert abs(np.linalg.norm(block, 2) - 1) < 1e-5
    for block in inputs:
        assert abs(block.var() * (D_IN + UNITS) / 2 - 1) < 0.15
    for pair in (*itertools.combinations(inputs, 2), *itertools.combinations(states, 2)):
        assert np.abs(np.subtract(*pair)).max() > 0.1  # each is drawn by itself


def test_biases_peepholes_and_dtype() -> None:
    key = jax.random.key(0)
    lstm = fnn.init_lstm(key, 2, 3, forget=2.5, peephole=True, dtype=jnp.bfloat16)
    assert lstm["b"].tolist() == [0.0] * 3 + [2.5] * 3 + [0.0] * 6
    assert lstm["peephole"].tolist() == [[0.0] * 3] * 3
    assert {a.dtype for a in lstm.values()} == {jnp.dtype(jnp.bfloat16)}
    for _, init, _ in LAYERS.values():
        assert set(init(key, 2, 3, bias=False)) == {"wx", "wh"}
    gru = fnn.init_gru(key, 2, 3, dtype=jnp.bfloat16)
    assert set(gru) == {"wx", "wh", "b", "bh"}
    assert {a.dtype for a in gru.values()} == {jnp.dtype(jnp.bfloat16)}
    assert not gru["b"].any()
    assert not gru["bh"].any()


def test_the_bias_of_the_gate_may_have_another_dtype() -> None:
    lstm = fnn.init_lstm(jax.random.key(0), 2, 3, forget=jnp.float32(2), dtype=jnp.bfloat16)
    assert lstm["b"].dtype == jnp.bfloat16
    assert lstm["b"].tolist() == [0.0] * 3 + [2.0] * 3 + [0.0] * 6


def test_every_initializer_can_be_replaced() -> None:
    ones, half = fnn.initializers.ones, fnn.initializers.constant(0.5)
    for _, init, _ in LAYERS.values():
        params = init(jax.random.key(0), 2, 3, weights=ones, recurrent=half)
        assert (params["wx"] == 1).all()
        assert (params["wh"] == 0.5).all()


@pytest.mark.parametrize("name", LAYERS)
def test_wrong_sizes(name: str) -> None:
    with pytest.raises(ValueError, match=rf"init_{name}: units: got 0; needed an int >= 1"):
        LAYERS[name][1](jax.random.key(0), 2, 0)


@pytest.mark.parametrize("argument", ["weights", "recurrent"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_initializer_of_another_shape(name: str, argument: str) -> None:
    """Of one block: a transposed one has as many numbers, a vector too few, a number none."""
    rows = 2 if argument == "weights" else 3
    for wrong in (lambda k, s, d: jnp.ones((*s[::-1], 1), d), lambda k, s, d: jnp.ones(1, d), 3):
        message = rf"init_{name}: {argument}: got .*; needed an initializer of shape \({rows}, 3\)"
        with pytest.raises(ValueError, match=message):
            LAYERS[name][1](jax.random.key(0), 2, 3, **{argument: wrong})
