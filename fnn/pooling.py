"""Pooling: one number for every window of every channel.

``y[n, o, c] = reduce_k x[n, o s + k d - lo, c]`` with stride s, dilation d and padding lo, by the
window arithmetic of convolution. Padding never wins a maximum and adds nothing to a sum.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from fnn.kernels.pool_slices import max_slices, sum_slices
from fnn.messages import describe, wrong
from fnn.windows import Ints, Padding, Windows, resolve

WINDOW = ("window", "stride", "padding", "dilation", "ceil_mode")


def _ceil(w: Windows, spatial: tuple[int, ...]) -> Windows:
    """Pad the end so that a last window that starts inside the input or its low padding stops."""
    pads = []
    for i, e, s, (lo, hi) in zip(spatial, w.span, w.stride, w.padding, strict=True):
        o = -(-(lo + i + hi - e) // s) + 1
        o -= (o - 1) * s >= lo + i
        pads.append((lo, max(hi, (o - 1) * s + e - lo - i)))
    return w._replace(padding=tuple(pads))


def _inside(w: Windows, spatial: tuple[int, ...], pads: Any) -> list[np.ndarray]:
    """Per axis and stop, how many taps fall into the input enlarged by ``pads``."""
    counts = []
    for i, o, k, s, d, (lo, _), (before, after) in zip(
        spatial, w.output(spatial), w.size, w.stride, w.dilation, w.padding, pads, strict=True
    ):
        place = np.arange(o)[:, None] * s + np.arange(k)[None, :] * d - lo
        counts.append(((place >= -before) & (place < i + after)).sum(1))
    return counts


def _windows(name, x, window, stride, padding, dilation, ceil_mode, empty):
    if x.ndim < 3:
        raise wrong(name, "x", describe(x), "(n, *spatial, c) with at least one spatial axis")
    spatial = x.shape[1:-1]
    w = resolve(name, spatial, window, window if stride is None else stride, padding, dilation)
    full = _ceil(w, spatial) if ceil_mode else w
    if not empty and any((c == 0).any() for c in _inside(full, spatial, ((0, 0),) * len(spatial))):
        raise wrong(
            name, "padding", repr(padding),
            f"at least one element of the input {spatial} in every window {w.size}",
        )
    return w, full


@functools.partial(jax.jit, static_argnames=WINDOW, inline=True)
def max_pool(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """Return the maximum of every window.

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    _, w = _windows("max_pool", x, window, stride, padding, dilation, ceil_mode, False)
    return max_slices(x, w)


@functools.partial(jax.jit, static_argnames=(*WINDOW, "count_include_pad"), inline=True)
def avg_pool(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "n *out c"]:
    """Return the mean of every window.

    >>> import jax.numpy as jnp
    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    counted, w = _windows(
        "avg_pool", x, window, stride, padding, dilation, ceil_mode, count_include_pad
    )
    spatial = x.shape[1:-1]
    pads = counted.padding if count_include_pad else ((0, 0),) * len(spatial)
    wide = jnp.float32 if x.dtype in (jnp.float16, jnp.bfloat16) else x.dtype
    count = np.ones((1,) * x.ndim)
    for axis, c in enumerate(_inside(w, spatial, pads), 1):
        count = count * c.reshape((1,) * axis + (-1,) + (1,) * (x.ndim - axis - 1))
    y = sum_slices(x.astype(wide), w) / jnp.asarray(count, wide)
    return y.astype(x.dtype)
