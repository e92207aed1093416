"""The library's convolution, `lax.conv_general_dilated`, as a kernel.

The gradients follow from the index sum ``y[o] = sum_k x[o s + k d - lo] w[k]``. To the input: the
cotangent, spread by the stride, convolved with the flipped window, its channels exchanged. To the
window: the input convolved with the cotangent, spread by the stride; examples are summed as
channels are in a forward convolution.

XLA's CPU backend has fast convolutions for one layout only. It brings others into it in the
outermost program, but inside `lax.scan` they fall to a scalar loop, a hundred times slower. So the
first two maps are written in that layout; the third is brought into it by explicit transposes, on
the CPU alone: there they cost less than the loop, elsewhere they would be a waste. So it is with
groups, for which XLA's ``batch_group_count`` takes up to eighty times as long, in jit too, and lets
NaN and infinity of one group reach the others. A window larger than the input falls to the same
loop, unless the input is padded before.

On several devices the groups go one after the other. XLA would bring all examples together, unless
each group has one channel. And where the examples do not lie on every axis of the mesh, it would
count the gradient to the window more than once.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from fnn.compiler import kept_apart
from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import crop
from fnn.kernels.conv.form import INPUT, OUTPUT, WINDOW, Form, Kernel, Map, devices
from fnn.windows import is_known

Pairs = Sequence[tuple[int, int]]  # of padding; negative ones cut off


def swap_channels(w: jax.Array, groups: int) -> jax.Array:
    """``(*window, c_in // groups, c_out)`` to ``(*window, c_out // groups, c_in)``."""
    blocks = w.reshape(*w.shape[:-1], groups, -1)
    blocks = jnp.swapaxes(blocks, -3, -1)
    return blocks.reshape(*w.shape[:-2], blocks.shape[-3], -1)


def _roomy(x: jax.Array, pads: Pairs, span: Sequence[int], form: Form) -> tuple[jax.Array, Pairs]:
    """The input and its padding; on the CPU some of it is there where the window would not fit.

    No more than that: with all padding there, XLA takes up to 2.4 times as long.
    """
    if form.platform != "cpu" or not is_known(x):
        return x, pads
    if all(e <= i for e, i in zip(span, x.shape[1:-1], strict=True)):
        return x, pads
    room = [max(0, e - i) for e, i in zip(span, x.shape[1:-1], strict=True)]
    added = [(min(lo, r), max(0, r - lo)) for (lo, _), r in zip(pads, room, strict=True)]
    edges = [(0, 0, 0), *((lo, hi, 0) for lo, hi in added), (0, 0, 0)]
    (x,) = kept_apart(lax.pad(x, jnp.zeros((), x.dtype), edges))
    return x, [(lo - a, hi - b) for (lo, hi), (a, b) in zip(pads, added, strict=True)]


def _without_symbols(
    x: jax.Array, pads: Pairs, stride: Sequence[int]
) -> tuple[jax.Array, Pairs, Sequence[int]]:
    """The input spread by a stride, its padding, its stride: padding by a symbol is there already.

    `lax.conv_general_dilated` takes none, though `lax.pad` does.
    """
    known = [all(isinstance(p, int) for p in pair) for pair in pads]
    if all(known):
        return x, pads, stride
    axes = list(zip(pads, stride, known, strict=True))
    edges = [(0, 0, 0) if one else (*pair, s - 1) for pair, s, one in axes]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    left = [(pair, s) if one else ((0, 0), 1) for pair, s, one in axes]
    return x, [pair for pair, _ in left], [s for _, s in left]


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    rank = len(form.spatial)
    last = (0, rank + 1, *range(1, rank + 1))
    x, pads = _roomy(x, form.windows.padding, form.windows.span, form)
    x, pads, _ = _without_symbols(x, pads, (1,) * rank)
    return lax.conv_general_dilated(
        x,
        w,
        form.windows.stride,
        pads,
        rhs_dilation=form.windows.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
        feature_group_count=form.groups,
        preferred_element_type=accumulator(x.dtype),
    )


def _input(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    rank, pads = len(form.spatial), []
    for a in form.axes:
        before = a.span - 1 - a.lo
        pads.append((before, a.i - ((a.o - 1) * a.s + 1) - before + a.span - 1))
    # With negative padding, XLA's CPU backend reads what lies beside the array: JAX 0.10.
    plain = [s == 1 for s in form.windows.stride]
    y = crop(y, [pad if one else (0, 0) for pad, one in zip(pads, plain, strict=True)])
    pads = [
        (max(0, a), max(0, b)) if one else (a, b) for (a, b), one in zip(pads, plain, strict=True)
    ]
    y, edges, stride = _without_symbols(y, pads, form.windows.stride)
    last = (0, rank + 1, *range(1, rank + 1))
    return lax.conv_general_dilated(
        y,
        jnp.flip(swap_channels(w, form.groups), tuple(range(rank))),
        (1,) * rank,
        edges,
        lhs_dilation=stride,
        rhs_dilation=form.windows.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
        feature_group_count=form.groups,
        preferred_element_type=accumulator(y.dtype),
    )


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    return (_window_transposed if form.platform == "cpu" else _window_direct)(x, y, form)


def _window_pads(form: Form) -> list[tuple[int, int]]:
    """Padding for which the cotangent, slid over the input, stops once per tap."""
    return [(a.lo, a.span + (a.o - 1) * a.s - a.i - a.lo) for a in form.axes]


def _window_direct(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    rank = len(form.spatial)
    channels_as_examples = (rank + 1, 0, *range(1, rank + 1))
    x, pads, _ = _without_symbols(x, _window_pads(form), (1,) * rank)
    return lax.conv_general_dilated(
        x,
        y,
        form.windows.dilation,
        pads,
        rhs_dilation=form.windows.stride,
        dimension_numbers=lax.ConvDimensionNumbers(
            channels_as_examples, channels_as_examples, (rank, rank + 1, *range(rank))
        ),
        batch_group_count=form.groups,
        preferred_element_type=accumulator(x.dtype),
    )


def _window_transposed(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    rank = len(form.spatial)
    last = (0, rank + 1, *range(1, rank + 1))
    span = [(a.o - 1) * a.s + 1 for a in form.axes]
    x = jnp.moveaxis(x.reshape(*x.shape[:-1], form.groups, -1), (-1, 0), (0, -1))
    x, pads = _roomy(x.reshape(*x.shape[:-2], -1), _window_pads(form), span, form)
    x, pads, _ = _without_symbols(x, pads, (1,) * rank)
    w = lax.conv_general_dilated(
        x,
        jnp.moveaxis(y, 0, -2),
        form.windows.dilation,
        pads,
        rhs_dilation=form.windows.stride,
        dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
        feature_group_count=form.groups,
        preferred_element_type=accumulator(x.dtype),
    )
    return jnp.moveaxis(w, 0, -2)


def _in_turn(one: Map, slot: str) -> Map:
    """Convolve group by group on several devices."""

    def whole(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
        single = form.groups == a.shape[-1] and slot != WINDOW
        if form.groups == 1 or single or devices(a) == 1:
            return one(a, b, form)

        a, b = (jnp.moveaxis(t.reshape(*t.shape[:-1], form.groups, -1), -2, 0) for t in (a, b))
        plain = form._replace(groups=1)
        y: jax.Array = lax.map(lambda pair: one(pair[0], pair[1], plain), (a, b))
        return jnp.moveaxis(y, 0, -2).reshape(*y.shape[1:-1], -1)

    return whole


LIBRARY = Kernel(
    "lax",
    _in_turn(_output, OUTPUT),
    _in_turn(_input, INPUT),
    _in_turn(_window, WINDOW),
    symbols="all",
)
