"""How large a model is, layer by layer, read from its traced program: the table."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from fnn.analysis.arithmetic import flops
from fnn.analysis.ledger import Entry, ledger
from fnn.analysis.program import ARRAYS, Program, flat, split, trace
from fnn.analysis.reach import reach
from fnn.checks import check_callable, describe, wrong
from fnn.trees import names, or_fields


class Layer(NamedTuple):
    """One layer of a model.

    Attributes:
        name: the path of the params that it uses; without any, the function's own name.
        function: of fnn, or the primitive that takes the params.
        output: shape of its output.
        units: numbers in its output.
        weights, biases: numbers in its params, those that are only added to data being biases, and
            those that a loop starts from. The params of a layer that is used again count where it
            is used first.
        connections: pairs of a unit and a weight, the taps that fall into padding included. Those
            at the ends of a window that meet nothing else fnn's convolutions leave out: they are
            not counted, here and in the field.
        multiply_adds: products of a matrix product or a convolution, without these taps.
        bytes: of its output.
        field: how far its middle unit reaches along every spatial axis of the input. Windows count
            in full, padding included, so that a pooling of all of an 8x8 map after a 3x3
            convolution has 10x10. A layer that runs along an axis step by step, as `fnn.lstm` does,
            has all of that axis, though its middle step sees none of the later ones; one behind
            another loop has the whole input. None where the middle unit reads nothing of the
            input, for a layer inside of a loop or a branch, and where no argument has more than two
            axes.
    """

    name: str
    function: str
    output: tuple[int, ...]
    units: int
    weights: int
    biases: int
    connections: int
    multiply_adds: int
    bytes: int
    field: tuple[int, ...] | None


SUMMED = ("units", "weights", "biases", "connections", "multiply_adds", "bytes")


class Summary(NamedTuple):
    """The layers of a model; ``print`` shows the table.

    Attributes:
        layers: in order of execution.
        flops: of the whole program, 2 for a multiply-add and 1 for every number that is computed
            otherwise, as by an activation.
        unused: paths of params that no layer uses, in any branch of `lax.cond`.
    """

    layers: tuple[Layer, ...]
    flops: int
    unused: tuple[str, ...]

    @property
    def total(self) -> dict[str, int]:
        """The sums over all layers, by the names of their attributes."""
        return {name: sum(getattr(layer, name) for layer in self.layers) for name in SUMMED}

    @or_fields
    def __str__(self) -> str:
        """Return the table, a line per layer, of at most 80 columns where names allow it."""
        fields = any(layer.field for layer in self.layers)
        head = ["layer", "output", "units", "weights", "biases", "connect.", "mult-adds", "bytes"]
        rows = [[*head, "field"], *map(_row, self.layers)]
        total = self.total
        rows.append(["total", "", *_numbers(total), ""])
        rows = [row if fields else row[:-1] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        left, right = (str.ljust, str.ljust), (str.rjust,) * (len(widths) - 2)
        lines = [
            " ".join(fit(x, n) for fit, x, n in zip((*left, *right), row, widths, strict=True))
            for row in rows
        ]
        lines.insert(len(lines) - 1, "-" * len(lines[0]))
        notes = [f"{_short(self.flops, 'FLOP')}: 2 for a multiply-add, 1 for any other result"]
        notes += [f"not used: {', '.join(self.unused)}"] if self.unused else []
        return "\n".join([*map(str.rstrip, lines), *notes])


def _row(layer: Layer) -> list[str]:
    by = "x".join
    field = by(map(str, layer.field)) if layer.field else ""
    return [layer.name, by(map(str, layer.output)), *_numbers(layer._asdict()), field]


def _numbers(counts: dict[str, int]) -> list[str]:
    exact = ("weights", "biases")
    return [f"{counts[k]:,}" if k in exact else _short(counts[k]) for k in SUMMED]


def _short(count: int, unit: str = "") -> str:
    """Return three digits and k, M, G, T for thousands."""
    rounded = int(float(f"{count:.3g}"))
    power = min(4, (len(str(rounded)) - 1) // 3)
    return f"{rounded / 1000**power:g} {('', *'kMGT')[power]}{unit}".rstrip()


def summary(model: Callable[..., Any], params: PyTree[Any], *args: Any, **kwargs: Any) -> Summary:
    """Return how large every layer of a model is; nothing is computed, the model is only traced.

    A fully connected layer from I maps of W by H to J has ``W H J`` units and ``W^2 H^2 I J``
    weights and connections; a K by K convolution at stride 1 with "SAME" padding has ``W H J``
    units, ``K^2 I J`` weights and ``W H K^2 I J`` connections. All counts are for args as given: to
    count for one example, give one.

    A layer is a call of an fnn function that uses params or mixes several numbers, as pooling does
    and an activation does not; outside of such calls, arithmetic of data with one branch of params,
    such as ``x @ params["head"]["w"]``; and each product of data with data. A layer in `lax.scan`
    counts for every step; one that is called again has its weights counted once. Of `lax.cond`, the
    branch with most arithmetic counts.

    Args:
        model: ``model(params, *args, **kwargs)``.
        params: any pytree of arrays, or of `jax.ShapeDtypeStruct`.
        args, kwargs: passed to model; arrays, or `jax.ShapeDtypeStruct` in their places.

    Returns:
        A `Summary`. Its receptive fields are in the first array of args with an axis of examples,
        spatial axes and one of channels.

    Raises:
        ValueError: a layer inside `lax.while_loop`, which runs it an unknown number of times; two
            leaves of params with one path.
        TypeError: a leaf of params that is no array.

    Source: CSC413 notes (2020), the size of a convolutional network.

    >>> params = {"conv": fnn.init_conv(jax.random.key(0), (3, 3), 1, 8),
    ...           "head": fnn.init_dense(jax.random.key(1), 128, 10)}
    >>> def model(params, x):
    ...     x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv"])), 2)
    ...     return fnn.dense(fnn.flatten(x), **params["head"])
    >>> size = fnn.analysis.summary(model, params, jnp.zeros((1, 8, 8, 1)))
    >>> [(layer.name, layer.weights, layer.connections, layer.field) for layer in size.layers]
    [('conv', 72, 4608, (3, 3)), ('max_pool', 0, 0, (4, 4)), ('head', 1280, 1280, (10, 10))]
    """
    check_callable("analysis.summary", "model", model)
    for path, leaf in jax.tree.leaves_with_path(params):
        if not isinstance(leaf, ARRAYS):
            place = "params" + jax.tree_util.keystr(path)
            raise wrong("analysis.summary", place, describe(leaf), "an array", TypeError)
    own = names("analysis.summary", params)
    known, arrays = split((params, *args), kwargs)
    program = flat(trace(model, known, arrays))
    sizes = {name: math.prod(x.shape) for name, x in zip(own, arrays, strict=False)}
    spatial = (i for i in program.inputs[len(own) :] if program.arrays[i].ndim > 2)
    source = next(spatial, None)
    layers = []
    entries, elsewhere = ledger(program, own)
    for entry in entries:
        new = {path: sizes.pop(path) for path in sorted(entry.uses) if path in sizes}
        layers.append(_layer(entry, new, program, source))
    unused = tuple(path for path in sizes if path not in elsewhere)
    return Summary(tuple(layers), flops(program), unused)


def _layer(entry: Entry, own: dict[str, int], program: Program, source: int | None) -> Layer:
    """Return the numbers of one layer, of which it is the first to use these leaves."""
    box = None
    if entry.array is not None and source is not None:
        box = reach(program, entry.array, source)
    biases = {path: size for path, size in own.items() if entry.uses[path]}
    branches = dict.fromkeys(path.rpartition("/")[0] for path in sorted(entry.uses))
    return Layer(
        "+".join(filter(None, branches)) or "+".join(sorted(entry.uses)) or entry.function,
        entry.function,
        entry.output.shape,
        entry.units,
        sum(own.values()) - sum(biases.values()),
        sum(biases.values()),
        entry.connections,
        entry.multiply_adds,
        entry.units * entry.output.dtype.itemsize,
        tuple(last - first + 1 for first, last in box[1:-1]) if box else None,
    )
