"""Arrays on a mesh; `copied`, `beside` and `are_together` are for outside a program.

Where axes are explicit or, inside `jax.shard_map`, manual, the type of an array says how it is
sharded, or over which axes it varies. Axes that are sharded cannot be merged, nor arrays that are
sharded differently be joined, and a loop must begin with what varies as its result does.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree


def replicated(x: jax.Array) -> jax.Array:
    """Return x whole on every device of a mesh with explicit axes; elsewhere as it is."""
    where = jax.typeof(x).sharding
    if not where.mesh.explicit_axes:
        return x
    whole: jax.Array = jax.sharding.reshard(x, where.update(spec=PartitionSpec()))
    return whole


def along(parameter: jax.Array, x: jax.Array) -> jax.Array:
    """Return a parameter that spans x's last axes, sharded as those axes of x are.

    It stays as it is where no explicit axis shards it. What the two are broadcast to is then
    sharded as x is.
    """
    own, like = jax.typeof(parameter).sharding, jax.typeof(x).sharding
    if not any(own.spec):
        return parameter
    spec = PartitionSpec(*like.spec[x.ndim - parameter.ndim :])
    placed: jax.Array = jax.sharding.reshard(parameter, own.update(spec=spec))
    return placed


def factor(w: jax.Array, x: jax.Array) -> jax.Array:
    """Return a matrix sharded as JAX takes it in ``x @ w`` on explicit axes.

    Its rows are whole where the last axis of x is sharded, and its columns where another axis of x
    is on their mesh axis: the result cannot have it twice.
    """
    own = jax.typeof(w).sharding
    if not any(own.spec):
        return w
    *lead, last = jax.typeof(x).sharding.spec
    rows = own.spec[0] if last is None else None
    columns = None if _names(own.spec[1]) & _names(*lead) else own.spec[1]
    placed: jax.Array = jax.sharding.reshard(w, own.update(spec=PartitionSpec(rows, columns)))
    return placed


def _names(*axes: Any) -> set[str]:
    """The mesh axes that axes of an array are on, each None, one of them or a tuple."""
    several = [axis if isinstance(axis, tuple) else (axis,) for axis in axes if axis]
    return {name for names in several for name in names}


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


def by_examples(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Return arrays sharded alike over their first axis alone, where one is on explicit axes.

    The mesh axis is that of the first array whose examples are sharded.
    """
    specs = [jax.typeof(x).sharding.spec for x in arrays]
    sharded = [axes[0] for axes in specs if axes and axes[0] is not None]
    return _resharded(arrays, PartitionSpec(*sharded[:1]))


def alike(*arrays: jax.Array, whole: int) -> tuple[jax.Array, ...]:
    """Return arrays of one rank sharded alike, where one is on explicit axes.

    All are sharded as the one that is sharded most, one that is sharded over its examples first,
    and never along axis ``whole``.
    """
    specs = [list(jax.typeof(x).sharding.spec) for x in arrays]
    for axes in specs:
        axes[whole] = None
    most = max(specs, key=lambda axes: (axes[0] is not None, len(axes) - axes.count(None)))
    return _resharded(arrays, PartitionSpec(*most))


def _resharded(arrays: tuple[jax.Array, ...], spec: PartitionSpec) -> tuple[jax.Array, ...]:
    """Return arrays sharded so, those on no mesh too, where one is on explicit axes."""
    kinds = [jax.typeof(x).sharding for x in arrays]
    meshes = [where for where in kinds if where.mesh.explicit_axes]
    return tuple(
        jax.sharding.reshard(x, meshes[0].update(spec=spec)) if meshes else x for x in arrays
    )


def placed_as(x: jax.Array, like: jax.Array) -> jax.Array:
    """Return x sharded as another array of its shape and, on manual axes, varying as that does."""
    where = jax.typeof(like).sharding
    if where.mesh.explicit_axes:
        x = jax.sharding.reshard(x, where)
    return varying(x, like)[0]


def on_device(tree: PyTree[Any]) -> PyTree[jax.Array]:
    """Return arrays of NumPy as JAX's, whole on the mesh that is set, if one is.

    `jnp.asarray` runs a program, which copies each once more. On a CPU this may copy none.
    """
    where = None if jax.sharding.get_abstract_mesh().empty else PartitionSpec()

    def put(x: Any) -> jax.Array:
        return x if isinstance(x, jax.Array) else jax.device_put(x, where)

    return jax.tree.map(put, tree)


def copied(x: jax.Array | np.ndarray, where: NamedSharding) -> jax.Array | np.ndarray:
    """Return x on other devices, in memory of its own; random keys stay where they are."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    if getattr(x, "is_fully_addressable", True) and not where.is_fully_addressable:
        x = np.asarray(x)  # each process has it whole, and puts its own parts
    own: jax.Array = jax.device_put(x, where, may_alias=False)  # a step may use up what it is given
    return own


def beside(tree: PyTree[jax.Array], others: PyTree[Any]) -> PyTree[jax.Array]:
    """Return the tree on the mesh, if there is one, that arrays of it or of others are on: copied.

    A program that takes arrays of one mesh and arrays of none returns all on the mesh, and would be
    compiled again to go on from there.
    """
    meshes = _meshes((tree, others))
    if len(meshes) != 1:
        return tree
    everywhere = NamedSharding(meshes.pop(), PartitionSpec())

    def put(x: jax.Array) -> jax.Array | np.ndarray:
        return x if isinstance(x.sharding, NamedSharding) else copied(x, everywhere)

    return jax.tree.map(put, tree)


def are_together(*trees: PyTree[Any]) -> bool:
    """Whether one program takes all arrays of these trees that are on a mesh.

    It takes the arrays of one mesh or, where all axes are automatic, of one order of devices.
    """
    return len({m if m.explicit_axes else tuple(m.devices.flat) for m in _meshes(trees)}) < 2


def _meshes(tree: PyTree[Any]) -> set[Any]:
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    return {x.sharding.mesh for x in arrays if isinstance(x.sharding, NamedSharding)}
