"""Parameter pytrees: how many numbers, under which paths, how large, and shaped like which other.

A path is written as in a file system, ``conv1/w``: dict keys, field names and positions, joined by
slashes. A mask is a function of that string, so that it reads in the script that uses it:
``lambda path: path.endswith("/b")``.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree, Shaped

from fnn.checks import describe, wrong
from fnn.dtypes import widen

Mask = Callable[[str], bool]


def count(params: PyTree[Shaped[Array, "..."]]) -> int:
    """Return how many numbers a pytree of arrays holds.

    Args:
        params: any pytree of arrays, of any dtypes.

    Returns:
        The sum of the leaves' sizes.

    >>> import jax.numpy as jnp
    >>> count({"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)})
    16
    """
    return sum(math.prod(jnp.shape(x)) for x in jax.tree.leaves(params))


def paths(params: PyTree[Any]) -> PyTree[str]:
    """Return the path of every leaf, in a pytree of the same structure.

    ``jax.tree.map(mask, paths(params))`` is a pytree of bools, as optax's masks are.

    Args:
        params: any pytree.

    Returns:
        The same structure with strings for leaves.

    >>> import jax.numpy as jnp
    >>> paths({"conv1": {"w": jnp.zeros(2), "b": jnp.zeros(1)}, "scales": [jnp.zeros(1)]})
    {'conv1': {'b': 'conv1/b', 'w': 'conv1/w'}, 'scales': ['scales/0']}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params
    )


def global_norm(tree: PyTree[Float[Array, "..."]]) -> Float[Array, ""]:
    """Return the Euclidean norm of all numbers of a pytree together, at least in float32.

    ``m sqrt(sum over leaves and entries of (x / m)^2)``, with m the largest magnitude, so that no
    square overflows or vanishes where the norm does not. At 0 its derivative is 0.
    """
    leaves = [widen(jnp.asarray(x)) for x in jax.tree.leaves(tree)]
    widest = max((x.dtype for x in leaves), key=lambda d: d.itemsize, default=jnp.float32)
    zero = jnp.zeros((), widest)
    sizes = [jnp.max(jnp.abs(x), initial=0).astype(widest) for x in leaves]
    largest = lax.stop_gradient(functools.reduce(jnp.maximum, sizes, zero))
    most = jnp.asarray(jnp.finfo(widest).max / 8, widest)  # whose reciprocal is a normal number
    scale = jnp.where((largest > 0) & (largest < jnp.inf), jnp.minimum(largest, most), 1)
    squares = [jnp.sum(jnp.square(x.astype(widest) / scale)) for x in leaves]
    total = sum(squares, zero)
    return scale * jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), total)


def check_like(function: str, argument: str, tree: Any, like: Any) -> None:
    """Raise an error that names the first path where a tree of floats is not shaped as another.

    Raises:
        ValueError: a leaf too many, too few, or of another shape; another kind of node.
        TypeError: a leaf that is no floating-point array.
    """
    got, needed = (dict(jax.tree_util.tree_leaves_with_path(t)) for t in (tree, like))
    for path in {**needed, **got}:
        place = argument + jax.tree_util.keystr(path)
        if path not in got:
            raise wrong(function, place, "nothing", describe(needed[path]))
        if path not in needed:
            raise wrong(function, place, describe(got[path]), "nothing, as params have none there")
        if jnp.shape(got[path]) != jnp.shape(needed[path]):
            wanted = f"the shape of {describe(needed[path])}"
            raise wrong(function, place, describe(got[path]), wanted)
        if not jnp.issubdtype(jnp.result_type(got[path]), jnp.floating):
            raise wrong(function, place, describe(got[path]), "floating-point numbers", TypeError)
    structures: list[Any] = [jax.tree.structure(tree), jax.tree.structure(like)]
    if structures[0] != structures[1]:
        place, a, b = _other_node(argument, tree, like)
        raise wrong(function, place, f"a {type(a).__name__}", f"a {type(b).__name__}")


def check_params(name: str, params: Any) -> None:
    """Raise the error of public function ``name`` for the first leaf that has no gradient."""
    for path, leaf in jax.tree.leaves_with_path(params):
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            where = "params" + jax.tree_util.keystr(path)
            raise wrong(name, where, describe(leaf), "a floating-point array", TypeError)


def _other_node(place: str, a: Any, b: Any) -> tuple[str, Any, Any]:
    """Descend to the first node that is of another type in two trees with the same leaves."""
    if type(a) is type(b):
        one_down = (
            jax.tree_util.tree_leaves_with_path(x, is_leaf=lambda y, x=x: y is not x)
            for x in (a, b)
        )
        for (path, c), (_, d) in zip(*one_down, strict=True):
            structures: list[Any] = [jax.tree.structure(c), jax.tree.structure(d)]
            if structures[0] != structures[1]:
                return _other_node(place + jax.tree_util.keystr(path), c, d)
    return place, a, b
