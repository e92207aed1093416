"""How much arithmetic an operation is.

Of a convolution's taps, some fall into the padding. They are no arithmetic, but texts count them as
connections: ``W H K^2 I J`` of a K by K convolution from I to J maps of W by H. Both counts are
products over the axes, as each axis of the window moves by itself.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fnn.analysis.program import Operation, Program
from fnn.kernels.conv.form import INPUT

PRODUCTS = ("dot_general", "fnn_conv", "conv_general_dilated")


def multiply_adds(op: Operation, arrays: Sequence[Any]) -> tuple[int, int]:
    """Return how many multiply-adds a matrix product or a convolution does, and has taps for."""
    shapes = [arrays[i].shape for i in op.reads]
    out = arrays[op.writes[0]].shape if op.writes else ()
    match op.name:
        case "dot_general":
            contracted = op.params["dimension_numbers"][0][0]
            count = math.prod(out) * math.prod(shapes[0][axis] for axis in contracted)
            return count, count
        case "ragged_dot_general":
            facts = op.params["ragged_dot_dimension_numbers"]
            contracted = facts.dot_dimension_numbers[0][0]
            if facts.lhs_ragged_dimensions[0] in contracted:
                out = out[1:]  # without the groups: each term is in the sum of one of them
            count = math.prod(out) * math.prod(shapes[0][axis] for axis in contracted)
            return count, count
        case "fnn_conv":
            return _own_convolution(op, shapes, out)
        case "conv_general_dilated":
            return _convolution(op.params, shapes, out)
    return 0, 0


MOVES = (  # numbers that are there already
    *("reshape", "squeeze", "expand_dims", "transpose", "broadcast_in_dim", "rev", "copy", "split"),
    *("slice", "dynamic_slice", "dynamic_update_slice", "concatenate", "pad", "gather", "iota"),
    *("tile", "stack", "unstack", "scatter", "name"),
    *("device_put", "sharding_constraint", "layout_constraint", "reshard"),
    *("stop_gradient", "convert_element_type", "bitcast_convert_type", "optimization_barrier"),
    *("fnn_watch", "fnn_alone", "random_wrap", "random_unwrap", "random_bits", "while"),
)


def flops(program: Program) -> int:
    """Return the operations of a program: 2 per multiply-add, 1 per number computed otherwise.

    A sum of n terms takes n - 1, and a fold by a computation of its own as many of these. Loops of
    unknown length are left out.
    """
    count = 0
    for op in program.operations:
        products, _ = multiply_adds(op, program.arrays)
        bodies = [flops(body) for body in op.bodies]
        sizes = [program.arrays[i].size for i in (*op.writes, *op.reads)]
        if op.name in ("scan", "cond"):
            count += op.params.get("length", 1) * max(bodies)
        elif products:
            count += 2 * products
        elif "window_dimensions" in op.params:
            count += sizes[0] * (math.prod(op.params["window_dimensions"]) - 1) * sum(bodies or [1])
        elif op.name.startswith(("reduce", "arg")):
            count += (max(sizes) - sizes[0]) * sum(bodies or [1])
        elif op.name not in MOVES:
            count += max(sizes[: len(op.writes)], default=0)
    return count


def _own_convolution(op: Operation, shapes: list[Any], out: tuple[int, ...]) -> tuple[int, int]:
    """A convolution by any kernel of fnn, its transpose, or its gradient to the window."""
    form, slot = op.params["form"], op.params["slot"]
    c_in, c_out = (out[-1], shapes[0][-1]) if slot == INPUT else (shapes[0][-1], out[-1])
    rest = shapes[0][0] * (c_in // form.groups) * c_out
    axes = [_taps(*axis[:-1]) for axis in form.axes]
    stops = math.prod(shapes[0][1:-1] if slot == INPUT else form.out)
    return rest * math.prod(axes), rest * stops * math.prod(form.windows.size)


def _convolution(
    params: dict[str, Any], shapes: list[Any], out: tuple[int, ...]
) -> tuple[int, int]:
    """The library's convolution, whose input may be dilated as well."""
    lhs, rhs, result = params["dimension_numbers"]
    sizes, window = [shapes[0][i] for i in lhs[2:]], [shapes[1][i] for i in rhs[2:]]
    stops = [out[i] for i in result[2:]]
    rest = out[result[0]] * out[result[1]] * shapes[1][rhs[1]]
    strides, pads = params["window_strides"], params["padding"]
    gaps, dilations = params["lhs_dilation"], params["rhs_dilation"]
    axes = [
        _taps(i, o, k, s, d, lo, gap)
        for i, o, k, s, d, (lo, _), gap in zip(
            sizes, stops, window, strides, dilations, pads, gaps, strict=True
        )
    ]
    return rest * math.prod(axes), rest * math.prod(stops) * math.prod(window)


def _taps(i: int, o: int, k: int, s: int, d: int, lo: int, gap: int = 1) -> int:
    """Count the pairs of one of o stops and one of k taps that meet one of i input elements."""
    place = np.arange(o)[:, None] * s + np.arange(k)[None, :] * d - lo
    inside = (place >= 0) & (place < (i - 1) * gap + 1) & (place % gap == 0)
    return int(inside.sum())
