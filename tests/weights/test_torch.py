"""PyTorch's weights: a real network computes the same here, and goes back unchanged."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

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
        (
            {"head": ()},  # here: without this rule
            r"source: got \['head.bias', 'head.weight'\], which no rule names; "
            "needed .* name; a rule of None leaves a module out",
        ),
        ({"words": ("words", "batch_norm")}, r"no \['words.bias', 'words.running_m"),
        ({"tail": ("tail", "dense")}, r"source: got no \['tail.weight'\]; needed"),
        (
            {"head": (), "haed": ("head", "dense")},
            r"source: got no \['haed.weight'\], and \['head.bias', 'head.weight'\], which no rule",
        ),
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


def test_a_rule_of_none_leaves_a_module_out() -> None:
    whole, rules = from_torch(WEIGHTS, RULES), {**RULES, "head": None, "lstm.*_l0_reverse": None}
    params = from_torch(WEIGHTS, rules)
    assert whole.keys() - params.keys() == {"head", "backward"}
    np.testing.assert_array_equal(params["forward"]["wx"], whole["forward"]["wx"])
    state, back = to_torch(whole, RULES), to_torch(params, rules)
    left = {name for name in state if name.startswith("head.") or name.endswith("_reverse")}
    assert len(left) == 6
    assert back.keys() == state.keys() - left
    head = {"head.0.weight": np.ones((2, 2)), "head.2.bias": np.ones(2), "header": np.ones(2)}
    with pytest.raises(ValueError, match=r"source: got \['header'\], which no rule names"):
        from_torch(head, {"head": None})


@pytest.mark.parametrize("dtype", ["sparse", "float8_e4m3fn"])
def test_what_is_left_out_needs_no_form_in_numpy(dtype: str) -> None:
    state = {"fc.weight": Tensor(np.ones((2, 3)), dtype), "a.weight": np.ones((2, 3))}
    assert from_torch(state, {"fc": None, "a": ("a", "dense")}).keys() == {"a"}


def test_one_direction_alone_is_left_out() -> None:
    rules = {**RULES, "lstm.*_l0": None}
    assert from_torch(WEIGHTS, RULES).keys() - from_torch(WEIGHTS, rules).keys() == {"forward"}
    del rules["lstm.*_l0_reverse"]
    with pytest.raises(ValueError, match=r"source: got \['lstm.bias_hh_l0_reverse', .*no rule"):
        from_torch(WEIGHTS, rules)


W, B = np.arange(12.0).reshape(6, 2), np.arange(2.0)


@pytest.mark.parametrize(
    ("params", "rule", "message"),
    [
        ({"tail": {}}, ("head", "dense"), r"params: got no \['head/w'\]"),
        ({"head": {"b": B}}, ("head", "dense"), r"params: got no \['head/w'\]"),
        (
            {"head": {"w": W}, "conv1": {"w": W}},
            ("head", "dense"),
            r"params: got \['conv1/w'\], which no rule names",
        ),
        ({"head": {"w": W, "odd": B}}, ("head", "dense"), r"params: got \['head/odd'\], which no"),
        (
            {"head": {"w": W}},
            ("head", "dense", (5, 1, 1)),
            r"rules\['fc'\]: got float64\[6,2\]; needed 5 input features, for images \(5, 1, 1\)",
        ),
        (
            {"head": {"w": W, "b": np.ones((4, 4, 2))}},
            ("head", "dense"),
            r"rules\['fc'\]: b: got float64\[4,4,2\]; needed an array of rank 1, for 'dense'",
        ),
        (
            {"head": {"w": W, "b": np.ones(3)}},
            ("head", "dense"),
            r"rules\['fc'\]: got w float64\[2,6\], b float64\[3\]; needed one length of all first",
        ),
        (
            {"head": {"wx": W, "wh": np.ones((2, 2)), "bh": B}},
            ("head", "rnn"),
            r"params: got \['head/bh'\], which no rule names",
        ),
    ],
    ids=["path", "weight", "layer", "array", "image", "rank", "length", "recurrent"],
)
def test_to_torch_refuses(params: Any, rule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^fnn.weights.to_torch: {message}"):
        to_torch(params, {"fc": rule})


class Kept:
    """What NumPy reads, as it does PyTorch's tensors."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array([[1.0], [2.0]])


@pytest.mark.parametrize("dtype", [np.longdouble, ">f4", np.int64, None])
def test_to_torch_takes_numbers_that_jax_does_not_hold(dtype: Any) -> None:
    w: Any = np.array([[1], [2**40]]).astype(dtype) if dtype else Kept()
    got, want = to_torch({"head": {"w": w}}, {"fc": ("head", "dense")})["fc.weight"], np.asarray(w)
    assert (got.dtype, got.tolist()) == (want.dtype, want.T.tolist())


@pytest.mark.parametrize("w", [np.array([["a"]]), [["a"]], np.ma.masked_array(W, W > 1)])
def test_to_torch_takes_arrays_of_numbers_alone(w: Any) -> None:
    message = r"^fnn.weights.to_torch: params\['head'\]\['w'\].*: got .*; needed an array"
    with pytest.raises(TypeError, match=message):
        to_torch({"head": {"w": w}}, {"fc": ("head", "dense")})


def test_a_mask_is_not_lost() -> None:
    state = {"fc.weight": np.ma.masked_array(W, W > 1)}
    with pytest.raises(TypeError, match=r"source\['fc.weight'\]: got a masked float64\[6,2\]"):
        from_torch(state, {"fc": ("head", "dense")})


def test_two_arrays_of_one_path_are_refused() -> None:
    alike = {"a": {"b": {"w": np.ones((2, 2))}}, "a/b": {"w": np.zeros((2, 2))}}
    with pytest.raises(ValueError, match=r"to_torch: params: got 2 arrays with the path 'a/b/w'"):
        to_torch(alike, {"fc": ("a/b", "dense")})


@pytest.mark.parametrize(
    ("arrays", "rules", "message"),
    [
        (
            {"a.weight": W, "b.weight": W},
            {"a": ("h", "dense"), "b": ("h", "dense")},
            r"rules\['b'\]: got 'h'; needed a layer of its own: 'h' is that of 'a'",
        ),
        (
            {"a.weight": W, "b.weight": W},
            {"a": ("h/1", "dense"), "b": ("h", "dense")},
            r"rules\['b'\]: got 'h'; needed a layer of its own: 'h/1' is that of 'a'",
        ),
        (
            {"a.weight": np.ones((2, 3, 3, 3))},
            {"a": ("h", "dense")},
            r"rules\['a'\]: w: got float64\[2,3,3,3\]; needed an array of rank 2, for 'dense'",
        ),
        ({"a.weight": B}, {"a": ("h", "conv")}, r"rules\['a'\]: w: .* of rank 3 or 4 or 5, for 'c"),
        (
            {"a.weight": np.ones((2, 3, 3, 3))},
            {"a": ("h", "conv", (3, 1, 1))},
            r"rules\['a'\]: got \(3, 1, 1\) for 'conv'; needed an image .* for 'dense' alone",
        ),
        ({}, {"a": "dense"}, r"rules\['a'\]: got 'dense'; needed \(path, kind\), \(path, kind,"),
        (
            {"weight_ih": W, "weight_hh": W, "bias_ih": np.ones(6)},
            {"*": ("h", "rnn")},
            r"source: got no \['bias_hh'\]",
        ),
        (
            {"a.weight": np.ones((4, 8, 3, 3)), "a.bias": np.ones(5)},
            {"a": ("h", "conv_transpose")},
            r"rules\['a'\]: b: got float64\[5\]; needed 8 numbers for each group, .*\[4,8,3,3\]$",
        ),
        (
            {"a.weight": np.ones((4, 2, 3, 3)), "a.bias": np.ones(6)},
            {"a": ("h", "conv_transpose")},
            r"rules\['a'\]: b: got float64\[6\]; needed 2 numbers .*, the groups a divisor of 4",
        ),
        (
            {"a.weight": np.ones((4, 2, 3, 3)), "a.bias": np.ones(0)},
            {"a": ("h", "conv_transpose")},
            r"rules\['a'\]: b: got float64\[0\]; needed 2 numbers for each group",
        ),
        (
            {"a.weight": np.ones((4, 0, 3, 3)), "a.bias": np.ones(1)},
            {"a": ("h", "conv_transpose")},
            r"rules\['a'\]: b: got float64\[1\]; needed 0 numbers for each group",
        ),
        ({}, [("a", "dense")], r"rules: got list .*; needed a dict of rules, by PyTorch's names"),
        ({}, {3: ("a", "dense")}, r"rules: got the name int 3; needed strings"),
        ({}, {"a": (None, "dense")}, r"rules\['a'\]: got the path NoneType None; needed a string"),
        (
            {"a.weight": np.ones((2, 12))},
            {"a": ("h", "dense", (3.0, 2, 2))},
            r"rules\['a'\]: got 3.0; needed an int >= 1",
        ),
        (
            {"a.weight": np.ones((2, 12))},
            {"a": ("h", "dense", (-3, -2, 2))},
            r"rules\['a'\]: got -3; needed an int >= 1",
        ),
        (
            {"a.weight": np.full((2, 2), "x")},
            {"a": ("h", "dense")},
            r"source\['a.weight'\]: got <U1\[2,2\]; needed an array of numbers",
        ),
        (
            {"a.weight": np.full((2, 2), None)},
            {"a": ("h", "dense")},
            r"source\['a.weight'\]: got object\[2,2\]; needed an array of numbers",
        ),
        (
            {"a.weight": np.ones((2, 2), "M8[s]")},
            {"a": ("h", "dense")},
            r"source\['a.weight'\]: got datetime64\[s\]\[2,2\]; needed an array of numbers",
        ),
        (  # of LSTM(3, 4, proj_size=2)
            {"weight_ih": np.ones((16, 3)), "weight_hh": np.ones((16, 2)), "weight_hr": W},
            {"*": ("h", "lstm")},
            r"source: got \['weight_hr'\], which no rule names; needed exactly the arrays",
        ),
    ],
    ids=[
        *["path", "within", "rank", "conv_rank", "image", "rule", "biases", "transposed", "groups"],
        *["no_bias", "no_outputs", "list", "name", "no_path", "half_image", "negative_image"],
        *["text", "objects", "times", "unused"],
    ],
)
def test_from_torch_refuses(arrays: Any, rules: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^fnn.weights.from_torch: {message}"):
        from_torch(arrays, rules)


def test_a_source_that_is_none(tmp_path: Path) -> None:
    pickled = tmp_path / "x.pt"
    pickled.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ValueError, match=r"^fnn.weights.from_torch: source: .*x.pt .* torch.load"):
        from_torch(pickled, {"fc": ("head", "dense")})
    with pytest.raises(FileNotFoundError, match=r"^fnn.*_torch: source: got gone; needed an exist"):
        from_torch("gone", {"fc": ("head", "dense")})
    with pytest.raises(TypeError, match=r"^fnn.weights.from_torch: source: .*model.state_dict\(\)"):
        from_torch(object(), {"fc": ("head", "dense")})  # type: ignore[arg-type]  # the mistake


def test_the_other_kinds_and_layers_without_bias() -> None:
    """Under the names of the layers' arguments; a recurrence is PyTorch's formula."""
    draw = np.random.default_rng(0).standard_normal
    shapes = {
        "rnn.weight_ih": (4, 3), "rnn.weight_hh": (4, 4), "rnn.bias_ih": (4,), "rnn.bias_hh": (4,),
        "gru.weight_ih": (12, 3), "gru.weight_hh": (12, 4),
        "layer.weight": (5, 3), "layer.bias": (5, 3), "instance.weight": (3,),
        "instance.bias": (3,), "group.weight": (3,), "rms.weight": (3,), "dense.weight": (2, 3),
        "conv.weight": (2, 3, 1),
    }  # fmt: skip
    kinds = {"rnn.*": "rnn", "gru.*": "gru"}
    kinds |= {f"{kind}": f"{kind}_norm" for kind in ("layer", "instance", "group", "rms")}
    kinds |= {"dense": "dense", "conv": "conv"}
    rules: Any = {pattern: (kind, kind) for pattern, kind in kinds.items()}
    state = {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}
    p, x = from_torch(state, rules), jnp.asarray(draw((2, 5, 3)), jnp.float32)
    got = {
        "layer": fnn.layer_norm(x, **p["layer_norm"]),
        "instance": fnn.instance_norm(x, **p["instance_norm"]),
        "group": fnn.group_norm(x, **p["group_norm"], groups=3),
        "rms": fnn.rms_norm(x, **p["rms_norm"]),
        "dense": fnn.dense(x, **p["dense"]),
        "conv": fnn.conv(x, **p["conv"]),
    }
    ones = {"layer": (1, 2), "instance": 1, "group": 1}
    y = np.asarray(x, np.float64)
    for kind, axes in ones.items():
        z = (y - y.mean(axes, keepdims=True)) / np.sqrt(y.var(axes, keepdims=True) + 1e-5)
        want = z * state[f"{kind}.weight"] + state.get(f"{kind}.bias", 0)
        np.testing.assert_allclose(got[kind], want, atol=1e-5, err_msg=kind)
    want = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * state["rms.weight"]
    np.testing.assert_allclose(got["rms"], want, atol=1e-5)
    for kind in ("dense", "conv"):
        want = y @ state[f"{kind}.weight"].reshape(2, 3).T
        np.testing.assert_allclose(got[kind], want, atol=1e-5, err_msg=kind)
    h = np.zeros((2, 4))
    bias = state["rnn.bias_ih"] + state["rnn.bias_hh"]
    for t in range(5):
        h = np.tanh(y[:, t] @ state["rnn.weight_ih"].T + h @ state["rnn.weight_hh"].T + bias)
    np.testing.assert_allclose(fnn.rnn(x, **p["rnn"])[1], h, atol=1e-5)
    assert fnn.gru(x, **p["gru"])[1].shape == (2, 4)
    back = to_torch(p, rules)
    assert back.keys() == state.keys()
    np.testing.assert_allclose(back.pop("rnn.bias_ih") + back.pop("rnn.bias_hh"), bias, rtol=1e-6)
    for name, array in back.items():
        np.testing.assert_array_equal(array, state[name], name)


def test_batch_norm_without_scale_and_bias() -> None:
    """As PyTorch's `BatchNorm2d(3, affine=False)` stores it."""
    mean, var = np.array([1.0, 2.0, 3.0], np.float32), np.array([1.0, 4.0, 9.0], np.float32)
    count = np.array(7)  # steps, an int64 of no axes
    state = {"bn.running_mean": mean, "bn.running_var": var, "bn.num_batches_tracked": count}
    params = from_torch(state, {"bn": ("norm", "batch_norm")})
    assert {x.dtype for x in params["norm"].values()} == {np.dtype(np.float32)}
    got = fnn.batch_norm(jnp.array([[2.0, 4.0, 6.0]]), **params["norm"], eps=0.0)
    assert got.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_batch_norm_with_one_of_scale_and_bias(name: str) -> None:
    arrays = ("running_mean", "running_var", name)
    state = {f"bn.{array}": np.ones(3, np.float32) for array in arrays}
    lacking = {"weight": "bias", "bias": "weight"}[name]
    with pytest.raises(ValueError, match=rf"^fnn.*from_torch: source: got no \['bn.{lacking}'\]"):
        from_torch(state, {"bn": ("norm", "batch_norm")})


def test_batch_norm_goes_back_whole() -> None:
    norm = {name: np.ones(3, np.float32) for name in ("scale", "mean", "var")}
    with pytest.raises(ValueError, match=r"^fnn.*to_torch: params: got no \['norm/bias'\]; needed"):
        to_torch({"norm": norm}, {"bn": ("norm", "batch_norm")})


def test_one_slope_for_all_channels() -> None:
    """As PyTorch's `PReLU` has by default, with an axis of length 1."""
    rules = {"act": ("act", "prelu")}
    params = from_torch({"act.weight": np.full(1, 0.25, np.float32)}, rules)
    got = fnn.prelu(jnp.array([[-4.0, 4.0, -8.0]]), **params["act"])
    assert got.tolist() == [[-1.0, 4.0, -2.0]]
    for slope in (params["act"]["slope"], jnp.full((), 0.25), jnp.full(1, 0.25)):
        back = to_torch({"act": {"slope": slope}}, rules)["act.weight"]
        assert (back.shape, back.tolist()) == ((1,), [0.25])


def test_every_array_has_its_own_memory_in_the_order_of_its_axes(tmp_path: Path) -> None:
    """Or a writer that takes memory as it is writes a view wrongly, and PyTorch changes ours."""
    params = {"head": {"w": jnp.arange(6.0).reshape(2, 3)}}
    rules = {"fc": ("head", "dense")}
    state = to_torch(params, rules)
    save_file(state, tmp_path / "a.safetensors")
    written = load_file(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(written["fc.weight"], params["head"]["w"].T)
    for rule in (rules, {"fc": ("head", "layer_norm")}):
        back = from_torch(state, rule)["head"]
        assert not any(np.shares_memory(state["fc.weight"], x) for x in back.values())


def test_two_rules_of_one_name_give_one_array() -> None:
    w, rules = jnp.ones((3, 2)), {"e": ("a", "dense"), "e.*": ("b", "dense")}
    tied = to_torch({"a": {"w": w}, "b": {"w": w}}, rules)
    assert tied["e.weight"].shape == (2, 3)
    with pytest.raises(ValueError, match=r"rules\['e\.\*'\]: got e\.weight, which another rule"):
        to_torch({"a": {"w": w}, "b": {"w": 2 * w}}, rules)


def test_layers_of_a_recurrent_module_have_rules_of_their_own() -> None:
    state = {"a.lstm.weight_ih_l0": np.ones((8, 3)), "a.lstm.weight_hh_l0": np.ones((8, 2))}
    with pytest.raises(ValueError, match=r"out; 'a\.lstm\.\*_l0' names a layer of a rec"):
        from_torch(state, {"a.lstm": ("h", "lstm")})
    bare = {name.removeprefix("a.lstm."): x for name, x in state.items()}
    for rules in ({}, {"*": ("h", "lstm")}):
        with pytest.raises(ValueError, match=r"; '\*_l0' names a layer of a recurrent module$"):
            from_torch(bare, rules)
    assert from_torch(bare, {"*_l0": ("h", "lstm")})["h"]["wh"].shape == (2, 8)
    assert from_torch(state, {"a.lstm.*_l0": ("h", "lstm")})["h"]["wh"].shape == (2, 8)


def test_the_blocks_of_a_recurrent_layer() -> None:
    lstm = {"weight_ih": np.ones((8, 3)), "weight_hh": np.ones((8, 2))}
    with pytest.raises(ValueError, match=r"rules\['\*'\]: wh: got 8 rows; needed 3 rows for each"):
        from_torch(lstm, {"*": ("layer", "gru")})
    assert from_torch(lstm, {"*": ("layer", "lstm")})["layer"]["wh"].shape == (2, 8)


class Tensor:
    """What `from_torch` needs of PyTorch's tensors."""

    def __init__(self, array: Any, dtype: str) -> None:
        self.array, self.dtype = array, f"torch.{dtype}"

    def detach(self) -> "Tensor":
        return self

    def float(self) -> "Tensor":
        return Tensor(self.array, "float32")

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise RuntimeError("Can't call numpy() on Tensor that has conjugate bit set.")
        if self.dtype == "torch.meta":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        if self.dtype == "torch.lazy":
            raise ValueError("Attempted to use an uninitialized parameter")
        assert self.dtype != "torch.bfloat16", "which PyTorch refuses"
        if "float8" in self.dtype:
            raise TypeError("Got unsupported ScalarType Float8_e4m3fn")
        if self.dtype == "torch.sparse":
            raise TypeError("can't convert Sparse layout tensor to numpy. Use Tensor.to_dense()")
        return self.array


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_of_a_model(dtype: str) -> None:
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = from_torch({"fc.weight": Tensor(w, dtype)}, {"fc": ("head", "dense")})["head"]["w"]
    assert str(got.dtype) == dtype
    np.testing.assert_array_equal(got.astype(np.float32), w.T)


def test_groups_of_a_transposed_convolution_have_a_bias_for_every_output() -> None:
    state = {"a.weight": np.ones((4, 3, 2, 2)), "a.bias": np.arange(6.0)}  # of two groups
    got = from_torch(state, {"a": ("h", "conv_transpose")})["h"]
    np.testing.assert_array_equal(got["b"], state["a.bias"])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("sparse", r"Use Tensor.to_dense\(\)"),
        ("meta", "no data!"),
        ("lazy", "an uninitialized parameter"),
    ],
)
def test_a_tensor_that_cannot_be_read(kind: str, reason: str) -> None:
    message = rf"_torch: source\['fc.weight'\]: got .*; needed a tensor with data .*\(.*{reason}\)"
    with pytest.raises(TypeError, match=message):
        from_torch({"fc.weight": Tensor(np.ones((2, 3)), kind)}, {"fc": ("head", "dense")})


def test_tensors_of_a_dtype_that_numpy_lacks() -> None:
    state = {"fc.weight": Tensor(np.ones((2, 3)), "float8_e4m3fn")}
    message = r"_torch: source\['fc.weight'\]: got a tensor of torch.float8_e4m3fn; needed a tensor"
    with pytest.raises(TypeError, match=message):
        from_torch(state, {"fc": ("head", "dense")})
