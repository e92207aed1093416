"""The rules of precision, each once.

- Half precision is stored and returned; sums and statistics are formed in float32, the gradients of
  parameters that are broadcast included.
- Integers and bools where real numbers are needed are read in the default float dtype: float32, or
  float64 with x64 on. Complex numbers are refused.
- A number that configures a function never changes a dtype.
- What a public array function returns is not weakly typed, whatever it was given: its dtype counts.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fnn.placement import along

Floats = Float[Array, "*shape"]  # of any shape, the same wherever it stands in one signature
Where = Bool[Array, "..."]  # which elements count
if TYPE_CHECKING:  # of a number that configures a function and may be traced
    Number = float | np.floating[Any] | np.integer[Any] | Float[Array, ""]
else:  # in `help`, where a signature of five such unions could not be read
    Number = float


def accumulator(dtype: Any) -> Any:
    """Return the dtype in which sums of this one are formed: float32 for floats that are narrower.

    Every other dtype is its own: integers are added as integers, float64 as float64.

    >>> accumulator(jnp.bfloat16), accumulator(jnp.float8_e4m3fn), accumulator(jnp.int8)
    (dtype('float32'), dtype('float32'), dtype('int8'))
    """
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.dtype(jnp.float32 if narrow else dtype)


@functools.cache
def is_whole(dtype: Any) -> bool:
    """Whether a dtype is one of integers or bools."""
    if jnp.issubdtype(dtype, np.timedelta64):  # lengths of time, integers to NumPy
        return False
    return bool(jnp.issubdtype(dtype, jnp.integer)) or dtype == jnp.bool_


@functools.cache
def is_floating(dtype: Any) -> bool:
    """Whether a dtype, or None for none, is one of floating-point numbers."""
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.floating))


def is_held(dtype: np.dtype[Any]) -> bool:
    """Whether JAX has numbers of this dtype of NumPy: none are big-endian, or long."""
    return dtype.isnative and dtype.itemsize <= (16 if dtype.kind == "c" else 8)


def names_floats(name: Any) -> bool:
    """Whether this is, or names, a dtype of floating-point numbers.

    None is none, though NumPy reads it as float64.

    >>> [names_floats(name) for name in (float, "bfloat16", int, "foo", None)]
    [True, True, False, False, False]
    """
    try:
        array = isinstance(name, jax.Array)  # which has a dtype, and is none
        return name is not None and not array and is_floating(jnp.dtype(name))
    except (TypeError, ValueError):  # the latter for a dict, which NumPy reads as fields
        return False


def is_real(dtype: Any) -> bool:
    """Whether a dtype is one of real numbers: floats, integers or bools."""
    return is_whole(dtype) or is_floating(dtype)


def real(x: Any) -> Any:
    """Return the array with integers and bools as floats of the default dtype.

    >>> real(jnp.array([1, 2])).dtype, real(jnp.ones(2, jnp.bfloat16)).dtype
    (dtype('float32'), dtype(bfloat16))
    """
    return jnp.asarray(x, jnp.result_type(float)) if is_whole(jnp.result_type(x)) else x


def widen(x: jax.Array) -> jax.Array:
    """Return the array in the dtype that its sums are formed in."""
    return x.astype(accumulator(x.dtype))


def narrowed(x: jax.Array, dtype: Any) -> jax.Array:
    """Return numbers in a narrower dtype, or their own; the finite ones stay within its range.

    >>> narrowed(jnp.array([1e6, jnp.inf]), jnp.float16).tolist()
    [65504.0, inf]
    """
    if dtype == x.dtype:
        return x
    most = float(jnp.finfo(dtype).max)
    return jnp.where(jnp.isinf(x), x, jnp.clip(x, -most, most)).astype(dtype)


def computed_wide(formula: Callable[..., jax.Array], x: jax.Array, *rest: jax.Array) -> jax.Array:
    """Widen the arrays to the widest of their accumulation dtypes, compute, and narrow the result.

    The result has the dtype of the first.

    >>> computed_wide(lambda x: x * 3 / 3, jnp.full(2, 60000, jnp.float16)).tolist()
    [60000.0, 60000.0]
    """
    arrays = (x, *rest)
    widest = max((accumulator(a.dtype) for a in arrays), key=lambda dtype: dtype.itemsize)
    return formula(*(a.astype(widest) for a in arrays)).astype(x.dtype)


def spread(parameter: jax.Array, x: jax.Array) -> jax.Array:
    """Widen a parameter that spans x's last axes, with axes of size 1 in front, sharded as x is.

    Broadcast in half precision, its gradient would be a sum in half precision.

    >>> spread(jnp.ones(3, jnp.bfloat16), jnp.ones((2, 2, 2, 3)))
    Array([[[[1., 1., 1.]]]], dtype=float32)
    """
    lead = (1,) * (x.ndim - parameter.ndim)
    return widen(along(parameter, x)).reshape(lead + parameter.shape)


def add_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Return ``y + bias``, the bias along the last axes, in the dtype of y; None adds nothing."""
    return y if bias is None else (widen(y) + spread(bias, y)).astype(y.dtype)


def magnitude(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Return a power of two, 6 to 12 times below the largest |x| over the axes, which are kept.

    Dividing by it rounds nothing, and squares of what results neither overflow nor vanish. It is a
    constant to the gradient.

    >>> magnitude(jnp.array([3e-30, 1e20])) == 2.0**63
    Array([ True], dtype=bool)
    """
    info = jnp.finfo(x.dtype)
    top = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)
    near = jax.lax.reduce_precision(top / 8, info.nexp, 0)  # its inverse is a normal number too
    return jax.lax.stop_gradient(jnp.maximum(near, info.tiny))


def number_like(value: Any, x: Any) -> jax.Array:
    """Return a number, traced or not, in the dtype of an array, which it then cannot change."""
    return jnp.asarray(value, x.dtype)


def nan_where(bad: jax.Array, x: jax.Array) -> jax.Array:
    """Return x, and NaN where it is ``bad``.

    No NaN exists but there, so that ``jax_debug_nans`` stops at a user's NaN and not at a constant.

    >>> nan_where(jnp.array([True, False]), jnp.ones(2)).tolist()
    [nan, 1.0]
    """
    return x - 0 / jnp.where(bad, 0, 1).astype(x.dtype)  # less 0, for -0.0 to stay
