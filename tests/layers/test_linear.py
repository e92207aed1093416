"""dense, embed and flatten against their index sums; their messages."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import HALF, check
from tests.oracles import linear as oracle

DTYPES = [*HALF, np.dtype(np.float32), np.dtype(np.float64)]
RNG = np.random.default_rng(0)


def draw(dtype: Any, *shape: int) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dense(dtype: Any) -> None:
    with jax.enable_x64(True):
        x, w, b = draw(dtype, 3, 2, 7), draw(dtype, 7, 5), draw(dtype, 5)
        check(fnn.dense, oracle.dense, x, w, b, length=7)


def test_dense_without_bias_and_for_one_vector() -> None:
    check(fnn.dense, oracle.dense, draw(np.float32, 7), draw(np.float32, 7, 5), length=7)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_dense_adds_the_bias_before_it_rounds(dtype: Any) -> None:
    """And the products of the gradient stay in half precision, of which a GPU makes more."""
    odd = 2 / float(jnp.finfo(dtype).eps)  # odd + 1 is no number of the dtype
    x, w, b = (np.array(a, dtype) for a in ([[1, 1]], [[odd], [1]], [-odd]))
    assert fnn.dense(x, w, b).tolist() == [[1.0]]
    pulled = lambda x, w, b: jax.vjp(fnn.dense, x, w, b)[1](2 * jnp.ones((1, 1), dtype))
    gradients = jax.jit(pulled)(x, w, b)
    assert [g.dtype for g in gradients] == [dtype] * 3
    assert [g.tolist() for g in gradients] == [[[2 * odd, 2]], [[2], [2]], [2]]
    forward, slope = jax.jit(lambda *a: jax.jvp(fnn.dense, a, a))(x, w, b)
    assert (forward.tolist(), slope.tolist()) == ([[1.0]], [[odd]])
    program = jax.jit(pulled).lower(x, w, b).as_text()
    products = re.findall(r"dot_general.*: \((.*)\) ->", program)
    name = {"float16": "xf16>", "bfloat16": "xbf16>"}[str(dtype)]
    assert len(products) >= 2
    assert all(factors.count(name) == 2 for factors in products)


def test_dense_in_half_precision_overflows_where_its_result_does() -> None:
    x, w, b = (np.array(a, np.float16) for a in ([[200, 200]], [[175], [175]], [-20_016]))
    assert fnn.dense(x, w, b).tolist() == [[49_984.0]]
    assert fnn.dense(x, w, -b).tolist() == [[np.inf]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_embed(dtype: Any) -> None:
    ids = np.array([[3, 0, 3], [5, 3, 1]])
    with jax.enable_x64(True):
        check(fnn.embed, oracle.embed, ids, draw(dtype, 6, 4), length=3)


def test_embed_of_a_missing_row_is_nan_and_moves_no_other_row() -> None:
    ids, table = np.array([-1, 6, 2]), draw(np.float32, 6, 4)
    check(fnn.embed, oracle.embed, ids, table, wrt=())
    total = lambda t: jnp.nansum(fnn.embed(jnp.asarray(ids), t))
    gradient = jax.jit(jax.grad(total))(jnp.asarray(table))
    assert np.flatnonzero(np.asarray(gradient).any(1)).tolist() == [2]
    with jax.enable_x64(True):
        for dtype in (jnp.int64, jnp.uint64):
            rows = fnn.embed(jnp.array([2**32 + 2, 2], dtype), jnp.asarray(table))
            assert np.isnan(rows).all(1).tolist() == [True, False]
        rows = fnn.embed(jnp.array([1 - 2**32, 1]), jnp.asarray(table))
        assert np.isnan(rows).all(1).tolist() == [True, False]


def test_the_row_of_padding_is_returned_and_gets_no_gradient() -> None:
    ids, table = jnp.array([[3, 0, 3], [0, 3, 1]]), jnp.asarray(draw(np.float32, 6, 4))
    ct = jnp.asarray(draw(np.float32, 2, 3, 4))

    def loss(table: Any, **config: Any) -> Any:
        return (fnn.embed(ids, table, **config) * ct).sum()

    losses = (loss, functools.partial(loss, padding_idx=3))
    plain, padded = jax.jit(lambda table: [jax.grad(f)(table) for f in losses])(table)
    np.testing.assert_array_equal(fnn.embed(ids, table, padding_idx=3), fnn.embed(ids, table))
    np.testing.assert_array_equal(padded, plain.at[3].set(0))
    assert (plain[3] != 0).all()


def test_the_id_of_padding_may_be_beyond_what_narrow_ids_can_say() -> None:
    """As uint8 the id 500 would be 244: another word, that is to learn."""
    ids, table = jnp.array([244], jnp.uint8), jnp.zeros((1000, 1))
    gradient = jax.grad(lambda table: fnn.embed(ids, table, padding_idx=500).sum())(table)
    assert np.flatnonzero(gradient).tolist() == [244]


def test_embed_is_dense_on_one_hot_rows() -> None:
    ids, table = RNG.integers(0, 6, (4, 3)), jnp.asarray(draw(np.float32, 6, 5))
    hot = jax.nn.one_hot(ids, 6)
    np.testing.assert_array_equal(fnn.embed(jnp.asarray(ids), table), fnn.dense(hot, table))


def test_flatten() -> None:
    x = np.arange(24.0, dtype=np.float32).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(fnn.flatten(x), x.reshape(2, 12))
    assert fnn.flatten(np.zeros((0, 3, 2), np.float32)).shape == (0, 6)
    assert fnn.flatten(np.zeros(5, np.int32)).shape == (5, 1)


f32 = np.float32
WRONG: list[tuple[Any, ...]] = [
    (fnn.dense, (f32(1), np.ones((1, 2), f32)), ValueError,
     "fnn.dense: x: got float32[]; needed at least one axis, the features last"),
    (fnn.dense, (np.ones((2, 3), f32), np.ones((4, 5), f32)), ValueError,
     "fnn.dense: w: got float32[4,5]; needed shape (3, d_out) for x float32[2,3]"),
    (fnn.dense, (np.ones((2, 3), f32), np.ones(3, f32)), ValueError,
     "fnn.dense: w: got float32[3]; needed shape (3, d_out) for x float32[2,3]"),
    (fnn.dense, (np.ones((2, 3), f32), np.ones((3, 5), f32), np.ones((1, 5), f32)), ValueError,
     "fnn.dense: b: got float32[1,5]; needed shape (5,) for w float32[3,5]"),
    (fnn.dense, (np.ones((2, 3), f32), np.ones((3, 5), np.float16)), TypeError,
     "fnn.dense: w: got float16[3,5]; needed the dtype of x, float32"),
    (fnn.dense, (np.ones((2, 3), f32), np.ones((3, 5), f32), np.ones(5, np.float16)), TypeError,
     "fnn.dense: b: got float16[5]; needed the dtype of x, float32"),
    (fnn.embed, (np.ones(3, f32), np.ones((4, 2), f32)), TypeError,
     "fnn.embed: ids: got float32[3]; needed an integer dtype"),
    (fnn.embed, (np.ones(3, ">i4"), np.ones((4, 2), f32)), TypeError,
     "fnn.embed: ids: got >i4[3] of >i4; needed numbers that JAX can hold: native, of 64 bits or "
     'less, by x.astype(x.dtype.newbyteorder("="))'),
    (fnn.embed, (np.ones(3, np.int32), np.ones(4, f32)), ValueError,
     "fnn.embed: table: got float32[4]; needed shape (vocabulary, d), at least one row"),
    (fnn.embed, (np.ones(3, np.int32), np.ones((0, 2), f32)), ValueError,
     "fnn.embed: table: got float32[0,2]; needed shape (vocabulary, d), at least one row"),
    (functools.partial(fnn.embed, padding_idx=4), (np.ones(3, np.int32), np.ones((4, 2), f32)),
     ValueError, "fnn.embed: padding_idx: got 4; needed a row of table float32[4,2]"),
    (functools.partial(fnn.embed, padding_idx=-1), (np.ones(3, np.int32), np.ones((4, 2), f32)),
     ValueError, "fnn.embed: padding_idx: got -1; needed an int >= 0"),
    (fnn.dense, ([1.0], np.ones((1, 1), f32)), TypeError,
     "fnn.dense: x: got list [1.0]; needed an array, such as jnp.asarray makes of a list"),
    (fnn.embed, ([1], np.ones((1, 1), f32)), TypeError,
     "fnn.embed: ids: got list [1]; needed an array, such as jnp.asarray makes of a list"),
    (fnn.flatten, ([1.0],), TypeError,
     "fnn.flatten: x: got list [1.0]; needed an array, such as jnp.asarray makes of a list"),
    (fnn.flatten, (f32(1),), ValueError,
     "fnn.flatten: x: got float32[]; needed at least one axis, the examples first"),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "args", "kind", "message"), WRONG)
def test_messages(fn: Any, args: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind) as error:
        fn(*args)
    assert str(error.value) == message
