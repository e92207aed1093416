"""One optimizer step: the loss's gradients, the optimizer's updates, their sum with the params.

``params' = params + updates``, with ``(updates, state') = update(grads, state, params)`` and
``grads`` those of ``loss(params, batch)``. `make_step` compiles one step for a loop of the user's
own; `fnn.train` runs the same `take_step` inside its loop. An optimizer that does not read the
gradient of a leaf, such as one that freezes it, makes the compiler leave out its computation.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn.checks import (
    check_arrays,
    check_flags,
    check_key,
    check_scalar,
    check_takes,
    describe,
    wrong,
)
from fnn.functions import takes_key
from fnn.optimizers.base import Optimizer, Transform, check_transform, run_update
from fnn.static import frozen
from fnn.trees import check_like, check_params, check_same

Loss = Callable[..., Any]
Observer = Callable[[Any, Any, Any, Any], Any]
BUFFER = "unsafe_buffer_pointer"  # what arrays on a device have, and NumPy's have not


class Plan(NamedTuple):
    """How every step of a run is taken: the static argument of its compiled program.

    Attributes:
        function: the public function that errors name.
        loss: as `make_step` and `fnn.train` take it.
        optimizer: any (init, update) pair.
        has_stats: whether loss takes running statistics after params, and returns new ones.
        has_aux: whether loss returns more than that, to be looked at.
        keyed: whether loss takes ``key=``.
    """

    function: str
    loss: Loss
    optimizer: Transform
    has_stats: bool
    has_aux: bool
    keyed: bool


class Learner(NamedTuple):
    """What every step changes: the parameters, the optimizer's state, the running statistics."""

    params: Any
    state: Any
    stats: Any = None


class Seen(NamedTuple):
    """What one step saw and did: the loss before it and its aux, the gradients, the updates."""

    loss: Array
    aux: Any
    grads: Any
    updates: Any


def make_plan(
    function: str, loss: Loss, optimizer: Transform, *, has_stats: bool = False, has_aux: bool
) -> Plan:
    """Return the plan for public function ``function``, or raise its error.

    Equal losses and one optimizer make equal plans, so that a run started anew compiles nothing. A
    step made anew does: the program, and what loss reaches, are let go of with the step before.
    """
    inputs = "params, stats, batch" if has_stats else "params, batch"
    check_takes(function, "loss", loss, inputs, may_draw=True)
    check_transform(function, "optimizer", optimizer)
    check_flags(function, has_aux=has_aux)
    keyed = takes_key(loss)
    own = Optimizer(frozen(optimizer.init), frozen(optimizer.update))
    return Plan(function, frozen(loss), own, has_stats, bool(has_aux), keyed)


def make_step(
    loss: Loss, optimizer: Transform, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any, Any]]:
    """Compile one optimizer step.

    ``params' = params + updates`` with ``(updates, state') = update(grads, state, params)``.

    Args:
        loss: ``loss(params, batch)``, a scalar; one with a parameter named ``key``, such as a loss
            with dropout, is called with ``key=`` as well, unless `functools.partial` has bound it.
            A step is compiled once for every shape of its arguments, and one made anew is compiled
            anew: what else loss reads counts as it was then.
        optimizer: any (init, update) pair, of fnn or of optax. An update that takes optax's extra
            arguments receives ``value``, ``grad`` and ``value_fn``, a function of params.
        has_aux: whether loss returns ``(scalar, aux)``. Running statistics can travel this way:
            in as a part of the batch, out as aux.

    Returns:
        The compiled ``step(params, state, batch) -> (params, state, value)``, or
        ``step(params, state, batch, key)`` where loss takes a key; value is the loss before the
        step, ``(value, aux)`` with has_aux. It donates params and state: use what it returns.
        Inside `jax.lax.scan`, `jax.vmap` or `jax.jit` it is a part of that program.

    Raises:
        ValueError: loss is no scalar; a key too many or too few; updates not shaped as params; the
            state of another optimizer, or one that changes its shapes or dtypes; NumPy integers of
            64 bits that do not fit 32, without x64.
        TypeError: a leaf of params that is no floating-point array, or one of batch that is no
            array; a key that is none; a loss that takes other arguments, or whose aux is not of
            arrays.

    Source: H. Robbins, S. Monro, A stochastic approximation method (1951).

    >>> optimizer, params = fnn.sgd(0.25), jnp.array([4.0, 2.0])
    >>> step = make_step(lambda params, batch: ((params - batch) ** 2).sum(), optimizer)
    >>> params, state, value = step(params, optimizer.init(params), jnp.array([0.0, 2.0]))
    >>> params.tolist(), float(value)
    ([2.0, 2.0], 16.0)

    A whole run is a scan of steps, and a sweep of its numbers a `jax.vmap` of that:

    >>> def run(rate):
    ...     optimizer, start = fnn.sgd(rate), jnp.array(8.0)
    ...     step = fnn.make_step(lambda x, batch: (x - batch) ** 2, optimizer)
    ...     def body(carry, batch):
    ...         params, state, value = step(*carry, batch)
    ...         return (params, state), value
    ...     return jax.lax.scan(body, (start, optimizer.init(start)), jnp.zeros(3))
    >>> (params, _), values = jax.vmap(run)(jnp.array([0.25, 0.5]))
    >>> params.tolist(), values.tolist()
    ([1.0, 0.0], [[64.0, 16.0, 4.0], [64.0, 0.0, 0.0]])

    Compiled ahead, a step says what memory it needs. It needs less with `jax.checkpoint` around the
    blocks of the model, which computes what is within them again for the gradient:

    >>> def loss(w, batch):
    ...     return jax.checkpoint(lambda x: jnp.tanh(x * w))(batch).sum()
    >>> step, w = jax.jit(fnn.make_step(loss, fnn.sgd(0.1)), donate_argnums=(0, 1)), jnp.ones(())
    >>> compiled = step.lower(w, fnn.sgd(0.1).init(w), jnp.ones(9)).compile()
    >>> compiled.memory_analysis().temp_size_in_bytes < 1000
    True
    """
    plan = make_plan("make_step", loss, optimizer, has_aux=has_aux)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def donating(params: Any, state: Any, batch: Any, key: Any) -> tuple[Any, Any, Any]:
        if plan.keyed != (key is not None):
            needed = "a key, as loss takes one" if plan.keyed else "no key, as loss takes none"
            raise wrong("make_step", "key", "None" if key is None else describe(key), needed)
        if plan.keyed:
            check_key("make_step", "key", key)
        after, seen = take_step(plan, Learner(params, state), batch, key)
        return after.params, after.state, (seen.loss, seen.aux) if has_aux else seen.loss

    def step(params: Any, state: Any, batch: Any, key: Array | None = None) -> tuple[Any, Any, Any]:
        params, state = _apart((params, state), (batch, key))
        params, state, value = donating(params, state, batch, key)
        return params, state, value

    return step


def take_step(plan: Plan, learner: Learner, batch: Any, key: Any) -> tuple[Learner, Seen]:
    """Return the learner after one step, and what the step saw."""
    params, state, stats = learner
    check_params(plan.function, params)

    def objective(params: Any) -> tuple[Array, Any]:
        return _evaluate(plan, params, stats, batch, key)

    (value, (stats, aux)), grads = jax.value_and_grad(objective, has_aux=True)(params)
    offered = {"value": value, "grad": grads, "value_fn": lambda p: objective(p)[0]}
    updates, state = _update(plan, grads, state, params, offered)
    params = jax.tree.map(_add, params, updates)
    return Learner(params, state, stats), Seen(value, aux, grads, updates)


def _evaluate(plan: Plan, params: Any, stats: Any, batch: Any, key: Any) -> tuple[Array, Any]:
    """Return the loss, and with it the new statistics and aux, None where it has none."""
    inputs = (params, stats, batch) if plan.has_stats else (params, batch)
    out = plan.loss(*inputs, key=key) if plan.keyed else plan.loss(*inputs)
    names = ["value", "stats"][: 1 + plan.has_stats] + ["aux"] * plan.has_aux
    parts = out if len(names) > 1 else (out,)
    if not isinstance(parts, tuple) or len(parts) != len(names):
        raise wrong(plan.function, "loss", describe(out), f"a tuple ({', '.join(names)})")
    if isinstance(parts[0], tuple):
        needed = "a scalar array; has_aux=True allows a pair (value, aux)"
        raise wrong(plan.function, "loss", describe(out), needed)
    value = check_scalar(plan.function, parts[0])
    if plan.has_stats:
        given = "as loss was given them"
        check_same(plan.function, "loss: stats", parts[1], stats, given)
        check_dtypes(plan.function, "loss: stats", parts[1], stats, given)
    if plan.has_aux:
        check_arrays(plan.function, "loss: aux", parts[-1], "arrays")
    return value, (parts[1] if plan.has_stats else None, parts[-1] if plan.has_aux else None)


def _update(
    plan: Plan, grads: Any, state: Any, params: Any, offered: dict[str, Any]
) -> tuple[Any, Any]:
    """Run the optimizer; a failure for a state that is not its own is told as that."""
    try:
        pair = run_update(plan.optimizer, grads, state, params, offered)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            got = f"an update that returns {describe(pair)}"
            needed = "one that returns a pair (updates, state)"
            raise wrong(plan.function, "optimizer", got, needed, TypeError)
        updates, new = pair
        check_same(plan.function, "state", new, state, "as before the update")
        check_dtypes(plan.function, "state", new, state, "as before the update")
    except Exception:
        own = plan.optimizer.init(params)
        check_same(plan.function, "state", state, own, "as this optimizer's init returns it")
        raise
    check_like(plan.function, "updates", updates, params)
    return updates, new


def check_dtypes(function: str, argument: str, tree: Any, like: Any, whose: str) -> None:
    """Raise an error that names the first path where a tree of this structure has another dtype."""
    for (path, got), x in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(like), strict=True):
        if jnp.result_type(got) != (dtype := jnp.result_type(x)):
            place = argument + jax.tree_util.keystr(path)
            raise wrong(function, place, describe(got), f"{dtype}, {whose}")


def _add(p: Array, u: Array) -> Array:
    wide = max(p.dtype, u.dtype, key=lambda dtype: dtype.itemsize)  # so that only the sum rounds
    return (p.astype(wide) + u.astype(wide)).astype(p.dtype)


def _apart(donated: Any, kept: Any) -> Any:
    """Copy what is to be donated where another argument, or another of its leaves, is the same."""
    leaves, structure = jax.tree.flatten(donated)
    others = jax.tree.leaves(kept)
    try:  # the usual case, in a few microseconds
        own, other = _pointers(leaves), _pointers(others)
    except (TypeError, jax.errors.JaxRuntimeError):
        _check_readable(params=donated[0], state=donated[1], batch=kept[0], key=kept[1])
        own, other = [*map(_place, leaves)], [*map(_place, others)]
    if len(own) < len(leaves):
        _check_readable(params=donated[0], state=donated[1])
    if len(other) < len(others):
        _check_readable(batch=kept[0])
    places = own + other
    if len(set(places)) == len(places):
        return donated
    held = set(map(_place, others))
    for i, x in enumerate(leaves):
        if _place(x) in held and isinstance(x, jax.Array):
            leaves[i] = jnp.copy(x)
        held.add(_place(x))
    return jax.tree.unflatten(structure, leaves)


def _pointers(leaves: list[Any]) -> list[int]:
    """Return the places in memory of those leaves that are on a device."""
    return [x.unsafe_buffer_pointer() for x in leaves if hasattr(x, BUFFER)]


def _check_readable(**arguments: Any) -> None:
    """Raise for a leaf that the program could not read, or would change."""
    for argument, tree in arguments.items():
        check_arrays("make_step", argument, tree, "an array of numbers")


def _place(x: Any) -> int:
    """Return what two arrays share that are one: their place in memory, if it is one."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer):
        return id(x)
    part = x if len(x.sharding.device_set) == 1 else x.addressable_data(0)
    return part.unsafe_buffer_pointer()
