"""PyTorch's weights, in and out: names by rules, layouts by the kind of layer.

PyTorch puts channels first and output features before input features; fnn puts channels last and
input features first. Batch normalization has four arrays there under other names, and a recurrent
layer two biases that are added. A rule says for each PyTorch module which fnn layer it becomes:

    rules = {"features.0": ("conv1", "conv"),
             "features.1": ("norm1", "batch_norm"),
             "classifier": ("head", "dense", (32, 4, 4)),   # the (c, h, w) that was flattened
             "lstm.*_l0": ("lstm", "lstm"),                 # * stands for PyTorch's array name
             "fc": None}                                    # is left out

PyTorch itself is not needed: a file in the safetensors format will do.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fnn.checks import (
    check_alive_array,
    check_array,
    check_int,
    check_one_of,
    check_unmasked,
    describe,
    several,
    shown,
    wrong,
)
from fnn.trees import names

Arrays = dict[str, np.ndarray]
Rule = tuple[str, str] | tuple[str, str, tuple[int, ...]]
Rules = Mapping[str, Rule | None]
Change = Callable[[Arrays], Arrays]
BIASES = frozenset({"b", "bh", "bias"})


class _Kind(NamedTuple):
    """How the arrays of one kind of layer are called and laid out.

    Attributes:
        names: PyTorch's name of each array by fnn's.
        axes: how many the arrays may have; those called b and bh have one.
        inward: from PyTorch's layout of a layer, under fnn's names, to fnn's.
        outward: back.
        dropped: what PyTorch stores beside them and no computation needs.
        optional: which arrays a layer of fnn may lack.
        filled: adds what PyTorch leaves out and a layer of fnn needs.
    """

    names: dict[str, str]
    axes: tuple[int, ...]
    inward: Change = dict
    outward: Change = dict
    dropped: tuple[str, ...] = ()
    optional: frozenset[str] = BIASES
    filled: Change = dict


def _of_w(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda layer: {**layer, "w": change(layer["w"])}


def _channels_last(w: np.ndarray) -> np.ndarray:
    """``(a, b, *window)`` to ``(*window, b, a)``."""
    return np.moveaxis(w, (0, 1), (-1, -2))


def _channels_first(w: np.ndarray) -> np.ndarray:
    return np.moveaxis(w, (-1, -2), (0, 1))


def _added(layer: Arrays) -> Arrays:
    """Add the two biases."""
    turned = _turned(layer)
    return {**turned, "b": layer["b"] + layer["bh"]} if "b" in layer else turned


def _added_but_one(layer: Arrays) -> Arrays:
    """Add the two biases of a GRU, but for the candidate's, which the reset gate multiplies."""
    turned = _turned(layer)
    if "b" not in layer:
        return turned
    units = turned["wh"].shape[0]
    *gates, candidate = np.split(layer["bh"], [2 * units])
    inside = np.concatenate([*gates, np.zeros_like(candidate)])
    return {**turned, "b": layer["b"] + inside, "bh": candidate}


def _apart(layer: Arrays) -> Arrays:
    """Make two biases; the second is zero, apart from the candidate's in a GRU."""
    turned, (units, columns) = _turned(layer), layer["wh"].shape
    if BIASES.isdisjoint(layer):
        return turned
    zeros = np.zeros(columns, layer["wh"].dtype)
    second = np.concatenate([zeros[:-units], layer["bh"]]) if "bh" in layer else zeros
    return {**turned, "b": layer.get("b", zeros), "bh": second}


def _turned(layer: Arrays) -> Arrays:
    return {"wx": layer["wx"].T, "wh": layer["wh"].T}


def _shared(layer: Arrays) -> Arrays:
    """Give the one slope of all channels no axis: fnn broadcasts no axis of length 1."""
    return {"slope": layer["slope"].reshape(()) if layer["slope"].size == 1 else layer["slope"]}


def _with_axis(layer: Arrays) -> Arrays:
    return {"slope": np.atleast_1d(layer["slope"])}


def _with_affine(layer: Arrays) -> Arrays:
    """Add the scale and the bias that PyTorch does not store with ``affine=False``."""
    if "var" not in layer or "scale" in layer or "bias" in layer:
        return layer
    return {"scale": np.ones_like(layer["var"]), "bias": np.zeros_like(layer["var"]), **layer}


WEIGHT_BIAS = {"w": "weight", "b": "bias"}
NORM = {"scale": "weight", "bias": "bias"}
RECURRENT = {"wx": "weight_ih", "wh": "weight_hh", "b": "bias_ih", "bh": "bias_hh"}
BLOCKS = {"rnn": 1, "lstm": 4, "gru": 3}  # of rows, for every unit of a recurrent layer
CONV = _Kind(WEIGHT_BIAS, (3, 4, 5), _of_w(_channels_last), _of_w(_channels_first))
KINDS = {
    "conv": CONV,
    "conv_transpose": CONV,  # both libraries keep the window of the convolution that is transposed
    "dense": _Kind(WEIGHT_BIAS, (2,), _of_w(np.transpose), _of_w(np.transpose)),
    "embed": _Kind({"table": "weight"}, (2,)),
    "batch_norm": _Kind(
        {**NORM, "mean": "running_mean", "var": "running_var"},
        (1,),
        dropped=("num_batches_tracked",),
        optional=frozenset(),
        filled=_with_affine,
    ),
    "layer_norm": _Kind(NORM, (1, 2, 3, 4)),
    "group_norm": _Kind(NORM, (1,)),
    "instance_norm": _Kind(NORM, (1,)),
    "rms_norm": _Kind({"scale": "weight"}, (1, 2, 3, 4)),
    "prelu": _Kind({"slope": "weight"}, (0, 1), _shared, _with_axis),
    "rnn": _Kind(RECURRENT, (2,), _added, _apart),
    "lstm": _Kind(RECURRENT, (2,), _added, _apart),
    "gru": _Kind(RECURRENT, (2,), _added_but_one, _apart),
}


def from_torch(source: Mapping[str, Any] | str | Path, rules: Rules) -> dict[str, Any]:
    """Return the parameters of a PyTorch network as a pytree for fnn.

    The arrays do not tell the eps of a normalization. PyTorch's RMSNorm adds the dtype's epsilon by
    default, 1.2e-7 in float32, and `fnn.rms_norm` 1e-5: pass eps for the same outputs.

    A batch_norm has its running statistics beside scale and bias, as `fnn.batch_norm` takes them.
    An optimizer moves them like any parameter, and weight decay shrinks them; to keep them, wrap it
    in ``fnn.freeze(optimizer, lambda path: path.endswith(("/mean", "/var")))``. A batch_norm of
    ``affine=False`` gets a scale of ones and a bias of zeros.

    Args:
        source: a ``state_dict``, of tensors or arrays, or the path of a safetensors file.
        rules: for each PyTorch module the path and the kind of its layer in fnn, ``"block1/conv"``
            and ``"conv"``; a third entry gives the shape (channels, *spatial) of the images that
            were flattened in front of a dense layer. None leaves out all arrays of a module, such
            as a head that a new one replaces. Kinds: conv, conv_transpose, dense, embed,
            batch_norm, layer_norm, group_norm, instance_norm, rms_norm, prelu, rnn, lstm, gru.
            A ``*`` in a name stands for PyTorch's name of an array: ``"lstm.*_l0"``,
            ``"lstm.*_l0_reverse"`` and ``"lstm.*_l1"`` are layers of one `torch.nn.LSTM`. The
            arrays of a layer_norm or rms_norm over several axes keep PyTorch's order of axes.

    Returns:
        Nested dicts of NumPy arrays in the source's dtypes, under the names of the layer's
        arguments: ``{"conv1": {"w": (*window, c_in // groups, c_out), "b": (c_out,)}, ...}``.

    Raises:
        ValueError: names of the source that no rule uses, arrays that a rule needs and the source
            lacks, the first of each listed; an unknown kind; a shape that does not fit; two rules
            for one layer; a file in another format.
        TypeError: a source that is neither a dict nor a path; rules that are no dict by strings; a
            tensor without data, or of a dtype that NumPy lacks; an array of text or objects, or
            with a mask.
        FileNotFoundError: there is no such file.

    Source: the layouts of `torch.nn`, as its documentation states them.

    >>> state = {"fc.weight": np.array([[1.0, 2.0]]), "fc.bias": np.array([3.0])}
    >>> fnn.weights.from_torch(state, {"fc": ("head", "dense")})["head"]["w"].tolist()
    [[1.0], [2.0]]
    """
    arrays = _given(source)
    _check_rules("weights.from_torch", rules)
    params: dict[str, Any] = {}
    used = _left_out(arrays, rules)
    missing: list[str] = []
    found: list[tuple[_Rule, Arrays]] = []
    for rule in _read("weights.from_torch", rules):
        kind = KINDS[rule.kind]
        own = {key: _name(rule.pattern, name) for key, name in kind.names.items()}
        used |= {*own.values(), *(_name(rule.pattern, name) for name in kind.dropped)}
        given = {key: name for key, name in own.items() if name in arrays}
        layer = kind.filled({key: _numpy(name, arrays[name]) for key, name in given.items()})
        optional = kind.optional if kind.optional.isdisjoint(layer) else set()  # both or none
        lacks = [own[key] for key in own.keys() - layer.keys() - optional]
        missing += sorted(lacks)
        found.append((rule, layer))
    _check_exact("weights.from_torch", "source", missing, arrays.keys() - used)
    for rule, layer in found:
        _check_axes("weights.from_torch", rule, layer)
        _check_lengths("weights.from_torch", rule, layer)
        layer = KINDS[rule.kind].inward(layer)
        if rule.image is not None:
            layer["w"] = _unflattened("weights.from_torch", rule, layer["w"])
        _place(params, rule.path, {key: _own(x) for key, x in layer.items()})
    return params


def to_torch(params: Mapping[str, Any], rules: Rules) -> Arrays:
    """Return the parameters of fnn under PyTorch's names, in its layouts: the way back.

    Args:
        params: nested dicts as `from_torch` returns them.
        rules: as `from_torch` takes them. PyTorch's GRU computes what `fnn.gru` does by default,
            with ``reset="after"``: arrays that were trained with "before" do not fit it.

    Returns:
        NumPy arrays by name, for ``{k: torch.tensor(v) for k, v in ...}``, which takes no bfloat16,
        or ``safetensors.numpy.save_file``, which does. The bias of a recurrent layer is its first;
        the second is zero, apart from the candidate's in a GRU. A batch_norm gives weight and bias
        even to a module of ``affine=False``, which has none.

    Raises:
        ValueError: arrays of params that no rule uses, arrays that a rule needs and params lack,
            two rules that give one name different values, and as `from_torch`; a donated array.
        TypeError: an array of text, objects or times, or one with a mask; and as `from_torch`.

    >>> params = {"head": {"w": np.array([[1.0], [2.0]]), "b": np.array([3.0])}}
    >>> fnn.weights.to_torch(params, {"fc": ("head", "dense")})["fc.weight"].tolist()
    [[1.0, 2.0]]
    """
    _check_rules("weights.to_torch", rules)
    found = jax.tree.leaves(jax.tree.map_with_path(_of_numbers, params))
    arrays = dict(zip(names("weights.to_torch", params), found, strict=True))
    state: Arrays = {}
    used: set[str] = set()
    missing: list[str] = []
    for rule in _read("weights.to_torch", rules):
        kind = KINDS[rule.kind]
        second = {"bh"} if rule.kind in ("rnn", "lstm") else set()  # which is PyTorch's alone
        own = {key: f"{rule.path}/{key}" for key in kind.names if key not in second}
        used |= {*own.values()}
        layer = {key: arrays[place] for key, place in own.items() if place in arrays}
        lacks = [own[key] for key in own.keys() - layer.keys() - kind.optional]
        missing += sorted(lacks)
        if not lacks:
            _check_axes("weights.to_torch", rule, layer)
            if rule.image is not None:
                layer["w"] = _flattened("weights.to_torch", rule, layer["w"])
            layer = kind.outward(layer)
            _check_lengths("weights.to_torch", rule, layer)
            for key, x in layer.items():
                name = _name(rule.pattern, kind.names[key])
                if name in state and not np.array_equal(state[name], x):
                    got = f"{name}, which another rule gives other values"
                    place = f"rules[{rule.pattern!r}]"
                    raise wrong("weights.to_torch", place, got, "names of its own")
                state[name] = _own(x)
    _check_exact("weights.to_torch", "params", missing, arrays.keys() - used)
    return state


class _Rule(NamedTuple):
    """What becomes of PyTorch's modules of one pattern, as `from_torch` tells."""

    pattern: str
    path: str
    kind: str
    image: tuple[int, ...] | None


def _check_rules(function: str, rules: Any) -> None:
    """Raise unless these are rules by name."""
    if not isinstance(rules, Mapping):
        needed = "a dict of rules, by PyTorch's names"
        raise wrong(function, "rules", describe(rules), needed, TypeError)
    for name in rules:
        if not isinstance(name, str):
            raise wrong(function, "rules", f"the name {describe(name)}", "strings", TypeError)


def _read(function: str, rules: Rules) -> list[_Rule]:
    """Return the rules one by one, or raise where one is none, or has the layer of another."""
    read: list[_Rule] = []
    for pattern, rule in rules.items():
        if rule is None:
            continue
        place = f"rules[{pattern!r}]"
        if not isinstance(rule, tuple | list) or len(rule) not in (2, 3):
            needed = "(path, kind), (path, kind, image) or None"
            raise wrong(function, place, shown(rule), needed)
        path, kind, *image = rule
        if not isinstance(path, str):
            raise wrong(function, place, f"the path {describe(path)}", "a string", TypeError)
        check_one_of(function, place, kind, KINDS)
        if image and (kind != "dense" or not isinstance(image[0], tuple | list)):
            needed = "an image (channels, *spatial), for 'dense' alone"
            raise wrong(function, place, f"{shown(image[0])} for {kind!r}", needed)
        for size in image[0] if image else ():
            check_int(function, place, size, 1)
        for other in read:
            if f"{path}/".startswith(f"{other.path}/") or other.path.startswith(f"{path}/"):
                needed = f"a layer of its own: {other.path!r} is that of {other.pattern!r}"
                raise wrong(function, place, shown(path), needed)
        read.append(_Rule(pattern, path, kind, tuple(image[0]) if image else None))
    return read


def _given(source: Any) -> Mapping[str, Any]:
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            needed = "an existing file"
            raise wrong("weights.from_torch", "source", source, needed, FileNotFoundError)
        try:
            return load_file(source)
        except SafetensorError as error:
            needed = "a safetensors file; PyTorch's own, such as .pt, are read by torch.load"
            raise wrong("weights.from_torch", "source", f"{source} ({error})", needed) from None
    if not isinstance(source, Mapping):
        needed = "a state_dict, as model.state_dict() returns it, or the path of a safetensors file"
        raise wrong("weights.from_torch", "source", describe(source), needed, TypeError)
    return source


def _numpy(name: str, value: Any) -> np.ndarray:
    if not hasattr(value, "detach"):
        check_unmasked("weights.from_torch", f"source[{name!r}]", value)
        array = np.asarray(value)
        check_array("weights.from_torch", f"source[{name!r}]", array)
        return array
    brief = str(value.dtype) == "torch.bfloat16"  # which NumPy lacks
    try:  # off the graph and the device, with conjugates and the like worked out
        array = np.asarray((value.float() if brief else value).numpy(force=True))
    except (TypeError, ValueError, RuntimeError) as error:  # float8, sparse, or without data
        place, got = f"source[{name!r}]", f"a tensor of {value.dtype}"
        needed = "a tensor with data that NumPy can hold, such as tensor.float() of float8"
        needed += f" ({error})"
        raise wrong("weights.from_torch", place, got, needed, TypeError) from None
    if brief:
        import ml_dtypes

        return array.astype(ml_dtypes.bfloat16)
    return array


def _of_numbers(path: Any, x: Any) -> np.ndarray:
    """Return a leaf of params in NumPy, which holds more kinds of numbers than JAX."""
    place = "params" + jax.tree_util.keystr(path)
    check_alive_array("weights.to_torch", place, x)
    check_unmasked("weights.to_torch", place, x)
    array = np.asarray(x)
    if array.dtype.kind in "OUSMm":
        raise wrong("weights.to_torch", place, describe(x), "an array of numbers", TypeError)
    return array


def _own(x: np.ndarray) -> np.ndarray:
    """Copy into memory in the order of the axes: others may change theirs, or write it as it is."""
    return np.array(x, order="C")


def _name(pattern: str, array: str) -> str:
    return pattern.replace("*", array) if "*" in pattern else f"{pattern}.{array}"


def _left_out(arrays: Mapping[str, Any], rules: Rules) -> set[str]:
    """Return the names of the arrays whose rule is None."""
    parts = [_name(pattern, "*").split("*", 1) for pattern, rule in rules.items() if rule is None]
    return {n for n in arrays if any(n.startswith(a) and n.endswith(b) for a, b in parts)}


def _check_axes(function: str, rule: _Rule, layer: Arrays) -> None:
    """Raise unless the arrays have as many axes as those of their kind, in either layout."""
    for key, x in layer.items():
        axes = (1,) if key in ("b", "bh") else KINDS[rule.kind].axes
        if x.ndim not in axes:
            needed = f"an array of rank {' or '.join(map(str, axes))}, for {rule.kind!r}"
            raise wrong(function, f"rules[{rule.pattern!r}]: {key}", describe(x), needed)


def _check_lengths(function: str, rule: _Rule, layer: Arrays) -> None:
    """Raise unless the arrays, in PyTorch's layout, are of as many outputs."""
    if rule.kind == "conv_transpose":
        inputs, each = layer["w"].shape[:2]  # each group has as many outputs
        allowed = {each * n for n in range(1, max(inputs, 1) + 1) if inputs % n == 0}
        if "b" in layer and len(layer["b"]) not in allowed:
            needed = f"{each} numbers for each group, the groups a divisor of {inputs}, as w is "
            needed += describe(layer["w"])
            raise wrong(function, f"rules[{rule.pattern!r}]: b", describe(layer["b"]), needed)
    elif len({x.shape[:1] for x in layer.values()}) > 1:
        got = ", ".join(f"{key} {describe(x)}" for key, x in layer.items())
        needed = "one length of all first axes, in PyTorch's layout"
        raise wrong(function, f"rules[{rule.pattern!r}]", got, needed)
    if rule.kind in BLOCKS:
        rows, units = layer["wh"].shape
        if rows != BLOCKS[rule.kind] * units:
            needed = f"{BLOCKS[rule.kind]} rows for each of {units} units, in a {rule.kind!r}"
            raise wrong(function, f"rules[{rule.pattern!r}]: wh", f"{rows} rows", needed)


def _check_exact(function: str, argument: str, missing: list[str], unused: set[str]) -> None:
    if missing or unused:
        parts = [f"no {several(missing)}"] if missing else []
        parts += [f"{several(sorted(unused))}, which no rule names"] if unused else []
        needed = "exactly the arrays that the rules name"
        if unused and argument == "source":
            needed += "; a rule of None leaves a module out"
            if layers := [name for name in sorted(unused) if name.endswith("weight_hh_l0")]:
                module = layers[0].removesuffix("weight_hh_l0")
                needed += f"; '{module}*_l0' names a layer of a recurrent module"
        raise wrong(function, argument, ", and ".join(parts), needed)


def _unflattened(function: str, rule: _Rule, w: np.ndarray) -> np.ndarray:
    """Rows in PyTorch's order of a flattened image, channels first, to fnn's, channels last."""
    image = _image(function, rule, w)
    return np.moveaxis(w.reshape(*image, -1), 0, -2).reshape(w.shape)


def _flattened(function: str, rule: _Rule, w: np.ndarray) -> np.ndarray:
    channels, *spatial = _image(function, rule, w)
    return np.moveaxis(w.reshape(*spatial, channels, -1), -2, 0).reshape(w.shape)


def _image(function: str, rule: _Rule, w: np.ndarray) -> tuple[int, ...]:
    """Return the image of a rule, or raise where w has not a row for each of its numbers."""
    image = rule.image or ()
    if len(w) != math.prod(image):
        needed = f"{math.prod(image)} input features, for images {image}"
        raise wrong(function, f"rules[{rule.pattern!r}]", describe(w), needed)
    return image


def _place(params: dict[str, Any], path: str, layer: Arrays) -> None:
    *outer, last = path.split("/")
    for key in outer:
        params = params.setdefault(key, {})
    params[last] = layer
