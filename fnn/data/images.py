"""Real images: the packaged digits, and readers of the IDX and CIFAR-10 files.

A data set is two NumPy arrays with a common first axis: images ``x (n, rows, columns, channels)``,
float32 in [0, 1], and labels ``y (n,)``, int32 in 0 ... 9. The files are as published; nothing is
downloaded, and a file that is not whole and right is refused by name.
"""

import gzip
import math
import zlib
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num, UInt8

from fnn.checks import describe, read_path, wrong
from fnn.trees import exported

CLASSES = 10
IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
CIFAR_SHAPE = (3, 32, 32)


@exported
class Dataset(NamedTuple):
    """Images and their labels, or a batch of them.

    Attributes:
        x: (n, rows, columns, channels), float32 in [0, 1].
        y: (n,), int32 in 0 ... 9.
    """

    x: Float[Any, "n rows columns channels"]  # NumPy's array or JAX's: layers take both
    y: Int[Any, " n"]


def digits() -> tuple[Dataset, Dataset]:
    """Return the packaged 8x8 handwritten digits, as training and test part.

    The 1,797 digits of 13 writers keep their order; every fifth of each class is held out, so both
    parts hold all classes and all writers: the test measures new digits by known hands.

    Returns:
        ``(train, test)`` of 1,437 and 360 images (n, 8, 8, 1).

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository (1998), CC BY 4.0; see ``digits.txt`` beside this file.

    >>> train, test = digits()
    >>> train.x.shape, test.x.shape
    ((1437, 8, 8, 1), (360, 8, 8, 1))
    """
    packaged = resources.files("fnn.data") / "digits.npz"
    with packaged.open("rb") as file, np.load(file) as stored:
        x = stored["images"].astype(np.float32)[..., None] / np.float32(16)
        y = stored["labels"].astype(np.int32)
    held_out = np.zeros(len(y), bool)
    held_out[np.argsort(y, kind="stable")[::5]] = True
    return Dataset(x[~held_out], y[~held_out]), Dataset(x[held_out], y[held_out])


def idx(path: str | Path) -> Num[np.ndarray, "..."]:
    """Return the array in one IDX file, the format of MNIST and Fashion-MNIST.

    Args:
        path: the file, plain or compressed with gzip.

    Returns:
        The array as stored: uint8 (n, 28, 28) for the images of MNIST, uint8 (n,) for its labels.

    Raises:
        TypeError: path is no str or `pathlib.Path`.
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, too long, empty or no IDX file.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (1998).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    path = read_path("data.idx", "path", path)
    raw = _read("data.idx", path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_DTYPES or raw[3] == 0:
        needed = "an IDX file: 00 00, a type code (08, 09, 0b to 0e), the number of axes"
        raise wrong("data.idx", "path", f"{path}, which begins with {raw[:4].hex(' ')}", needed)
    dtype, rank = np.dtype(IDX_DTYPES[raw[2]]), raw[3]
    header = 4 + 4 * rank
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, header, 4)]
    size = header + math.prod(shape) * dtype.itemsize
    if len(raw) < header:
        needed = f"a header of {header} bytes for {rank} axes; fetch it again"
        raise wrong("data.idx", "path", f"{path} of {len(raw)} bytes", needed)
    if len(raw) != size:
        needed = f"{size} bytes for the {dtype.name}{shape} that it announces; fetch it again"
        raise wrong("data.idx", "path", f"{path} of {len(raw)} bytes", needed)
    if 0 in shape:
        raise wrong("data.idx", "path", f"{path}, an empty {dtype.name}{shape}", "some entries")
    return np.frombuffer(raw, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def mnist(path: str | Path) -> tuple[Dataset, Dataset]:
    """Return MNIST, Fashion-MNIST or another set published as the same four IDX files.

    Args:
        path: the folder of ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
            ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each plain or ``.gz``.

    Returns:
        ``(train, test)`` of images (n, 28, 28, 1): 60,000 and 10,000 in the published sets.

    Raises:
        TypeError: path is no str or `pathlib.Path`.
        FileNotFoundError: the folder or one of the files is missing.
        ValueError: a file is damaged, images and labels differ in number, or a label is not in
            0 ... 9.

    >>> mnist("nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: fnn.data.mnist: path: got nowhere; needed an existing folder
    """
    folder = _folder("data.mnist", path)
    return _mnist_part(folder, "train"), _mnist_part(folder, "t10k")


def cifar10(path: str | Path) -> tuple[Dataset, Dataset]:
    """Return CIFAR-10 from its binary version.

    Each record of 3,073 bytes is a label, then the red, green and blue planes of one image.

    Args:
        path: the folder of ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.

    Returns:
        ``(train, test)`` of images (n, 32, 32, 3): 50,000 and 10,000 in the published set.

    Raises:
        TypeError: path is no str or `pathlib.Path`.
        FileNotFoundError: the folder or one of the files is missing.
        ValueError: a file is empty or truncated, or a label is not in 0 ... 9.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images (2009).

    >>> cifar10("nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: fnn.data.cifar10: path: got nowhere; needed an existing folder
    """
    folder = _folder("data.cifar10", path)
    batches = [_cifar_batch(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
    train = Dataset(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))
    return train, _cifar_batch(folder / "test_batch.bin")


def _cifar_batch(path: Path) -> Dataset:
    raw, record = _read("data.cifar10", path), 1 + math.prod(CIFAR_SHAPE)
    if len(raw) == 0 or len(raw) % record:
        needed = f"one or more whole records of {record} bytes; fetch it again"
        raise wrong("data.cifar10", "path", f"{path} of {len(raw)} bytes", needed)
    records = np.frombuffer(raw, np.uint8).reshape(-1, record)
    planes = records[:, 1:].reshape(-1, *CIFAR_SHAPE)
    y = _labels("data.cifar10", path, records[:, 0])
    return Dataset(_unit(planes.transpose(0, 2, 3, 1)), y)


def _mnist_part(folder: Path, part: str) -> Dataset:
    images = _file(folder, f"{part}-images-idx3-ubyte")
    labels = _file(folder, f"{part}-labels-idx1-ubyte")
    x, y = idx(images), idx(labels)
    if x.dtype != np.uint8 or x.ndim != 3:
        raise wrong("data.mnist", "path", f"{images} with {describe(x)}", "uint8[n,rows,columns]")
    if y.dtype != np.uint8 or y.ndim != 1:
        raise wrong("data.mnist", "path", f"{labels} with {describe(y)}", "uint8[n]")
    if len(x) != len(y):
        got = f"{len(x)} images in {images} but {len(y)} labels in {labels}"
        raise wrong("data.mnist", "path", got, "one label for each image")
    return Dataset(_unit(x[..., None]), _labels("data.mnist", labels, y))


def _unit(x: UInt8[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Bytes as float32 in [0, 1]."""
    return x.astype(np.float32) / np.float32(255)


def _labels(function: str, path: Path, y: UInt8[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    if y.max() >= CLASSES:
        place = int(np.argmax(y >= CLASSES))
        got = f"{path}, whose label {place} (counted from 0) is {y[place]}"
        raise wrong(function, "path", got, f"labels in 0 ... {CLASSES - 1}")
    return y.astype(np.int32)


def _read(function: str, path: Path) -> bytes:
    """All bytes of a file, decompressed where it begins as gzip does."""
    if not path.is_file():
        raise wrong(function, "path", path, "an existing file", FileNotFoundError)
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        got = f"{path}, which does not decompress ({error})"
        raise wrong(function, "path", got, "a whole gzip file; fetch it again") from error


def _folder(function: str, path: str | Path) -> Path:
    path = read_path(function, "path", path)
    if not path.is_dir():
        raise wrong(function, "path", path, "an existing folder", FileNotFoundError)
    return path


def _file(folder: Path, name: str) -> Path:
    """The file of this name, or, where that is missing, the one with ``.gz``."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.is_file() and not packed.is_file():
        got = f"{folder} without {name}"
        raise wrong("data.mnist", "path", got, "that file, plain or .gz", FileNotFoundError)
    return plain if plain.is_file() else packed
