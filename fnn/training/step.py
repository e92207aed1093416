"""One optimizer step: gradients of the loss, the optimizer's updates, their sum with the params.

``params' = params + updates``, with ``(updates, state') = update(grads, state, params)`` and
``grads`` those of ``loss(params, batch)``. `make_step` compiles one step for a loop of the user's
own; `fnn.train` runs the same `take_step` inside its loop.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn.checks import check_scalar, describe, wrong
from fnn.optimizers.descent import Optimizer
from fnn.trees import check_like, check_params

Loss = Callable[..., Any]


class Plan(NamedTuple):
    """How every step of a run is taken: the static argument of its compiled program.

    Attributes:
        function: the public function that errors name.
        loss: ``loss(params, batch)``, a scalar or, with has_aux, ``(scalar, aux)``.
        update: the optimizer's.
        has_aux: whether loss returns a pair.
        keyed: whether loss takes ``key=``.
    """

    function: str
    loss: Loss
    update: Callable[..., tuple[Any, Any]]
    has_aux: bool
    keyed: bool


class Learner(NamedTuple):
    """What every step changes: the parameters, and the optimizer's state."""

    params: Any
    state: Any


def make_plan(function: str, loss: Loss, optimizer: Optimizer, *, has_aux: bool = False) -> Plan:
    """Read off the loss what a step needs to know."""
    if not callable(loss):
        raise wrong(function, "loss", describe(loss), "a function loss(params, batch)", TypeError)
    keyed = "key" in inspect.signature(loss).parameters
    return Plan(function, loss, optimizer.update, has_aux, keyed)


def make_step(
    loss: Loss, optimizer: Optimizer, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any, Any]]:
    """Compile one optimizer step.

    ``params' = params + updates`` with ``(updates, state') = update(grads, state, params)``.

    Args:
        loss: ``loss(params, batch)``, a scalar; one with a parameter named ``key``, such as a loss
            with dropout, is called with ``key=`` as well.
        optimizer: any (init, update) pair, of fnn or of optax. An update that takes optax's extra
            arguments receives ``value``, ``grad`` and ``value_fn``, a function of params.
        has_aux: whether loss returns ``(scalar, aux)``.

    Returns:
        The compiled ``step(params, state, batch) -> (params, state, value)``, or
        ``step(params, state, batch, key)`` where loss takes a key; value is the loss before the
        step, ``(value, aux)`` with has_aux. It donates params and state: use what it returns.

    Raises:
        ValueError: loss is no scalar; a key too many or too few; updates not shaped as params.
        TypeError: a leaf of params that is no floating-point array.

    Source: H. Robbins, S. Monro, A stochastic approximation method (1951).

    >>> optimizer, params = fnn.sgd(0.25), jnp.array([4.0, 2.0])
    >>> step = make_step(lambda params, batch: ((params - batch) ** 2).sum(), optimizer)
    >>> params, state, value = step(params, optimizer.init(params), jnp.array([0.0, 2.0]))
    >>> params.tolist(), float(value)
    ([2.0, 2.0], 16.0)
    """
    plan = make_plan("make_step", loss, optimizer, has_aux=has_aux)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def donating(params: Any, state: Any, batch: Any, key: Any) -> tuple[Any, Any, Any]:
        if plan.keyed != (key is not None):
            needed = "a key, as loss takes one" if plan.keyed else "no key, as loss takes none"
            raise wrong("make_step", "key", "None" if key is None else describe(key), needed)
        (params, state), value, aux = take_step(plan, Learner(params, state), batch, key)
        return params, state, (value, aux) if has_aux else value

    def step(params: Any, state: Any, batch: Any, key: Array | None = None) -> tuple[Any, Any, Any]:
        return donating(*_unshared((params, state)), batch, key)

    return step


def take_step(plan: Plan, learner: Learner, batch: Any, key: Any) -> tuple[Learner, Array, Any]:
    """Return the learner after one step, and loss and aux before it."""
    params, state = learner
    check_params(plan.function, params)

    def objective(params: Any) -> tuple[Array, Any]:
        return _value_and_aux(plan, params, batch, key)

    (value, aux), grads = jax.value_and_grad(objective, has_aux=True)(params)
    extra = _extra(plan.update, value=value, grad=grads, value_fn=lambda p: objective(p)[0])
    updates, state = plan.update(grads, state, params, **extra)
    check_like(plan.function, "updates", updates, params)
    return Learner(jax.tree.map(_add, params, updates), state), value, aux


def _value_and_aux(plan: Plan, params: Any, batch: Any, key: Any) -> tuple[Array, Any]:
    out = plan.loss(params, batch, key=key) if plan.keyed else plan.loss(params, batch)
    if plan.has_aux and not (isinstance(out, tuple) and len(out) == 2):
        raise wrong(plan.function, "loss", describe(out), "a pair (value, aux), as has_aux says")
    value, aux = out if plan.has_aux else (out, None)
    return check_scalar(plan.function, value), aux


def _extra(update: Any, **offered: Any) -> dict[str, Any]:
    """Return those of the extra arguments that an update takes."""
    takes = inspect.signature(update).parameters
    if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        return offered
    return {name: value for name, value in offered.items() if name in takes}


def _add(p: Array, u: Array) -> Array:
    wide = max(p.dtype, u.dtype, key=lambda dtype: dtype.itemsize)  # so that only the sum rounds
    return (p.astype(wide) + u.astype(wide)).astype(p.dtype)


def _unshared(tree: Any) -> Any:
    """Copy leaves that are one array in two places, as some ``init`` makes them: donated once."""
    leaves, structure = jax.tree.flatten(tree)
    if len(set(map(id, leaves))) == len(leaves):
        return tree
    return jax.tree.unflatten(structure, map(jnp.copy, leaves))
