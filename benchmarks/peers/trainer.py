"""What every contestant of the training benchmark gives, and the step that the JAX peers share."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks.shapes import RATE

Batch = tuple[np.ndarray, np.ndarray]


class Trainer(NamedTuple):
    """A model in training.

    Attributes:
        put: a NumPy batch to the device, in the layout that the model wants.
        step: one step on such a batch; returns the loss before it, without waiting.
        floats: waits for such losses and returns them as floats.
        temporary: peak temporary memory of the step's program in bytes, where it is known.
    """

    put: Callable[[Batch], Any]
    step: Callable[[Any], Any]
    floats: Callable[[list[Any]], list[float]]
    temporary: Callable[[Any], int | None] = lambda batch: None


def held(step: Callable[..., Any], *state: Any, put: Any = jax.device_put) -> Trainer:
    """Make a trainer of ``step(*state, batch) -> (*state, loss)``, which may donate its state."""
    now = list(state)

    def once(batch: Any) -> Any:
        *now[:], value = step(*now, batch)
        return value

    def temporary(batch: Any) -> int | None:
        donated = tuple(range(len(now)))
        program: Any = step if hasattr(step, "lower") else jax.jit(step, donate_argnums=donated)
        memory = program.lower(*now, batch).compile().memory_analysis()
        return None if memory is None else int(memory.temp_size_in_bytes)

    return Trainer(put, once, lambda losses: [float(v) for v in losses], temporary)


def with_optax(loss: Callable[..., Any], params: Any, put: Any = jax.device_put) -> Trainer:
    """Train ``loss(params, batch)`` with optax.adam: one jitted step, params and state donated."""
    optimizer = optax.adam(RATE)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, Any]:
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    params = jax.tree.map(jax.numpy.array, params)
    return held(step, params, jax.jit(optimizer.init)(params), put=put)


def softmax_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
