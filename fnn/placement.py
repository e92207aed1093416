"""Arrays on a mesh with explicit axes, where the type of an array says how it is sharded.

There, axes that are sharded cannot be merged, nor arrays that are sharded differently be joined.
Anywhere else these functions change nothing.
"""

import jax
from jax.sharding import PartitionSpec


def replicated(x: jax.Array) -> jax.Array:
    """Return x whole on every device."""
    where = jax.typeof(x).sharding
    if not where.mesh.explicit_axes:
        return x
    whole: jax.Array = jax.sharding.reshard(x, where.update(spec=PartitionSpec()))
    return whole


def placed_as(x: jax.Array, like: jax.Array) -> jax.Array:
    """Return x sharded as another array of its shape."""
    where = jax.typeof(like).sharding
    if not where.mesh.explicit_axes:
        return x
    placed: jax.Array = jax.sharding.reshard(x, where)
    return placed
