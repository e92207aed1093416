"""The trajectory of an optimizer on a function without data, from one compiled loop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fnn.checks import check_scalar, check_size, check_takes
from fnn.optimizers.base import Transform
from fnn.training.step import Learner, Loss, make_plan, take_step
from fnn.trees import check_params


class Trajectory(NamedTuple):
    """Where an optimizer went.

    Attributes:
        params: every leaf with a leading axis of steps + 1, the start first.
        loss: (steps + 1,), of these params.
    """

    params: PyTree[Float[Array, "points ..."]]
    loss: Float[Array, " points"]


def trajectory(loss: Loss, params: PyTree[Array], optimizer: Transform, steps: int) -> Trajectory:
    """Return every iterate of an optimizer on a function of the parameters alone.

    ``params_{t+1} = params_t + update(grad loss(params_t), ...)`` for t from 0, one `jax.lax.scan`.
    Under `jax.vmap` it is many at once: over starts, or over the optimizer's numbers. Each call
    compiles its loop; a `jax.jit` of a function of params that calls it compiles once.

    Args:
        loss: ``loss(params)``, a scalar.
        params: where to start, any pytree of floating-point arrays.
        optimizer: any (init, update) pair, of fnn or of optax.
        steps: how many to take.

    Returns:
        A `Trajectory` of steps + 1 points.

    Raises:
        ValueError: steps < 0; loss is no scalar.
        TypeError: a leaf of params that is no floating-point array; no loss, or no optimizer.

    Source: the figures of every course on optimization; A. Cauchy (1847).

    >>> bowl = lambda x: (x**2).sum()
    >>> fnn.trajectory(bowl, jnp.array([4.0]), fnn.sgd(0.25), 3).params.ravel().tolist()
    [4.0, 2.0, 1.0, 0.5]
    >>> rates = jnp.array([0.1, 0.5])
    >>> jax.vmap(lambda r: fnn.trajectory(bowl, jnp.array([4.0]), fnn.sgd(r), 3).loss[-1])(rates)[1]
    Array(0., dtype=float32)
    """
    check_size("trajectory", "steps", steps, 0)
    check_takes("trajectory", "loss", loss, "params")
    check_params("trajectory", params)

    def alone(params: Any, batch: None) -> Array:
        del batch
        value: Array = check_scalar("trajectory", loss(params))
        return value

    plan = make_plan("trajectory", alone, optimizer, has_aux=False)

    def advance(learner: Learner, _: None) -> Any:
        after, seen = take_step(plan, learner, None, None)
        return after, (learner.params, seen.loss)

    @jax.jit
    def whole(start: Learner) -> Trajectory:
        end, (before, values) = jax.lax.scan(advance, start, length=steps)
        points = jax.tree.map(lambda b, x: jnp.concatenate([b, x[None]]), before, end.params)
        return Trajectory(points, jnp.append(values, loss(end.params)))

    found: Trajectory = whole(Learner(params, optimizer.init(params)))
    return found
