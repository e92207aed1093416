"""Pooling: one number for every window of every channel.

``y[n, o, c] = reduce over k of x[n, o s + k d - lo, c]`` with stride s, dilation d and padding lo:
the window arithmetic of convolution. Padding never wins a maximum or minimum and adds nothing to a
sum. A NaN in a window is its result, and infinities count as numbers do. Every function here is
differentiable any number of times, in both modes. ``<name>_slices`` and ``<name>_lax`` are the same
functions by one fixed algorithm; ``<name>`` picks one by the shape of the window.
"""

from jaxtyping import Array, Float, Num

from fnn.functions import jitted, variant
from fnn.kernels.pool.form import maximum, mean, minimum, norm, total
from fnn.kernels.pool.library import LIBRARY
from fnn.kernels.pool.rule import AUTO, SLICES
from fnn.windows import Ints, Padding

WINDOW = ("window", "stride", "padding", "dilation", "ceil_mode")
BY_SLICES, BY_LIBRARY = "by shifted slices", "by `lax.reduce_window`"
EXAMPLE = "jnp.arange(4.0).reshape(1, 4, 1), 2"


@jitted(static=WINDOW)
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

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    return maximum("max_pool", AUTO, x, window, stride, padding, dilation, ceil_mode)


max_pool_slices = variant(max_pool, maximum, SLICES, BY_SLICES, example=EXAMPLE)
max_pool_lax = variant(max_pool, maximum, LIBRARY, BY_LIBRARY, example=EXAMPLE)


@jitted(static=WINDOW)
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

    >>> min_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[0.0, 2.0], [8.0, 10.0]]
    """
    return minimum("min_pool", AUTO, x, window, stride, padding, dilation, ceil_mode)


min_pool_slices = variant(min_pool, minimum, SLICES, BY_SLICES, example=EXAMPLE)
min_pool_lax = variant(min_pool, minimum, LIBRARY, BY_LIBRARY, example=EXAMPLE)


@jitted(static=WINDOW)
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

    >>> sum_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[10.0, 18.0], [42.0, 50.0]]
    """
    return total("sum_pool", AUTO, x, window, stride, padding, dilation, ceil_mode)


sum_pool_slices = variant(sum_pool, total, SLICES, BY_SLICES, example=EXAMPLE)
sum_pool_lax = variant(sum_pool, total, LIBRARY, BY_LIBRARY, example=EXAMPLE)


@jitted(static=(*WINDOW, "count_include_pad"))
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

    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), 2).squeeze().tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    return mean(
        "avg_pool", AUTO, x, window, stride, padding, dilation, ceil_mode, count_include_pad
    )


avg_pool_slices = variant(avg_pool, mean, SLICES, BY_SLICES, example=EXAMPLE)
avg_pool_lax = variant(avg_pool, mean, LIBRARY, BY_LIBRARY, example=EXAMPLE)


@jitted(static=(*WINDOW, "p"))
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

    >>> lp_pool(jnp.array([[[3.0], [4.0], [0.0], [-2.0]]]), 2, 2).ravel().tolist()
    [5.0, 2.0]
    """
    return norm("lp_pool", AUTO, x, window, p, stride, padding, dilation, ceil_mode)


lp_pool_slices = variant(lp_pool, norm, SLICES, BY_SLICES, example=EXAMPLE + ", 3")
lp_pool_lax = variant(lp_pool, norm, LIBRARY, BY_LIBRARY, example=EXAMPLE + ", 3")
