"""Loss functions: per example, from logits, finite with finite gradients at the extremes."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn.messages import describe, wrong


@functools.partial(jax.jit, inline=True)
def cross_entropy(
    logits: Float[Array, "*n classes"], labels: Int[Array, "*n"]
) -> Float[Array, "*n"]:
    """Return the cross-entropy of integer labels under the softmax of logits, per example.

    ``-log softmax(logits)[label]``; a label outside ``0 .. classes - 1`` gives NaN.

    Args:
        logits: (*n, classes), float.
        labels: (*n), integer.

    Returns:
        One loss per example, (*n), of the dtype of the logits.

    Raises:
        ValueError: the labels do not have the shape of the logits without the last axis.

    >>> cross_entropy(jax.numpy.zeros((1, 2)), jax.numpy.array([1]))
    Array([0.6931472], dtype=float32)
    """
    if labels.shape != logits.shape[:-1]:
        needed = f"the shape {logits.shape[:-1]} of the logits without their last axis"
        raise wrong("cross_entropy", "labels", describe(labels), needed)
    half = jnp.finfo(logits.dtype).bits < 32
    wide = logits.astype(jnp.float32) if half else logits
    index = jnp.int64 if labels.dtype.itemsize > 4 else jnp.int32
    classes = jax.lax.broadcasted_iota(index, logits.shape, logits.ndim - 1)
    hit = labels[..., None].astype(index) == classes
    loss = -jnp.sum(jnp.where(hit, jax.nn.log_softmax(wide), 0), -1)
    return jnp.where(jnp.any(hit, -1), loss, jnp.nan).astype(logits.dtype)
