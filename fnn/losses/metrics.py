"""Metrics: what is counted, not trained; per example where an example has one.

A label outside ``0 ... classes - 1`` gives NaN, as in the losses; NaN logits are never right.
``where=`` keeps examples: the others count 0, whatever their logits and labels are.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from fnn.checks import check_int, describe, wrong
from fnn.dtypes import Where, accumulator, nan_where, widen
from fnn.functions import jitted
from fnn.layers.softmax import check_where
from fnn.losses.classification import cross_entropy
from fnn.losses.targets import aligned, check_classes, check_labels, kept


@jitted()
def accuracy(
    logits: Float[Array, "*n classes"],
    labels: Integer[Array, "*n"],
    *,
    where: Where | None = None,
) -> Float[Array, "*n"]:
    """Return 1 where the largest logit is the label's and 0 elsewhere, per example.

    ``[argmax(logits) = label]``; of equal logits the first counts.

    Args:
        logits: (*n, classes), float; probabilities do as well.
        labels: (*n), integer.
        where: bool, the shape of labels or 1 along some axes: the examples to keep.

    Returns:
        (*n), 0 or 1 in the dtype of logits; 0 where not kept; NaN for a kept label outside
        0 ... classes - 1.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit.

    >>> logits, labels = jnp.array([[0.0, 1.0], [2.0, 1.0], [0.0, 0.0]]), jnp.array([1, 1, -1])
    >>> known = labels != -1
    >>> accuracy(logits, labels, where=known).sum() / known.sum()
    Array(0.5, dtype=float32)
    """
    return _among_first("accuracy", logits, labels, 1, where)


@jitted(static=("k",))
def top_k_accuracy(
    logits: Float[Array, "*n classes"],
    labels: Integer[Array, "*n"],
    *,
    k: int,
    where: Where | None = None,
) -> Float[Array, "*n"]:
    """Return 1 where the label's logit is among the k largest and 0 elsewhere, per example.

    Args:
        logits: (*n, classes), float; of equal ones the first is the larger.
        labels: (*n), integer.
        k: from 1 to classes.
        where: bool, the shape of labels or 1 along some axes: the examples to keep.

    Returns:
        (*n), 0 or 1 in the dtype of logits; 0 where not kept; NaN for a kept label outside
        0 ... classes - 1.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit, or k is out of range.

    Source: O. Russakovsky et al., ImageNet large scale visual recognition challenge (2015).

    >>> top_k_accuracy(jnp.array([[0.0, 1.0, 2.0]] * 3), jnp.array([0, 1, 2]), k=2).tolist()
    [0.0, 1.0, 1.0]
    """
    check_int("top_k_accuracy", "k", k, 1)
    check_classes("top_k_accuracy", "logits", logits)
    if k > logits.shape[-1]:
        raise wrong("top_k_accuracy", "k", k, f"1 ... {logits.shape[-1]}, the number of classes")
    return _among_first("top_k_accuracy", logits, labels, k, where)


@jitted()
def confusion_matrix(
    logits: Float[Array, "*n classes"],
    labels: Integer[Array, "*n"],
    *,
    where: Where | None = None,
) -> Float[Array, "classes classes"]:
    """Return how many examples of each class were taken for each class.

    ``C[i, j] = #{examples with label i and argmax j}``: the diagonal is right, a row sums to the
    examples of its class.

    Args:
        logits: (*n, classes), float; of equal ones the first is the larger.
        labels: (*n), integer.
        where: bool, the shape of labels or 1 along some axes: the examples to count.

    Returns:
        (classes, classes), counts in float32 or wider, exact to 2^24 each; all NaN if any label
        that counts is outside 0 ... classes - 1, or any logit of its example is NaN.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit.

    >>> confusion_matrix(jnp.array([[0.0, 1.0], [2.0, 1.0], [3.0, 0.0]]), jnp.array([1, 1, 0]))
    Array([[1., 0.],
           [1., 1.]], dtype=float32)
    """
    check_classes("confusion_matrix", "logits", logits)
    classes, label = aligned("confusion_matrix", labels, logits)
    check_where("confusion_matrix", labels, where)
    known = jnp.any(classes == label, -1) & ~jnp.any(jnp.isnan(logits), -1)
    counted = kept(jnp.ones(labels.shape, jnp.int32), where)
    size = logits.shape[-1]
    first = jnp.argmax(logits, -1, keepdims=True).astype(label.dtype) if size else label
    places = label.reshape(-1), first.reshape(-1)
    none = jnp.zeros((size, size), jnp.int32)
    every = jax.typeof(none).sharding  # each device of a mesh gets the whole matrix
    counts = none.at[places].add(counted.reshape(-1), out_sharding=every)
    return nan_where(jnp.any((counted == 1) & ~known), counts.astype(accumulator(logits.dtype)))


@jitted()
def perplexity(
    logits: Float[Array, "*n time classes"],
    labels: Integer[Array, "*n time"],
    *,
    where: Where | None = None,
) -> Float[Array, "*n"]:
    """Return the exponential of the mean cross-entropy over the steps of a sequence.

    ``exp(mean_t -log softmax(logits[t])[labels[t]])``: the number of equally likely classes that
    would be as surprising. Of a whole text it is ``exp`` of the mean of all cross-entropies.

    Args:
        logits: (*n, time, classes), float.
        labels: (*n, time), integer.
        where: bool, the shape of labels or 1 along some axes: the steps to keep.

    Returns:
        (*n), of the dtype of logits; 1 for a sequence without a kept step; NaN for a label outside
        0 ... classes - 1. Where it overflows it is infinite and its derivative NaN: to train,
        take the cross-entropy.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit.

    Source: F. Jelinek et al., Perplexity (1977).

    >>> perplexity(jnp.zeros((1, 3, 5)), jnp.array([[0, 1, 2]]))
    Array([5.], dtype=float32)
    """
    if logits.ndim < 2:
        raise wrong("perplexity", "logits", describe(logits), "the axes (*n, time, classes)")
    check_labels("perplexity", labels, logits)
    check_where("perplexity", labels, where)
    steps = None if where is None else where[..., None]
    loss = cross_entropy(widen(logits), labels, where=steps)
    kept = jnp.ones(labels.shape, bool) if where is None else jnp.broadcast_to(where, labels.shape)
    count = jnp.maximum(jnp.sum(kept, -1), 1).astype(loss.dtype)
    return jnp.exp(jnp.sum(loss, -1) / count).astype(logits.dtype)


def _among_first(
    function: str, logits: jax.Array, labels: jax.Array, k: int, where: jax.Array | None
) -> jax.Array:
    """1 where fewer than k classes come before the label: larger, or equal and earlier."""
    check_classes(function, "logits", logits)
    classes, label = aligned(function, labels, logits)
    check_where(function, labels, where)
    hit = classes == label
    own = jnp.sum(jnp.where(hit, logits, 0), -1, keepdims=True)
    before = ~(logits <= own) | ((logits == own) & (classes < label))
    right = (jnp.sum(before, -1) < k).astype(logits.dtype)
    unknown = ~jnp.any(hit, -1)
    return kept(nan_where(unknown if where is None else unknown & where, right), where)
