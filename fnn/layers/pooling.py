"""Pooling: one number for every window of every channel.

``y[n, o, c] = reduce over k of x[n, o s + k d - lo, c]`` with stride s, dilation d and padding lo:
the window arithmetic of convolution. Padding never wins a maximum or minimum and adds nothing to a
sum. A NaN in a window is its result. Every function here is differentiable any number of times, in
both modes. The forms ``<name>_slices`` and ``<name>_lax`` of `fnn.pooling_forms` are the same
functions by one fixed algorithm; the functions here pick one by the shape of the window.
"""

import functools

import jax
from jaxtyping import Array, Float, Num

from fnn.kernels.pool.form import Call, maximum, mean, minimum, norm, total
from fnn.kernels.pool.rule import CHOSEN
from fnn.windows import Ints, Padding

WINDOW = ("window", "stride", "padding", "dilation", "ceil_mode")


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

    ``y[n, o, c] = max_k x[n, o s + k d - lo, c]``; of tied maxima the first in window order (row by
    row) gets the whole gradient; a NaN counts as the maximum.

    Args:
        x: (n, *spatial, c), floats or integers.
        window: taps, an int for all axes or one per axis.
        stride: steps between windows; None means the window.
        padding: "VALID", "SAME", an int, one int per axis, or one pair (lo, hi) per axis.
        dilation: elements from one tap to the next.
        ceil_mode: whether a last window that starts inside the input or its low padding counts
            though it does not fit.

    Returns:
        (n, *out, c) in the dtype of x.

    Raises:
        ValueError: a malformed argument, a window larger than the padded input, or padding that
            holds a whole window.
        TypeError: x is neither floating nor integer.

    Source: Y. LeCun et al., Gradient-based learning applied to document recognition (1998), for
    pooling; M. Ranzato et al., Unsupervised learning of invariant feature hierarchies (2007).

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return maximum("max_pool", CHOSEN, x, call)


@functools.partial(jax.jit, static_argnames=WINDOW, inline=True)
def min_pool(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """Return the minimum of every window.

    ``y[n, o, c] = min_k x[n, o s + k d - lo, c]``; of tied minima the first in window order gets
    the whole gradient; a NaN counts as the minimum.

    Args:
        x: (n, *spatial, c), floats or integers.
        window, stride, padding, dilation, ceil_mode: as in `max_pool`.

    Returns:
        (n, *out, c) in the dtype of x.

    Raises:
        ValueError, TypeError: as `max_pool`.

    Source: ``min x = -max(-x)``, applied to `max_pool`.

    >>> import jax.numpy as jnp
    >>> min_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[0.0, 2.0], [8.0, 10.0]]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return minimum("min_pool", CHOSEN, x, call)


@functools.partial(jax.jit, static_argnames=WINDOW, inline=True)
def sum_pool(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """Return the sum of every window.

    ``y[n, o, c] = sum_k x[n, o s + k d - lo, c]``; half precision is summed in float32.

    Args:
        x: (n, *spatial, c), floats or integers; integers wrap as their dtype does.
        window, stride, padding, dilation, ceil_mode: as in `max_pool`.

    Returns:
        (n, *out, c) in the dtype of x; 0 for a window in the padding.

    Raises:
        ValueError: a malformed argument, or a window larger than the padded input.
        TypeError: x is neither floating nor integer.

    Source: the convolution of every channel with a window of ones.

    >>> import jax.numpy as jnp
    >>> sum_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[10.0, 18.0], [42.0, 50.0]]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return total("sum_pool", CHOSEN, x, call)


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

    ``y[n, o, c] = sum_k x[n, o s + k d - lo, c] / count[o]``; half precision is summed in float32.

    Args:
        x: (n, *spatial, c), floats or integers.
        window, stride, padding, dilation, ceil_mode: as in `max_pool`.
        count_include_pad: whether ``count`` is that of the taps within input and ``padding``, as in
            PyTorch, or of those within the input alone. What `ceil_mode` adds never counts.

    Returns:
        (n, *out, c) in the dtype of x; for integers in the default float dtype, as `jnp.mean`.

    Raises:
        ValueError: a malformed argument, a window larger than the padded input, or, without
            ``count_include_pad``, padding that holds a whole window.
        TypeError: x is neither floating nor integer.

    Source: Y. LeCun et al., Gradient-based learning applied to document recognition (1998).

    >>> import jax.numpy as jnp
    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return mean("avg_pool", CHOSEN, x, call, count_include_pad)


@functools.partial(jax.jit, static_argnames=(*WINDOW, "p"), inline=True)
def lp_pool(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    p: int | float,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Float[Array, "n *out c"]:
    """Return the p-norm of every window.

    ``y[n, o, c] = (sum_k |x[n, o s + k d - lo, c]|^p)^(1 / p)``; its gradient at 0 is set to 0;
    half precision is summed in float32.

    Args:
        x: (n, *spatial, c), floats or integers.
        window: as in `max_pool`.
        p: a finite number >= 1.
        stride, padding, dilation, ceil_mode: as in `max_pool`.

    Returns:
        (n, *out, c) in the dtype of x; for integers in the default float dtype.

    Raises:
        ValueError: as `sum_pool`, or p is no finite number >= 1.
        TypeError: x is neither floating nor integer.

    Source: P. Sermanet, S. Chintala, Y. LeCun, Convolutional neural networks applied to house
    numbers digit classification (2012).

    >>> import jax.numpy as jnp
    >>> lp_pool(jnp.array([[[3.0], [4.0], [0.0], [-2.0]]]), 2, 2).ravel().tolist()
    [5.0, 2.0]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return norm("lp_pool", CHOSEN, x, p, call)
