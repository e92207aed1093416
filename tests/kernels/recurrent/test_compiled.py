"""What XLA makes of the loop, where the code was written for it."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fnn

pytestmark = pytest.mark.usefixtures("optimized")


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_no_operation_looks_up_its_place_and_replaces_a_state(kind: str) -> None:
    """Or XLA computes it number by number: see `fnn.compiler.buffer`."""
    columns = {"rnn": 64, "lstm": 256, "gru": 192}[kind]
    x, wx, wh = jnp.ones((8, 20, 32)), jnp.ones((32, columns)), jnp.ones((64, columns))

    def run(*args: Any) -> Any:
        return getattr(fnn, kind)(*args)[0]

    text = jax.jit(run).lower(x, wx, wh).compile().as_text()
    fused = re.findall(r"%fused_computation[^{]*\{.*?\n\}", text, re.DOTALL)
    active = [f for f in fused if "tanh(" in f]
    assert active
    if kind == "lstm":  # the gates look it up, and replace no state; what replaces one does not
        active = [f for f in active if "f32[8,64]" in f.split("->")[1].split("\n")[0]]
    assert not [f for f in active if "dynamic-slice(" in f]
