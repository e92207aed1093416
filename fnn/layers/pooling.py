"""Pooling: one number for every window of every channel.

``y[n, o, c] = reduce over k of x[n, o s + k d - lo, c]`` with stride s, dilation d and padding lo:
the window arithmetic of convolution. Padding never wins a maximum or minimum and adds nothing to a
sum. A NaN in a window is its result, and infinities count as numbers do. Every pool here is
differentiable any number of times, in both modes. In an exported program the sizes of pooled axes
are numbers, that of the examples may be a symbol. ``<name>_slices`` and ``<name>_lax`` are the same
functions by one fixed algorithm; ``<name>`` picks one by the shape of the window.

In a second derivative through `lax.scan`, JAX before 0.12 forgets `jax.custom_jvp`: there maxima
and minima by ``_lax`` with a dilation raise an error, reverse over reverse, and `lp_pool` with
p = 1 takes another slope at 0.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from fnn.checks import describe, wrong
from fnn.functions import jitted, variant
from fnn.kernels.pool.form import (
    check_input,
    maximum,
    mean,
    minimum,
    norm,
    read,
    total,
    with_infinity,
)
from fnn.kernels.pool.library import LIBRARY, winner
from fnn.kernels.pool.rule import AUTO, SLICES
from fnn.placement import by_examples
from fnn.windows import Ints, Padding, per_axis

Images = Num[Array, "n *spatial c"]
Pooled = Num[Array, "n *out c"]
WINDOW = ("window", "stride", "padding", "dilation", "ceil_mode")
BY_SLICES, BY_LIBRARY = "by shifted slices", "by `lax.reduce_window`"
BY_HALVES = "by the norms of half windows"  # the library has no norm of a window
EXAMPLE = "jnp.arange(4.0).reshape(1, 4, 1), 2"


@jitted(static=WINDOW)
def max_pool(
    x: Images,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Pooled:
    """Return the maximum of every window.

    ``y[n, o, c] = max_k x[n, o s + k d - lo, c]``; of tied maxima the first in window order (row by
    row) gets the whole gradient. A NaN is the maximum, and for the gradient counts as infinity.

    Args:
        x: (n, *spatial, c), floats or integers.
        window: taps, an int for all axes or one per axis.
        stride: steps between windows; None means the window.
        padding: "VALID", "SAME", an int, one int per axis, or one pair (lo, hi) per axis.
        dilation: elements from one tap to the next.
        ceil_mode: whether a last window that starts inside the input or its low padding counts
            though it does not fit. So a window that is larger than the padded input, by less than a
            stride, has one stop and is not refused.

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
def max_pool_indices(
    x: Images,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Int[Array, "n *out c"]:
    """Return where in its plane the maximum of every window lies.

    With ``i = max_pool_indices(x, ...)``, ``max_pool(x, ...)[n, o, c]`` is entry ``i[n, o, c]`` of
    the flattened ``x[n, ..., c]``: the first of tied maxima, a NaN counting as infinity. Where an
    infinity comes before a NaN, `max_pool` gives NaN, but the index is the infinity's. A function
    of its own, so that the result of `max_pool` is one array whatever its arguments.

    Args:
        x: (n, *spatial, c), floats or integers.
        window, stride, padding, dilation, ceil_mode: as in `max_pool`.

    Returns:
        (n, *out, c), int32: indices into the flattened spatial axes, as `max_unpool` takes them.

    Raises:
        ValueError, TypeError: as `max_pool`.

    Source: PyTorch, `MaxPool2d` with ``return_indices``.

    >>> max_pool_indices(jnp.array([3.0, 1.0, 2.0, 5.0]).reshape(1, 2, 2, 1), (1, 2)).ravel()
    Array([0, 3], dtype=int32)
    """
    name = "max_pool_indices"
    windows, _ = read(name, x, False, window, stride, padding, dilation, ceil_mode)
    return winner(jax.lax.stop_gradient(with_infinity(x)), windows)


@jitted(static=("spatial",))
def max_unpool(y: Pooled, indices: Int[Array, "n *out c"], spatial: Ints) -> Images:
    """Put every maximum back where it was, and 0 everywhere else.

    ``x[n, indices[n, o, c], c] = y[n, o, c]``, x with its spatial axes flattened. Where windows
    overlap and share a maximum, the last of them in order writes it and gets the gradient.

    Args:
        y: (n, *out, c), floats or integers, such as `max_pool` returns.
        indices: (n, *out, c), such as `max_pool_indices` returns; what lies outside is left out.
        spatial: sizes of the result, an int for all axes or one per axis.

    Returns:
        (n, *spatial, c) in the dtype of y.

    Raises:
        ValueError: ``spatial`` is malformed, or the shapes of y and ``indices`` differ.
        TypeError: ``indices`` are no integers, or y is neither floating nor integer.

    Source: M. Zeiler, R. Fergus, Visualizing and understanding convolutional networks (2014).

    >>> y, i = jnp.array([3.0, 5.0]).reshape(1, 2, 1), jnp.array([0, 3]).reshape(1, 2, 1)
    >>> max_unpool(y, i, 4).ravel().tolist()
    [3.0, 0.0, 0.0, 5.0]
    """
    name = "max_unpool"
    check_input(name, y, "y")
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise wrong(name, "indices", describe(indices), "integers", TypeError)
    if indices.shape != y.shape:
        raise wrong(name, "indices", describe(indices), f"the shape of y {describe(y)}")
    sizes = per_axis(name, "spatial", spatial, y.ndim - 2, 0)
    n, size, c = y.shape[0], math.prod(sizes), y.shape[-1]
    # Narrower integers may not hold `size`, the place of what is left out.
    places = indices.astype(jnp.int64 if indices.dtype.itemsize > 4 else jnp.int32)

    def plane(y: jax.Array, place: jax.Array) -> jax.Array:
        place = jnp.where((place < 0) | (place > size), size, place)  # indexing is by int32
        number = jnp.arange(len(y))
        last = jnp.full(size, -1).at[place].max(number, mode="drop")
        wins = last.at[place].get(mode="fill", fill_value=-1) == number
        return jnp.zeros(size, y.dtype).at[jnp.where(wins, place, size)].add(y, mode="drop")

    y, places = by_examples(y, places)
    channels = jax.vmap(plane, in_axes=-1, out_axes=-1)
    flat = (n, math.prod(y.shape[1:-1]), c)
    return jax.vmap(channels)(y.reshape(flat), places.reshape(flat)).reshape(n, *sizes, c)


@jitted(static=WINDOW)
def min_pool(
    x: Images,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Pooled:
    """Return the minimum of every window.

    ``y[n, o, c] = min_k x[n, o s + k d - lo, c]``; of tied minima the first in window order gets
    the whole gradient. A NaN is the minimum, and for the gradient counts as -infinity.

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
    x: Images,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Pooled:
    """Return the sum of every window.

    ``y[n, o, c] = sum_k x[n, o s + k d - lo, c]``; half precision is summed in float32, in the
    gradient too.

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
    x: Images,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "n *out c"]:
    """Return the mean of every window.

    ``y[n, o, c] = sum_k x[n, o s + k d - lo, c] / count[o]``; half precision is summed in float32,
    in the gradient too. Where the sum overflows the mean is infinite.

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
    x: Images,
    window: Ints,
    p: int | float,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Float[Array, "n *out c"]:
    """Return the p-norm of every window.

    ``y[n, o, c] = (sum_k |x[n, o s + k d - lo, c]|^p)^(1 / p)``, summed relative to the largest, so
    that no power overflows or vanishes unless the norm does; half precision in float32. The
    gradient ``sign(x_k) |x_k / y|^(p - 1)`` is set to 0 where x_k is 0. An infinite entry makes the
    norm infinite and has its sign for gradient; finite ones beside it have 0, unless p is 1.

    Args:
        x: (n, *spatial, c), floats or integers.
        window: as in `max_pool`.
        p: a finite number >= 1, known before compilation, as whole powers are products; infinity is
            `max_pool` of ``abs(x)``.
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
lp_pool_lax = variant(lp_pool, norm, LIBRARY, BY_HALVES, example=EXAMPLE + ", 3")
