"""A pytree as a description that JSON can hold and arrays by their path, and back.

Paths are those of `fnn.paths`, ``conv1/w``, with every key percent-encoded, a slash as ``%2F``. Two
arrays with one path, as under the keys 0 and "0", are refused. Dicts, lists, tuples, None and
NamedTuples are built again from their description; any other node, such as a dataclass, in the
structure of a tree that is like it.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks import check_alive_array, check_array, check_known_array, describe, wrong

# What safetensors calls by a name of its own; an array of another dtype is kept as its bytes.
FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
WHOLE = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")
NUMBERS = (bool, int, float)  # Python's, kept in the description


class Unfit(Exception):
    """What is wrong with a packed tree, and what would be right."""

    def __init__(self, got: str, needed: str) -> None:
        """Keep both for the message of the public function."""
        super().__init__(got)
        self.got, self.needed = got, needed


class Packed(NamedTuple):
    """A pytree taken apart: its description, and by path its arrays, or their bytes."""

    tree: Any
    arrays: Mapping[str, Any]


def pack(tree: Any) -> Packed:
    """Take a pytree apart, or raise the error of `fnn.save` for what cannot be kept."""
    arrays: dict[str, np.ndarray] = {}

    def describe_node(node: Any, path: tuple[str, ...]) -> Any:
        if node is None:
            return None
        opened = _open(node)
        if opened is None:
            return _pack_leaf(node, "/".join(path), arrays)
        kind, children = opened
        items = []
        for key, child in children:
            if type(key) not in (str, int):
                place = "/".join(path) or "tree"
                raise wrong("save", place, f"the key {key!r}", "str or int keys", TypeError)
            items.append([key, describe_node(child, (*path, _part(key)))])
        return {"node": kind, "items": items}

    return Packed(describe_node(tree, ()), arrays)


def unpack(packed: Packed) -> Any:
    """Build a pytree again from its description."""

    def build(node: Any, path: tuple[str, ...]) -> Any:
        if node is None:
            return None
        if "node" not in node:
            return _unpack_leaf(node, "/".join(path), packed.arrays)
        children = [(key, build(child, (*path, _part(key)))) for key, child in node["items"]]
        return _close(node["node"], children, "/".join(path))

    return build(packed.tree, ())


def unpack_like(packed: Packed, like: Any) -> Any:
    """Build a pytree again in the structure of another, whose leaves it must match."""
    stored = dict(_leaves(packed.tree, ()))
    wanted, structure = jax.tree.flatten_with_path(like)
    leaves = {"/".join(_part(_key(entry)) for entry in path): leaf for path, leaf in wanted}
    for path in [*leaves, *stored]:
        if path not in stored or path not in leaves:
            got = f"{'an extra' if path in stored else 'no'} array {path!r}"
            raise Unfit(got, "the paths of `like`")
        if _kind(stored[path]) != _kind(_describe_leaf(leaves[path])):
            got = f"{path!r} as {_kind(stored[path])}"
            raise Unfit(got, f"{_kind(_describe_leaf(leaves[path]))}, as in `like`")
    filled = [_unpack_leaf(stored[path], path, packed.arrays) for path in leaves]
    return jax.tree.unflatten(structure, filled)


def _open(node: Any) -> tuple[str, Iterable[tuple[Any, Any]]] | None:
    """Return the kind of a node and its children by key, or None for a leaf."""
    if type(node) is dict:
        return "dict", node.items()
    if type(node) in (list, tuple):
        return type(node).__name__, enumerate(node)
    name = f"{type(node).__module__}:{type(node).__qualname__}"
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return f"named {name}", zip(node._fields, node, strict=True)
    if jax.tree_util.all_leaves([node]):
        return None
    children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    return f"other {name}", [(_key(entry), child) for (entry,), child in children]


def _close(kind: str, children: list[tuple[Any, Any]], path: str) -> Any:
    """Build a node of this kind."""
    values = [value for _, value in children]
    if kind in ("dict", "list", "tuple"):
        return {"dict": dict(children), "list": values, "tuple": tuple(values)}[kind]
    how, _, name = kind.partition(" ")
    found = _named_tuple(name) if how == "named" else None
    if found is None or list(getattr(found, "_fields", ())) != [key for key, _ in children]:
        needed = "like=, a tree of the same structure"
        if how == "named":
            needed += ", or the module imported that has such a class"
        raise Unfit(f"a {name or how} at {path!r}", needed)
    return found(*values)


def _named_tuple(name: str) -> Any:
    """Return a class that is in memory already or fnn's own: a file makes nothing run."""
    module, _, path = name.partition(":")
    if module.startswith("fnn."):
        with contextlib.suppress(ModuleNotFoundError):  # of another version
            importlib.import_module(module)
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, tuple) else None


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield every leaf's path and description."""
    if node is not None and "node" not in node:
        yield "/".join(path), node
    for key, child in (node or {}).get("items", ()):
        yield from _leaves(child, (*path, _part(key)))


def _key(entry: Any) -> Any:
    """Return a dict key, a field name or a position from JAX's entry of a path."""
    return jax.tree_util.keystr((entry,), simple=True)


def _part(key: Any) -> str:
    """Return a key as a part of a path."""
    return quote(str(key), safe=" ").replace("__metadata__", "%5F_metadata__")  # safetensors' own


def _pack_leaf(leaf: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a leaf's description; put its array among the others."""
    place = path or "tree"
    check_known_array("save", place, leaf)
    check_alive_array("save", place, leaf)
    description = _describe_leaf(leaf)
    if "number" in description:
        return description
    array = isinstance(leaf, jax.Array | np.ndarray | np.generic)  # and not its shape alone
    if not array or ("dtype" in description and not _is_jax(leaf.dtype)):
        needed = "arrays of a dtype that JAX has, random keys, bools, ints or floats, in pytrees"
        raise wrong("save", place, describe(leaf), needed, TypeError)
    if isinstance(leaf, np.ndarray):
        check_array("save", place, leaf)
    if not (getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated):
        needed = "whole arrays: fnn.sharding.place(tree, mesh), called by every process"
        raise wrong("save", place, f"{describe(leaf)} in parts, on other machines", needed)
    if path in arrays:
        raise wrong("save", path, "two arrays", "one: keys that differ as strings, not 0 and '0'")
    own = np.asarray(jax.random.key_data(leaf) if "key" in description else leaf, order="C")
    native = own.dtype.name in FLOATS + WHOLE
    arrays[path] = own if native else np.frombuffer(own.tobytes(), np.uint8)
    return description


def _describe_leaf(leaf: Any) -> dict[str, Any]:
    """Return what a leaf is: a Python number, random keys, or an array."""
    if type(leaf) in NUMBERS:
        return {"number": leaf}
    dtype, shape = getattr(leaf, "dtype", None), list(getattr(leaf, "shape", ()))
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        kinds = list[str]()

        def data(key: jax.Array) -> jax.Array:  # traced, so that the shape of a key will do
            kinds.append(str(jax.random.key_impl(key)))
            return jax.random.key_data(key)

        words = jax.eval_shape(data, leaf).shape[len(shape) :]
        return {"key": kinds[0], "words": words, "shape": shape}
    return {"dtype": getattr(dtype, "name", type(leaf).__name__), "shape": shape}


def _is_jax(dtype: Any) -> bool:
    """Whether JAX has a dtype, as it is set now: float64 only with x64."""
    numeric = dtype.name == "bool" or jnp.issubdtype(dtype, jnp.number)
    return bool(numeric and dtype.isnative and jax.dtypes.canonicalize_dtype(dtype) == dtype)


def _kind(description: Any) -> str:
    """Return in one word what a leaf is."""
    if "number" in description:
        return f"a Python {type(description['number']).__name__}"
    name = f"key<{description['key']}>" if "key" in description else description["dtype"]
    return f"{name}[{','.join(map(str, description['shape']))}]"


def _unpack_leaf(leaf: Any, path: str, arrays: Mapping[str, Any]) -> Any:
    """Return a number as it was, a key, or an array on the default device."""
    if "number" in leaf:
        return leaf["number"]
    if "key" in leaf:
        data = _own(arrays[path], np.uint32, [*leaf["shape"], *leaf["words"]])
        return jax.random.wrap_key_data(data, impl=leaf["key"])
    dtype = jnp.dtype(leaf["dtype"])
    if not _is_jax(dtype):
        raise Unfit(f"{path!r} as {_kind(leaf)}", 'jax.config.update("jax_enable_x64", True)')
    return _own(arrays[path], dtype, leaf["shape"])


def _own(buffer: Any, dtype: Any, shape: list[int]) -> jax.Array:
    """Return a part of a file as an array that does not keep the whole file in memory."""
    numbers = np.frombuffer(buffer, dtype).reshape(shape).copy()
    return jnp.asarray(numbers, numbers.dtype)  # without the dtype it compiles a program per shape
