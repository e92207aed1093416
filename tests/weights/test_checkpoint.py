"""Trees survive the file exactly, and no failure loses or invents any."""

import collections
import dataclasses
import errno
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import stat
import sys
import weakref
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import deserialize
from safetensors.numpy import save as write_safetensors

import fnn

DTYPES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz",
          "int4", "uint4", "int8", "int16", "int32", "uint8", "uint16", "uint32", "bool",
          "complex64"]  # fmt: skip
MESSAGE = r"fnn.load: path: got .*; needed "
WHOLE = "; needed a whole file that fnn.save wrote; fnn.weights.latest"


class Pair(NamedTuple):
    w: Any
    b: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    w: Any
    b: Any
    inner: Any = None


def same(got: Any, want: Any) -> None:
    """Assert equal trees: their containers, and the bits, dtype and shape of their arrays."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    if isinstance(want, dict):
        assert list(got) == list(want), "another order of the keys"
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if isinstance(b, bool | int | float):
            assert type(a) is type(b)
            assert repr(a) == repr(b)
            continue
        assert isinstance(a, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def ones(n: int = 1) -> np.ndarray:
    return np.ones(n, np.float32)


def test_loading_compiles_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.safetensors"
    fnn.save(path, {"w": np.ones((7, 11, 5), np.float32), "v": np.ones((5, 11, 7), np.int8)})
    with jax.log_compiles():
        fnn.load(path)
    assert "Compiling" not in caplog.text


def test_no_array_is_kept(tmp_path: Path) -> None:
    """What is saved or loaded is gone with its last name; the suite's collector is off."""
    tree = {"w": ones(7), "pair": (ones(2), 3)}
    saved = weakref.ref(tree["w"])
    fnn.save(tmp_path / "a", tree)
    del tree
    assert saved() is None
    loaded = fnn.load(tmp_path / "a")
    arrays = [weakref.ref(x) for x in (loaded["w"], loaded["pair"][0])]
    assert all(array() is not None for array in arrays)
    del loaded
    assert [array() for array in arrays] == [None, None]


@pytest.mark.parametrize(
    "tree",
    [
        {"conv1": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": jnp.zeros(())},
        [{}, (), [], None, (None, [ones()])],
        {"a/b": ones(), "a": {"b": ones(2)}, "": {"": None}, "a%2Fb": ones(3)},
        {"fnn": np.ones(1, np.int32), "file": [np.zeros((0, 3), np.float32)], "é\0": None},
        {"é\0": np.ones(1, np.int32), "é": np.zeros(1, np.int32), "": np.ones(2, np.int32)},
        {"tuple": ones(), "dict": {"items": [ones()]}, "node": ones(), "__metadata__": ones()},
        {3: ones(), 1: {2: ones(2)}},
        np.array([np.nan, -0.0, np.inf], np.float32),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        None,
        {"n": 3, "yes": True, "rate": 0.1, "nan": float("nan"), "huge": 2**80, "x": np.float32(3)},
        {"key": jax.random.key(3), "keys": jax.random.split(jax.random.key(1), (2, 3)),
         "rbg": jax.random.key(5, impl="rbg"), "none": jax.random.split(jax.random.key(0), 0)},
        Pair(ones(), [Pair(None, jnp.zeros(2)), fnn.BatchStats(ones(), ones())]),
    ],
    ids=["params", "containers", "slashes", "names", "unicode", "tags", "int_keys", "leaf",
         "strided", "none", "numbers", "keys", "named_tuples"],
)  # fmt: skip
def test_trees_come_back(tmp_path: Path, tree: Any) -> None:
    path = tmp_path / "a.safetensors"
    fnn.save(path, tree)
    same(fnn.load(path), tree)
    same(fnn.load(path, like=tree), jax.tree.map(lambda x: x, tree))  # JAX sorts dicts
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_dtypes_come_back(tmp_path: Path) -> None:
    tree = {d: jnp.asarray(np.arange(-3, 3).astype(jnp.dtype(d))) for d in DTYPES}
    fnn.save(str(tmp_path / "any name"), tree)
    same(fnn.load(str(tmp_path / "any name")), tree)


@pytest.mark.parametrize(
    "optimizer",
    [
        fnn.adam(fnn.schedules.cosine(0.1, 10)),
        fnn.accumulate(fnn.lookahead(fnn.adamw(0.1)), 2),
        fnn.flat(fnn.muon(0.1)),
        fnn.chain(fnn.clip_by_global_norm(1.0), fnn.sgd(0.1, momentum=0.9)),
        optax.chain(optax.clip(1.0), optax.lamb(0.1)),
        optax.lbfgs(),
    ],
    ids=["adam", "wrapped", "flat", "chain", "optax", "lbfgs"],
)
def test_optimizer_states_come_back(tmp_path: Path, optimizer: Any) -> None:
    """Without a template, from the classes that the script has imported."""
    state = optimizer.init({"w": jnp.ones((3, 2)), "b": jnp.zeros(2)})
    fnn.save(tmp_path / "a", state)
    same(fnn.load(tmp_path / "a"), state)
    same(fnn.load(tmp_path / "a", like=state), state)


def test_other_nodes_come_in_the_structure_of_a_template(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tree = [
        Layer(ones(), None, Layer(ones(2), ones(3))),
        collections.OrderedDict(z=ones(), a=ones()),
    ]
    fnn.save(path, tree)
    same(fnn.load(path, like=tree), tree)
    message = r"got .* with a .*test_checkpoint:Layer at '0/inner'; needed like=, a tree"
    with pytest.raises(ValueError, match=message):
        fnn.load(path)
    shapes = jax.eval_shape(lambda: tree)
    same(fnn.load(path, like=shapes), tree)
    keys = [jax.random.key(3), jax.random.split(jax.random.key(4, impl="rbg"))]
    fnn.save(path, keys)
    same(fnn.load(path, like=jax.eval_shape(lambda: keys)), keys)


def test_a_named_tuple_that_is_not_in_memory(tmp_path: Path) -> None:
    class Local(NamedTuple):
        w: Any

    fnn.save(tmp_path / "a", {"x": Local(ones())})
    with pytest.raises(ValueError, match=r"Local at 'x'; needed like=, .* or the module imported"):
        fnn.load(tmp_path / "a")
    same(fnn.load(tmp_path / "a", like={"x": Local(ones())}), {"x": Local(ones())})


def edit(path: Path, old: str, new: str) -> None:
    """Change a file's description, and its checksum with it."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    facts = header["__metadata__"]["fnn"]
    assert old in facts
    facts = facts.replace(old, new)
    header["__metadata__"] = {"fnn": facts, "fnn.crc32": str(zlib.crc32(facts.encode()))}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])


@pytest.mark.parametrize(
    "name",
    [
        *("os:stat_result", "builtins:tuple", "subprocess:Popen", "this:s"),
        *("fnn.data.images:idx", "fnn.gone:State"),
    ],
)
def test_a_file_makes_nothing_run(tmp_path: Path, name: str) -> None:
    """Only a NamedTuple in memory with the very fields is built, whatever a file asks for."""
    path = tmp_path / "a"
    fnn.save(path, Pair(ones(), ones()))
    edit(path, f"{Pair.__module__}:Pair", name)
    with pytest.raises(ValueError, match=f"a {name} at ''; needed like="):
        fnn.load(path)
    assert "this" not in sys.modules, "the file had a module imported"


def test_double_precision_needs_x64(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tree = {"w": np.array([1 / 3]), "n": np.array([2**40]), "c": np.array([1j])}
    with jax.enable_x64(True):
        fnn.save(path, tree)
        same(fnn.load(path), tree)
    with pytest.raises(ValueError, match=r"with 'w' as float64\[1\]; needed .*jax_enable_x64"):
        fnn.load(path)
    with pytest.raises(TypeError, match=r"fnn.save: w: got float64\[1\]; needed arrays"):
        fnn.save(path, tree)


def test_safetensors_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tree = {"conv1": {"w": ones(2)}, "all": [np.zeros(1, jnp.bfloat16)], "n": 3}
    fnn.save(path, tree | {"scalar": jnp.ones(())})
    stored = dict(deserialize(path.read_bytes()))
    assert sorted(stored) == ["all/0", "conv1/w", "scalar"]
    assert stored["scalar"]["shape"] == []
    assert (stored["all/0"]["dtype"], stored["all/0"]["shape"]) == ("BF16", [1])
    assert np.frombuffer(stored["conv1/w"]["data"], np.float32).tolist() == [1, 1]


def test_files_in_which_scalars_have_an_axis(tmp_path: Path) -> None:
    """As they were written once."""
    path = tmp_path / "a.safetensors"
    fnn.save(path, {"scalar": jnp.array(3.0)})
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'"shape":[]', b'"shape":[1]')
    assert len(header) == size + 1
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    same(fnn.load(path), {"scalar": jnp.array(3.0)})


def test_two_arrays_of_one_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^fnn.save: 0: got two arrays; needed one: keys that"):
        fnn.save(tmp_path / "a", {0: ones(2), "0": ones(2)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": ["text"]}, "a/0: got str 'text'; needed arrays of a dtype that JAX has, random"),
        ({"a": 1j}, "a: got complex 1j; needed arrays .*, random keys, bools, ints or floats"),
        ({"a": lambda x: x}, "a: got function .*; needed arrays"),
        ({"k": {None: ones()}}, "k: got the key None; needed str or int keys"),
        ([np.array(["a"])], r"0: got <U1\[1\]; needed arrays"),
        ([np.array([None])], r"0: got object\[1\]; needed arrays"),
        ([np.ones(1, ">f4")], r"0: got >f4\[1\]; needed arrays"),
        (np.ones(1), r"tree: got float64\[1\]; needed arrays"),
        (
            {"w": np.ma.masked_array(np.ones(2, np.float32), [True, False])},
            r"w: got a masked float32\[2\]; needed an array without a mask",
        ),
        ({"w": jax.ShapeDtypeStruct((2,), np.float32)}, r"w: got float32\[2\]; needed arrays"),
    ],
)
def test_save_refuses(tmp_path: Path, tree: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^fnn.save: {message}"):
        fnn.save(tmp_path / "a", tree)
    assert not list(tmp_path.iterdir())


def test_parts_on_other_machines_are_refused(tmp_path: Path) -> None:
    class Part(np.ndarray):
        """In place of a `jax.Array` over several processes."""

        is_fully_addressable = is_fully_replicated = False

    message = r"fnn.save: w: got float32\[1\] in parts, on other machines; needed whole arrays"
    with pytest.raises(ValueError, match=message):
        fnn.save(tmp_path / "a", {"w": np.ones(1, np.float32).view(Part)})


def test_arrays_without_values_are_refused(tmp_path: Path) -> None:
    def save(w: Any) -> None:
        fnn.save(tmp_path / "a", {"conv": {"w": w}})

    gone = jnp.ones(2)
    gone.delete()  # as donation does
    with pytest.raises(ValueError, match=r"^fnn.save: conv/w: got a deleted float32\[2\]; needed"):
        save(gone)
    with pytest.raises(TypeError, match=r"^fnn.save: conv/w: got a traced array; needed arrays"):
        jax.jit(save)(jnp.ones(2))
    assert not list(tmp_path.iterdir())


def test_save_needs_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "a"
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(path))} in a folder that does"):
        fnn.save(path, {})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    name = re.escape(str(tmp_path))
    with pytest.raises(IsADirectoryError, match=f"fnn.save: path: got {name}; needed a file"):
        fnn.save(tmp_path, {})
    with pytest.raises(FileNotFoundError, match=f"fnn.load: path: got {name}; needed an existing"):
        fnn.load(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    os.mkfifo(path)
    message = f"fnn.save: path: got {re.escape(str(path))}; needed a file: this is a device, a pipe"
    with pytest.raises(OSError, match=message):
        fnn.save(path, {})
    assert path.is_fifo(), "replaced"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    """Else a run would start anew beside its checkpoints."""
    fnn.save(tmp_path / "a.safetensors", {})
    message = r"^fnn\.weights\.latest: folder: got .*a.safetensors; needed a folder$"
    with pytest.raises(NotADirectoryError, match=message):
        fnn.weights.latest(tmp_path / "a.safetensors")
    tmp_path.chmod(0)
    root = os.geteuid() == 0  # who may read everything
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(PermissionError):
            fnn.weights.latest(tmp_path)
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o700)


def disk_full(*args: Any) -> None:
    raise OSError("no space left on device")


@pytest.mark.parametrize("broken", ["fsync", "link"])
def test_a_failed_save_keeps_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "a"
    for step in range(3):
        fnn.save(path, {"w": step * ones(3)}, keep=3)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert sorted(before) == ["a", "a.1", "a.2"]
    monkeypatch.setattr(os, broken, disk_full)
    monkeypatch.setattr(shutil, "copy2", disk_full)
    with pytest.raises(OSError, match="no space left"):
        fnn.save(path, {"w": 3 * ones(3)}, keep=3)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert after == before, "a file is lost, or half a file is left behind"


def kept_steps(path: Path, steps: int) -> list[int]:
    """Save so many steps; return those of the one before, the one before that, and the last."""
    for step in range(steps):
        fnn.save(path, {"step": step}, keep=3)
    names = ["run.1.safetensors", "run.2.safetensors", "run.safetensors"]
    assert sorted(p.name for p in path.parent.iterdir()) == names
    return [fnn.load(path.with_name(name))["step"] for name in names]


def test_a_file_system_without_links_and_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSYS, "function not implemented")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "run.safetensors"
    assert kept_steps(path, 4) == [2, 1, 3]
    assert fnn.weights.latest(tmp_path) == path


@pytest.mark.parametrize("refused", ["open", "fsync"])
def test_a_folder_that_cannot_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """For its permissions or its file system: the file is in its place by then."""
    real = getattr(os, refused)

    def refuse(where: Any, *args: Any) -> Any:
        if os.path.isdir(where):
            raise OSError(errno.EINVAL, "invalid argument")
        return real(where, *args)

    monkeypatch.setattr(os, refused, refuse)
    fnn.save(tmp_path / "a", {"w": ones()})
    same(fnn.load(tmp_path / "a"), {"w": ones()})


def test_a_file_system_that_sets_no_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EPERM, "operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    for step in range(2):
        fnn.save(tmp_path / "a", {"step": step})
    assert fnn.load(tmp_path / "a")["step"] == 1


ELSEWHERE = "fnn.save: path: got .*a, which another process is writing; needed one process that"


@pytest.mark.parametrize("moment", ["writing", "before_the_lock", "before_the_lock, after it"])
def test_one_process_at_a_time_saves_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The other one, here within the call, is whole; a name that it has given away is not taken."""
    path, write, lock, calls = tmp_path / "a", os.fsync, fcntl.flock, []
    fnn.save(path, {"w": ones()})

    def second() -> None:
        calls.append(1)
        if len(calls) == 1:
            fnn.save(path, {"w": 2 * ones()})
            if "after it" in moment:
                (tmp_path / ".a.unfinished").write_bytes(b"of a third process")

    def writing(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            second()
        write(handle)

    def locking(*args: Any) -> None:
        second()
        lock(*args)

    if moment == "writing":
        monkeypatch.setattr(os, "fsync", writing)
    else:
        monkeypatch.setattr(fcntl, "flock", locking)
    with pytest.raises(BlockingIOError, match=ELSEWHERE):
        fnn.save(path, {"w": 3 * ones()})
    same(fnn.load(path), {"w": ones() if moment == "writing" else 2 * ones()})
    left = [p.name for p in tmp_path.iterdir() if p != path]
    assert left == ([".a.unfinished"] if "after it" in moment else [])
    monkeypatch.undo()
    fnn.save(path, {"w": 4 * ones()})
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_really_full_disk_loses_nothing(tmp_path: Path) -> None:
    """The process may write 64 kB: the limit of a file's size stands for the disk's."""
    path = tmp_path / "a"
    fnn.save(path, {"w": ones(3)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            fnn.save(path, {"w": ones(2**16)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    same(fnn.load(path), {"w": ones(3)})
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    fnn.save(path, {"w": ones(3)})
    before = path.read_bytes()
    with path.open("rb") as old:
        fnn.save(path, {"w": 2 * ones(3)})
        assert old.read() == before, "overwritten in place"


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    path, left = tmp_path / "a", [".a.unfinished", ".a.1.unfinished"]
    fnn.save(path, {"w": ones(3)}, keep=2)
    for name in left:
        (tmp_path / name).write_bytes(b"half a file, which is longer than a whole one" * 100)
    fnn.save(path, {"w": 2 * ones(3)}, keep=2)
    same([fnn.load(path), fnn.load(tmp_path / "a.1")], [{"w": 2 * ones(3)}, {"w": ones(3)}])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.1"]


def test_a_process_killed_between_the_names_is_in_nobodys_way(tmp_path: Path) -> None:
    """It has given the newest its second name, and not yet put the new one in its place."""
    path = tmp_path / "a"
    fnn.save(path, {"step": 0})
    os.link(path, tmp_path / "a.1")
    fnn.save(path, {"step": 1}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.1"]
    assert [fnn.load(p)["step"] for p in (path, tmp_path / "a.1")] == [1, 0]


@pytest.mark.parametrize("second", [os.link, shutil.copy2])
def test_a_process_killed_between_the_names_costs_no_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: Any
) -> None:
    """Where a file can have two names, and where the second one is a copy's."""
    path, names = tmp_path / "a", ("a", "a.1", "a.2")
    for step in range(3):
        fnn.save(path, {"step": step}, keep=3)
    (tmp_path / "a.1").replace(tmp_path / "a.2")
    second(path, tmp_path / "a.1")
    monkeypatch.setattr(os, "link", second)
    fnn.save(path, {"step": 3}, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == list(names)
    assert [fnn.load(tmp_path / name)["step"] for name in names] == [3, 2, 1]


def test_files_of_one_length_and_time_are_no_copies(tmp_path: Path) -> None:
    """Small files may be written faster than the clock of a file system moves."""
    path, names = tmp_path / "a", ("a", "a.1", "a.2")
    for step in range(3):
        fnn.save(path, {"step": step}, keep=3)
        os.utime(path, ns=(0, 0))
    fnn.save(path, {"step": 3}, keep=3)
    assert [fnn.load(tmp_path / name)["step"] for name in names] == [3, 2, 1]


def test_a_file_of_the_users_stays(tmp_path: Path) -> None:
    (tmp_path / "run.tmp").write_bytes(b"notes")
    fnn.save(tmp_path / "run", {"w": ones()})
    assert (tmp_path / "run.tmp").read_bytes() == b"notes"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "run", tmp_path / "run"
    fnn.save(target, {"w": ones()})
    link.symlink_to(target)
    fnn.save(link, {"w": ones(2)})
    assert link.is_symlink()
    same(fnn.load(target), {"w": ones(2)})


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    fnn.save(path, {"w": ones()})
    path.chmod(mode)
    fnn.save(path, {"w": ones(2)})
    assert path.stat().st_mode & 0o777 == mode


def test_keep_the_last_ones(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    assert kept_steps(path, 5) == [3, 2, 4]
    with pytest.raises(ValueError, match=r"fnn.save: keep: got 0; needed an int >= 1"):
        fnn.save(path, {}, keep=0)


def test_latest_passes_over_what_is_not_whole(tmp_path: Path) -> None:
    assert fnn.weights.latest(tmp_path / "nowhere") is None
    assert fnn.weights.latest(tmp_path) is None
    path = tmp_path / "run.safetensors"
    for step in range(3):
        fnn.save(path, {"step": step, "w": ones(50)}, keep=3)
        os.utime(path, ns=(step, step))  # as if they had been written at different times
    (tmp_path / "torch.safetensors").write_bytes(write_safetensors({"w": ones()}))
    header = b'{"__metadata__": null}'
    (tmp_path / "null.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert fnn.weights.latest(tmp_path) == path
    path.write_bytes(path.read_bytes()[:-1])
    assert fnn.weights.latest(tmp_path) == tmp_path / "run.1.safetensors"
    flip(tmp_path / "run.1.safetensors", -10)
    assert fnn.load(fnn.weights.latest(str(tmp_path)))["step"] == 0


def test_latest_of_equal_times_goes_by_number(tmp_path: Path) -> None:
    for step in range(11):
        fnn.save(tmp_path / "run.safetensors", {"step": step}, keep=11)
    for file in tmp_path.iterdir():
        os.utime(file, ns=(0, 0))
    for step in reversed(range(11)):
        newest = fnn.weights.latest(tmp_path)
        assert fnn.load(newest)["step"] == step
        newest.unlink()


def test_latest_passes_over_what_is_renamed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run gives its files other names while another process looks for the newest."""
    path, old, is_file = tmp_path / "a.safetensors", tmp_path / "a.1.safetensors", Path.is_file
    for step in range(2):
        fnn.save(path, {"step": step}, keep=2)

    def renamed(file: Path) -> bool:
        found = is_file(file)
        if file == old:
            file.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", renamed)
    assert fnn.weights.latest(tmp_path) == path


def test_latest_passes_over_an_altered_place_of_an_array(tmp_path: Path) -> None:
    """One bit makes a comma a point, and two numbers one."""
    path = tmp_path / "a.safetensors"
    fnn.save(path, {"w": ones(4)})
    content = path.read_bytes()
    flip(path, content.index(b"[0,16]") + 2, bit=2)
    assert path.read_bytes() == content.replace(b"[0,16]", b"[0.16]")
    assert fnn.weights.latest(tmp_path) is None
    for places in (b"160   ", b"[null]", b'["",1]', b"[0,{}]"):
        path.write_bytes(content.replace(b"[0,16]", places))
        assert re.match(MESSAGE, loaded(path))


def test_latest_passes_over_half_an_emoji(tmp_path: Path) -> None:
    """One bit makes another sign of a backslash, and half a character of a key's."""
    path = tmp_path / "a.safetensors"
    fnn.save(path, {"\N{GRINNING FACE}": ones()})
    flip(path, path.read_bytes().index(rb"\\ud83d"))
    assert fnn.weights.latest(tmp_path) is None
    assert "with an altered description" + WHOLE in loaded(path)


def flip(path: Path, place: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


def loaded(path: Path) -> Any:
    """What a file holds, or the message of its refusal."""
    try:
        return fnn.load(path)
    except ValueError as error:
        return str(error)


def test_no_truncated_or_altered_file_gives_another_tree(tmp_path: Path) -> None:
    path, tree = tmp_path / "a", {"first": ones(4), "second": np.arange(5, dtype=np.int32), "n": 7}
    fnn.save(path, tree)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert re.match(MESSAGE, loaded(path))
    accepted = []
    for place in range(len(whole)):
        path.write_bytes(whole)
        flip(path, place)
        got = loaded(path)
        if isinstance(got, str):
            assert re.match(MESSAGE, got)
        else:
            same(got, tree)
            accepted.append(place)
    assert len(accepted) < 40, "more than safetensors' own shapes, dtypes and padding"
    path.write_bytes(whole)
    flip(path, -1)
    message = loaded(path)
    assert "with an array 'second' that is altered or missing" + WHOLE in message


def test_a_missing_file_and_files_of_others(tmp_path: Path) -> None:
    path, name = tmp_path / "a", re.escape(str(tmp_path / "a"))
    with pytest.raises(FileNotFoundError, match=f"fnn.load: path: got {name}; needed an existing"):
        fnn.load(path)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=f"got {name} with no readable header .*{WHOLE}"):
        fnn.load(path)
    path.write_bytes(write_safetensors({"w": ones()}))
    with pytest.raises(
        ValueError, match=r"with no description of a tree; .*fnn.weights.from_torch"
    ):
        fnn.load(path)
    with path.open("wb") as file:
        np.savez(file, w=ones())
    with pytest.raises(ValueError, match=r"the .npz format of fnn 0.1; .*numpy.load reads"):
        fnn.load(path)
    fnn.save(path, {"w": ones()})
    edit(path, '"format": 1', '"format": 2')
    with pytest.raises(ValueError, match="with format 2; needed format 1, or a newer fnn"):
        fnn.load(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("float32", "float33", "what this fnn cannot read .*float33"),
        ("threefry2x32", "newrng", "what this fnn cannot read .*newrng"),
        ('"dtype": "float32"', '"new": 1', "what this fnn cannot read .*'dtype'"),
        ('"shape": [1]', '"shape": [7]', "what this fnn cannot read .*7"),
        ('"node": "list"', '"node": "set"', "a set at 'b'; needed like="),
        ('"format": 1, ', "", "format None; needed format 1, or a newer fnn"),
        ('"sums"', '"crcs"', "what this fnn cannot read .*'sums'"),
    ],
)
def test_files_of_a_version_to_come(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a.safetensors"
    fnn.save(path, {"a": ones(), "b": [jax.random.key(0)]})
    edit(path, old, new)
    with pytest.raises(ValueError, match=f"^fnn.load: path: got {path} with {message}"):
        fnn.load(path)
    assert fnn.weights.latest(tmp_path) in (path, None)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": ones(), "b": [ones(2)], "c": ones()}, "no array 'c'; needed the paths of `like`"),
        ({"b": [ones(2)], "n": 3}, "an extra array 'a'; needed the paths of `like`"),
        (
            {"a": ones(2), "b": [ones(2)], "n": 3},
            r"'a' as float32\[1\]; needed float32\[2\], as in",
        ),
        ({"a": ones().astype(int), "b": [ones(2)], "n": 3}, r"'a' as float32\[1\]; needed int"),
        ({"a": ones(), "b": [ones(2)], "n": 3.0}, "'n' as a Python int; needed a Python float"),
        (
            {"a": jax.random.key(0), "b": [ones(2)], "n": 3},
            r"'a' as .*; needed key<threefry2x32>\[\]",
        ),
    ],
    ids=["less", "more", "shape", "dtype", "number", "key"],
)
def test_another_model_is_found_by_its_first_path(tmp_path: Path, like: Any, message: str) -> None:
    fnn.save(tmp_path / "a", {"a": ones(), "b": [ones(2)], "n": 3})
    with pytest.raises(ValueError, match=f"^fnn.load: path: got .* with {message}"):
        fnn.load(tmp_path / "a", like=like)


def test_a_tree_that_jax_cannot_flatten_is_no_fault_of_the_file(tmp_path: Path) -> None:
    fnn.save(tmp_path / "a", {"a": ones()})
    like = {"a": ones(), 1: 2}
    with pytest.raises(ValueError, match="sorting") as own:
        jax.tree.structure(like)
    with pytest.raises(ValueError, match="sorting") as caught:
        fnn.load(tmp_path / "a", like=like)
    assert str(caught.value) == str(own.value)


class Narrow(NamedTuple):
    x: Any


class Checked(Narrow):
    """A class that takes nothing of what is saved."""

    def __new__(cls, x: Any) -> "Checked":
        raise ValueError("wider")


def test_a_class_that_refuses_what_was_saved_is_named(tmp_path: Path) -> None:
    fnn.save(tmp_path / "a", tuple.__new__(Checked, (ones(),)))
    needed = "a file of this fnn or, for a newer one, a newer fnn; or a class that takes what was"
    with pytest.raises(ValueError, match=rf"\(ValueError: wider\); needed {needed}"):
        fnn.load(tmp_path / "a")


PATHS: dict[str, Any] = {
    "save: path": lambda path: fnn.save(path, {}),
    "load: path": fnn.load,
    "weights.latest: folder": fnn.weights.latest,
    "data.idx: path": fnn.data.idx,
    "data.mnist: path": fnn.data.mnist,
    "data.cifar10: path": fnn.data.cifar10,
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("path", [None, 3, b"run.safetensors", {"w": 1.0}], ids=str)
def test_what_is_no_path_is_refused_by_name(name: str, path: Any) -> None:
    with pytest.raises(TypeError, match=rf"^fnn\.{name}: got .*; needed a str or a pathlib.Path$"):
        PATHS[name](path)
