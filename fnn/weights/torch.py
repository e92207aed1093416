"""PyTorch's weights, in and out: names by rules, layouts by the kind of layer.

PyTorch puts channels first and output features before input features; fnn puts channels last and
input features first. Batch normalization has four arrays there under other names, and a recurrent
layer two biases that are added. A rule says for each PyTorch module which fnn layer it becomes:

    rules = {"features.0": ("conv1", "conv"),
             "features.1": ("norm1", "batch_norm"),
             "classifier": ("head", "dense", (32, 4, 4)),   # the (c, h, w) that was flattened
             "rnn.*_l0": ("rnn", "lstm")}                   # * stands for PyTorch's array name

PyTorch itself is not needed: a file in the safetensors format will do.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from fnn.checks import check_one_of, describe, wrong

Arrays = dict[str, np.ndarray]
Rule = tuple[str, str] | tuple[str, str, tuple[int, ...]]
Rules = Mapping[str, Rule]


class _Kind(NamedTuple):
    """How the arrays of one kind of layer are called and laid out.

    Attributes:
        names: PyTorch's name of each array by fnn's; a bias may be missing.
        inward: from PyTorch's layout of the first to fnn's.
        outward: back.
        dropped: what PyTorch stores beside them and no computation needs.
    """

    names: dict[str, str]
    inward: Callable[[np.ndarray], np.ndarray] = np.asarray
    outward: Callable[[np.ndarray], np.ndarray] = np.asarray
    dropped: tuple[str, ...] = ()


def _channels_last(w: np.ndarray) -> np.ndarray:
    """``(a, b, *window)`` to ``(*window, b, a)``."""
    return np.moveaxis(w, (0, 1), (-1, -2))


def _channels_first(w: np.ndarray) -> np.ndarray:
    return np.moveaxis(w, (-1, -2), (0, 1))


WEIGHT_BIAS = {"w": "weight", "b": "bias"}
NORM = {"scale": "weight", "bias": "bias"}
KINDS = {
    "conv": _Kind(WEIGHT_BIAS, _channels_last, _channels_first),
    # Both libraries keep the window of the convolution that is transposed.
    "conv_transpose": _Kind(WEIGHT_BIAS, _channels_last, _channels_first),
    "dense": _Kind(WEIGHT_BIAS, np.transpose, np.transpose),
    "embed": _Kind({"table": "weight"}),
    "batch_norm": _Kind(
        {**NORM, "mean": "running_mean", "var": "running_var"}, dropped=("num_batches_tracked",)
    ),
    "layer_norm": _Kind(NORM),
    "group_norm": _Kind(NORM),
    "instance_norm": _Kind(NORM),
    "rms_norm": _Kind({"scale": "weight"}),
    "prelu": _Kind({"slope": "weight"}),
}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def from_torch(source: Mapping[str, Any] | str | Path, rules: Rules) -> dict[str, Any]:
    """Return the parameters of a PyTorch network as a pytree for fnn.

    Args:
        source: a ``state_dict``, of tensors or arrays, or the path of a safetensors file.
        rules: for each PyTorch module the path and the kind of its layer in fnn, ``"block1/conv"``
            and ``"conv"``; a third entry gives the shape (channels, *spatial) of the images that
            were flattened in front of a dense layer. Kinds: conv, conv_transpose, dense, embed,
            batch_norm, layer_norm, group_norm, instance_norm, rms_norm, prelu, rnn, lstm, gru.

    Returns:
        Nested dicts of NumPy arrays in the source's dtypes, under the names of the layer's
        arguments: ``{"conv1": {"w": (*window, c_in // groups, c_out), "b": (c_out,)}, ...}``.

    Raises:
        ValueError: names of the source that no rule uses, arrays that a rule needs and the source
            lacks, all of them listed; an unknown kind; a shape that does not fit.

    Source: the layouts of `torch.nn`, as its documentation states them.

    >>> state = {"fc.weight": np.array([[1.0, 2.0]]), "fc.bias": np.array([3.0])}
    >>> fnn.weights.from_torch(state, {"fc": ("head", "dense")})["head"]["w"].tolist()
    [[1.0], [2.0]]
    """
    given = load_file(source) if isinstance(source, str | Path) else source
    arrays = {name: _numpy(value) for name, value in given.items()}
    params: dict[str, Any] = {}
    used: set[str] = set()
    missing: list[str] = []
    for pattern, (path, kind, *image) in rules.items():
        check_one_of("weights.from_torch", f"rules[{pattern!r}]", kind, (*KINDS, *GATES))
        found, lacks = _layer(arrays, pattern, kind, used)
        missing += lacks
        if found and image:
            found["w"] = _unflattened(pattern, found["w"], image[0])
        _place(params, path, found)
    unused = sorted(arrays.keys() - used)
    if missing or unused:
        got = f"no {missing}" if missing else f"{unused}, which no rule names"
        raise wrong("weights.from_torch", "source", got, "exactly the arrays that the rules name")
    return params


def to_torch(params: Mapping[str, Any], rules: Rules) -> Arrays:
    """Return the parameters of fnn under PyTorch's names, in its layouts: the way back.

    Args:
        params: nested dicts as `from_torch` returns them.
        rules: as `from_torch` takes them.

    Returns:
        NumPy arrays by name, for ``{k: torch.tensor(v) for k, v in ...}`` or
        ``safetensors.numpy.save_file``. The bias of a recurrent layer is its first; the second is
        zero, apart from the candidate's in a GRU.

    Raises:
        ValueError: a path that params lack; an unknown kind.

    >>> params = {"head": {"w": np.array([[1.0], [2.0]]), "b": np.array([3.0])}}
    >>> fnn.weights.to_torch(params, {"fc": ("head", "dense")})["fc.weight"].tolist()
    [[1.0, 2.0]]
    """
    state: Arrays = {}
    for pattern, (path, kind, *image) in rules.items():
        check_one_of("weights.to_torch", f"rules[{pattern!r}]", kind, (*KINDS, *GATES))
        layer = {key: np.asarray(value) for key, value in _find(params, path).items()}
        if image:
            layer["w"] = _flattened(layer["w"], image[0])
        state |= dict(_torch_arrays(pattern, kind, layer))
    return state


def _numpy(value: Any) -> np.ndarray:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # which NumPy lacks
        import ml_dtypes

        return np.asarray(tensor.float().numpy()).astype(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


def _name(pattern: str, array: str) -> str:
    return pattern.replace("*", array) if "*" in pattern else f"{pattern}.{array}"


def _layer(arrays: Arrays, pattern: str, kind: str, used: set[str]) -> tuple[Arrays, list[str]]:
    """The arrays of one layer under fnn's names, and the names that are missing."""
    if kind in GATES:
        whole = {n: _name(pattern, n) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        used |= set(whole.values())
        found = {n: arrays[name] for n, name in whole.items() if name in arrays}
        lacks = [whole[n] for n in ("weight_ih", "weight_hh") if n not in found]
        return ({} if lacks else _recurrent(found, kind)), lacks
    names, inward, _, dropped = KINDS[kind]
    own = {key: _name(pattern, name) for key, name in names.items()}
    used |= {*own.values(), *(_name(pattern, name) for name in dropped)}
    layer = {key: arrays[name] for key, name in own.items() if name in arrays}
    lacks = [name for key, name in own.items() if key not in (*layer, "b", "bias")]
    if lacks:
        return {}, lacks
    first = next(iter(own))
    return {**layer, first: inward(layer[first])}, []


def _recurrent(found: Arrays, kind: str) -> Arrays:
    layer = {"wx": found["weight_ih"].T, "wh": found["weight_hh"].T}
    if "bias_ih" not in found:
        return layer
    b, bh = found["bias_ih"], found["bias_hh"]
    if kind == "gru":  # the candidate's recurrent bias stands inside the reset gate's product
        units = len(b) // 3
        inside = np.concatenate([bh[: 2 * units], np.zeros_like(bh[2 * units :])])
        return {**layer, "b": b + inside, "bh": bh[2 * units :]}
    return {**layer, "b": b + bh}


def _torch_arrays(pattern: str, kind: str, layer: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    if kind in GATES:
        yield _name(pattern, "weight_ih"), layer["wx"].T
        yield _name(pattern, "weight_hh"), layer["wh"].T
        if "b" in layer:
            second = np.zeros_like(layer["b"])
            if "bh" in layer:
                second[-len(layer["bh"]) :] = layer["bh"]
            yield _name(pattern, "bias_ih"), layer["b"]
            yield _name(pattern, "bias_hh"), second
        return
    names, _, outward, _ = KINDS[kind]
    first = next(iter(names))
    for key, array in layer.items():
        yield _name(pattern, names[key]), outward(array) if key == first else array


def _unflattened(pattern: str, w: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    """Rows in PyTorch's order of a flattened image, channels first, to fnn's, channels last."""
    if len(w) != np.prod(image):
        needed = f"{np.prod(image)} input features, for images {image}"
        raise wrong("weights.from_torch", f"rules[{pattern!r}]", describe(w), needed)
    return np.moveaxis(w.reshape(*image, -1), 0, -2).reshape(w.shape)


def _flattened(w: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    channels, *spatial = image
    return np.moveaxis(w.reshape(*spatial, channels, -1), -2, 0).reshape(w.shape)


def _place(params: dict[str, Any], path: str, layer: Arrays) -> None:
    *outer, last = path.split("/")
    for key in outer:
        params = params.setdefault(key, {})
    params[last] = layer


def _find(params: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    node: Any = params
    for key in path.split("/"):
        if not isinstance(node, Mapping) or key not in node:
            raise wrong("weights.to_torch", "params", f"nothing at {path!r}", "a layer there")
        node = node[key]
    found: Mapping[str, Any] = node
    return found
