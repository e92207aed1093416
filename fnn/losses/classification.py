"""Losses of classes: of a label among many, or of yes and no by entry.

With log-probabilities ``log p``, target probabilities q and class weights w, the loss of an example
is ``-sum_k w_k q_k log p_k``. A class is absent where its logit is -inf or the mask ``where=`` is
False: it has probability 0, so that a target on it costs infinity, with a finite gradient, and a
target of 0 on it costs nothing. (optax leaves a masked class out of the sum, whatever its target.)
An example without any class costs 0. `fnn.losses` says what all losses share.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Real

from fnn.checks import FRACTION, NOT_NEGATIVE, check_int, describe, wrong
from fnn.dtypes import Floats, Number, Where, nan_where, number_like, spread, widen
from fnn.functions import jitted
from fnn.layers.activations import softplus
from fnn.layers.softmax import check_where, shift
from fnn.losses.targets import check_beside, check_classes, entries, kept, one_hot, weighted


@jitted(static=("ignore",), ranges={"label_smoothing": FRACTION})
def cross_entropy(
    logits: Float[Array, "*n classes"],
    labels: Integer[Array, "*n"] | Float[Array, "*n classes"],
    *,
    label_smoothing: Number | None = None,
    weights: Float[Array, " classes"] | None = None,
    ignore: int | None = None,
    where: Where | None = None,
) -> Float[Array, "*n"]:
    """Return the cross-entropy of labels under the softmax of logits, one per example.

    ``-sum_k w_k q_k log softmax(logits)_k``; q is 1 at an integer label, or the given
    probabilities. Smoothing by e takes ``(1 - e) q + e / K``, K the number of present classes.

    Args:
        logits: (*n, classes), float.
        labels: (*n), integer; or (*n, classes), probabilities of the dtype of logits.
        label_smoothing: e, in [0, 1]; None skips the smoothing; the result is that of 0.
        weights: (classes,), float. That of a class without a share, q = 0, has no part in the loss
            of an example, and may be infinite.
        ignore: an integer label whose examples cost 0, such as -1.
        where: bool, the shape of logits or 1 along some axes: ``mask[:, None]`` keeps examples,
            a full mask the classes of each example. A label on a class left out costs infinity.

    Returns:
        (*n), of the dtype of logits; NaN for an integer label outside 0 ... classes - 1. Infinite
        where logits differ by more than the largest number, whatever the probability asked for.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit, or label_smoothing is outside [0, 1].

    Source: I. J. Good, Rational decisions (1952); smoothing: C. Szegedy et al., Rethinking the
    inception architecture (2015).

    >>> logits, labels = jnp.array([[0.0, 0.0], [1e4, 0.0], [0.0, 9.0]]), jnp.array([1, 1, -1])
    >>> cross_entropy(logits, labels, ignore=-1)
    Array([6.931472e-01, 1.000000e+04, 0.000000e+00], dtype=float32)

    The weighted mean over the labels that count, PyTorch's "mean":

    >>> w = jnp.array([1.0, 3.0])
    >>> share = jnp.where(labels == -1, 0, w[labels])
    >>> cross_entropy(jnp.zeros((3, 2)), labels, weights=w, ignore=-1).sum() / share.sum()
    Array(0.6931472, dtype=float32)
    """
    check_classes("cross_entropy", "logits", logits)
    q, valid = _targets("cross_entropy", labels, logits)
    x = _present("cross_entropy", logits, where, labels, ignore)
    shifted = shift("cross_entropy", x, -1, None)
    if label_smoothing is not None:
        e, here = number_like(label_smoothing, x), (x != -jnp.inf).astype(x.dtype)
        even = here / jnp.maximum(jnp.sum(here, -1, keepdims=True), 1)
        q = (1 - e) * q.astype(x.dtype) + e * even
    costs = _shares(q, jnp.log(shifted.total) - shifted.x, shifted.present)
    costs = _class_weighted("cross_entropy", weights, costs, shifted.present & q.astype(bool))
    return _summed(costs, shifted.present, valid).astype(logits.dtype)


@jitted(static=("ignore",))
def nll(
    log_probabilities: Float[Array, "*n classes"],
    labels: Integer[Array, "*n"],
    *,
    weights: Float[Array, " classes"] | None = None,
    ignore: int | None = None,
    where: Where | None = None,
) -> Float[Array, "*n"]:
    """Return the negative log-likelihood ``-w[label] log p[label]``, one per example.

    `cross_entropy` of logits is the same as nll of ``log_softmax(logits)``.

    Args:
        log_probabilities: (*n, classes), float, such as `log_softmax` gives.
        labels: (*n), integer.
        weights: (classes,), float; those of other classes than the label may be infinite.
        ignore: a label whose examples cost 0, such as -1.
        where: bool, the shape of log_probabilities or 1 along some axes. A label on a class left
            out costs infinity.

    Returns:
        (*n), of the dtype of log_probabilities; NaN for a label outside 0 ... classes - 1.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit.

    Source: R. A. Fisher, maximum likelihood (1922).

    >>> nll(jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]])), jnp.array([1, 0]))
    Array([0.6931472, 1.3862944], dtype=float32)
    """
    check_classes("nll", "log_probabilities", log_probabilities)
    hit, valid = one_hot("nll", labels, log_probabilities)
    x = _present("nll", log_probabilities, where, labels, ignore)
    present = jnp.any(x != -jnp.inf, -1, keepdims=True)
    costs = _class_weighted("nll", weights, _shares(hit, -x, present), present & hit)
    return _summed(costs, present, valid).astype(log_probabilities.dtype)


@jitted()
def kl_divergence(
    logits: Float[Array, "*n classes"],
    labels: Real[Array, "*n classes"],
    *,
    where: Where | None = None,
) -> Float[Array, "*n"]:
    """Return ``sum_k q_k (log q_k - log softmax(logits)_k)``, one per example.

    Args:
        logits: (*n, classes), float.
        labels: q, (*n, classes), probabilities of the dtype of logits.
        where: bool, the shape of logits or 1 along some axes: the classes or examples to keep.
            A class left out that has q > 0 costs infinity.

    Returns:
        (*n), of the dtype of logits. A class with q = 0 costs nothing; its derivative with respect
        to q, which is infinite, is given without that of ``q log q``: as ``-log softmax(logits)``.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit.

    Source: S. Kullback, R. Leibler, On information and sufficiency (1951).

    >>> kl_divergence(jnp.zeros((2, 2)), jnp.array([[0.5, 0.5], [1.0, 0.0]]))
    Array([0.       , 0.6931472], dtype=float32)
    """
    check_classes("kl_divergence", "logits", logits)
    check_beside("kl_divergence", "labels", labels, logits)
    shifted = shift("kl_divergence", _present("kl_divergence", logits, where), -1, None)
    q = jnp.where(shifted.present, labels.astype(shifted.x.dtype), 0)
    log_q = jnp.log(jnp.where(q == 0, 1, q))
    costs = _shares(q, log_q + jnp.log(shifted.total) - shifted.x, shifted.present)
    return _summed(costs, shifted.present, jnp.array(True)).astype(logits.dtype)


@jitted(ranges={"pos_weight": NOT_NEGATIVE})
def binary_cross_entropy(
    logits: Floats,
    labels: Real[Array, "*shape"] | Bool[Array, "*shape"],
    *,
    pos_weight: Number | Float[Array, " classes"] = 1.0,
    where: Where | None = None,
) -> Floats:
    """Return ``-w y log p - (1 - y) log(1 - p)`` for ``p = sigmoid(logits)``, entry by entry.

    It takes logits, like PyTorch's ``binary_cross_entropy_with_logits``; its namesakes in PyTorch
    and Keras take p, for which the value here is wrong. Computed as
    ``w y softplus(-x) + (1 - y) softplus(x)``, a sum of positive terms.

    Args:
        logits: any shape, float.
        labels: the shape of logits: bool, integer 0 and 1, or float probabilities of its dtype.
        pos_weight: w, what a positive label counts beside a negative one: a number >= 0, or
            (classes,) for the entries of the last axis; negatives over positives balances the two.
            For an entry that is 0 it may be infinite.
        where: bool, the shape of logits or 1 along some axes: the entries to keep.

    Returns:
        The shape and dtype of logits; NaN for a label outside [0, 1].

    Raises:
        ValueError, TypeError: shapes differ, or the dtypes of two float arrays; pos_weight is a
            number below 0 or NaN, or a bool.

    Source: D. R. Cox, The regression analysis of binary sequences (1958).

    >>> binary_cross_entropy(jnp.array([0.0, -1e4]), jnp.array([1, 1]))
    Array([6.931472e-01, 1.000000e+04], dtype=float32)
    """
    x, y = entries("binary_cross_entropy", "labels", logits, labels, where)
    w = jnp.asarray(pos_weight, x.dtype)
    if w.shape not in ((), x.shape[-1:]):
        needed = f"a number or the shape {x.shape[-1:]}"
        raise wrong("binary_cross_entropy", "pos_weight", describe(w), needed)
    w = spread(w, x.ndim)
    positive = jnp.where((y != 0) | jnp.isfinite(w), w, 0) * y
    loss = weighted(positive, softplus(-x)) + weighted(1 - y, softplus(x))
    loss = nan_where(~((y >= 0) & (y <= 1)), loss)
    return kept(loss, where).astype(logits.dtype)


@jitted()
def hinge(
    scores: Floats,
    labels: Real[Array, "*shape"],
    *,
    where: Where | None = None,
) -> Floats:
    """Return ``max(0, 1 - y s)``, entry by entry.

    Args:
        scores: any shape, float.
        labels: the shape of scores: -1 and 1, integer or of the dtype of scores.
        where: bool, the shape of scores or 1 along some axes: the entries to keep.

    Returns:
        The shape and dtype of scores; NaN for another label. The derivative at y s = 1 is 0.

    Raises:
        ValueError, TypeError: shapes differ, or the dtypes of two float arrays.

    Source: C. Cortes, V. Vapnik, Support-vector networks (1995).

    >>> hinge(jnp.array([0.5, 2.0, 2.0]), jnp.array([1, 1, -1])).tolist()
    [0.5, 0.0, 3.0]
    """
    s, y = entries("hinge", "labels", scores, labels, where)
    other = (jnp.abs(y) != 1) & (True if where is None else where)
    loss = nan_where(other, jax.nn.relu(1 - y * s))
    return kept(loss, where).astype(scores.dtype)


def _present(
    function: str,
    scores: jax.Array,
    where: jax.Array | None,
    labels: jax.Array | None = None,
    ignore: int | None = None,
) -> jax.Array:
    """Widen scores, with -inf for what is left out by the mask or has a label to be ignored."""
    check_where(function, scores, where)
    x = widen(scores)
    if ignore is not None:
        x = jnp.where(_heeded(function, labels, ignore)[..., None], x, -jnp.inf)
    return x if where is None else jnp.where(where, x, -jnp.inf)


def _heeded(function: str, labels: Any, ignore: int) -> jax.Array:
    """Where integer labels are others than the one to be ignored."""
    check_int(function, "ignore", ignore)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise wrong(function, "ignore", ignore, "None with labels that are probabilities")
    held = jnp.iinfo(labels.dtype).min <= ignore <= jnp.iinfo(labels.dtype).max
    return labels != number_like(ignore, labels) if held else jnp.ones(labels.shape, bool)


def _targets(function: str, labels: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the labels ask for, (*n, classes): bool or probabilities; and who has a label."""
    floats = jnp.issubdtype(labels.dtype, jnp.floating)
    if floats != (labels.shape == logits.shape):  # but one-hot integers, or ids as floats
        needed = (
            f"integers of shape {logits.shape[:-1]}, or floats of shape {logits.shape}, "
            "the probability of each class"
        )
        raise wrong(function, "labels", describe(labels), needed)
    if not floats:
        return one_hot(function, labels, logits)
    check_beside(function, "labels", labels, logits)
    return widen(labels), jnp.array(True)


def _class_weighted(
    function: str, weights: jax.Array | None, costs: jax.Array, shared: jax.Array
) -> jax.Array:
    """Weigh the costs of the classes; one without a share costs nothing, whatever its weight."""
    if weights is None:
        return costs
    if weights.shape != costs.shape[-1:]:
        raise wrong(function, "weights", describe(weights), f"the shape {costs.shape[-1:]}")
    w = spread(weights, costs.ndim).astype(costs.dtype)
    return weighted(jnp.where(shared | jnp.isfinite(w), w, 0), costs)


def _shares(q: jax.Array, cost: jax.Array, present: jax.Array) -> jax.Array:
    """Return ``q cost`` of each class, 0 where no class is present."""
    if q.dtype == jnp.bool_:
        return jnp.where(q & present, cost, 0)
    return weighted(jnp.where(present, q, 0), cost)


def _summed(costs: jax.Array, present: jax.Array, valid: jax.Array) -> jax.Array:
    """Sum over the classes; NaN where no label is valid, 0 where no class is present."""
    some = jnp.squeeze(present, -1)
    return jnp.where(some, nan_where(some & ~valid, jnp.sum(costs, -1)), 0)
