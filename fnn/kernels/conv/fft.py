"""Convolution as a product of spectra, for large windows.

A cyclic correlation is ``y = F^-1[F(x) conj(F(w))]``. It equals the linear one where the transform
is as long as the padded input or longer; here it is the next product of 2, 3 and 5. The gradient to
the window is the correlation of x with y at the taps. With a stride, the dense result is computed
and most of it left out. Work per channel is ``N log N``, whatever the window, and the error
``eps log N`` of the largest output: one NaN or infinity fills the channel. A spectrum's entry is a
sum over all N places, and the inverse sums N products of two: they may overflow where y does not.

On a CPU, the spectra of a large layer are made for some examples at a time.

XLA does not partition its Fourier transform: on several devices each would get all examples. There
a transform is two matrix products per axis, which it does partition: of N = p q numbers at places
``q j + i``, transforms of length p over j, a turn of each by ``exp(-2 pi i k/N)``, and transforms
of length q over i.

Source: M. Mathieu, M. Henaff, Y. LeCun, Fast training of convolutional networks through FFTs
(2014); the two products: W. M. Gentleman, G. Sande, Fast Fourier transforms for fun and profit
(1966).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import through_output
from fnn.kernels.conv.examples import Examples, in_cache
from fnn.kernels.conv.form import WINDOW, Form, Kernel, by_device, devices, divisor
from fnn.kernels.conv.loops import beside, summed

WHOLE = 16 << 20  # bytes of spectra; more are made for some examples at a time
# For products of complex numbers: with an algorithm for real ones, such as the "F32_F32_F32" of
# jax_default_matmul_precision, XLA on a CPU computes them wrongly.
HIGHEST = lax.Precision.HIGHEST


def _smooth(n: int) -> int:
    """The least product of 2, 3 and 5 that is at least n."""
    while True:
        rest = n
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return n
        n += 1


def _lengths(form: Form) -> tuple[int, ...]:
    return tuple(_smooth(a.lo + a.i + a.hi) for a in form.axes)


def _spectrum(x: jax.Array, lengths: tuple[int, ...], products: bool) -> jax.Array:
    """Transform the last axes, zero-filled to these lengths."""
    x = x.astype(accumulator(x.dtype))
    axes = tuple(range(x.ndim - len(lengths), x.ndim))
    if not products:
        return jnp.fft.rfftn(x, lengths, axes)
    ends = [(0, long - x.shape[axis]) for axis, long in zip(axes, lengths, strict=True)]
    return _by_products(jnp.pad(x, ((0, 0),) * axes[0] + tuple(ends)), axes)


def _inverse(x: jax.Array, lengths: tuple[int, ...], products: bool) -> jax.Array:
    axes = tuple(range(x.ndim - len(lengths), x.ndim))
    if not products:
        return jnp.fft.irfftn(x, lengths, axes)
    return _by_products(jnp.conj(x), axes).real / math.prod(lengths)  # of a real result


def _by_products(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Transform these axes by matrix products, to whole spectra."""
    x = x.astype(np.result_type(x.dtype, np.complex64))
    for axis in axes:
        n = x.shape[axis]
        p = divisor(n, math.isqrt(n))
        first, turn, last = (jnp.asarray(m, x.dtype) for m in _factors(p, n // p))
        parts = jnp.moveaxis(x, axis, -1).reshape(*x.shape[:axis], *x.shape[axis + 1 :], p, -1)
        rows = jnp.einsum("...jq,jk->...kq", parts, first, precision=HIGHEST)
        turned = rows * turn.reshape((1,) * (rows.ndim - 2) + turn.shape)
        y = jnp.einsum("...kq,ql->...lk", turned, last, precision=HIGHEST)
        x = jnp.moveaxis(y.reshape(*y.shape[:-2], n), -1, axis)
    return x


def _factors(p: int, q: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The transforms of length p and q, and the turn ``(p, q)`` between them."""

    def roots(rows: int, columns: int, n: int) -> np.ndarray:
        turns = np.outer(np.arange(rows), np.arange(columns)) % n / n
        return np.asarray(np.exp(-2j * np.pi * turns))

    return roots(p, p, p), roots(p, q, p * q), roots(q, q, q)


def _by_group(x: jax.Array, groups: int) -> jax.Array:
    """``(n, *spatial, g c)`` to ``(n, g, c, *spatial)``."""
    x = jnp.moveaxis(x, -1, 1)
    return x.reshape(x.shape[0], groups, -1, *x.shape[2:])


def _padded(x: jax.Array, form: Form) -> jax.Array:
    return _by_group(jnp.pad(x, ((0, 0), *form.windows.padding, (0, 0))), form.groups)


def _spread(x: jax.Array, steps: tuple[int, ...]) -> jax.Array:
    """Put ``step - 1`` zeros between the elements of the last axes."""
    outer = [(0, 0, 0)] * (x.ndim - len(steps))
    return lax.pad(x, jnp.zeros((), x.dtype), [*outer, *((0, 0, step - 1) for step in steps)])


def _every(x: jax.Array, steps: tuple[int, ...], counts: tuple[int, ...]) -> jax.Array:
    """Take elements 0, step, 2 step, .. of the last axes."""
    for axis, (step, count) in enumerate(zip(steps, counts, strict=True), x.ndim - len(steps)):
        x = lax.slice_in_dim(x, 0, (count - 1) * step + 1, step, axis)
    return x


def _examples(x: jax.Array, c_out: int, form: Form) -> Examples:
    one = math.prod(_lengths(form)) * (x.shape[-1] + c_out) * accumulator(x.dtype).itemsize
    return in_cache(x, form, one, WHOLE)


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    lengths, win, products = _lengths(form), form.windows, devices(x) > 1
    examples = _examples(x, w.shape[-1], form)
    w = w.reshape(*w.shape[:-1], form.groups, -1)  # (*window, c, g, o)
    w = jnp.moveaxis(w, (-2, -3, -1), (0, 1, 2))  # (g, c, o, *window)
    ws = jnp.conj(_spectrum(_spread(w, win.dilation), lengths, products))

    def block(step: jax.Array) -> jax.Array:
        xs = _spectrum(_padded(examples.of(x, step), form), lengths, products)
        if w.shape[1] == 1:  # depthwise
            ys = xs[:, :, 0, None] * ws[None, :, 0]
        else:
            ys = jnp.einsum("ngc...,gco...->ngo...", xs, ws, precision=HIGHEST)
        y = _every(_inverse(ys, lengths, products), win.stride, form.out)
        return jnp.moveaxis(y.reshape(y.shape[0], -1, *form.out), 1, -1)

    return beside(block, examples.blocks, 0, x, w, total=x.shape[0])


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    lengths, win, products = _lengths(form), form.windows, devices(x) > 1
    examples = _examples(x, y.shape[-1], form)

    def block(step: jax.Array) -> jax.Array:
        xs = _spectrum(_padded(examples.of(x, step), form), lengths, products)
        gaps = _spread(_by_group(examples.new(y, step), form.groups), win.stride)
        ys = jnp.conj(_spectrum(gaps, lengths, products))
        if xs.shape[2] == 1:  # depthwise
            return (xs * ys).sum(0)[:, None]
        return jnp.einsum("ngc...,ngo...->gco...", xs, ys, precision=HIGHEST)

    ws = summed(block, examples.blocks, y, x)
    w = _every(_inverse(ws, lengths, products), win.dilation, win.size)
    w = jnp.moveaxis(w, (0, 1, 2), (-2, -3, -1))
    return w.reshape(*win.size, w.shape[-3], -1)


def _refuses(form: Form, dtype: Any) -> str | None:
    return None if jnp.issubdtype(dtype, jnp.floating) else "a floating dtype"


_windows = by_device(_window, WINDOW)  # so that windows are summed, not spectra
FFT = Kernel("fft", _output, through_output(_output), _windows, _refuses, symbols="examples")
