"""Recurrent layers against PyTorch's packed sequences: outputs, last states and all gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close
from tests.recorded.record_torch_recurrent import FILE, KINDS, LENGTHS, TIME, UNITS, arrays


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(kind: str, reverse: bool) -> None:
    """What is behind a length is NaN here, and PyTorch has never seen it."""
    with np.load(FILE) as found, jax.enable_x64(True):
        way = "_reverse" if reverse else ""
        want = {
            k.removeprefix(f"{kind}{way}_"): found[k] for k in found if k.startswith(kind + way)
        }
        given = {name: jnp.asarray(a) for name, a in arrays(kind).items()}
        real = jnp.arange(TIME)[None] < jnp.asarray(LENGTHS)[:, None]
        given["x"] = jnp.where(real[..., None], given["x"], jnp.nan)
        names = [n for n in given if n[0] != "g" and (n != "c" or kind == "lstm")]

        def run(inputs: dict[str, Any]) -> Any:
            x, w_ih, w_hh, b_ih, b_hh, *state = (inputs[n] for n in names)
            b, bh = b_ih + b_hh, {}
            if kind == "gru":
                b = b_ih + b_hh.at[2 * UNITS :].set(0)
                bh = {"bh": b_hh[2 * UNITS :]}
            y, last = getattr(fnn, kind)(
                *(x, w_ih.T, w_hh.T, b),
                state=tuple(state) if kind == "lstm" else state[0],
                lengths=jnp.asarray(LENGTHS),
                reverse=reverse,
                **bh,
            )
            return y, *(last if kind == "lstm" else (last,))

        def everything(inputs: dict[str, Any]) -> Any:
            results, pull = jax.vjp(run, inputs)
            return results, *pull(tuple(given[g] for g in ("gy", "gh", "gc")[: len(results)]))

        results, gradients = jax.jit(everything)({n: given[n] for n in names})
        for name, got in zip(("y", "last_h", "last_c"), results, strict=False):
            close(got, want[name], length=64)
        for name, got in gradients.items():
            close(got, want[f"to_{name}"], length=64)
