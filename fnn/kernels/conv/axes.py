"""Axes that a window does not span: the same convolution on fewer of them.

A window of 1 x 3 x 3 takes every slice as an example of its own. One of 3 x 1 x 1 goes along a line
that has all places of a slice at each step, where its taps lie a whole slice apart. So windows that
are long in one direction only, as in Inception or R(2+1)D, are lines and planes to the kernels.
Tests: `tests/kernels/conv/test_axes.py`.
"""

import math

import jax

from fnn.kernels.conv.form import INPUT, OUTPUT, WINDOW, Form, Kernel, Map, is_known
from fnn.windows import Windows

# Of the operands and the result: input "x", window "w", output "y".
ROLES = {OUTPUT: ("x", "w", "y"), INPUT: ("y", "w", "x"), WINDOW: ("x", "y", "w")}


def merged(form: Form) -> Form:
    """The form without the outer axes that its window has one tap on, no stride and no padding.

    Those before the first that it spans become examples, those behind the last one part of it. So
    it is on a CPU: the libraries of other platforms may not like such lines.

    >>> from fnn.windows import resolve
    >>> sizes = (8, 5, 6)
    >>> flat = merged(Form(sizes, resolve("", sizes, (3, 1, 1), 1, "SAME", 1), 1, "cpu"))
    >>> flat.spatial, flat.windows.size, flat.windows.padding, flat.windows.dilation
    ((240,), (3,), ((30, 30),), (30,))
    >>> merged(Form(sizes, resolve("", sizes, (1, 3, 3), 1, "SAME", 1), 1, "cpu")).spatial
    (5, 6)
    """
    size, stride, padding, dilation = form.windows
    axes = zip(size, stride, padding, strict=True)
    spanned = [i for i, axis in enumerate(axes) if axis != (1, 1, (0, 0))]
    if not spanned or form.platform != "cpu":
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


def shaped(role: str, a: jax.Array, form: Form) -> jax.Array:
    """An input "x", a window "w" or an output "y", with the axes of this form."""
    if role == "w":
        return a.reshape(*form.windows.size, *a.shape[-2:])
    return a.reshape(-1, *(form.spatial if role == "x" else form.out), a.shape[-1])


def merging(kernel: Kernel) -> Kernel:
    """Let a kernel merge the axes of every form, unless it refuses the merged one."""

    def of(slot: str) -> Map:
        one: Map = getattr(kernel, slot)
        left, right, result = ROLES[slot]

        def whole(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
            if not is_known(a, b):
                return one(a, b, form)
            flat = merged(form)
            flat = form if kernel.refuses(flat, a.dtype) else flat
            return shaped(result, one(shaped(left, a, flat), shaped(right, b, flat), flat), form)

        return whole

    return kernel._replace(output=of(OUTPUT), input=of(INPUT), window=of(WINDOW))
