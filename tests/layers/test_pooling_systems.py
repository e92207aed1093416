"""The reference systems of pooling, each with the numbers that the courses print."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close, vjp

BLOCKS = [[0, 1, 2], [3, 4], [5, 6], [7, 8, 9]]


@pytest.mark.parametrize(
    ("reduce", "want"),
    [("max", [4, 7, 4, 9]), ("min", [2, 6, 1, 0]), ("avg", [3, 6.5, 2.5, 11 / 3])],
)
def test_A6_a_partition(reduce: str, want: list[float]) -> None:
    """Of a plain vector, of examples, and in any order of the indices."""
    y = jnp.array([2.0, 4, 3, 7, 6, 4, 1, 0, 2, 9])
    close(fnn.partition_pool(y, BLOCKS, reduce), np.array(want), length=3)
    both = fnn.partition_pool(jnp.stack([y, -y]), BLOCKS, reduce)
    close(both[0], np.array(want), length=3)
    order = np.random.default_rng(0).permutation(10)
    scattered = [[int(np.flatnonzero(order == i)[0]) for i in block] for block in BLOCKS]
    close(fnn.partition_pool(y[order], scattered, reduce), np.array(want), length=3)


FOUR = jnp.array([[1.0, 2, 3, 1], [1, 5, 2, 7], [10, 1, 2, 4], [8, 9, 1, 8]])
LOCAL: dict[str, Any] = {  # 2 by 2, and over all
    "max": ([[5, 7], [10, 8]], 10),
    "min": ([[1, 1], [1, 1]], 1),
    "avg": ([[2.25, 3.25], [7, 3.75]], 65 / 16),
}


@pytest.mark.parametrize("name", LOCAL)
def test_A12_local_and_global_pooling(name: str) -> None:
    """Each channel by itself: the second is the negative of the first."""
    x = jnp.stack([FOUR, -FOUR], -1)[None]
    opposite = {"max": "min", "min": "max", "avg": "avg"}[name]
    local, total = LOCAL[name]
    y = getattr(fnn, f"{name}_pool")(x, 2)[0]
    assert y[..., 0].tolist() == local
    assert y[..., 1].tolist() == (-np.array(LOCAL[opposite][0])).tolist()
    whole = getattr(fnn, f"global_{name}_pool")(x)
    assert whole.tolist() == [[total, -LOCAL[opposite][1]]]


@pytest.mark.parametrize("s", [2, 3])
def test_C9_max_pooling_takes_indices_s_i_to_s_i_plus_s_minus_1(s: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 6, 12, 2)).astype(np.float32)
    y = fnn.max_pool(x, s)
    assert y.shape == (1, 6 // s, 12 // s, 2)
    for i, j in np.ndindex(y.shape[1:3]):
        seen = x[0, s * i : s * (i + 1), s * j : s * (j + 1)]
        assert np.array_equal(y[0, i, j], seen.max((0, 1)))


@pytest.mark.parametrize(
    ("stride", "g", "want"),
    [
        (2, [[1, 2], [3, 4]], [[0, 0, 0, 0], [0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 0, 4]]),
        (1, np.arange(1, 10).reshape(3, 3),
         [[0, 0, 0, 0], [0, 8, 0, 9], [11, 0, 0, 0], [0, 8, 0, 9]]),
    ],
)  # fmt: skip
def test_C10_the_gradient_is_routed_to_the_maximum(stride: int, g: Any, want: Any) -> None:
    """By hand: every window gives its gradient to its maximum, which sums what it gets."""
    pool = lambda x: fnn.max_pool(x, 2, stride=stride)[0, ..., 0]
    _, pull = vjp(pool, FOUR[None, ..., None])
    assert pull(jnp.asarray(g, jnp.float32))[0][0, ..., 0].tolist() == want
