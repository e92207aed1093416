"""A prediction beside its target: checked against each other, widened, masked and weighted."""

import jax
import jax.numpy as jnp

from fnn.checks import describe, wrong
from fnn.dtypes import accumulator, is_whole
from fnn.layers.softmax import check_where


def entries(
    function: str, name: str, x: jax.Array, y: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Check two arrays to compare entry by entry; widen them, with 0 for what is not kept."""
    check_beside(function, name, y, x)
    check_where(function, x, where)
    wide = accumulator(x.dtype)
    x, y = x.astype(wide), y.astype(wide)
    return (x, y) if where is None else (jnp.where(where, x, 0), jnp.where(where, y, 0))


def check_beside(function: str, argument: str, y: jax.Array, x: jax.Array) -> None:
    """Raise unless y has the shape of x, and its dtype or that of integers."""
    if y.shape != x.shape:
        needed = f"the shape of {describe(x)}, nothing is broadcast"
        raise wrong(function, argument, describe(y), needed)
    if y.dtype != x.dtype and not is_whole(y.dtype):
        needed = f"the dtype of {describe(x)}, or integers"
        raise wrong(function, argument, describe(y), needed, TypeError)


def kept(loss: jax.Array, where: jax.Array | None) -> jax.Array:
    """Return the loss of each entry, 0 where it is not kept."""
    return loss if where is None else jnp.where(where, loss, 0)


def weighted(weight: jax.Array, loss: jax.Array) -> jax.Array:
    """Weight times loss, where no weight times an infinite loss is 0."""
    return weight * jnp.where((weight == 0) & jnp.isinf(loss), 0, loss)


def check_classes(function: str, argument: str, scores: jax.Array) -> None:
    """Raise unless there is an axis of classes."""
    if scores.ndim < 1:
        raise wrong(function, argument, describe(scores), "at least one axis, the classes last")


def check_labels(function: str, labels: jax.Array, scores: jax.Array) -> None:
    """Raise unless these are integers (*n), beside scores (*n, classes)."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise wrong(function, "labels", describe(labels), "integers", TypeError)
    if labels.shape != scores.shape[:-1]:
        needed = f"integers of shape {scores.shape[:-1]}, one for each row of {describe(scores)}"
        raise wrong(function, "labels", describe(labels), needed)


def aligned(function: str, labels: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Check labels (*n) of scores (*n, classes); return the id of every class, and the label."""
    check_labels(function, labels, scores)
    index = jnp.int64 if labels.dtype.itemsize > 4 else jnp.int32
    classes = jax.lax.broadcasted_iota(index, scores.shape, scores.ndim - 1)
    return classes, labels[..., None].astype(index)


def one_hot(function: str, labels: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Check labels (*n) of scores (*n, classes); return each class's hit, and whether one is."""
    classes, label = aligned(function, labels, scores)
    hit = classes == label
    return hit, jnp.any(hit, -1)
