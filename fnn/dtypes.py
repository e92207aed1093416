"""The one rule of precision: half precision is stored and returned, sums are formed in float32."""

from typing import Any

import jax.numpy as jnp


def accumulator(dtype: Any) -> Any:
    """Return the dtype in which sums of this one are formed: float32 for floats that are narrower.

    Every other dtype is its own: integers are added as integers, float64 as float64.

    >>> import jax.numpy as jnp
    >>> accumulator(jnp.bfloat16), accumulator(jnp.float8_e4m3fn), accumulator(jnp.int8)
    (dtype('float32'), dtype('float32'), dtype('int8'))
    """
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.dtype(jnp.float32 if narrow else dtype)
