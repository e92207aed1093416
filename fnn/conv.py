"""Convolution: the public face of the kernels.

``y[n, o, j] = b[j] + sum_{k, i} x[n, o s + k d - lo, i] w[k, i, j]`` (cross-correlation), with
stride s, dilation d and padding lo; with groups, i runs over the channels of j's group only. Every
kernel has this one signature; `conv` picks one by a rule over static facts.
"""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.kernels.form import OUTPUT, Form, Kernel, apply
from fnn.kernels.library import LIBRARY
from fnn.messages import describe, wrong
from fnn.windows import Ints, Padding, resolve


def _conv(
    name: str,
    kernel: Kernel,
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None,
    stride: Ints,
    padding: Padding,
    padding_mode: str,
    dilation: Ints,
    groups: int,
) -> jax.Array:
    rank = w.ndim - 2
    windows = resolve(name, x.shape[1:-1], w.shape[:-2], stride, padding, dilation)
    form = Form(x.shape[1:-1], windows, groups)
    y = apply(x, w, slot=OUTPUT, form=form, kernel=kernel)
    if b is None:
        return y
    return y + b.reshape((1,) * (y.ndim - b.ndim) + b.shape)


@functools.partial(
    jax.jit,
    static_argnames=("stride", "padding", "padding_mode", "dilation", "groups"),
    inline=True,
)
def conv(
    x: Float[Array, "n *spatial c_in"],
    w: Float[Array, "*window c_in_per_group c_out"],
    b: Float[Array, "*untied c_out"] | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    dilation: Ints = 1,
    groups: int = 1,
) -> Float[Array, "n *out c_out"]:
    """Return the convolution of x with w."""
    return _conv("conv", LIBRARY, x, w, b, stride, padding, padding_mode, dilation, groups)
