"""Parameter pytrees: how many numbers, under which paths, how large, and shaped like which other.

A path is written as in a file system, ``conv1/w``: dict keys, field names and positions, joined by
slashes. A mask is a function of that string, so that it reads in the script that uses it:
``lambda path: path.endswith("/b")``.
"""

import functools
import math
import operator
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from fnn.checks import (
    attribute,
    check_alive_array,
    check_takes,
    check_unmasked,
    describe,
    several,
    short,
    shown,
    wrong,
)
from fnn.dtypes import is_floating, names_floats, widen

__all__ = ["cast", "count", "global_norm", "paths", "select"]  # the others are for the rooms

Mask = Callable[[str], bool]  # of a path, whether the leaf there is meant
T = TypeVar("T")
FloatTree: TypeAlias = PyTree[Float[Array, "..."]]  # parameters, gradients, a state


def count(params: PyTree[Shaped[Array, "..."]]) -> int:
    """Return how many numbers a pytree of arrays holds.

    Args:
        params: any pytree of arrays, of any dtypes.

    Returns:
        The sum of the leaves' sizes.

    Raises:
        TypeError: a leaf that is neither an array nor a number, nor has the shape of one.

    >>> fnn.count({"w": jnp.zeros((3, 4)), "b": jnp.zeros(4)})
    16
    """
    total = 0
    for path, x in jax.tree.leaves_with_path(params):
        if attribute(x, "shape") is None and not isinstance(x, int | float | complex):
            place = "params" + jax.tree_util.keystr(path)
            raise wrong("count", place, describe(x), "an array", TypeError)
        total += math.prod(jnp.shape(x))
    return total


def paths(params: PyTree[Any]) -> PyTree[str]:
    """Return the path of every leaf, in a pytree of the same structure.

    ``jax.tree.map(mask, paths(params))`` is a pytree of bools, as optax's masks are.

    Args:
        params: any pytree.

    Returns:
        The same structure with strings for leaves.

    >>> fnn.paths({"conv1": {"w": jnp.zeros(2), "b": jnp.zeros(1)}, "scales": [jnp.zeros(1)]})
    {'conv1': {'b': 'conv1/b', 'w': 'conv1/w'}, 'scales': ['scales/0']}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params
    )


def exported(kind: type[T]) -> type[T]:
    """Let a NamedTuple of arrays go in and out of the programs that `jax.export` writes."""
    name = f"fnn.{kind.__name__}"
    with suppress(ValueError):  # imported anew: JAX keeps the first type of this name
        jax.export.register_namedtuple_serialization(kind, serialized_name=name)
    return kind


def or_fields(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """Let a NamedTuple show its fields where they are no numbers, as after `jax.tree.map`."""

    @functools.wraps(show)
    def either(self: Any) -> str:
        try:
            return show(self)
        except (TypeError, ValueError):
            return type(self).__name__ + tuple.__repr__(self)

    return either


def picks(function: str, mask: Mask, path: str) -> bool:
    """Whether the mask of this public function selects the leaf at a path.

    Raises:
        TypeError: a mask that returns no bool.
    """
    found: Any = mask(path)
    if not isinstance(found, bool | np.bool_):
        needed = (
            "True or False for the path of a leaf; bool(...) makes one, as of re.search's match"
        )
        raise wrong(function, "mask", f"{describe(found)} for {path!r}", needed, TypeError)
    return bool(found)


def chosen(function: str, mask: Mask | None, tree: PyTree[Any]) -> PyTree[bool]:
    """Return whether the mask selects each leaf; None selects all.

    Raises:
        ValueError: a mask that selects no leaf.
        TypeError: a mask that returns no bool.
    """
    names = paths(tree)
    if mask is None:
        return jax.tree.map(lambda path: True, names)
    found = jax.tree.map(functools.partial(picks, function, mask), names)
    if jax.tree.leaves(names) and not any(jax.tree.leaves(found)):
        needed = f"true for one or more of {several(jax.tree.leaves(names))}"
        raise wrong(function, "mask", "no leaf selected", needed)
    return found


def select(tree: PyTree[Any], mask: Mask) -> PyTree[Any]:
    """Return the tree with the leaves that the mask selects, and None in place of the others.

    Args:
        tree: any pytree.
        mask: a function of a leaf's path, true for the leaves to keep.

    Returns:
        A pytree whose leaves have the paths that they had.

    Raises:
        TypeError: mask is no function, or returns no bool.

    >>> fnn.trees.select({"conv": {"w": 1.0, "b": 2.0}, "head": 3.0}, lambda path: "w" in path)
    {'conv': {'b': None, 'w': 1.0}, 'head': None}
    """
    check_takes("trees.select", "mask", mask, "path")
    return selected("trees.select", tree, mask)


def selected(function: str, tree: PyTree[Any], mask: Mask) -> PyTree[Any]:
    """Select as `select` does, for public function ``function``, which errors name."""
    names = paths(tree)
    return jax.tree.map(lambda path, x: x if picks(function, mask, path) else None, names, tree)


def cast(tree: PyTree[Any], dtype: DTypeLike) -> PyTree[Any]:
    """Return the tree with its floating-point arrays in another dtype, and all else as it is.

    So are shapes, as `jax.eval_shape` gives them.

    Args:
        tree: any pytree.
        dtype: one of floating-point numbers.

    Returns:
        A pytree of the same structure. Integers, keys and Python numbers are not touched.

    Raises:
        TypeError: a dtype of other numbers.

    >>> half = fnn.trees.cast({"w": jnp.ones(2), "step": jnp.arange(3)}, jnp.bfloat16)
    >>> half["w"].dtype, half["step"].dtype
    (dtype(bfloat16), dtype('int32'))
    """
    if not names_floats(dtype):
        raise wrong("trees.cast", "dtype", shown(dtype), "one of floating-point numbers", TypeError)

    def one(x: Any) -> Any:
        if not is_floating(attribute(x, "dtype")):
            return x
        return x.update(dtype=dtype) if isinstance(x, jax.ShapeDtypeStruct) else x.astype(dtype)

    return jax.tree.map(one, tree)


def scaled_norm(tree: FloatTree) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the largest magnitude m, and the Euclidean norm of all numbers divided by it.

    Their product is the norm of the tree. No square overflows, or vanishes where the norm does not;
    at zero the derivative is zero. Where all numbers are zero, or one is infinite, m is 1.
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
    return scale, jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), total)


def global_norm(tree: FloatTree) -> Float[Array, ""]:
    """Return the Euclidean norm of all numbers of a pytree together, at least in float32.

    ``sqrt(sum over leaves and entries of x^2)``, with the derivative 0 at zero.

    Args:
        tree: any pytree of floating-point arrays.

    Returns:
        A scalar; 0 for an empty tree.

    Raises:
        TypeError: a leaf of other numbers.

    >>> norm = fnn.trees.global_norm({"a": jnp.array([3e30]), "b": jnp.array([4e30])})
    >>> f"{norm:.3g}"
    '5e+30'
    """
    name, needed = "trees.global_norm", "floating-point numbers"
    for path, x in jax.tree.leaves_with_path(tree):
        if not isinstance(x, float) and not names_floats(attribute(x, "dtype")):
            raise wrong(name, "tree" + jax.tree_util.keystr(path), describe(x), needed, TypeError)
    scale, norm = scaled_norm(tree)
    return scale * norm


def all_finite(tree: PyTree[Array]) -> Bool[Array, ""]:
    """Whether all numbers of a tree of floating-point arrays are finite."""
    found = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]
    return functools.reduce(operator.and_, found, jnp.array(True))


def names(function: str, params: Any) -> list[str]:
    """Return the path of every leaf of params, "params" of an array alone.

    Raises:
        ValueError: two leaves have one path.
    """
    found = [path or "params" for path in jax.tree.leaves(paths(params))]
    for path, times in Counter(found).items():
        if times > 1:
            needed = "one: a key with a slash may look like two keys"
            raise wrong(function, "params", f"{times} arrays with the path {path!r}", needed)
    return found


def check_like(function: str, argument: str, tree: Any, like: Any) -> None:
    """Raise an error that names the first path where a tree of floats is not shaped as another.

    Raises:
        ValueError: a leaf too many, too few, or of another shape; another kind of node.
        TypeError: a leaf that is no floating-point array.
    """
    if _alike(tree, like):
        return
    check_same(function, argument, tree, like, "as in params")
    for path, x in jax.tree.leaves_with_path(tree):
        if not is_floating(jnp.result_type(x)):
            place = argument + jax.tree_util.keystr(path)
            raise wrong(function, place, describe(x), "floating-point numbers", TypeError)


def check_same(function: str, argument: str, tree: Any, like: Any, whose: str) -> None:
    """Raise a ValueError that names the first path where a tree has another structure or shape."""
    got, needed = (dict(jax.tree.leaves_with_path(t)) for t in (tree, like))
    for path in {**needed, **got}:
        place = argument + jax.tree_util.keystr(path)
        if path not in got:
            raise wrong(function, place, "nothing", f"{describe(needed[path])}, {whose}")
        if path not in needed:
            raise wrong(function, place, describe(got[path]), f"nothing, {whose}")
        if jnp.shape(got[path]) != jnp.shape(needed[path]):
            wanted = f"the shape of {describe(needed[path])}, {whose}"
            raise wrong(function, place, describe(got[path]), wanted)
    structures: list[Any] = [jax.tree.structure(tree), jax.tree.structure(like)]
    if structures[0] != structures[1]:
        place, found, wanted = _other_node(argument, tree, like)
        raise wrong(function, place, found, f"{wanted}, {whose}")


def _alike(tree: Any, like: Any) -> bool:
    """Whether there is nothing to complain of: what is looked for first, as paths take long."""
    structures: list[Any] = [jax.tree.structure(tree), jax.tree.structure(like)]
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=False)
    return structures[0] == structures[1] and all(
        jnp.shape(a) == jnp.shape(b) and is_floating(jnp.result_type(a)) for a, b in pairs
    )


def check_params(name: str, params: Any) -> None:
    """Raise the error of public function ``name`` for the first leaf that has no gradient.

    So it does for one with a mask, and one that was donated.
    """
    for path, leaf in jax.tree.leaves_with_path(params):
        where = "params" + jax.tree_util.keystr(path)
        if not names_floats(attribute(leaf, "dtype")):
            raise wrong(name, where, describe(leaf), "a floating-point array", TypeError)
        check_unmasked(name, where, leaf)
        check_alive_array(name, where, leaf)


def _other_node(place: str, a: Any, b: Any) -> tuple[str, str, str]:
    """Descend to the first node that differs in two trees with the same leaves, and name both."""
    if type(a) is not type(b):
        return place, _node(a), _node(b)
    got, needed = (
        dict(jax.tree_util.tree_leaves_with_path(x, is_leaf=lambda y, x=x: y is not x))
        for x in (a, b)
    )
    for path in {**needed, **got}:
        inside = place + jax.tree_util.keystr(path)
        if path not in got:
            return inside, "nothing", _node(needed[path])
        if path not in needed:
            return inside, _node(got[path]), "nothing"
        structures: list[Any] = [jax.tree.structure(x[path]) for x in (got, needed)]
        if structures[0] != structures[1]:
            return _other_node(inside, got[path], needed[path])
    return place, short(str(jax.tree.structure(a))), short(str(jax.tree.structure(b)))


def _node(x: Any) -> str:
    return "None" if x is None else f"a {type(x).__name__}"
