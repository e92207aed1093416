"""Axes that a window does not span, or spans whole: the same convolution on fewer of them.

A window of 1 x 3 x 3 takes every slice as an example of its own. One of 3 x 1 x 1 goes along a line
that has all places of a slice at each step, where its taps lie a whole slice apart. So windows that
are long in one direction only, as in Inception or R(2+1)D, are lines and planes to the kernels.

A window that covers an axis stops there once, and its taps are further channels, if the axis is the
last. So a window over three whole words of text goes along a line, and one over a whole plane, as
in the layer behind the convolutions of VGG or the first of a DCGAN, is a matrix product. If another
axis follows, as time does behind the electrodes of an EEG, the taps stay, and count as a stride for
the input gradient: otherwise it would be a convolution of one place, with padding all around.
Tests: `tests/kernels/conv/test_axes.py`.
"""

import math

import jax

from fnn.kernels.conv.form import INPUT, OUTPUT, WINDOW, Form, Kernel, Map
from fnn.windows import Windows, is_known

# Of the operands and the result: input "x", window "w", output "y".
ROLES = {OUTPUT: ("x", "w", "y"), INPUT: ("y", "w", "x"), WINDOW: ("x", "y", "w")}


def merged(form: Form, slot: str) -> Form:
    """The form of one map without the outer axes of one tap, no stride and no padding.

    Those before the first that the window spans become examples, those behind the last one part of
    it. Before that, the last axes become channels if the window covers them. So it is on a CPU: the
    libraries of other platforms may not like such lines.

    >>> from fnn.windows import resolve
    >>> sizes = (8, 5, 6)
    >>> line = Form(sizes, resolve("", sizes, (3, 1, 1), 1, "SAME", 1), 1, "cpu")
    >>> merged(line, OUTPUT).spatial, merged(line, OUTPUT).windows[2:]
    ((240,), (((30, 30),), (30,)))
    >>> merged(Form(sizes, resolve("", sizes, (1, 3, 3), 1, "SAME", 1), 1, "cpu"), OUTPUT).spatial
    (5, 6)
    >>> covered = Form(sizes, resolve("", sizes, (3, 5, 6), 1, "VALID", 1), 1, "cpu")
    >>> merged(covered, OUTPUT).spatial, merged(covered, OUTPUT).windows.size
    ((8,), (3,))
    """
    if form.platform != "cpu":
        return form
    form = _uncovered(form)
    if slot == INPUT or form.groups > 1:  # the other maps of one group are faster without a stride
        form = _stopped(form)
    size, stride, padding, dilation = form.windows
    axes = zip(size, stride, padding, strict=True)
    spanned = [i for i, axis in enumerate(axes) if axis != (1, 1, (0, 0))]
    if not spanned:
        return form
    first, last = spanned[0], spanned[-1]
    if stride[last] > 1:
        last = len(size) - 1  # its stops are not a line
    each, kept = math.prod(form.spatial[last + 1 :]), slice(first, last + 1)
    lo, hi = padding[last]
    windows = Windows(
        size[kept],
        stride[kept],
        (*padding[first:last], (lo * each, hi * each)),
        (*dilation[first:last], dilation[last] * each),
    )
    spatial = (*form.spatial[first:last], form.spatial[last] * each)
    return form._replace(spatial=spatial, windows=windows)


def _uncovered(form: Form) -> Form:
    """The form without its last axes that the window covers; if it covers all, one place is left.

    Several groups keep them: their channels would not stay side by side.
    """
    size, stride, padding, dilation = form.windows
    covers = [a.i == a.k and a.lo == a.hi == 0 and (a.d == 1 or a.k == 1) for a in form.axes]
    left = next((rank for rank in range(len(size), 0, -1) if not covers[rank - 1]), 0)
    if form.groups > 1 or left == len(size):
        return form
    if left == 0:
        return form._replace(spatial=(1,), windows=Windows((1,), (1,), ((0, 0),), (1,)))
    windows = Windows(size[:left], stride[:left], padding[:left], dilation[:left])
    return form._replace(spatial=form.spatial[:left], windows=windows)


def _stopped(form: Form) -> Form:
    """The form with a stride of all its taps along an axis that the window stops on once."""
    stride = tuple(max(a.s, a.k) if a.o == a.d == 1 else a.s for a in form.axes)
    return form._replace(windows=form.windows._replace(stride=stride))


def shaped(role: str, a: jax.Array, form: Form, new: Form) -> jax.Array:
    """An input "x", a window "w" or an output "y" of a form, with the axes of the new one."""
    taps, left = math.prod(form.windows.size), math.prod(new.windows.size)  # the rest are channels
    if role == "w":
        return a.reshape(*new.windows.size, a.shape[-2] * taps // left, a.shape[-1])
    if role == "x":
        return a.reshape(-1, *new.spatial, a.shape[-1] * taps // left)
    return a.reshape(-1, *new.out, a.shape[-1])


def merging(kernel: Kernel) -> Kernel:
    """Let a kernel merge the axes of every form, unless it refuses the merged one."""

    def of(slot: str) -> Map:
        one: Map = getattr(kernel, slot)
        left, right, result = ROLES[slot]

        def whole(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
            if not is_known(a, b):
                return one(a, b, form)
            flat = merged(form, slot)
            flat = form if kernel.refuses(flat, a.dtype) else flat
            found = one(shaped(left, a, form, flat), shaped(right, b, form, flat), flat)
            return shaped(result, found, flat, form)

        return whole

    return kernel._replace(output=of(OUTPUT), input=of(INPUT), window=of(WINDOW))
