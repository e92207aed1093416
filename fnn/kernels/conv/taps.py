"""Shift and add: one term ``x[o s + k d - lo] w[k]`` per tap of the window, no copies of patches.

With one input channel per group (depthwise, or an image of one channel) a term is an elementwise
product, and the compiler fuses all taps into one pass over the data. Otherwise it is a matrix
product over the channels. Windows of more than `UNROLLED` taps loop over their outermost axis, so
that the program does not grow with the window.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import through_output
from fnn.kernels.conv.form import Form, Kernel, varying

UNROLLED = 64

Term = Callable[[jax.Array, Any], jax.Array]  # of the shifted input and the tap's index


def _pad(x: jax.Array, form: Form) -> jax.Array:
    x = x.astype(accumulator(x.dtype))
    return jnp.pad(x, ((0, 0), *form.windows.padding, (0, 0)))


def _shift(x: jax.Array, form: Form, axis: int, tap: Any) -> jax.Array:
    """The elements of one spatial axis that this tap meets, one per output; tap may be traced."""
    s, d, o = form.windows.stride[axis], form.windows.dilation[axis], form.out[axis]
    if isinstance(tap, int):
        return lax.slice_in_dim(x, tap * d, tap * d + (o - 1) * s + 1, s, axis + 1)
    long = lax.dynamic_slice_in_dim(x, tap * d, (o - 1) * s + 1, axis + 1)
    return lax.slice_in_dim(long, 0, None, s, axis + 1)


def _sum_over_taps(x: jax.Array, form: Form, term: Term) -> jax.Array:
    """Sum the terms, the last axis first: what the others shift is then already summed."""
    *outer, last = form.windows.size
    rank = len(form.spatial)

    def at(place: tuple[Any, ...], x: jax.Array) -> jax.Array:
        row = sum(term(_shift(x, form, rank - 1, t), (*place, t)) for t in range(last))
        assert isinstance(row, jax.Array)
        for axis, tap in enumerate(place):
            row = _shift(row, form, axis, tap)
        return row

    if math.prod(form.windows.size) <= UNROLLED or not outer:
        total = sum(at(place, x) for place in product(*map(range, outer)))
        assert isinstance(total, jax.Array)
        return total

    def step(tap: jax.Array, total: jax.Array) -> jax.Array:
        for place in product(*map(range, outer[1:])):
            total = total + at((tap, *place), x)
        return total

    like = jax.eval_shape(lambda x: at((0,) * len(outer), x), x)
    start, *_ = varying(jnp.zeros(like.shape, like.dtype), x)
    summed: jax.Array = lax.fori_loop(0, outer[0], step, start)
    return summed


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    x, w = _pad(x, form), w.astype(accumulator(w.dtype))
    c, groups = w.shape[-2], form.groups
    w = w.reshape(*w.shape[:-1], groups, -1)  # (*window, c, g, o)

    def term(part: jax.Array, tap: Any) -> jax.Array:
        if c == 1:
            y = part[..., None] * w[tap][0].reshape((1,) * (part.ndim - 1) + w.shape[-2:])
            return y.reshape(*part.shape[:-1], -1)
        rows = part.reshape(*part.shape[:-1], groups, c)
        return jnp.einsum("...gc,cgo->...go", rows, w[tap]).reshape(*part.shape[:-1], -1)

    return _sum_over_taps(x, form, term)


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """Per tap, the shifted input times the cotangent, summed over examples and places."""
    c, groups = x.shape[-1] // form.groups, form.groups
    ones = jnp.ones((1, y[0, ..., 0].size), accumulator(x.dtype))

    def at(part: jax.Array, y: jax.Array) -> jax.Array:  # one example: (*out, channels) of each
        part, y = part.reshape(-1, groups, c), y.reshape(-1, groups, y.shape[-1] // groups)
        if c > 1:
            return jnp.einsum("mgc,mgo->cgo", part, y)
        # A sum as a product with ones: XLA's CPU backend does not vectorise a fused column sum.
        return jnp.dot(ones, (part * y).reshape(len(y), -1)).reshape(1, groups, -1)

    def example(sums: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, y = _pad(pair[0][None], form), pair[1].astype(sums.dtype)

        def shifted(place: tuple[Any, ...]) -> jax.Array:
            part = x
            for axis, tap in enumerate(place):
                part = _shift(part, form, axis, tap)
            return at(part[0], y)

        size = form.windows.size
        inner = size[1:] if math.prod(size) > UNROLLED else size

        def parts(first: tuple[Any, ...]) -> jax.Array:
            places = product(*map(range, inner))
            stacked = jnp.stack([shifted((*first, *place)) for place in places])
            return stacked.reshape(*inner, *stacked.shape[1:])

        if inner is size:
            return sums + parts(()), None
        taps = jnp.arange(size[0], dtype=jnp.int32)
        return sums + lax.map(lambda tap: parts((tap,)), taps), None

    shape = (*form.windows.size, c, groups, y.shape[-1] // groups)
    start, *_ = varying(jnp.zeros(shape, accumulator(x.dtype)), x, y)
    sums, _ = lax.scan(example, start, (x, y))
    return sums.reshape(*shape[:-2], -1)


TAPS = Kernel("taps", _output, through_output(_output), _window)
