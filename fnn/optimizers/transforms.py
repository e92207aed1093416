"""What goes before and after an optimizer: chains, clipping, penalties, weight decay.

A transform is an `Optimizer` too, ``update(grads, state, params) -> (grads, state)``: `chain` hands
what one returns to the next, fnn's and optax's alike. Masks are functions of a leaf's path, as
`fnn.paths` writes it: ``lambda path: path.endswith("/w")``.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.checks import NOT_NEGATIVE, check_callable, check_number, check_takes, wrong
from fnn.dtypes import Number, computed_wide, number_like
from fnn.optimizers.base import (
    Optimizer,
    Transform,
    check_transform,
    need_params,
    rate_used,
    run_update,
)
from fnn.optimizers.last import Last, Watcher, kind_around, refuse_last
from fnn.trees import Mask, check_like, chosen, scaled_norm


def check_mask(name: str, mask: Mask | None) -> None:
    """Raise unless this is a mask of fnn's; optax's are trees of bools."""
    if mask is not None:
        needed = "of a leaf's path, or None; to optax.inject_hyperparams name it among static_args"
        check_callable(name, "mask", mask, needed)
        check_takes(name, "mask", mask, "path")


def where_chosen(
    name: str, mask: Mask | None, fn: Callable[..., Any], tree: Any, *rest: Any
) -> Any:
    """Map fn over the leaves that the mask selects; the others stay as in tree."""

    def leaf(selected: bool, x: Any, *others: Any) -> Any:
        return computed_wide(fn, x, *others) if selected else x

    return jax.tree.map(leaf, chosen(name, mask, tree), tree, *rest)


def stateless(fn: Callable[[Any, Any], Any]) -> Optimizer:
    """Make a transform of ``fn(grads, params)``."""

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del extra
        return fn(grads, params), state

    return Optimizer(lambda params: (), update)


def chain(*transforms: Transform) -> Optimizer:
    """Apply transforms one after the other, the first to the gradients.

    Args:
        transforms: (init, update) pairs of fnn or of optax, in the order of application. Each
            receives those of optax's extra arguments that its update names.

    Returns:
        An `Optimizer`; its state is the tuple of theirs.

    Raises:
        ValueError: `average`, `lookahead` or `with_master_weights` before what may change the
            updates; update's state is not one state per transform.
        TypeError: a transform that is none.

    >>> opt = fnn.chain(fnn.clip_by_value(1.0), fnn.sgd(0.5))
    >>> opt.update(jnp.array([0.5, -8.0]), opt.init(jnp.zeros(2)))[0].tolist()
    [-0.25, 0.5]
    """
    for i, transform in enumerate(transforms):
        check_transform("chain", f"transforms[{i}]", transform)
        behind = transforms[i + 1 :]
        if isinstance(transform, Last) and not all(isinstance(t, Watcher) for t in behind):
            needed = "it last, behind all that changes the updates"
            raise wrong("chain", f"transforms[{i}]", transform.maker, needed)

    def init(params: Any) -> tuple[Any, ...]:
        return tuple(t.init(params) for t in transforms)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if not isinstance(state, tuple) or len(state) != len(transforms):
            got = f"{len(state)} parts" if type(state) is tuple else f"a {type(state).__name__}"
            needed = f"the {len(transforms)} that init returns, one per transform"
            raise wrong("chain", "state", got, needed)
        states = []
        for transform, own in zip(transforms, state, strict=True):
            grads, own = run_update(transform, grads, own, params, extra)
            states.append(own)
        return grads, tuple(states)

    silent = bool(transforms) and all(isinstance(t, Watcher) for t in transforms)
    return (Watcher if silent else kind_around(*transforms))(init, update)


def clip_by_global_norm(max_norm: Number) -> Optimizer:
    """Scale the gradients down to a norm of at most ``max_norm``, keeping their direction.

    ``g <- g min(1, max_norm / |g|)``, with ``|g|`` the norm of all leaves together.

    Args:
        max_norm: the largest norm that passes unchanged.

    Returns:
        An `Optimizer` without state, for a `chain`.

    Raises:
        TypeError: from update, gradients that are no floating-point numbers.

    Source: R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training recurrent neural
    networks (2013).

    >>> fnn.clip_by_global_norm(2.5).update(jnp.array([3.0, 4.0]), ())[0].tolist()
    [1.5, 2.0]
    """

    check_number("clip_by_global_norm", "max_norm", max_norm, NOT_NEGATIVE)

    def clip(grads: Any, params: Any) -> Any:
        check_like("clip_by_global_norm", "grads", grads, grads)
        scale, norm = scaled_norm(grads)
        limit = number_like(max_norm, norm)
        over = scale * norm > limit
        factor = limit / jnp.where(over, norm, 1)

        def shrink(g: Any) -> Any:
            return jnp.where(over, g / scale.astype(g.dtype) * factor.astype(g.dtype), g)

        return jax.tree.map(functools.partial(computed_wide, shrink), grads)

    return stateless(clip)


def clip_by_value(limit: Number) -> Optimizer:
    """Clip every number of the gradients into [-limit, limit].

    Args:
        limit: the largest magnitude that passes unchanged.

    Returns:
        An `Optimizer` without state, for a `chain`.

    Raises:
        TypeError: from update, gradients that are no floating-point numbers.

    >>> fnn.clip_by_value(1.0).update(jnp.array([0.5, -8.0]), ())[0].tolist()
    [0.5, -1.0]
    """
    check_number("clip_by_value", "limit", limit, NOT_NEGATIVE)

    def clip(g: Any) -> Any:
        most = number_like(limit, g)
        return jnp.clip(g, -most, most)

    def clip_all(grads: Any, params: Any) -> Any:
        check_like("clip_by_value", "grads", grads, grads)
        return jax.tree.map(clip, grads)

    return stateless(clip_all)


def l2(strength: Number, *, mask: Mask | None = None) -> Optimizer:
    """Add the gradient of an L2 penalty: ``g <- g + strength x``, that of ``strength |x|^2 / 2``.

    Put before an adaptive optimizer, the penalty is rescaled with the gradient; `add_weight_decay`
    is not.

    Args:
        strength: the factor lambda.
        mask: a function of a leaf's path, true for the leaves to penalise; default all.

    Returns:
        An `Optimizer` without state, for a `chain`; its update needs params.

    Raises:
        ValueError: update without params, or with params shaped otherwise than the gradients; a
            mask that selects no leaf.
        TypeError: a mask that is no function, or returns no bool.

    >>> params = grads = {"w": jnp.array(4.0), "b": jnp.array(4.0)}
    >>> updates, _ = fnn.l2(0.5, mask=lambda path: path == "w").update(grads, (), params)
    >>> updates["w"].item(), updates["b"].item()
    (6.0, 4.0)
    """

    check_number("l2", "strength", strength, NOT_NEGATIVE)
    check_mask("l2", mask)

    def penalise(g: Any, x: Any) -> Any:
        return g + number_like(strength, x) * x

    def update(grads: Any, params: Any) -> Any:
        need_params("l2", grads, params)
        return where_chosen("l2", mask, penalise, grads, params)

    return stateless(update)


def add_weight_decay(
    optimizer: Transform, weight_decay: Number, *, mask: Mask | None = None
) -> Optimizer:
    """Shrink the parameters beside the optimizer's step: ``x <- x - rate (u + weight_decay x)``.

    ``-rate u`` is the optimizer's update, and rate the learning rate of its state, so that a
    schedule scales both alike. For `fnn.sgd` without momentum it equals `l2`.

    Args:
        optimizer: one whose state holds one learning rate, however deep.
        weight_decay: the factor lambda.
        mask: a function of a leaf's path, true for the leaves to shrink; default all.

    Returns:
        An `Optimizer` with the optimizer's own state; its update needs params.

    Raises:
        ValueError: an optimizer that ends with `average`, `lookahead` or `with_master_weights`;
            update without params; a state without a learning rate; a mask that selects no leaf.
        TypeError: no optimizer; a mask that is no function, or returns no bool.

    Source: I. Loshchilov, F. Hutter, Decoupled weight decay regularization (2019).

    >>> opt = fnn.add_weight_decay(fnn.sgd(0.5), 0.25)
    >>> params = jnp.array([8.0])
    >>> opt.update(jnp.array([1.0]), opt.init(params), params)[0].tolist()
    [-1.5]
    """

    check_transform("add_weight_decay", "optimizer", optimizer)
    return decayed("add_weight_decay", optimizer, weight_decay, mask)


def decayed(name: str, optimizer: Transform, weight_decay: Number, mask: Mask | None) -> Optimizer:
    """Shrink as `add_weight_decay`, for public function ``name``, which errors name."""
    refuse_last(name, optimizer)
    check_number(name, "weight_decay", weight_decay, NOT_NEGATIVE)
    check_mask(name, mask)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        need_params(name, grads, params)
        updates, following = run_update(optimizer, grads, state, params, extra)
        rate = rate_used(name, state, following)

        def shrink(u: Any, x: Any) -> Any:
            return u - number_like(rate, x) * number_like(weight_decay, x) * x

        return where_chosen(name, mask, shrink, updates, params), following

    return Optimizer(optimizer.init, update)
