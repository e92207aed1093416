"""What the README shows: its script runs, its names exist, its kernels train alike."""

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

README = (Path(__file__).parents[1] / "README.md").read_text()
SCRIPT, STEP = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """The names that the first script of the README leaves behind, run as it stands."""
    names: dict[str, Any] = {}
    exec(SCRIPT, names)
    return names


def test_script_learns(shown: dict[str, Any]) -> None:
    params, test = shown["report"].params, shown["test"]
    accuracy = fnn.accuracy(shown["logits"](params, test.x), test.y).mean()
    claimed = re.search(r"It reaches (\d+) % of the held-out digits", README)
    assert claimed
    assert abs(100 * float(accuracy) - int(claimed[1])) < 0.5


def test_step_script_continues_it(shown: dict[str, Any]) -> None:
    names = dict(shown)
    exec(STEP, names)
    before, after = float(names["value"]), float(names["loss"](names["params"], names["train"]))
    assert after < before


def test_swapped_convolution_changes_rounding_only(shown: dict[str, Any]) -> None:
    def loss(params: Any, batch: Any, conv: Any) -> Any:
        return fnn.cross_entropy(shown["logits"](params, batch.x, conv), batch.y).mean()

    def curve(conv: Any) -> list[float]:
        run = fnn.train(functools.partial(loss, conv=conv), params, fnn.adam(1e-3), data,
                        batch_size=64, epochs=2, key=jax.random.key(1), report_every=4)  # fmt: skip
        return [report.loss for report in run]

    with jax.enable_x64(True):  # where rounding is 1e-16, nothing else can hide behind it
        params = jax.tree.map(
            lambda a: jnp.asarray(np.asarray(a), jnp.float64), shown["init"](jax.random.key(0))
        )
        data = jax.tree.map(lambda a: a[:1408], shown["train"])  # whole batches: one shape
        data = data._replace(x=np.asarray(data.x, np.float64))
        np.testing.assert_allclose(curve(fnn.conv_im2col), curve(fnn.conv_lax), rtol=1e-10)


def test_readme_names_exist() -> None:
    for name in set(re.findall(r"\bfnn\.([a-z]\w*(?:\.[a-z]\w*)?)", README)):
        assert functools.reduce(getattr, name.split("."), fnn), name
    for path in set(re.findall(r"`((?:fnn|examples|benchmarks)/[\w/.]+)`", README)):
        assert (Path(__file__).parents[1] / path).exists(), path
