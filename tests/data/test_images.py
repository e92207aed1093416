"""The packaged digits, and the readers of image files: what they return and what they refuse."""

import gzip
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fnn

RNG = np.random.default_rng(0)
MNIST = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (5, 4, 3)).astype(np.uint8),
    "train-labels-idx1-ubyte": np.array([0, 9, 3, 3, 1], np.uint8),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (2, 4, 3)).astype(np.uint8),
    "t10k-labels-idx1-ubyte": np.array([7, 2], np.uint8),
}
CIFAR = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def idx_bytes(a: np.ndarray, code: int = 8) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in a.shape)
    return bytes([0, 0, code, a.ndim]) + sizes + a.astype(a.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    for name, a in MNIST.items():
        (tmp_path / name).write_bytes(idx_bytes(a))
    return tmp_path


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    for i, name in enumerate(CIFAR):
        record = bytes([i]) + bytes([i] * 1024 + [100] * 1024 + [255] * 1024)
        (tmp_path / name).write_bytes(record * 2)
    return tmp_path


def refuses(call: Callable[[], object], *parts: str, kind: type[Exception] = ValueError) -> None:
    """Assert that the message holds these parts in this order."""
    with pytest.raises(kind, match=".*".join(map(re.escape, parts))):
        call()


def test_digits_are_the_published_ones() -> None:
    train, test = fnn.data.digits()
    for part, n in ((train, 1437), (test, 360)):
        assert part.x.shape == (n, 8, 8, 1)
        assert part.x.dtype == np.float32
        assert (part.x.min(), part.x.max()) == (0, 1)
        assert part.y.shape == (n,)
        assert part.y.dtype == np.int32
    held_out, counts = np.bincount(test.y), np.bincount(np.concatenate([train.y, test.y]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.abs(held_out - counts / 5).max() < 1, "a fifth of each class"
    ink = sum(int((part.x * 16).sum()) for part in (train, test))
    assert ink == 561718, "the sum of all pixels of the published file"


def test_the_digits_held_out_are_always_the_same() -> None:
    """So that scores can be compared, from one version to the next."""
    _, test = fnn.data.digits()
    assert zlib.crc32(test.x.tobytes()) == 3183824950
    assert zlib.crc32(test.y.tobytes()) == 208798677


def test_digits_parts_share_no_image() -> None:
    train, test = fnn.data.digits()
    seen = {image.tobytes() for image in train.x}
    assert not seen & {image.tobytes() for image in test.x}


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")]
)
def test_idx_reads_every_type(tmp_path: Path, code: int, dtype: str) -> None:
    a = (RNG.standard_normal((3, 2)) * 50).astype(np.int8).astype(dtype)
    (tmp_path / "a").write_bytes(idx_bytes(a, code))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(a, code)))
    for name in ("a", "a.gz"):
        got = fnn.data.idx(tmp_path / name)
        np.testing.assert_array_equal(got, a)
        assert got.dtype == np.dtype(dtype)
        assert got.flags.writeable


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (b"", ("which begins with", "an IDX file")),
        (b"\x89PNG and so on", ("which begins with 89 50 4e 47", "an IDX file")),
        (bytes([0, 0, 10, 1, 0, 0, 0, 1, 5]), ("which begins with 00 00 0a 01", "a type code")),
        (bytes([0, 0, 8, 0]), ("which begins with 00 00 08 00", "the number of axes")),
        (bytes([0, 0, 8, 3, 0, 0, 0]), ("of 7 bytes", "a header of 16 bytes for 3 axes")),
        (
            idx_bytes(np.zeros((2, 3), np.uint8))[:-1],
            ("of 17 bytes", "18 bytes for the uint8[2, 3]"),
        ),
        (idx_bytes(np.zeros((2, 3), np.uint8)) + b"x", ("of 19 bytes", "18 bytes")),
        (idx_bytes(np.zeros((0, 3), np.uint8)), ("an empty uint8[0, 3]", "some entries")),
        (gzip.compress(bytes(1000))[:-9], ("does not decompress", "a whole gzip file")),
        (b"\x1f\x8bnonsense", ("does not decompress", "a whole gzip file")),
    ],
    ids=lambda v: v[0] if isinstance(v, tuple) else "",
)
def test_idx_refuses(tmp_path: Path, raw: bytes, parts: tuple[str, ...]) -> None:
    path = tmp_path / "file-ubyte"
    path.write_bytes(raw)
    refuses(lambda: fnn.data.idx(path), f"fnn.data.idx: path: got {path}", *parts)


def test_missing_files_are_named(mnist: Path, cifar: Path) -> None:
    gone = mnist / "gone"
    for read in (fnn.data.idx, fnn.data.mnist, fnn.data.cifar10):
        refuses(lambda read=read: read(gone), str(gone), "existing", kind=FileNotFoundError)
    name = "t10k-labels-idx1-ubyte"
    (mnist / name).unlink()
    refuses(lambda: fnn.data.mnist(mnist), f"{mnist} without {name}", kind=FileNotFoundError)
    (cifar / "data_batch_3.bin").unlink()
    gone = cifar / "data_batch_3.bin"
    refuses(lambda: fnn.data.cifar10(cifar), f"got {gone}", kind=FileNotFoundError)


def test_mnist_reads_plain_and_gz(mnist: Path) -> None:
    packed = mnist / "train-images-idx3-ubyte"
    packed.with_suffix(".gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    arrays = list(MNIST.values())
    for part, images, labels in zip(
        fnn.data.mnist(str(mnist)), arrays[::2], arrays[1::2], strict=True
    ):
        np.testing.assert_allclose(part.x, images[..., None] / 255, rtol=1e-6)
        np.testing.assert_array_equal(part.y, labels)
        assert (part.x.dtype, part.y.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("train-labels-idx1-ubyte", np.zeros(4, np.uint8), ("5 images in", "but 4 labels in")),
        ("train-labels-idx1-ubyte", np.zeros((5, 1), np.uint8), ("with uint8[5,1]", "uint8[n]")),
        (
            "t10k-labels-idx1-ubyte",
            np.array([1, 10], np.uint8),
            ("whose label 1", "is 10", "0 ... 9"),
        ),
        ("t10k-images-idx3-ubyte", np.zeros(2, np.uint8), ("uint8[2]", "uint8[n,rows,columns]")),
        ("t10k-images-idx3-ubyte", np.zeros((0, 2, 2), np.uint8), ("an empty uint8[0, 2, 2]",)),
    ],
)
def test_mnist_refuses(mnist: Path, name: str, content: np.ndarray, parts: tuple[str, ...]) -> None:
    (mnist / name).write_bytes(idx_bytes(content))
    with pytest.raises(ValueError, match=".*".join(map(re.escape, parts))) as error:
        fnn.data.mnist(mnist)
    assert str(mnist / name) in str(error.value)


def test_cifar10_reads(cifar: Path) -> None:
    train, test = fnn.data.cifar10(cifar)
    assert train.x.shape == (10, 32, 32, 3)
    assert train.y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (train.x.dtype, train.y.dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(test.x[1, 31, 0] * 255, [5, 100, 255], rtol=1e-6)
    assert test.y.tolist() == [5, 5]


def test_cifar10_keeps_rows_and_columns_apart(cifar: Path) -> None:
    image = RNG.integers(0, 256, (3, 32, 32)).astype(np.uint8)
    (cifar / "test_batch.bin").write_bytes(b"\x04" + image.tobytes())
    x = fnn.data.cifar10(cifar)[1].x
    for channel, row, column in [(0, 0, 1), (1, 2, 0), (2, 31, 7)]:
        assert round(float(x[0, row, column, channel]) * 255) == image[channel, row, column]


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (b"", ("of 0 bytes", "one or more whole records of 3073 bytes")),
        (bytes(3073 + 3072), ("of 6145 bytes", "whole records of 3073 bytes")),
        (bytes(3073) + b"\xff" + bytes(3072), ("whose label 1", "is 255", "labels in 0 ... 9")),
    ],
)
def test_cifar10_refuses(cifar: Path, raw: bytes, parts: tuple[str, ...]) -> None:
    path = cifar / "data_batch_5.bin"
    path.write_bytes(raw)
    refuses(lambda: fnn.data.cifar10(cifar), f"fnn.data.cifar10: path: got {path}", *parts)
