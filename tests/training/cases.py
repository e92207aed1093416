"""A small regression, and optimizers and losses that write down what happens to them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

KEY = jax.random.key(7)
X = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32) + np.float32(0.25)


class Pairs(NamedTuple):
    x: Any
    y: Any


DATA = Pairs(X, Y)


def squares(params: Any, batch: Any) -> Any:
    return ((batch.x @ params["w"] + params["b"] - batch.y) ** 2).mean()


def start() -> Any:
    zeros = np.zeros(4, np.float32)  # of this dtype with x64 on as well
    return {"w": jnp.asarray(zeros[:3]), "b": jnp.asarray(zeros[3]), "nothing": None}


def counted(loss: Any) -> tuple[Any, list[int]]:
    traces: list[int] = []

    def wrapped(params: Any, batch: Any) -> Any:
        traces.append(1)
        return loss(params, batch)

    return wrapped, traces


def diary(steps: int) -> Any:
    """An optimizer that changes nothing and writes each step's gradient into its state."""

    def init(params: Any) -> Any:
        return jnp.zeros((), jnp.int32), jnp.zeros((steps, *params.shape))

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        step, page = state
        return jnp.zeros_like(grads), (step + 1, page.at[step].set(grads))

    return optax.GradientTransformation(init, update)
