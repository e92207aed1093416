"""Parameters survive the file exactly, and no failure loses or invents any."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

DTYPES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "int4", "int32", "uint8", "bool",
          "complex64"]  # fmt: skip


class Pair(NamedTuple):
    w: Any
    b: Any


def same(got: Any, want: Any) -> None:
    """Assert equal trees: their containers, and the bits, dtype and shape of their arrays."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    if isinstance(want, dict):
        assert list(got) == list(want), "another order of the keys"
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(
    "tree",
    [
        {"conv1": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": jnp.zeros(())},
        [{}, (), [], None, (None, [np.ones(1, np.float32)])],
        {"a/b": np.ones(1, np.float32), "a": {"b": np.zeros(2, np.float32)}, "": {"": None}},
        {"fnn": np.ones(1, np.int32), "file": [np.zeros((0, 3), np.float32)], "é\0": None},
        {"é\0": np.ones(1, np.int32), "é": np.zeros(1, np.int32), "": np.ones(2, np.int32)},
        {"tuple": np.ones(1, np.float32), "dict": {"array": [np.zeros(1, np.float32)]}},
        np.array([np.nan, -0.0, np.inf], np.float32),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        None,
    ],
    ids=["params", "containers", "slashes", "names", "unicode", "tags", "leaf", "strided", "none"],
)
def test_trees_come_back(tmp_path: Path, tree: Any) -> None:
    fnn.save(tmp_path / "a.npz", tree)
    same(fnn.load(tmp_path / "a.npz"), tree)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_dtypes_come_back(tmp_path: Path) -> None:
    tree = {d: jnp.asarray(np.arange(-3, 3).astype(jnp.dtype(d))) for d in DTYPES}
    fnn.save(str(tmp_path / "any name"), tree)
    same(fnn.load(str(tmp_path / "any name")), tree)


def test_double_precision_needs_x64(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    tree = {"w": np.array([1 / 3]), "n": np.array([2**40])}
    fnn.save(path, tree)
    with pytest.raises(ValueError, match=f"got {re.escape(str(path))} with float64, int64.*x64"):
        fnn.load(path)
    with jax.enable_x64(True):
        same(fnn.load(path), tree)


def test_numpy_reads_the_file(tmp_path: Path) -> None:
    fnn.save(tmp_path / "a.npz", {"conv1": {"w": np.ones(2, np.float32)}, "all": [np.zeros(1)]})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert sorted(stored) == ["fnn", "params/all/0", "params/conv1/w"]
        assert stored["params/conv1/w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [1.0]}, "fnn.save: params/a/0: got a float; needed arrays in dict"),
        ({"a": Pair(1, 2)}, "fnn.save: params/a: got a Pair; .*save jax.tree.leaves"),
        ({"k": {1: np.ones(1)}}, "fnn.save: params/k: got the key 1; needed str keys"),
        ([np.array(["a"])], "fnn.save: params/0: got dtype <U1; needed a dtype that JAX has"),
        ([np.array([None])], "fnn.save: params/0: got dtype object"),
        ([np.ones(1, ">f4")], "fnn.save: params/0: got dtype >f4"),
    ],
)
def test_save_refuses(tmp_path: Path, tree: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fnn.save(tmp_path / "a.npz", tree)
    assert not list(tmp_path.iterdir())


def test_save_refuses_keys(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"params/key: got a key array; needed jax.random.key_data"):
        fnn.save(tmp_path / "a.npz", {"key": jax.random.key(0)})


def test_save_needs_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "a.npz"
    with pytest.raises(
        FileNotFoundError, match=f"{re.escape(str(path))} in a folder that does not"
    ):
        fnn.save(path, {})


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tree = tmp_path / "a.npz", {"w": np.ones(3, np.float32)}
    fnn.save(path, tree)
    before = path.read_bytes()

    def disk_full(file: Any, **arrays: Any) -> None:
        file.write(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", disk_full)
    with pytest.raises(OSError, match="no space left"):
        fnn.save(path, {"w": np.zeros(3, np.float32)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"], "no half file is left behind"
    same(fnn.load(path), tree)


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    fnn.save(path, {"w": np.ones(3, np.float32)})
    before = path.read_bytes()
    with path.open("rb") as old:
        fnn.save(path, {"w": np.zeros(3, np.float32)})
        assert old.read() == before, "overwritten in place"


def test_load_refuses(tmp_path: Path) -> None:
    path, name = tmp_path / "a.npz", re.escape(str(tmp_path / "a.npz"))
    with pytest.raises(FileNotFoundError, match=f"fnn.load: path: got {name}; needed an existing"):
        fnn.load(path)
    fnn.save(path, {"w": np.arange(1000, dtype=np.float32)})
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (b"", whole[:100], whole[:-1], flipped, b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"got {name}, which cannot be read .*whole file writ"):
            fnn.load(path)
    np.savez(path, w=np.ones(2))
    with pytest.raises(ValueError, match=f"got {name}, which cannot be read .*whole file writ"):
        fnn.load(path)
    np.savez(path, fnn=np.array('{"format": 2, "tree": null}'))
    with pytest.raises(ValueError, match=r"cannot be read \(ValueError: format 2\)"):
        fnn.load(path)


def test_training_resumes_from_a_file(tmp_path: Path) -> None:
    tree = {"w": jnp.ones(3), "b": jnp.zeros(2)}
    optimizer = fnn.adam(0.1)
    state = optimizer.init(tree)
    fnn.save(tmp_path / "a.npz", {"params": tree, "state": jax.tree.leaves(state)})
    back = fnn.load(tmp_path / "a.npz")
    same(back["params"], tree)
    same(jax.tree.unflatten(jax.tree.structure(state), back["state"]), state)
