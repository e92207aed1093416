"""Many small leaves as few vectors: an element-wise optimizer over whole groups of leaves.

A program over 2,000 leaves holds thousands of kernels: compiling them, and starting them, costs
more than their work. `flat` concatenates the small leaves, so that the optimizer is a few kernels.
What is left is cutting the vectors into updates. The compiler builds equal kernels once, so leaves
of one shape go into vectors of one length, and the places of the slices are read at run time: a
fixed place would be written into the kernel, and make one for each leaf.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, UInt32

from fnn.checks import wrong
from fnn.compiler import place_read_at_run_time
from fnn.dtypes import accumulator
from fnn.optimizers.base import Optimizer, Transform, check_state, check_transform, run_update
from fnn.optimizers.last import Averaging, kind_around, refuse_last
from fnn.trees import check_like, check_params, exported

SMALL = 2**14  # numbers; larger leaves amortise their kernels, and copying them would cost more
TOGETHER = 64  # leaves of one shape in a vector; one of thousands is slow to compile


@exported
class Flat(NamedTuple):
    """State of `flat`.

    Attributes:
        inner: the state of the optimizer, over what `_pack` returns.
        zero: uint32[], always 0, which the compiler cannot know.
    """

    inner: Any
    zero: UInt32[Array, ""]


def _groups(leaves: list[Any]) -> list[list[int]]:
    """Decide which leaves share a vector: 64 of a shape, the rest of a dtype; a large one none.

    Nor does one of a single number: its kernel alone has no loop, and rounds otherwise.
    """

    def kind(i: int) -> tuple[Any, ...]:
        # As a compiled step reads it: without x64 NumPy's float64 is float32 there.
        return str(jnp.result_type(leaves[i])), leaves[i].shape

    groups = [[i] for i, x in enumerate(leaves) if not 1 < x.size <= SMALL]
    rest: dict[str, list[int]] = {}
    small = sorted((i for i, x in enumerate(leaves) if 1 < x.size <= SMALL), key=kind)
    for (dtype, _), found in itertools.groupby(small, kind):
        alike = list(found)
        whole = len(alike) // TOGETHER * TOGETHER
        groups += [alike[i : i + TOGETHER] for i in range(0, whole, TOGETHER)]
        rest.setdefault(dtype, []).extend(alike[whole:])
    return groups + [group for group in rest.values() if group]


def _pack(tree: Any, like: Any) -> list[Any]:
    """Gather each group of the leaves of ``like`` in a vector; a group of one stays as it is."""
    leaves = jax.tree.leaves(tree)
    return [_joined([leaves[i] for i in group]) for group in _groups(jax.tree.leaves(like))]


def _joined(group: list[Any]) -> Any:
    if len(group) == 1:
        return group[0]
    dtypes = {jnp.result_type(x) for x in group}
    if len(dtypes) > 1:  # gradients, which need not have the params' dtype
        wide = max(map(accumulator, dtypes), key=lambda dtype: dtype.itemsize)
        group = [x.astype(wide) for x in group]
    return lax.concatenate([lax.reshape(x, (x.size,)) for x in group], 0)


def _unpack(packs: list[Any], like: Any, zero: Any) -> Any:
    """Cut what `_pack` gathered into the leaves of a tree shaped as ``like``."""
    leaves, structure = jax.tree.flatten(like)
    places: dict[int, Any] = {}
    for group, pack in zip(_groups(leaves), packs, strict=True):
        start = 0
        for i in group:
            size, shape = leaves[i].size, leaves[i].shape
            if start not in places:
                places[start] = place_read_at_run_time(start, zero)
            piece = lax.dynamic_slice(pack, (places[start],), (size,)) if len(group) > 1 else pack
            leaves[i] = lax.reshape(piece, shape)
            start += size
    return jax.tree.unflatten(structure, leaves)


def _packed(extra: dict[str, Any], like: Any, zero: Any) -> dict[str, Any]:
    """Return the extra arguments of `fnn.make_step` for what `_pack` returns."""
    packed = dict(extra)
    if "grad" in extra:
        packed["grad"] = _pack(extra["grad"], like)
    if "value_fn" in extra:
        packed["value_fn"] = lambda packs: extra["value_fn"](_unpack(packs, like, zero))
    return packed


def _refuse_sharded(params: Any) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        traced = isinstance(x, jax.core.Tracer)  # whose type knows explicit axes alone
        sharding = jax.typeof(x).sharding if traced else getattr(x, "sharding", None)
        if sharding is not None and not sharding.is_fully_replicated:
            needed = "leaves on one device, or replicated: a concatenation would gather them"
            raise wrong("flat", "params" + jax.tree_util.keystr(path), sharding, needed)


def flat(optimizer: Transform) -> Optimizer:
    """Run an element-wise optimizer over a few vectors instead of many leaves, to the same result.

    64 leaves of one shape make a vector, and what is left over of each dtype makes one more. A
    step is the unflattened one to the bit, in half precision to one unit in the last place.

    Leaves of more than 16,384 numbers stay as they are: they gain nothing. So do leaves of one
    number, which would round otherwise. Masks by path, norms of leaves and `fnn.muon` need the
    leaves: put those around `flat`, not inside.

    Args:
        optimizer: one that treats every number alike, such as `fnn.adam`.

    Returns:
        An `Optimizer`; the moments in its state are those of the vectors. Its update needs params
        where the gradients have other dtypes.

    Raises:
        ValueError: an optimizer that ends with `average`, which would be of the vectors; params
            that are sharded over devices (inside jit this is seen only on explicit axes); gradients
            shaped otherwise than params.
        TypeError: no optimizer.

    >>> opt, params = fnn.flat(fnn.sgd(0.5)), {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
    >>> updates, state = opt.update(params, opt.init(params))
    >>> updates["w"].tolist(), updates["b"].tolist()
    ([[-0.5, -0.5], [-0.5, -0.5]], [-0.0, -0.0])
    """
    check_transform("flat", "optimizer", optimizer)
    refuse_last("flat", optimizer, Averaging)

    def init(params: Any) -> Flat:
        check_params("flat", params)
        _refuse_sharded(params)
        return Flat(optimizer.init(_pack(params, params)), jnp.zeros((), jnp.uint32))

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_state("flat", state, Flat)
        like = grads if params is None else params
        check_like("flat", "grads", grads, like)
        own = None if params is None else _pack(params, params)
        packed = _packed(extra, like, state.zero)
        updates, inner = run_update(optimizer, _pack(grads, like), state.inner, own, packed)
        return _unpack(updates, like, state.zero), Flat(inner, state.zero)

    return kind_around(optimizer)(init, update)
