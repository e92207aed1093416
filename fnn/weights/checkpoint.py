"""Parameters in a file: `save` and `load`.

The file is an ordinary ``.npz``: each array under ``params/`` and its path, as in
``params/conv1/w``, and one entry ``fnn`` that describes the tree in JSON, so that dicts, lists,
tuples and None come back as they were. Nothing in it is code, and `numpy.load` opens it.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fnn.checks import wrong

FORMAT = 1
HEADER = "fnn"


def save(path: str | Path, params: PyTree) -> None:
    """Write a parameter tree to a file, which is replaced only by a whole one.

    Args:
        path: the file, in an existing folder; by custom it ends in ``.npz``.
        params: arrays of any dtype and shape in dicts (with str keys), lists, tuples and None.

    Returns:
        None. A save that fails leaves the file as it was.

    Raises:
        TypeError: the tree holds something else: a NamedTuple, a key array, a Python number.
        FileNotFoundError: the folder does not exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/a.npz", {"w": np.ones(2, np.float32), "layers": [None]})
    ...     load(f"{folder}/a.npz")
    {'w': Array([1., 1.], dtype=float32), 'layers': [None]}
    """
    path, arrays = Path(path), dict[str, np.ndarray]()
    tree = _describe(params, "params", arrays)
    arrays[HEADER] = np.array(json.dumps({"format": FORMAT, "tree": tree}))
    if not path.parent.is_dir():
        got = f"{path} in a folder that does not exist"
        raise wrong("save", "path", got, "an existing folder", FileNotFoundError)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with unfinished.open("xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: str | Path) -> PyTree[Array]:
    """Return the parameter tree that `save` wrote to a file.

    Args:
        path: the file.

    Returns:
        The same tree of dicts, lists, tuples and None, of arrays on the default device.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by `save`, or it holds 64-bit arrays
            while JAX keeps to 32 bits.

    >>> load("nowhere.npz")
    Traceback (most recent call last):
    ...
    FileNotFoundError: fnn.load: path: got nowhere.npz; needed an existing file
    """
    path = Path(path)
    if not path.is_file():
        raise wrong("load", "path", path, "an existing file", FileNotFoundError)
    wide: set[str] = set()
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            header = json.loads(stored[HEADER].item())
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']}")
            tree = _restore(header["tree"], stored, wide)
    except Exception as error:  # whatever a damaged file makes zipfile, NumPy or json raise
        got = f"{path}, which cannot be read ({type(error).__name__}: {error})"
        raise wrong("load", "path", got, "a whole file written by fnn.save") from error
    if wide:
        needed = 'jax.config.update("jax_enable_x64", True) before loading it'
        raise wrong("load", "path", f"{path} with {', '.join(sorted(wide))}", needed)
    return tree


def _describe(node: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Describe a tree in terms that JSON has, and collect its arrays by path."""
    if node is None:
        return None
    if type(node) is dict:
        for key in node:
            if not isinstance(key, str):
                raise wrong("save", path, f"the key {key!r}", "str keys", TypeError)
        items = [(k, _describe(v, f"{path}/{quote(k, safe='')}", arrays)) for k, v in node.items()]
        return {"dict": items}
    if type(node) in (list, tuple):
        items = [_describe(v, f"{path}/{i}", arrays) for i, v in enumerate(node)]
        return {type(node).__name__: items}
    arrays[path] = _storable(node, path)
    return {"array": path, "dtype": node.dtype.name}


def _storable(leaf: Any, path: str) -> np.ndarray:
    """Return what an ``.npz`` can keep: the bits as unsigned integers for JAX's own dtypes."""
    if not isinstance(leaf, jax.Array | np.ndarray):
        needed = "arrays in dict, list, tuple or None; for other trees, save jax.tree.leaves(tree)"
        raise wrong("save", path, f"a {type(leaf).__name__}", needed, TypeError)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise wrong("save", path, "a key array", "jax.random.key_data(key)", TypeError)
    if (
        not (jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == bool)
        or not leaf.dtype.isnative
    ):
        raise wrong("save", path, f"dtype {leaf.dtype}", "a dtype that JAX has", TypeError)
    array = np.asarray(leaf)
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.itemsize}")


def _restore(node: Any, stored: Any, wide: set[str]) -> Any:
    """Rebuild a described tree; note in wide the dtypes that JAX narrows unless x64 is on."""
    if node is None:
        return None
    if "array" in node:
        array = stored[node["array"]].view(jnp.dtype(node["dtype"]))
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            wide.add(array.dtype.name)
        return jnp.asarray(array)
    if "dict" in node:
        return {key: _restore(value, stored, wide) for key, value in node["dict"]}
    kind, items = next(iter(node.items()))
    restored = [_restore(value, stored, wide) for value in items]
    return tuple(restored) if kind == "tuple" else restored
