"""What a session shows of results that `jax.tree.map` and JAX's transformations have changed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.analysis.gradcheck import GradientCheck, Leaf
from fnn.analysis.rates import RateRange
from fnn.analysis.sizes import Layer, Summary

LEAF = Leaf("w", (0,), 1.0, 1.0, 0.0, 0.0, 1, 0, None)
RUN = fnn.Run({"w": jnp.zeros((2, 3))}, None, None, 2, 1, 9, jax.random.key(0))
SHOWN = {
    "epoch   1  step      3  loss 0.5        7 examples/s": fnn.Report(1, 3, 0.5, 7.0, RUN),
    "Run(6 parameters, epoch 2, batch 1, step 9)": RUN,
    "learning rate 0.1: by hand": RateRange(None, None, None, 3, 0.1, "by hand"),
    "jax.grad against": GradientCheck((LEAF,), 0.1, True),
    "layer output": Summary((Layer("a", "conv", (2,), 1, 1, 1, 1, 1, 4, (3,)),), 9, ()),
}
CHANGES: dict[str, Callable[[Any], Any]] = {
    "stacked": lambda x: x if isinstance(x, str) else np.stack([np.ones(2), np.ones(2)]),
    "none": lambda x: None,
    "text": lambda x: "text",
    "shapes": lambda x: jax.ShapeDtypeStruct((2,), jnp.float32),
    "placement": lambda x: jax.sharding.PartitionSpec(),
}


@pytest.mark.parametrize("start", SHOWN)
def test_a_result_is_shown_in_short(start: str) -> None:
    assert " ".join(str(SHOWN[start]).split()).startswith(" ".join(start.split()))


@pytest.mark.parametrize("start", SHOWN)
@pytest.mark.parametrize("change", CHANGES)
def test_what_holds_no_numbers_is_shown_in_whole(start: str, change: str) -> None:
    changed = jax.tree.map(CHANGES[change], SHOWN[start])
    name = type(changed).__name__
    assert repr(changed).startswith(f"{name}(")
    assert str(changed).startswith(f"{name}(")


def test_what_is_traced_is_shown() -> None:
    def traced(report: Any) -> Any:
        assert "step" in repr(report.run)
        assert str(report) == repr(report)
        return report

    jax.eval_shape(traced, SHOWN[next(iter(SHOWN))])
