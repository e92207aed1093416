"""Losses over classes: the last axis of ``(*n, classes)`` is reduced, one loss per example.

With log-probabilities ``log p``, target probabilities q and class weights w the loss is
``-sum_k w_k q_k log p_k``. A class is absent where its logit is -inf or the mask ``where=`` is
False: it has probability 0, so that a target on it costs infinity, with a finite gradient, and a
target of 0 on it costs nothing. An example without any class costs 0. See `fnn.losses` for what all
losses share.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fnn.checks import describe, wrong
from fnn.dtypes import accumulator
from fnn.layers.softmax import check_where, shift
from fnn.losses.regression import weighted


def aligned(function: str, labels: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Check integer labels (*n) of scores (*n, classes); return the class ids and the label's."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise wrong(function, "labels", describe(labels), "integers", TypeError)
    if scores.ndim < 1 or labels.shape != scores.shape[:-1]:
        needed = f"integers of shape {scores.shape[:-1]}, or floats of shape {scores.shape}"
        raise wrong(function, "labels", describe(labels), needed)
    index = jnp.int64 if labels.dtype.itemsize > 4 else jnp.int32
    classes = jax.lax.broadcasted_iota(index, scores.shape, scores.ndim - 1)
    return classes, labels[..., None].astype(index)


def _targets(function: str, labels: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Target (*n, classes), bool or widened probabilities, and which examples have a label."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        classes, label = aligned(function, labels, scores)
        hit = classes == label
        return hit, jnp.any(hit, -1)
    if labels.dtype != scores.dtype:
        needed = f"integers, or probabilities of dtype {scores.dtype}"
        raise wrong(function, "labels", describe(labels), needed, TypeError)
    if labels.shape != scores.shape:
        raise wrong(function, "labels", describe(labels), f"the shape {scores.shape}")
    return labels.astype(accumulator(scores.dtype)), jnp.ones(labels.shape[:-1], bool)


def _class_weights(function: str, weights: jax.Array | None, scores: jax.Array) -> jax.Array | None:
    if weights is None:
        return None
    if weights.shape != scores.shape[-1:]:
        raise wrong(function, "weights", describe(weights), f"the shape {scores.shape[-1:]}")
    shape = (1,) * (scores.ndim - 1) + weights.shape
    return weights.astype(accumulator(scores.dtype)).reshape(shape)


def _loss(
    log_p: jax.Array,
    target: jax.Array,
    weights: jax.Array | None,
    counts: jax.Array,
    valid: jax.Array,
) -> jax.Array:
    """``-sum w q log p``; NaN where the label is not valid, 0 where the example does not count."""
    cost = -log_p if weights is None else weighted(weights, -log_p)
    if target.dtype == jnp.bool_:
        costs = jnp.where(target, cost, 0)
    else:
        costs = weighted(jnp.where(counts[..., None], target, 0), cost)
    loss = jnp.where(valid, jnp.sum(costs, -1), jnp.nan)
    return jnp.where(counts, loss, 0)


@functools.partial(jax.jit, static_argnames=("label_smoothing", "ignore"), inline=True)
def cross_entropy(
    logits: Float[Array, "*n classes"],
    labels: Int[Array, "*n"] | Float[Array, "*n classes"],
    *,
    label_smoothing: float = 0.0,
    weights: Float[Array, " classes"] | None = None,
    ignore: int | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "*n"]:
    """Return the cross-entropy of labels under the softmax of logits, one per example.

    ``-sum_k w_k q_k log softmax(logits)_k``; q is 1 at an integer label, or the given
    probabilities. Smoothing by e takes ``(1 - e) q + e / K``, K the number of present classes.

    Args:
        logits: (*n, classes), float.
        labels: (*n), integer; or (*n, classes), probabilities of the dtype of logits.
        label_smoothing: e, in [0, 1].
        weights: (classes,), float; the weighted mean is ``loss.sum() / weights[labels].sum()``.
        ignore: an integer label whose examples cost 0, such as -1.
        where: bool, the shape of logits or 1 along some axes: ``mask[:, None]`` keeps examples,
            a full mask the classes of each example.

    Returns:
        (*n), of the dtype of logits; NaN for an integer label outside 0 ... classes - 1.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit, or label_smoothing is outside [0, 1].

    Source: I. J. Good, Rational decisions (1952); smoothing: C. Szegedy et al., Rethinking the
    inception architecture (2015).

    >>> cross_entropy(jnp.array([[0.0, 0.0], [1e4, 0.0], [0.0, 9.0]]), jnp.array([1, 1, -1]),
    ...               ignore=-1)
    Array([6.931472e-01, 1.000000e+04, 0.000000e+00], dtype=float32)
    """
    if not 0 <= label_smoothing <= 1:
        raise wrong("cross_entropy", "label_smoothing", label_smoothing, "a number in [0, 1]")
    target, valid = _targets("cross_entropy", labels, logits)
    weights = _class_weights("cross_entropy", weights, logits)
    shifted = shift("cross_entropy", logits, -1, where)
    log_p = shifted.x - jnp.log(shifted.total)
    if label_smoothing:
        here = log_p != -jnp.inf
        count = jnp.maximum(jnp.sum(here, -1, keepdims=True), 1).astype(log_p.dtype)
        even = here.astype(log_p.dtype) / count
        target = target.astype(log_p.dtype)
        target = (1 - label_smoothing) * target + label_smoothing * even
    counts = jnp.squeeze(shifted.present, -1)
    if ignore is not None:
        counts = counts & _other(labels, ignore)
    return _loss(log_p, target, weights, counts, valid).astype(logits.dtype)


def _other(labels: jax.Array, ignore: int) -> jax.Array:
    """Where integer labels are not to be ignored; soft labels never are."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise wrong("cross_entropy", "ignore", ignore, "None with labels that are probabilities")
    return labels != ignore


@functools.partial(jax.jit, static_argnames=("ignore",), inline=True)
def nll(
    log_probabilities: Float[Array, "*n classes"],
    labels: Int[Array, "*n"],
    *,
    weights: Float[Array, " classes"] | None = None,
    ignore: int | None = None,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "*n"]:
    """Return the negative log-likelihood ``-w[label] log p[label]``, one per example.

    `cross_entropy` of logits is the same as nll of ``log_softmax(logits)``.

    Args:
        log_probabilities: (*n, classes), float, such as `log_softmax` gives.
        labels: (*n), integer.
        weights: (classes,), float.
        ignore: a label whose examples cost 0, such as -1.
        where: bool, the shape of log_probabilities or 1 along some axes.

    Returns:
        (*n), of the dtype of log_probabilities; NaN for a label outside 0 ... classes - 1.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit.

    Source: R. A. Fisher, maximum likelihood (1922).

    >>> nll(jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]])), jnp.array([1, 0]))
    Array([0.6931472, 1.3862944], dtype=float32)
    """
    classes, label = aligned("nll", labels, log_probabilities)
    hit = classes == label
    weights = _class_weights("nll", weights, log_probabilities)
    check_where("nll", log_probabilities, where)
    log_p = log_probabilities.astype(accumulator(log_probabilities.dtype))
    log_p = log_p if where is None else jnp.where(where, log_p, -jnp.inf)
    counts = jnp.any(log_p != -jnp.inf, -1)
    if ignore is not None:
        counts = counts & (labels != ignore)
    loss = _loss(log_p, hit, weights, counts, jnp.any(hit, -1))
    return loss.astype(log_probabilities.dtype)


@functools.partial(jax.jit, inline=True)
def kl_divergence(
    logits: Float[Array, "*n classes"],
    labels: Float[Array, "*n classes"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "*n"]:
    """Return ``sum_k q_k (log q_k - log softmax(logits)_k)``, one per example.

    Args:
        logits: (*n, classes), float.
        labels: q, (*n, classes), probabilities of the dtype of logits.
        where: bool, the shape of logits or 1 along some axes: the classes or examples to keep.

    Returns:
        (*n), of the dtype of logits. A class with q = 0 costs nothing; its derivative with respect
        to q, which is infinite, is given without the infinite part.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit.

    Source: S. Kullback, R. Leibler, On information and sufficiency (1951).

    >>> kl_divergence(jnp.zeros((2, 2)), jnp.array([[0.5, 0.5], [1.0, 0.0]]))
    Array([0.       , 0.6931472], dtype=float32)
    """
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        raise wrong("kl_divergence", "labels", describe(labels), "probabilities", TypeError)
    q, valid = _targets("kl_divergence", labels, logits)
    shifted = shift("kl_divergence", logits, -1, where)
    log_p = shifted.x - jnp.log(shifted.total)
    log_q = jnp.log(jnp.where(q == 0, 1, q))
    counts = jnp.squeeze(shifted.present, -1)
    return _loss(log_p - log_q, q, None, counts, valid).astype(logits.dtype)
