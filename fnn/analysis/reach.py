"""How far an array sees: which elements of the input can change one element of it.

Read backwards, from one element to what it is computed from. What is asked for of an array is a
box, a range of positions along every axis, and each operation turns the box of its result into
boxes of its operands: a window makes the box wider, a stride spreads it, a sum takes in all of the
axes that it runs over. Positions in zero padding count, as in `fnn.receptive_field`. An operation
without a rule here reads operands of its result's shape entry by entry, and all of any other; one
that holds a program, as a solver does, reads all.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnn.analysis.program import FOLDS, Operation, Program, known
from fnn.kernels.conv.form import INPUT, OUTPUT

Shape = tuple[int, ...]
Box = list[tuple[int, int]]  # first and last position along every axis


def reach(program: Program, array: int, source: int) -> Box | None:
    """Return what the middle element of an array reads of another one: None for nothing."""
    boxes: dict[int, Box] = {
        array: [(size // 2, size // 2) for size in program.arrays[array].shape]
    }
    for op in reversed(program.operations):
        wanted = [boxes.get(i) for i in op.writes]
        if all(box is None for box in wanted):
            continue
        shapes = [program.arrays[i].shape for i in op.reads]
        found: Found = [_whole(shape) for shape in shapes]
        if op.name == "optimization_barrier":
            found = wanted
        elif op.name == "split":
            found = [_split(op, wanted)]
        elif op.name == "unstack":
            found = [_unstack(op, wanted)]
        elif op.name == "gather" and wanted[0] is not None:
            found = _gather(op, shapes, wanted[0], known(program, op.reads[1]))
        elif len(wanted) == 1 or op.name in FOLDS:  # whose results are all of one shape
            all_wanted = functools.reduce(_union, (box for box in wanted if box is not None))
            out = program.arrays[op.writes[0]].shape
            rule = RULES.get(op.name, _everything if op.bodies else _same)
            found = rule(op, shapes, out, all_wanted)
        for i, shape, part in zip(op.reads, shapes, found, strict=True):
            if part is not None and _holds(part, shape):
                boxes[i] = _union(boxes[i], part) if i in boxes else part
    return boxes.get(source)


def volume(box: Box) -> int:
    """Return how many elements a box holds."""
    return math.prod(last - first + 1 for first, last in box)


Found = Sequence[Box | None]


def _whole(shape: Shape) -> Box:
    return [(0, size - 1) for size in shape]


def _holds(box: Box, shape: Shape) -> bool:
    """Whether there is a position in the box, but for axes that have none."""
    return all(first <= last for (first, last), size in zip(box, shape, strict=True) if size)


def _union(a: Box, b: Box) -> Box:
    return [(min(p, r), max(q, s)) for (p, q), (r, s) in zip(a, b, strict=True)]


def _everything(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    return [_whole(shape) for shape in shapes]


def _same(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    """Entry by entry, where the shapes allow it."""
    return [box if shape == out else _whole(shape) for shape in shapes]


def _broadcast(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    axes = op.params["broadcast_dimensions"]
    own = [box[a] if n > 1 else (0, 0) for a, n in zip(axes, shapes[0], strict=True)]
    return [own, *(None for _ in shapes[1:])]


def _transpose(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    order = op.params["permutation"]
    return [[box[order.index(axis)] for axis in range(len(box))]]


def _reverse(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    turned = op.params["dimensions"]
    flipped = [(n - 1 - b, n - 1 - a) for (a, b), n in zip(box, out, strict=True)]
    return [[flipped[i] if i in turned else own for i, own in enumerate(box)]]


def _slice(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    starts, strides = op.params["start_indices"], op.params["strides"] or (1,) * len(box)
    return [[(f + a * s, f + b * s) for (a, b), f, s in zip(box, starts, strides, strict=True)]]


def _pad(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    config = op.params["padding_config"]
    pairs = zip(box, config, strict=True)
    own = [(-((lo - a) // (gap + 1)), (b - lo) // (gap + 1)) for (a, b), (lo, _, gap) in pairs]
    return [own, None]


def _concatenate(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    axis, start = op.params["dimension"], 0
    found: list[Box | None] = []
    for shape in shapes:
        first = max(box[axis][0] - start, 0) if start else box[axis][0]
        last = box[axis][1] - start
        if start + shape[axis] < out[axis]:
            last = min(last, shape[axis] - 1)
        start += shape[axis]
        part = [*box[:axis], (first, last), *box[axis + 1 :]]
        found.append(part if first <= last and first < shape[axis] else None)
    return found


def _split(op: Operation, wanted: Sequence[Box | None]) -> Box:
    """The box of what is split, from those of its parts."""
    axis, start, boxes = op.params["axis"], 0, []
    sizes = map(int, op.params["sizes"])  # which `jnp.split` may give as NumPy's
    for size, box in zip(sizes, wanted, strict=True):
        if box is not None:
            first, last = box[axis]
            boxes.append([*box[:axis], (first + start, last + start), *box[axis + 1 :]])
        start += size
    return functools.reduce(_union, boxes)


def _stack(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    axis = op.params["axis"]
    (first, last), own = box[axis], [*box[:axis], *box[axis + 1 :]]
    return [own if first <= i <= last else None for i in range(len(shapes))]


def _unstack(op: Operation, wanted: Sequence[Box | None]) -> Box:
    axis = op.params["axis"]
    numbered = [(i, box) for i, box in enumerate(wanted) if box is not None]
    boxes = [[*box[:axis], (i, i), *box[axis:]] for i, box in numbered]
    return functools.reduce(_union, boxes)


def _tile(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    """Within one copy as it lies there; what touches several copies reads all along the axis."""
    if 0 in out:
        return [_whole(shapes[0])]
    own: Box = []
    for (a, b), n, copies in zip(box, shapes[0], op.params["reps"], strict=True):
        first, last = (min(max(end // n, 0), copies - 1) for end in (a, b))
        own.append((a - first * n, b - first * n) if first == last else (0, n - 1))
    return [own]


def _reduce(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    kept = iter(box)
    axes = op.params["dimensions" if op.name == "reduce" else "axes"]
    own = [(0, n - 1) if i in axes else next(kept) for i, n in enumerate(shapes[0])]
    return _of_operands(own, shapes)


def _of_operands(own: Box, shapes: list[Shape]) -> Found:
    """The box of every operand; after them, an own computation has a start for each."""
    starts = len(shapes) // 2
    return [own] * (len(shapes) - starts) + [None] * starts


def _reshape(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    """Group by group of axes that hold the same elements; positions outside are cut off."""
    if 0 in out:
        return [_whole(shapes[0])]
    order = op.params["dimensions"] if op.name == "reshape" else None  # of a transpose before it
    order = range(len(shapes[0])) if order is None else order
    shape = tuple(shapes[0][axis] for axis in order)
    inside = [(max(0, a), min(b, n - 1)) for (a, b), n in zip(box, out, strict=True)]
    if not _holds(inside, out):
        return [None]
    own: Box = []
    for after, before in _groups(out, shape):
        sizes = [out[axis] for axis in after]
        first, last = (
            int(np.ravel_multi_index([inside[axis][end] for axis in after], sizes)) if sizes else 0
            for end in (0, 1)
        )
        same = True
        for axis in before:
            below = math.prod(shape[a] for a in before if a > axis)
            n = shape[axis]
            own.append((first // below % n, last // below % n) if same else (0, n - 1))
            same = same and own[-1][0] == own[-1][1]
    return [[own[order.index(axis)] for axis in range(len(own))]]


def _groups(a: Shape, b: Shape) -> list[tuple[list[int], list[int]]]:
    """Split the axes of two shapes of one size into the shortest runs of one product."""
    groups, i, j = [], 0, 0
    while i < len(a) or j < len(b):
        first, second = i, j
        i, j = min(i + 1, len(a)), min(j + 1, len(b))
        while (p := math.prod(a[first:i])) != (q := math.prod(b[second:j])):
            i, j = (i + 1, j) if p < q else (i, j + 1)
        groups.append((list(range(first, i)), list(range(second, j))))
    return groups


def _gather(op: Operation, shapes: list[Shape], box: Box, places: Any) -> Found:
    """Rows along one axis at known places, or everything."""
    facts, own = op.params["dimension_numbers"], _whole(shapes[0])
    axes = facts.collapsed_slice_dims
    kept = [i for i in range(len(own)) if i not in axes]
    rows = len(axes) == 1 and axes == facts.start_index_map and len(shapes[1]) == 2
    whole = all(op.params["slice_sizes"][i] == shapes[0][i] for i in kept)
    if places is None or not (rows and whole):
        return [own, _whole(shapes[1])]
    (across,) = (i for i in range(len(box)) if i not in facts.offset_dims)
    first, last = (min(max(end, 0), len(places) - 1) for end in box[across])
    read = places[first : last + 1]
    own[axes[0]] = int(read.min()), int(read.max())
    for i, place in zip(kept, facts.offset_dims, strict=True):
        own[i] = box[place]
    return [own, None]


def _window(a: int, b: int, k: int, s: int, d: int, lo: int) -> tuple[int, int]:
    return a * s - lo, b * s - lo + (k - 1) * d


def _reduce_window(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    p = op.params
    facts = p["window_dimensions"], p["window_strides"], p["window_dilation"], p["padding"]
    own = [_window(*ab, k, s, d, lo) for ab, k, s, d, (lo, _) in zip(box, *facts, strict=True)]
    own = [(-(-a // gap), b // gap) for (a, b), gap in zip(own, p["base_dilation"], strict=True)]
    return _of_operands(own, shapes)


def _own_convolution(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    form, slot = op.params["form"], op.params["slot"]
    places = zip(box[1:-1], form.axes, strict=True)
    if slot == OUTPUT:
        spatial = [_window(*ab, x.k, x.s, x.d, x.lo) for ab, x in places]
    elif slot == INPUT:
        spatial = [(-((x.span - 1 - a - x.lo) // x.s), (b + x.lo) // x.s) for (a, b), x in places]
    else:
        return _everything(op, shapes, out, box)
    return [[box[0], *spatial, (0, shapes[0][-1] - 1)], _whole(shapes[1])]


def _convolution(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    p, own = op.params, _whole(shapes[0])
    lhs, rhs, result = p["dimension_numbers"]
    own[lhs[0]] = box[result[0]]
    facts = p["window_strides"], p["rhs_dilation"], p["padding"], p["lhs_dilation"]
    for axis, taps, place, s, d, (lo, _), gap in zip(
        lhs[2:], rhs[2:], result[2:], *facts, strict=True
    ):
        first, last = _window(box[place][0], box[place][1], shapes[1][taps], s, d, lo)
        own[axis] = -(-first // gap), last // gap
    return [own, _whole(shapes[1])]


def _product(op: Operation, shapes: list[Shape], out: Shape, box: Box) -> Found:
    contract, batch = op.params["dimension_numbers"]
    found, place = [], len(batch[0])
    for side, shape in enumerate(shapes):
        own = _whole(shape)
        for axis, own_axis in enumerate(batch[side]):
            own[own_axis] = box[axis]
        for axis in range(len(shape)):
            if axis not in (*contract[side], *batch[side]):
                own[axis] = box[place]
                place += 1
        found.append(own)
    return found


REDUCTIONS = ("sum", "max", "min", "prod", "and", "or", "xor")
WINDOWS = ("sum", "max", "min")
MIXING = (  # of the shape of the result, but not entry by entry
    *("sort", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "fft"),
    *("scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max"),
    *("select_and_scatter_add", "select_and_gather_add", "dynamic_update_slice"),
    *("ragged_dot_general", "cholesky_update", "symmetric_product", "ormqr"),
    "lu_pivots_to_permutation",
    *("pure_callback", "io_callback", "ffi_call", "call_exported"),  # of unknown insides
    *("cholesky", "eig", "eigh", "householder_product", "lu", "qr", "schur", "svd"),
    *("triangular_solve", "tridiagonal_solve", "tridiagonal"),
)
RULES: dict[str, Callable[[Operation, list[Shape], Shape, Box], Found]] = {
    **dict.fromkeys(MIXING, _everything),
    **dict.fromkeys((f"reduce_{name}" for name in REDUCTIONS), _reduce),
    **dict.fromkeys(("argmax", "argmin"), _reduce),
    **dict.fromkeys((f"reduce_window_{name}" for name in WINDOWS), _reduce_window),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    "reduce": _reduce,
    "reduce_window": _reduce_window,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "rev": _reverse,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "tile": _tile,
    "fnn_conv": _own_convolution,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
}
