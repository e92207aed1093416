"""Random changes of the data while a model trains on them: `augmented`."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from fnn.checks import check_callable, check_takes
from fnn.functions import takes_key
from fnn.training.step import Loss


def augmented(loss: Loss, transform: Callable[[Array, Any], Any]) -> Loss:
    """Return a loss that sees every batch changed at random, inside the compiled step.

    ``loss(params, transform(key, batch))``, with another key at every step.

    Args:
        loss: as `fnn.train` takes it, with or without statistics and a key of its own.
        transform: ``transform(key, batch) -> batch``, such as shifts and mirrors of the images.

    Returns:
        A loss that takes ``key=``, for `fnn.train` and `fnn.make_step`.

    Raises:
        TypeError: loss or transform is no function.

    >>> def loss(params, batch):
    ...     return (params * batch).sum()
    >>> def mirror(key, batch):
    ...     return jnp.where(jax.random.bernoulli(key), batch[::-1], batch)
    >>> step = fnn.make_step(fnn.augmented(loss, mirror), fnn.sgd(1.0))
    >>> params, batch = jnp.zeros(2), jnp.array([1.0, 2.0])
    >>> step(params, fnn.sgd(1.0).init(params), batch, jax.random.key(3))[0].tolist()
    [-2.0, -1.0]
    """
    check_callable("augmented", "loss", loss, "loss(params, batch)")
    check_takes("augmented", "transform", transform, "key, batch")
    keyed = takes_key(loss)

    def changed(*inputs: Any, key: Array) -> Any:
        *before, batch = inputs
        own, rest = jax.random.split(key)
        batch = transform(own, batch)
        return loss(*before, batch, key=rest) if keyed else loss(*before, batch)

    return changed
