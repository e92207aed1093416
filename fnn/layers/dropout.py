"""Dropout: noise that switches units off, with an explicit key and no train flag."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from fnn.checks import BELOW_ONE
from fnn.dtypes import Number, computed_wide, number_like, widen
from fnn.functions import jitted


@jitted(ranges={"rate": BELOW_ONE})
def dropout(x: Float[Array, "*n"], rate: Number, key: PRNGKeyArray | None) -> Float[Array, "*n"]:
    """Set a random fraction of the entries to zero and scale up the others.

    ``y = x m / (1 - rate)``, each m independently 1 with probability 1 - rate, else 0: the
    expectation of y is x.

    Args:
        x: any shape.
        rate: fraction dropped, in [0, 1).
        key: random key; None outside training, for y = x.

    Returns:
        x's shape and dtype.

    Raises:
        ValueError: rate outside [0, 1).
        TypeError: key is not a random key; a seed is not one.

    Source: N. Srivastava et al., Dropout (JMLR 2014); scaled in training instead of afterwards.

    >>> y = dropout(jnp.ones(1000), 0.25, jax.random.key(0))
    >>> sorted({round(float(v), 4) for v in y}), bool(0.2 < (y == 0).mean() < 0.3)
    ([0.0, 1.3333], True)
    >>> dropout(jnp.ones(2), 0.25, None).tolist()
    [1.0, 1.0]
    """
    if key is None:
        return x
    left = 1 - (widen(rate) if isinstance(rate, jax.Array) else rate)
    share = jnp.asarray(left, jnp.float32)  # the same draws, whatever the dtypes are
    where = jax.typeof(x).sharding  # each device draws its part, of the same mask
    placed = where if where.mesh.explicit_axes else None
    kept = jax.random.bernoulli(key, share, x.shape, out_sharding=placed)
    scale = 1 / jnp.where(left > 0, left, 1)  # a rate below 1 may round to 1, where nothing is kept

    def wide(x: jax.Array) -> jax.Array:
        x = jnp.where(kept, x, 0)  # the derivative by rate: an infinity that is dropped times 0
        return jnp.where(kept, x * number_like(scale, x), 0)

    return computed_wide(wide, x)
