"""Many small leaves as one: an element-wise optimizer over one vector per dtype.

A program over 2,000 leaves holds thousands of kernels: compiling them, and starting them, costs
more than their work. `flat` concatenates the small leaves, so that the optimizer is a few kernels.
What is left is cutting the vector into updates. Slices at fixed places would be as many different
kernels, compiled one by one; slices whose place is read at run time are one kernel per leaf size.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from fnn.messages import wrong
from fnn.optimizers import Optimizer
from fnn.transforms import run_update
from fnn.trees import check_like

SMALL = 2**14  # numbers; larger leaves amortise their kernels, and copying them would cost more


class Flat(NamedTuple):
    """State of `flat`.

    Attributes:
        inner: the state of the optimizer, over what `_pack` returns.
        zero: uint32[], always 0, which the compiler cannot know.
    """

    inner: Any
    zero: UInt32[Array, ""]


def _is_small(x: Any) -> bool:
    return bool(x.size <= SMALL)


def _pack(tree: Any) -> dict[str, Any]:
    """Gather the small leaves of each dtype in a vector, and keep the large ones in a list."""
    leaves = jax.tree.leaves(tree)
    small = [x for x in leaves if _is_small(x)]
    packed = {
        str(dtype): jnp.concatenate([lax.reshape(x, (x.size,)) for x in small if x.dtype == dtype])
        for dtype in sorted({x.dtype for x in small}, key=str)
    }
    return {"packed": packed, "large": [x for x in leaves if not _is_small(x)]}


def _unpack(packs: dict[str, Any], like: Any, zero: Any) -> Any:
    """Cut what `_pack` gathered into the leaves of a tree shaped as ``like``."""
    leaves, structure = jax.tree.flatten(like)
    large = iter(packs["large"])
    place = dict.fromkeys(packs["packed"], 0)
    cut = []
    for x in leaves:
        if not _is_small(x):
            cut.append(next(large))
            continue
        start = place[str(x.dtype)]
        place[str(x.dtype)] = start + x.size
        # Not start itself: the compiler would write it into the kernel and so compile one per leaf.
        starts = np.array([start, start + 1], np.uint32)
        chosen = lax.reshape(lax.dynamic_slice(starts, (zero,), (1,)), ())
        piece = lax.dynamic_slice(packs["packed"][str(x.dtype)], (chosen,), (x.size,))
        cut.append(lax.reshape(piece, x.shape))
    return jax.tree.unflatten(structure, cut)


def _refuse_sharded(params: Any) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        sharding = None if isinstance(x, jax.core.Tracer) else getattr(x, "sharding", None)
        if sharding is not None and not sharding.is_fully_replicated:
            needed = "leaves on one device, or replicated: a concatenation would gather them"
            raise wrong("flat", "params" + jax.tree_util.keystr(path), sharding, needed)


def flat(optimizer: Optimizer) -> Optimizer:
    """Run an element-wise optimizer over one vector per dtype, to the same result.

    Leaves of more than 16,384 numbers stay as they are: they gain nothing. Masks by path, norms of
    leaves and `fnn.muon` need the leaves: put those around `flat`, not inside.

    Args:
        optimizer: one that treats every number alike, such as `fnn.adam`.

    Returns:
        An `Optimizer`; the moments in its state are vectors.

    Raises:
        ValueError: params that are sharded over devices; gradients shaped otherwise than params.

    >>> import jax.numpy as jnp, fnn
    >>> opt, params = flat(fnn.sgd(0.5)), {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
    >>> updates, state = opt.update(params, opt.init(params))
    >>> updates["w"].tolist(), updates["b"].tolist()
    ([[-0.5, -0.5], [-0.5, -0.5]], [-0.0, -0.0])
    """

    def init(params: Any) -> Flat:
        _refuse_sharded(params)
        return Flat(optimizer.init(_pack(params)), jnp.zeros((), jnp.uint32))

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_like("flat", "grads", grads, grads if params is None else params)
        packed = None if params is None else _pack(params)
        updates, inner = run_update(optimizer, _pack(grads), state.inner, packed, extra)
        return _unpack(updates, grads, state.zero), Flat(inner, state.zero)

    return Optimizer(init, update)
