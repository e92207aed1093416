"""Batches of arrays that stay where they are, in memory or in files, for `fnn.train`."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from fnn.checks import (
    check_int,
    check_int_or_array,
    check_unmasked,
    count_examples,
    describe,
    wrong,
)


def batches(
    data: PyTree[np.ndarray], batch_size: int, *, seed: int = 0
) -> Callable[[int], Iterator[PyTree[np.ndarray]]]:
    """Return shuffled batches of arrays too large for the device, such as memory maps.

    Each epoch reads every example once, in an order that only seed and epoch decide, so that a run
    over them can be resumed. Arrays that fit on the device train faster as `fnn.train`'s data
    themselves.

    Args:
        data: any pytree of NumPy arrays with one common leading axis, the examples.
        batch_size: examples in a batch; the last batch of an epoch has the rest.
        seed: of the orders, at least 0.

    Returns:
        A function of the epoch that returns an iterator of batches, as `fnn.train` takes it.

    Raises:
        ValueError: arrays of unequal lengths; batch_size < 1; a seed that is no int, or negative.
        TypeError: a leaf that is no NumPy array, or one with a mask.

    >>> epoch = fnn.data.batches({"x": np.arange(5), "y": np.arange(5) * 10}, 2)
    >>> [batch["x"].tolist() for batch in epoch(0)]
    [[2, 4], [0, 3], [1]]
    >>> [batch["y"].tolist() for batch in epoch(1)]
    [[10, 40], [0, 30], [20]]
    """
    check_int("data.batches", "batch_size", batch_size, 1)
    check_int("data.batches", "seed", seed, 0)
    for path, leaf in jax.tree.leaves_with_path(data):
        place = "data" + jax.tree_util.keystr(path)
        if not isinstance(leaf, np.ndarray) or leaf.ndim == 0:
            needed = "a NumPy array with the examples first"
            raise wrong("data.batches", place, describe(leaf), needed, TypeError)
        check_unmasked("data.batches", place, leaf)
    n = count_examples("data.batches", data)

    def epoch(number: int) -> Iterator[Any]:
        check_int_or_array("data.batches", "epoch", number, 0)
        order = np.random.default_rng((seed, int(number))).permutation(n)
        places = (order[start : start + batch_size] for start in range(0, n, batch_size))
        parts = map(np.sort, places)  # a file is read forwards
        return (jax.tree.map(lambda x, rows=rows: np.asarray(x[rows]), data) for rows in parts)

    return epoch
