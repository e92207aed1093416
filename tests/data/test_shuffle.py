"""Batches of arrays in files: each example once an epoch, in an order that can be had again."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

X = np.arange(10, dtype=np.float32).reshape(10, 1) * np.ones((1, 3), np.float32)
DATA = {"x": X, "y": np.arange(10)}


@pytest.mark.parametrize("size", [1, 3, 5, 10, 11])
def test_each_epoch_has_each_example_once(size: int) -> None:
    epoch = fnn.data.batches(DATA, size, seed=3)
    orders = []
    for number in range(3):
        batches = list(epoch(number))
        order = np.concatenate([batch["y"] for batch in batches])
        assert sorted(order) == list(range(10))
        assert [len(b["y"]) for b in batches[:-1]] == [size] * (len(batches) - 1)
        for batch in batches:
            np.testing.assert_array_equal(batch["x"][:, 0], batch["y"])
        orders.append(order.tolist())
        again = fnn.data.batches(DATA, size, seed=3)(number)
        assert np.concatenate([b["y"] for b in again]).tolist() == order.tolist()
    if size < 10:
        assert orders[0] != orders[1], "a fresh order for every epoch"
        other = fnn.data.batches(DATA, size, seed=4)(0)
        assert np.concatenate([b["y"] for b in other]).tolist() != orders[0]


def test_training_over_a_memory_map_resumes(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, X)
    x = np.load(path, mmap_mode="r")

    def loss(w: Any, batch: Any) -> Any:
        return ((batch @ w - 1) ** 2).mean()

    def run(resume: Any = None) -> list[Any]:
        reports = fnn.train(
            loss, jnp.zeros(3), fnn.sgd(1e-3), fnn.data.batches(x, 4), epochs=2,
            key=jax.random.key(0), report_every=1, resume=resume,
        )  # fmt: skip
        return list(reports)

    whole = run()
    assert len(whole) == 6
    rest = run(whole[1].run)
    np.testing.assert_array_equal(rest[-1].params, whole[-1].params)


@pytest.mark.parametrize(
    "x",
    [X.astype(">f4"), np.arange(10).astype("U2"), np.zeros(10, [("x", "f4"), ("y", "i8")])],
    ids=["big_endian", "strings", "records"],
)
def test_what_jax_cannot_hold_may_be_converted_behind(x: np.ndarray) -> None:
    read = list(fnn.data.batches(x, 4)(0))
    assert [batch.dtype for batch in read] == [x.dtype] * 3
    assert sorted(np.concatenate(read).tolist()) == sorted(x.tolist())


@pytest.mark.parametrize("seed", [-1, 1.5, None, "a"])
def test_a_seed_is_an_int(seed: Any) -> None:
    with pytest.raises(ValueError, match=f"^fnn.data.batches: seed: got {seed!r}; needed an int"):
        fnn.data.batches(DATA, 2, seed=seed)


@pytest.mark.parametrize(
    ("data", "size", "kind", "message"),
    [
        (DATA, 0, ValueError, "batch_size: got 0; needed an int >= 1"),
        (
            {"x": X, "y": np.arange(9)},
            2,
            ValueError,
            r"data: got 10 examples in data\['x'\], 9 examples in data\['y'\]; needed arrays with",
        ),
        (X[:0], 2, ValueError, "data: got no examples in data; needed arrays with one common"),
        ({"x": [1.0]}, 2, TypeError, r"data\['x'\]\[0\]: got float 1.0; needed a NumPy array"),
        (
            np.ma.masked_array(X, X > 3),
            2,
            TypeError,
            r"data: got a masked float32\[10,3\]; needed an array without a mask",
        ),
        ((), 2, ValueError, "data: got no array; needed arrays with one common"),
    ],
)
def test_refuses(data: Any, size: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=f"^fnn.data.batches: {message}"):
        fnn.data.batches(data, size)


def test_refuses_what_is_no_epoch() -> None:
    epoch = fnn.data.batches(X, 2)
    assert len([*epoch(np.int64(3))]) == len([*epoch(jnp.int32(3))]) == 5
    wrong: Any
    for wrong in ("x", -1, 1.5, None):
        with pytest.raises(
            ValueError, match=r"^fnn.data.batches: epoch: got .*; needed an int >= 0"
        ):
            epoch(wrong)
