"""Arrays on a mesh whose axes are explicit or, inside `jax.shard_map`, manual.

There the type of an array says how it is sharded, or over which axes it varies. Axes that are
sharded cannot be merged, nor arrays that are sharded differently be joined, and a loop must begin
with what varies as its result does. Anywhere else these functions change nothing.
"""

import jax
from jax import lax
from jax.sharding import PartitionSpec


def replicated(x: jax.Array) -> jax.Array:
    """Return x whole on every device."""
    where = jax.typeof(x).sharding
    if not where.mesh.explicit_axes:
        return x
    whole: jax.Array = jax.sharding.reshard(x, where.update(spec=PartitionSpec()))
    return whole


def varying(*arrays: jax.Array) -> list[jax.Array]:
    """Inside `jax.shard_map`, let all vary over every mesh axis that one of them varies over.

    What a loop carries must vary as what it adds does:
    ``total, *_ = varying(jnp.zeros(shape, dtype), x)``.
    """
    own = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    union = frozenset().union(*own)
    return [
        lax.pcast(a, tuple(sorted(union - axes)), to="varying")
        for a, axes in zip(arrays, own, strict=True)
    ]


def placed_as(x: jax.Array, like: jax.Array) -> jax.Array:
    """Return x sharded as another array of its shape and, on manual axes, varying as that does."""
    where = jax.typeof(like).sharding
    if where.mesh.explicit_axes:
        x = jax.sharding.reshard(x, where)
    return varying(x, like)[0]
