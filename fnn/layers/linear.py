"""Linear layers: matrix, lookup, and the reshape between images and vectors.

``dense`` is ``y = x w + b``; ``embed`` is the same with one-hot rows, done as a lookup; ``flatten``
turns what a convolution gives into what a dense layer takes.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from fnn.checks import check_int, check_size, describe, wrong
from fnn.dtypes import accumulator, add_bias, widen
from fnn.functions import jitted
from fnn.layers.initializers import XAVIER, Initializer, draw, normal

UNIT = normal(1.0)
Operands = tuple[jax.Array, jax.Array, jax.Array]


@jitted()
def dense(
    x: Float[Array, "*n d_in"],
    w: Float[Array, "d_in d_out"],
    b: Float[Array, " d_out"] | None = None,
) -> Float[Array, "*n d_out"]:
    """Return ``y = x w + b``, every output from every input.

    Args:
        x: (*n, d_in) any number of leading axes.
        w: (d_in, d_out), of x's dtype.
        b: (d_out,), of x's dtype.

    Returns:
        (*n, d_out), of x's dtype; half precision is summed in float32, the bias too.

    Raises:
        ValueError: the shapes do not fit.
        TypeError: the dtypes differ.

    Source: Introduction to Deep Learning (2020), feed-forward networks: h = act(W h + b).

    >>> dense(jnp.array([[1., 2.]]), jnp.array([[1., 0.], [0., 3.]]), jnp.array([0., 1.])).tolist()
    [[1.0, 7.0]]
    """
    if x.ndim < 1:
        raise wrong("dense", "x", describe(x), "at least one axis, the features last")
    if w.ndim != 2 or w.shape[0] != x.shape[-1]:
        raise wrong("dense", "w", describe(w), f"shape ({x.shape[-1]}, d_out) for x {describe(x)}")
    if b is not None and b.shape != w.shape[1:]:
        raise wrong("dense", "b", describe(b), f"shape {w.shape[1:]} for w {describe(w)}")
    for argument, array in (("w", w), ("b", b)):
        if array is not None and array.dtype != x.dtype:
            raise wrong("dense", argument, describe(array), f"the dtype of x, {x.dtype}", TypeError)
    return _affine(x, w, b) if b is None or accumulator(x.dtype) == x.dtype else _wide(x, w, b)


def _affine(x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
    return add_bias(jnp.dot(x, w), b)


@jax.custom_jvp
def _wide(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    """The same in half precision, where the product may overflow and ``y`` not."""
    return add_bias(jnp.dot(x, w, preferred_element_type=accumulator(x.dtype)), b).astype(x.dtype)


@_wide.defjvp
def _narrow_slope(primals: Operands, tangents: Operands) -> tuple[jax.Array, jax.Array]:
    # By the rule of `_wide` itself the products of the gradient would have a factor in float32.
    return _wide(*primals), jax.jvp(_affine, primals, tangents)[1]


@jitted(static=("d_in", "d_out", "weights", "bias", "dtype"))
def init_dense(
    key: PRNGKeyArray,
    d_in: int,
    d_out: int,
    *,
    weights: Initializer = XAVIER,
    bias: bool = True,
    dtype: DTypeLike = float,
) -> dict[str, Any]:
    """Draw the arrays of `dense`.

    Args:
        key: random key.
        d_in, d_out: features.
        weights: draws w; Xavier normal, variance 2 / (d_in + d_out).
        bias: whether to include a bias, of zeros.
        dtype: of the arrays; ``float`` is float32, or float64 with x64 on.

    Returns:
        ``{"w": (d_in, d_out), "b": (d_out,)}``, without "b" for ``bias=False``.

    Raises:
        ValueError: a size is below 1, or the weights do not have their shape.
        TypeError: dtype is not a floating-point one.

    Source: X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural
    networks (AISTATS 2010).

    >>> params = init_dense(jax.random.key(0), 3, 5)
    >>> params["w"].shape, params["b"].tolist()
    ((3, 5), [0.0, 0.0, 0.0, 0.0, 0.0])
    """
    check_size("init_dense", "d_in", d_in)
    check_size("init_dense", "d_out", d_out)
    params = {"w": draw("init_dense", weights, key, (d_in, d_out), dtype)}
    if bias:
        params["b"] = jnp.zeros(d_out, dtype)
    return params


def _beside(ids: jax.Array) -> jax.sharding.NamedSharding | None:
    """Return the sharding of one row for each id, which explicit axes ask for."""
    where = jax.typeof(ids).sharding
    if not where.mesh.explicit_axes:
        return None
    spec = jax.sharding.PartitionSpec(*where.spec, None)
    return jax.sharding.NamedSharding(where.mesh, spec)


@jitted(static=("padding_idx",))
def embed(
    ids: Int[Array, "*n"],
    table: Float[Array, "vocabulary d"],
    *,
    padding_idx: int | None = None,
) -> Float[Array, "*n d"]:
    """Return the row of the table for every id, ``y = table[ids]``.

    An id outside [0, vocabulary) gives a row of NaN: a value inside a compiled program cannot
    raise, and another word's row would hide the fault.

    Args:
        ids: (*n) integers.
        table: (vocabulary, d).
        padding_idx: the id of padding, as in PyTorch: its row is returned as any other, but gets no
            gradient and stays what it is; zeros are ``table.at[padding_idx].set(0)``.

    Returns:
        (*n, d), of the table's dtype.

    Raises:
        ValueError: table does not have two axes, or has no rows, or no row padding_idx; NumPy ids
            of 64 bits that do not fit 32, without x64.
        TypeError: ids are no integers.

    Source: Introduction to Deep Learning (2020), inputs of recurrent networks.

    >>> table = jnp.array([[0., 1.], [2., 3.]])
    >>> embed(jnp.array([1, 0, 1]), table).tolist()
    [[2.0, 3.0], [0.0, 1.0], [2.0, 3.0]]
    >>> jax.grad(lambda table: embed(jnp.array([1, 0]), table, padding_idx=0).sum())(table).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise wrong("embed", "ids", describe(ids), "an integer dtype", TypeError)
    if table.ndim != 2 or not table.shape[0]:
        raise wrong("embed", "table", describe(table), "shape (vocabulary, d), at least one row")
    places = ids
    if ids.dtype.itemsize > 4:  # indexing is by int32, in which an id outside may become another
        inside = (ids >= 0) & (ids < table.shape[0])
        places = jnp.where(inside, ids, jnp.asarray(table.shape[0], ids.dtype))
    # Widened, so that the gradient of a frequent id is summed in float32.
    rows = (
        widen(table)
        .at[places]
        .get(
            mode="fill", fill_value=jnp.nan, wrap_negative_indices=False, out_sharding=_beside(ids)
        )
    )
    if padding_idx is not None:
        check_int("embed", "padding_idx", padding_idx, 0)
        if padding_idx >= table.shape[0]:
            raise wrong("embed", "padding_idx", padding_idx, f"a row of table {describe(table)}")
        if padding_idx <= jnp.iinfo(ids.dtype).max:  # in a narrower dtype it would wrap
            rows = jnp.where((ids == padding_idx)[..., None], jax.lax.stop_gradient(rows), rows)
    return rows.astype(table.dtype)


@jitted(static=("vocabulary", "d", "weights", "dtype"))
def init_embed(
    key: PRNGKeyArray,
    vocabulary: int,
    d: int,
    *,
    weights: Initializer = UNIT,
    dtype: DTypeLike = float,
) -> dict[str, Any]:
    """Draw the array of `embed`.

    Args:
        key: random key.
        vocabulary: rows, one per id.
        d: features of a row.
        weights: draws the table; standard normal, so that features look like standardised inputs.
        dtype: of the table; ``float`` is float32, or float64 with x64 on.

    Returns:
        ``{"table": (vocabulary, d)}``.

    Raises:
        ValueError: a size is below 1, or the weights do not have their shape.
        TypeError: dtype is not a floating-point one.

    >>> init_embed(jax.random.key(0), 100, 8)["table"].shape
    (100, 8)
    """
    check_size("init_embed", "vocabulary", vocabulary)
    check_size("init_embed", "d", d)
    return {"table": draw("init_embed", weights, key, (vocabulary, d), dtype)}


@jitted()
def flatten(x: Shaped[Array, "n ..."]) -> Shaped[Array, "n d"]:
    """Return every example as one vector, the last axis fastest.

    Args:
        x: (n, ...).

    Returns:
        (n, d), d the product of the other axes; 1 if there are none.

    Raises:
        ValueError: x has no axis.

    >>> flatten(jnp.zeros((5, 2, 2, 32))).shape
    (5, 128)
    """
    if x.ndim < 1:
        raise wrong("flatten", "x", describe(x), "at least one axis, the examples first")
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
