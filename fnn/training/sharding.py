"""Where parameters are on a mesh of devices: `place`; and large ones in a loss: `gather`.

The rest is plain JAX. Examples are put on several devices by ``jax.device_put(data,
NamedSharding(mesh, PartitionSpec("data")))``, over several processes by
`jax.make_array_from_process_local_data`, and `fnn.train` and every layer keep them there: each
device computes its own examples, and the mean over a batch, its statistics and its dropout are
those of all. ``examples/distributed.py`` shows a whole run.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from fnn.checks import check_arrays, check_int, check_one_of, describe, wrong
from fnn.functions import jitted
from fnn.placement import copied, replicated


def place(
    tree: PyTree[Any], mesh: Mesh, axis: str | None = None, *, least: int = 2**16
) -> PyTree[Any]:
    """Return the arrays of a tree on all devices of a mesh: copied, or the large ones in parts.

    With an axis of the mesh, each array of ``least`` numbers or more is cut along the longest of
    its axes that the devices divide evenly, as in fully sharded data parallelism; an optimizer's
    state that is made of such parameters is cut as they are. The loss brings the parts together by
    `gather`. Everything else is copied to every device. Without an axis, what was cut is whole
    again, for `fnn.save` in one of several processes; all of them call this.

    Args:
        tree: parameters, or all that a run carries, ``report.run``. Random keys, and what is no
            array, stay.
        mesh: the devices, such as ``jax.make_mesh((8,), ("data",))``.
        axis: the mesh's axis to cut over, by custom that of the examples; None copies everything.
        least: numbers in an array from which on it is cut.

    Returns:
        The same tree.

    Raises:
        ValueError: the mesh has no such axis; least < 1; an array that was donated, or
            of integers of 64 bits that do not fit 32, without x64.
        TypeError: mesh is no `jax.sharding.Mesh`; an array of text or objects, or one with a mask.

    Source: S. Rajbhandari et al., ZeRO: memory optimizations toward training trillion parameter
    models (2020).

    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> params = {"w": jnp.ones((3, 512, 256)), "b": jnp.ones(256)}
    >>> placed = fnn.sharding.place(params, mesh, "data")
    >>> placed["w"].sharding.spec, placed["b"].sharding.spec
    (P(None, 'data'), P())
    """
    if not isinstance(mesh, Mesh):
        needed = 'a jax.sharding.Mesh, such as jax.make_mesh((8,), ("data",))'
        raise wrong("sharding.place", "mesh", describe(mesh), needed, TypeError)
    check_int("sharding.place", "least", least, 1)
    if axis is not None:
        check_one_of("sharding.place", "axis", axis, mesh.axis_names)

    def put(path: Any, x: Any) -> Any:
        if not isinstance(x, jax.Array | np.ndarray):
            return x
        check_arrays("sharding.place", "tree" + jax.tree_util.keystr(path), x)
        return copied(x, NamedSharding(mesh, _spec(x, mesh, axis, least)))

    return jax.tree.map_with_path(put, tree)


@jitted()
def gather(tree: PyTree[Array]) -> PyTree[Array]:
    """Return the arrays of a tree whole on every device of their mesh.

    For a loss whose parameters `place` has cut over the axis of the examples: each device needs
    them whole for its own examples. On explicit axes, JAX's default, their gradient is cut as they
    are. Inside `jax.checkpoint` they are brought together once more for the gradient, instead of
    kept whole until then.

    Optimizers need no whole arrays; `fnn.flat` alone takes none that are in parts.

    Args:
        tree: parameters, or some of them. Arrays that are on no mesh stay as they are.

    Returns:
        The same tree.

    Source: as `place`.

    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> w = fnn.sharding.place(jnp.ones((256, 256)), mesh, "data")
    >>> x = jax.device_put(jnp.ones((4, 256)), jax.NamedSharding(mesh, jax.P("data")))
    >>> def loss(w, x):
    ...     return fnn.dense(x, fnn.sharding.gather(w)).mean()
    >>> w.sharding.spec, jax.jit(jax.grad(loss))(w, x).sharding.spec
    (P(None, 'data'), P(None, 'data'))
    """

    def whole(x: Any) -> Any:
        where = jax.typeof(x).sharding
        if where.mesh.empty or where.mesh.are_all_axes_manual:
            return x
        x = replicated(x)  # over explicit axes; a constraint is for the others
        if not where.mesh.auto_axes:
            return x
        everywhere = jax.typeof(x).sharding.update(spec=PartitionSpec())
        return jax.lax.with_sharding_constraint(x, everywhere)

    return jax.tree.map(whole, tree)


def _spec(x: Any, mesh: Mesh, axis: str | None, least: int) -> PartitionSpec:
    """Return how an array is cut."""
    if axis is None or x.size < least:
        return PartitionSpec()
    even = [i for i, size in enumerate(x.shape) if size % mesh.shape[axis] == 0]
    if not even:
        return PartitionSpec()
    longest = max(even, key=lambda i: (x.shape[i], i))  # the later of equal ones
    return PartitionSpec(*(None,) * longest, axis)
