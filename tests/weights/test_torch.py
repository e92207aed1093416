"""PyTorch's weights: a real network computes the same here, and goes back unchanged."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import fnn
from fnn.weights.torch import from_torch, to_torch
from tests.recorded.network import VALUES, WEIGHTS

RULES: dict[str, Any] = {
    "features.0": ("conv1", "conv"),
    "features.1": ("norm1", "batch_norm"),
    "features.4": ("block/conv2", "conv"),
    "features.5": ("block/slope", "prelu"),
    "features.6": ("up", "conv_transpose"),
    "features.7": ("norm2", "group_norm"),
    "head": ("head", "dense", (4, 6, 4)),
    "words": ("words", "embed"),
    "lstm.*_l0": ("forward", "lstm"),
    "lstm.*_l0_reverse": ("backward", "lstm"),
    "gru.*_l0": ("gru", "gru"),
}


def logits(p: Any, x: Any) -> Any:
    x = fnn.batch_norm(fnn.conv(x, **p["conv1"]), **p["norm1"])
    x = fnn.max_pool(fnn.relu(x), 2)
    x = fnn.prelu(fnn.conv(x, **p["block"]["conv2"], groups=2), **p["block"]["slope"])
    x = fnn.conv_transpose(x, **p["up"], stride=2, padding="VALID")
    x = fnn.group_norm(x, **p["norm2"], groups=2)
    return fnn.dense(fnn.flatten(x), **p["head"])


def test_a_real_cnn_gives_the_same_logits() -> None:
    with np.load(VALUES) as recorded:
        got = logits(from_torch(WEIGHTS, RULES), jnp.asarray(recorded["x"]))
        np.testing.assert_allclose(got, recorded["logits"], rtol=0, atol=1e-5)


def test_recurrent_layers_give_the_same_outputs() -> None:
    p = from_torch(WEIGHTS, RULES)
    with np.load(VALUES) as recorded:
        x = fnn.embed(jnp.asarray(recorded["ids"], jnp.int32), **p["words"])
        there, _ = fnn.lstm(x, **p["forward"])
        back, _ = fnn.lstm(x, **p["backward"], reverse=True)
        got, _ = fnn.gru(jnp.concatenate([there, back], -1), **p["gru"])
        np.testing.assert_allclose(got, recorded["outputs"], rtol=0, atol=1e-5)


def test_there_and_back() -> None:
    state = load_file(WEIGHTS)
    back = to_torch(from_torch(state, RULES), RULES)
    biases = {n for n in state if "lstm.bias" in n or "gru.bias" in n}  # added, not kept apart
    rest = {n for n in state if "num_batches" not in n} - biases
    assert back.keys() == rest | biases
    for name in rest:
        np.testing.assert_array_equal(back[name], state[name], name)
    again = from_torch(back, RULES)
    for key in ("forward", "backward", "gru"):
        for name, array in from_torch(state, RULES)[key].items():
            np.testing.assert_allclose(again[key][name], array, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": None}, r"source: got \['head.bias', 'head.weight'\], which no rule names"),
        ({"words": ("words", "batch_norm")}, r"no \['words.running_mean', 'words.running_var'\]"),
        ({"tail": ("tail", "dense")}, r"source: got no \['tail.weight'\]"),
        ({"head": ("head", "linear")}, r"rules\['head'\]: got 'linear'; needed 'conv' or"),
        (
            {"head": ("head", "dense", (4, 4, 4))},
            r"needed 64 input features, for images \(4, 4, 4\)",
        ),
    ],
)
def test_wrong_rules(change: dict[str, Any], message: str) -> None:
    rules = {k: v for k, v in (RULES | change).items() if v}
    with pytest.raises(ValueError, match=f"fnn.weights.from_torch: .*{message}"):
        from_torch(WEIGHTS, rules)


def test_a_path_that_params_lack() -> None:
    with pytest.raises(ValueError, match=r"fnn\.weights\.to_torch: params: got nothing at 'head'"):
        to_torch({"tail": {}}, {"fc": ("head", "dense")})
