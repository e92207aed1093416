"""The poolings of `fnn.pooling` by one fixed algorithm each.

``<name>_slices`` shifts and reduces (`fnn.kernels.pool_slices`), ``<name>_lax`` calls the library's
`lax.reduce_window` (`fnn.kernels.pool_library`). Arguments, results, derivatives and errors are
those of ``<name>``; only speed and rounding differ.
"""

import functools

import jax
from jaxtyping import Array, Float, Num

from fnn.kernels.pool.form import Call, maximum, mean, minimum, norm, total
from fnn.kernels.pool.library import LIBRARY
from fnn.kernels.pool.rule import SLICES
from fnn.layers.pooling import WINDOW
from fnn.windows import Ints, Padding


@functools.partial(jax.jit, static_argnames=WINDOW, inline=True)
def max_pool_slices(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """Return the maximum of every window by shifted slices.

    Args, Returns, Raises, Source: as `max_pool`.

    >>> import jax.numpy as jnp
    >>> max_pool_slices(jnp.array([[[0.0], [2.0], [5.0], [3.0]]]), 4).ravel().tolist()
    [5.0]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return maximum("max_pool_slices", SLICES, x, call)


@functools.partial(jax.jit, static_argnames=WINDOW, inline=True)
def max_pool_lax(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """Return the maximum of every window by `lax.reduce_window`.

    Args, Returns, Raises, Source: as `max_pool`.

    >>> import jax.numpy as jnp
    >>> max_pool_lax(jnp.array([[[0.0], [2.0], [5.0], [3.0]]]), 4).ravel().tolist()
    [5.0]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return maximum("max_pool_lax", LIBRARY, x, call)


@functools.partial(jax.jit, static_argnames=WINDOW, inline=True)
def min_pool_slices(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """Return the minimum of every window by shifted slices.

    Args, Returns, Raises, Source: as `min_pool`.

    >>> import jax.numpy as jnp
    >>> min_pool_slices(jnp.array([[[0.0], [2.0], [5.0], [3.0]]]), 4).ravel().tolist()
    [0.0]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return minimum("min_pool_slices", SLICES, x, call)


@functools.partial(jax.jit, static_argnames=WINDOW, inline=True)
def min_pool_lax(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """Return the minimum of every window by `lax.reduce_window`.

    Args, Returns, Raises, Source: as `min_pool`.

    >>> import jax.numpy as jnp
    >>> min_pool_lax(jnp.array([[[0.0], [2.0], [5.0], [3.0]]]), 4).ravel().tolist()
    [0.0]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return minimum("min_pool_lax", LIBRARY, x, call)


@functools.partial(jax.jit, static_argnames=WINDOW, inline=True)
def sum_pool_slices(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """Return the sum of every window by shifted slices.

    Args, Returns, Raises, Source: as `sum_pool`.

    >>> import jax.numpy as jnp
    >>> sum_pool_slices(jnp.array([[[0.0], [2.0], [5.0], [3.0]]]), 4).ravel().tolist()
    [10.0]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return total("sum_pool_slices", SLICES, x, call)


@functools.partial(jax.jit, static_argnames=WINDOW, inline=True)
def sum_pool_lax(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """Return the sum of every window by `lax.reduce_window`.

    Args, Returns, Raises, Source: as `sum_pool`.

    >>> import jax.numpy as jnp
    >>> sum_pool_lax(jnp.array([[[0.0], [2.0], [5.0], [3.0]]]), 4).ravel().tolist()
    [10.0]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return total("sum_pool_lax", LIBRARY, x, call)


@functools.partial(jax.jit, static_argnames=(*WINDOW, "count_include_pad"), inline=True)
def avg_pool_slices(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "n *out c"]:
    """Return the mean of every window by shifted slices.

    Args, Returns, Raises, Source: as `avg_pool`.

    >>> import jax.numpy as jnp
    >>> avg_pool_slices(jnp.array([[[0.0], [2.0], [5.0], [3.0]]]), 4).ravel().tolist()
    [2.5]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return mean("avg_pool_slices", SLICES, x, call, count_include_pad)


@functools.partial(jax.jit, static_argnames=(*WINDOW, "count_include_pad"), inline=True)
def avg_pool_lax(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "n *out c"]:
    """Return the mean of every window by `lax.reduce_window`.

    Args, Returns, Raises, Source: as `avg_pool`.

    >>> import jax.numpy as jnp
    >>> avg_pool_lax(jnp.array([[[0.0], [2.0], [5.0], [3.0]]]), 4).ravel().tolist()
    [2.5]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return mean("avg_pool_lax", LIBRARY, x, call, count_include_pad)


@functools.partial(jax.jit, static_argnames=(*WINDOW, "p"), inline=True)
def lp_pool_slices(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    p: int | float,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Float[Array, "n *out c"]:
    """Return the p-norm of every window by shifted slices.

    Args, Returns, Raises, Source: as `lp_pool`.

    >>> import jax.numpy as jnp
    >>> lp_pool_slices(jnp.array([[[3.0], [4.0]]]), 2, 2).ravel().tolist()
    [5.0]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return norm("lp_pool_slices", SLICES, x, p, call)


@functools.partial(jax.jit, static_argnames=(*WINDOW, "p"), inline=True)
def lp_pool_lax(
    x: Num[Array, "n *spatial c"],
    window: Ints,
    p: int | float,
    *,
    stride: Ints | None = None,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Float[Array, "n *out c"]:
    """Return the p-norm of every window by `lax.reduce_window`.

    Args, Returns, Raises, Source: as `lp_pool`.

    >>> import jax.numpy as jnp
    >>> lp_pool_lax(jnp.array([[[3.0], [4.0]]]), 2, 2).ravel().tolist()
    [5.0]
    """
    call = Call(window, stride, padding, dilation, ceil_mode)
    return norm("lp_pool_lax", LIBRARY, x, p, call)
