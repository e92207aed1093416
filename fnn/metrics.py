"""Metrics: per example where an example has one, without gradients."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn.messages import describe, wrong


@functools.partial(jax.jit, inline=True)
def accuracy(
    logits: Float[Array, "*n classes"], labels: Int[Array, "*n"]
) -> Float[Array, "*n"]:
    """Return 1 where the largest logit is the label's and 0 elsewhere, per example.

    ``[argmax(logits) == label]``; of equal logits the first counts.

    Args:
        logits: (*n, classes), float; probabilities do as well.
        labels: (*n), integer.

    Returns:
        (*n), 0 or 1 in the dtype of the logits; its mean is the accuracy.

    Raises:
        ValueError: the labels do not have the shape of the logits without the last axis.

    >>> accuracy(jax.numpy.array([[0.0, 1.0], [2.0, 1.0]]), jax.numpy.array([1, 1]))
    Array([1., 0.], dtype=float32)
    """
    if labels.shape != logits.shape[:-1]:
        needed = f"the shape {logits.shape[:-1]} of the logits without their last axis"
        raise wrong("accuracy", "labels", describe(labels), needed)
    index = jnp.int64 if labels.dtype.itemsize > 4 else jnp.int32
    guess = jax.lax.argmax(logits, logits.ndim - 1, index)
    return (guess == labels.astype(index)).astype(logits.dtype)
