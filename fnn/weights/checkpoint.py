"""Parameters and runs in files: `save`, `load` and `latest`.

A file is in the safetensors format, which every framework reads: each array by its path, and in the
metadata a description of the tree in JSON with a checksum of every array. Nothing in it is code.
"""

import fcntl
import itertools
import json
import os
import shutil
import zlib
from contextlib import suppress
from operator import index
from pathlib import Path
from typing import IO, Any

import jax
from jaxtyping import PyTree
from safetensors.numpy import save as serialize

from fnn.checks import check_int, read_path, wrong
from fnn.weights.structure import Packed, Unfit, pack, unpack, unpack_like

FORMAT = 1
ENTRY, CHECKSUM = "fnn", "fnn.crc32"  # in the metadata: the description, and its own checksum
SUFFIX = ".safetensors"
STRANGE = (ValueError, LookupError, TypeError, AttributeError)  # what reading another form raises


def save(path: str | Path, tree: PyTree[Any], *, keep: int = 1) -> None:
    """Write a pytree to a file, which is replaced only by a whole one.

    A process that is killed, or a disk that is full, leaves the file as it was.

    Args:
        path: the file, in an existing folder; by custom it ends in ``.safetensors``. Where it is
            there already, it keeps its permissions, and a symbolic link then points to the new
            file.
        tree: arrays of any dtype that JAX has, random keys, bools, ints and floats, in dicts (with
            str or int keys), lists, tuples, None, NamedTuples and other registered pytrees:
            parameters, an optimizer's state, or all that a run carries, ``report.run``.
        keep: how many files to keep: the new one and keep - 1 before it, as ``run.1.safetensors``
            and so on, the oldest with the largest number. `latest` finds the newest. Files of an
            earlier call that kept more stay.

    Returns:
        None.

    Raises:
        TypeError: path is no str or `pathlib.Path`; the tree holds something else: a string, a
            function, an array that JAX would narrow, as float64 without x64; a traced array.
        ValueError: keep < 1; an array of which other processes have parts; one that was donated;
            two arrays whose keys are the same as strings.
        OSError: the folder does not exist or cannot be written, path is a folder or a device, the
            disk is full; another process is writing the file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fnn.save(f"{folder}/a.safetensors", {"w": jnp.ones(2), "layers": [None, 3]})
    ...     fnn.load(f"{folder}/a.safetensors")
    {'w': Array([1., 1.], dtype=float32), 'layers': [None, 3]}
    """
    check_int("save", "keep", keep, 1)
    path = read_path("save", "path", path).resolve()  # a link stays a link
    content = _encode(pack(tree))
    if not path.parent.is_dir():
        got = f"{path} in a folder that does not exist"
        raise wrong("save", "path", got, "an existing folder", FileNotFoundError)
    if path.is_dir():
        raise wrong("save", "path", path, "a file: this is a folder", IsADirectoryError)
    if path.exists() and not path.is_file():  # which the new file would replace
        needed = "a file: this is a device, a pipe or a socket"
        raise wrong("save", "path", path, needed, OSError)
    unfinished = _unfinished(path)
    with unfinished.open("ab") as file:  # over what a killed process left
        if not _is_own(file):
            got = f"{path}, which another process is writing"
            raise wrong("save", "path", got, "one process that saves to it", BlockingIOError)
        mode = (path if path.exists() else unfinished).stat().st_mode & 0o777
        try:
            _permit(file, mode | 0o200)  # what is unfinished can be written over
            _write(file, content)
            _rotate(path, keep)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _permit(file, mode)
        _flush(path.parent)


def load(path: str | Path, *, like: PyTree[Any] = None) -> PyTree[Any]:
    """Return the pytree that `save` wrote to a file.

    Args:
        path: the file.
        like: a tree of the same structure, shapes and dtypes, such as the parameters before
            training, in whose structure the arrays come. It is needed for nodes other than dicts,
            lists, tuples, None and NamedTuples, and finds a file that belongs to another model.

    Returns:
        The same tree, with its arrays on the default device.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: path is no str or `pathlib.Path`.
        ValueError: the file is truncated or altered or was not written by `save`; it has 64-bit
            arrays while JAX keeps to 32 bits; it holds what this version does not know, such as
            another dtype; it differs from like. The first bad path is named.

    >>> fnn.load("nowhere.safetensors")
    Traceback (most recent call last):
    ...
    FileNotFoundError: fnn.load: path: got nowhere.safetensors; needed an existing file
    """
    path = read_path("load", "path", path)
    if not path.is_file():
        raise wrong("load", "path", path, "an existing file", FileNotFoundError)
    jax.tree.structure(like)  # what JAX cannot flatten is no fault of the file
    try:
        packed = _decode(path.read_bytes())
        return unpack(packed) if like is None else unpack_like(packed, like)
    except Unfit as error:
        raise wrong("load", "path", f"{path} with {error.got}", error.needed) from None
    except STRANGE as error:  # a dtype, say, that this version does not know
        got = f"{path} with what this fnn cannot read ({type(error).__name__}: {error})"
        needed = "a file of this fnn or, for a newer one, a newer fnn; or a class that takes what"
        raise wrong("load", "path", got, f"{needed} was saved") from error


def latest(folder: str | Path) -> Path | None:
    """Return the newest whole file in a folder that `save` wrote, or None where there is none.

    The newest by time of modification; of equal times, ``run`` before ``run.1`` before ``run.2``.
    Files that are truncated or altered are passed over.

    Args:
        folder: where to look for ``*.safetensors``; it need not exist.

    Returns:
        The file's path.

    Raises:
        OSError: folder is no folder, or one that cannot be read.
        TypeError: folder is no str or `pathlib.Path`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in range(3):
    ...         fnn.save(f"{folder}/run.safetensors", jnp.array(step), keep=2)
    ...     found = fnn.weights.latest(folder)
    ...     found.name, int(fnn.load(found))
    ('run.safetensors', 2)
    """
    folder = read_path("weights.latest", "folder", folder)
    if folder.exists() and not folder.is_dir():
        raise wrong("weights.latest", "folder", folder, "a folder", NotADirectoryError)
    within = folder.iterdir() if folder.exists() else ()  # glob would pass over what it cannot read
    times = {}
    for file in within:
        if file.suffix == SUFFIX and file.is_file():
            with suppress(FileNotFoundError):  # which a run has just renamed
                times[file] = file.stat().st_mtime_ns
    for file in sorted(times, key=lambda f: (times[f], -_number(f), f.name), reverse=True):
        try:
            _decode(file.read_bytes())
        except (Unfit, OSError, *STRANGE):
            continue
        return file
    return None


def _number(file: Path) -> int:
    """Return which of its series a file is, as `save` counts them: 2 for ``run.2.safetensors``."""
    number = Path(file.stem).suffix[1:]
    return int(number) if number.isdecimal() else 0


def _encode(packed: Packed) -> bytes:
    sums = {path: zlib.crc32(x.reshape(-1).view("u1")) for path, x in packed.arrays.items()}
    facts = json.dumps({"format": FORMAT, "tree": packed.tree, "sums": sums})
    return serialize(dict(packed.arrays), {ENTRY: facts, CHECKSUM: str(zlib.crc32(facts.encode()))})


def _decode(content: bytes) -> Packed:
    """Return what a file holds, or raise `Unfit` with the first thing that is wrong."""
    whole = "a whole file that fnn.save wrote; fnn.weights.latest(folder) finds one"
    if content[:4] == b"PK\x03\x04":
        needed = "a .safetensors file: numpy.load reads the arrays of this one, to be saved anew"
        raise Unfit("the .npz format of fnn 0.1", needed)
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        entries = json.loads(content[8:start])
        metadata = entries.pop("__metadata__", None) or {}
        places = {
            path: (index(begin), index(end))
            for path, entry in entries.items()
            for begin, end in [entry["data_offsets"]]
        }
    except STRANGE as error:
        raise Unfit(f"no readable header ({type(error).__name__}: {error})", whole) from None
    if ENTRY not in metadata:
        needed = "a file that fnn.save wrote; fnn.weights.from_torch reads others"
        raise Unfit("no description of a tree", needed)
    description = metadata[ENTRY].encode(errors="surrogatepass")  # an altered emoji may be half one
    if str(zlib.crc32(description)) != metadata.get(CHECKSUM):
        raise Unfit("an altered description", whole)
    facts = json.loads(metadata[ENTRY])
    if (form := facts.get("format")) != FORMAT:
        raise Unfit(f"format {form}", f"format {FORMAT}, or a newer fnn")
    data, arrays = memoryview(content)[start:], {}
    for path, checksum in facts["sums"].items():
        begin, end = places.get(path, (0, 0))
        arrays[path] = data[begin:end]
        if path not in places or zlib.crc32(arrays[path]) != checksum:
            raise Unfit(f"an array {path!r} that is altered or missing", whole)
    return Packed(facts["tree"], arrays)


def _unfinished(path: Path) -> Path:
    """Return the name that a file has until it is whole."""
    return path.with_name(f".{path.name}.unfinished")


def _is_own(file: IO[bytes]) -> bool:
    """Whether this process has the unfinished file for itself; locks it until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # on a file system without locks, as those of clusters may be
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except FileNotFoundError:  # the other has put it in place meanwhile
        return False


def _permit(file: IO[bytes], mode: int) -> None:
    """Give a file these permissions; some file systems refuse even to set those that it has."""
    if os.fstat(file.fileno()).st_mode & 0o777 != mode:
        os.fchmod(file.fileno(), mode)


def _write(file: IO[bytes], content: bytes) -> None:
    """Write a file anew, through to the disk."""
    file.truncate(0)
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _rotate(path: Path, keep: int) -> None:
    """Give every file of the series the name of the one before it; the newest keeps its own too."""
    names = [path.with_name(f"{path.stem}.{i}{path.suffix}") for i in range(1, keep)]
    if not names or not path.exists():
        return
    second = _unfinished(names[0])
    second.unlink(missing_ok=True)
    if names[0].exists() and _is_second(names[0], path):
        return  # a process was killed between the names: the older files have moved already
    try:
        try:
            os.link(path, second)
        except OSError:  # on a file system without links
            shutil.copy2(path, second)
        for newer, older in reversed(list(itertools.pairwise(names))):
            if newer.exists():
                newer.replace(older)
        second.replace(names[0])
    finally:
        second.unlink(missing_ok=True)  # where something failed


def _is_second(other: Path, path: Path) -> bool:
    """Whether this is a second name of a file or, without links, its copy, which keeps its time."""
    if other.stat().st_mtime_ns != path.stat().st_mtime_ns:
        return False
    return other.samefile(path) or other.read_bytes() == path.read_bytes()


def _flush(folder: Path) -> None:
    """Write a folder's names through to the disk, where file system and permissions allow it."""
    with suppress(OSError):  # the file is whole and in its place already
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
