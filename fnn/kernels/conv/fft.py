"""Convolution as a product of spectra, for large windows.

A cyclic correlation is ``y = F^-1[F(x) conj(F(w))]``. It equals the linear one where the transform
is as long as the padded input or longer; here it is the next product of 2, 3 and 5. The gradient to
the window is the correlation of x with y at the taps. With a stride, the dense result is computed
and most of it left out. Work per channel is ``N log N``, whatever the window, and the error
``eps log N`` of the largest output: one NaN or infinity fills the channel.

Source: M. Mathieu, M. Henaff, Y. LeCun, Fast training of convolutional networks through FFTs
(2014).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import through_output
from fnn.kernels.conv.form import Form, Kernel


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
    return tuple(
        _smooth(lo + i + hi) for i, (lo, hi) in zip(form.spatial, form.windows.padding, strict=True)
    )


def _spectrum(x: jax.Array, lengths: tuple[int, ...]) -> jax.Array:
    """Transform the last axes, zero-filled to these lengths."""
    x = x.astype(accumulator(x.dtype))
    axes = tuple(range(x.ndim - len(lengths), x.ndim))
    return jnp.fft.rfftn(x, lengths, axes)


def _inverse(x: jax.Array, lengths: tuple[int, ...]) -> jax.Array:
    return jnp.fft.irfftn(x, lengths, tuple(range(x.ndim - len(lengths), x.ndim)))


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


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    lengths, win = _lengths(form), form.windows
    w = w.reshape(*w.shape[:-1], form.groups, -1)  # (*window, c, g, o)
    w = jnp.moveaxis(w, (-2, -3, -1), (0, 1, 2))  # (g, c, o, *window)
    xs = _spectrum(_padded(x, form), lengths)
    ws = jnp.conj(_spectrum(_spread(w, win.dilation), lengths))
    if w.shape[1] == 1:  # depthwise
        ys = xs[:, :, 0, None] * ws[None, :, 0]
    else:
        ys = jnp.einsum("ngc...,gco...->ngo...", xs, ws)
    y = _every(_inverse(ys, lengths), win.stride, form.out)
    return jnp.moveaxis(y.reshape(y.shape[0], -1, *form.out), 1, -1)


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    lengths, win = _lengths(form), form.windows
    xs = _spectrum(_padded(x, form), lengths)
    ys = jnp.conj(_spectrum(_spread(_by_group(y, form.groups), win.stride), lengths))
    if xs.shape[2] == 1:  # depthwise
        ws = (xs * ys).sum(0)[:, None]
    else:
        ws = jnp.einsum("ngc...,ngo...->gco...", xs, ys)
    w = _every(_inverse(ws, lengths), win.dilation, win.size)
    w = jnp.moveaxis(w, (0, 1, 2), (-2, -3, -1))
    return w.reshape(*win.size, w.shape[-3], -1)


def _refuses(form: Form, dtype: Any) -> str | None:
    return None if jnp.issubdtype(dtype, jnp.floating) else "a floating dtype"


FFT = Kernel("fft", _output, through_output(_output), _window, _refuses, symbolic=True)
