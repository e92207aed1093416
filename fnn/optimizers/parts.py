"""Different optimizers for different parts of the parameters, and none for what is frozen.

Each optimizer sees the whole tree with None in place of the leaves that are not its own, so that
paths stay what they are. Nothing reads the gradient of a frozen leaf: compiled with the loss in one
program, as in `fnn.make_step` and `fnn.train`, it is not computed either.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fnn.checks import check_takes, describe, several, shown, wrong
from fnn.optimizers.base import Optimizer, Transform, check_transform, run_update
from fnn.optimizers.last import Averaging, kind_around, refuse_last
from fnn.trees import Mask, check_like, paths, picks, select


def partition(optimizers: Mapping[str, Transform | None], part: Callable[[str], str]) -> Optimizer:
    """Give every part of the parameters an optimizer of its own.

    Args:
        optimizers: by the name of the part; None freezes a part, without state or work.
        part: a function of a leaf's path, the name of the part that the leaf belongs to.

    Returns:
        An `Optimizer`; its state is a dict of theirs, by part.

    Raises:
        ValueError: from init and update, a part without leaves or a leaf without a part; from
            update, a state of other parts, or gradients shaped otherwise than params.
        TypeError: no dict of optimizers by strings; a part that is no function, or returns no
            string.

    Source: J. Howard, S. Ruder, Universal language model fine-tuning for text classification
    (2018), on learning rates by layer.

    >>> params = {"body": jnp.ones(1), "head": jnp.ones(1), "table": jnp.ones(1)}
    >>> by_part = {"body": fnn.sgd(0.25), "head": fnn.adam(0.5), "table": None}
    >>> opt = fnn.partition(by_part, lambda path: path.split("/")[0])
    >>> updates, state = opt.update(params, opt.init(params))
    >>> [round(u.item(), 2) for u in updates.values()], list(state)
    ([-0.25, -0.5, 0.0], ['body', 'head'])
    """
    if not isinstance(optimizers, Mapping):
        needed = "a dict of optimizers, by part"
        raise wrong("partition", "optimizers", describe(optimizers), needed, TypeError)
    for name, optimizer in optimizers.items():
        if not isinstance(name, str):
            needed = "a string, as part returns it"
            raise wrong("partition", "optimizers", f"the part {describe(name)}", needed, TypeError)
        if optimizer is not None:
            check_transform("partition", f"optimizers[{name!r}]", optimizer)
    check_takes("partition", "part", part, "path")
    return _parts("partition", "part", optimizers, part)


def freeze(optimizer: Transform, mask: Mask) -> Optimizer:
    """Keep the masked leaves as they are: no update, no state, no work for them.

    Put it around everything that changes parameters; what the optimizer is made of, such as a
    `chain` with clipping, sees the other leaves alone.

    Args:
        optimizer: for the leaves that the mask does not select.
        mask: a function of a leaf's path, true for the leaves to freeze.

    Returns:
        An `Optimizer` with the optimizer's own state, of the leaves that move.

    Raises:
        ValueError: an optimizer that ends with `average`, which would be of the leaves that move
            alone; from init and update, a mask that selects no leaf, or all.
        TypeError: no mask, or no optimizer; a mask that returns no bool.

    >>> params = {"features": jnp.ones(1000), "head": jnp.ones(1)}
    >>> opt = fnn.freeze(fnn.sgd(0.5, momentum=0.9), lambda path: path == "features")
    >>> updates, state = opt.update(params, opt.init(params))
    >>> updates["features"].any().item(), updates["head"].item(), fnn.count(state.moments)
    (False, -0.5, 1)
    """
    check_transform("freeze", "optimizer", optimizer)
    check_takes("freeze", "mask", mask, "path")
    refuse_last("freeze", optimizer, Averaging)
    both: dict[str, Transform | None] = {"moving": optimizer, "frozen": None}

    def part(path: str) -> str:
        return "frozen" if picks("freeze", mask, path) else "moving"

    parts = _parts("freeze", "mask", both, part)

    def init(params: Any) -> Any:
        return parts.init(params)["moving"]

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, following = parts.update(grads, {"moving": state}, params, **extra)
        return updates, following["moving"]

    return kind_around(optimizer)(init, update)


def _parts(
    function: str,
    argument: str,
    optimizers: Mapping[str, Transform | None],
    part: Callable[[str], str],
) -> Optimizer:
    moving = {name: optimizer for name, optimizer in optimizers.items() if optimizer is not None}

    def masks(tree: Any) -> dict[str, Mask]:
        """Return the mask of each part that moves, after a check of all parts."""
        found = {path: part(path) for path in jax.tree.leaves(paths(tree))}
        for path, name in found.items():
            if not isinstance(name, str):
                got = f"{describe(name)} for {path}"
                raise wrong(function, argument, got, "a string, the name of a part", TypeError)
            if name not in optimizers:
                raise wrong(
                    function, argument, f"{shown(name)} for {path}", f"one of {several(optimizers)}"
                )
        for name in optimizers if found else ():
            if name not in found.values():
                raise wrong(
                    function, argument, f"no leaf for {name!r}", f"some of {several(found)}"
                )
        return {name: lambda path, name=name: found[path] == name for name in moving}

    def init(params: Any) -> dict[str, Any]:
        return {name: moving[name].init(select(params, m)) for name, m in masks(params).items()}

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        like = grads if params is None else params
        check_like(function, "grads", grads, like)
        if not isinstance(state, dict) or set(state) != set(moving):
            names = f" of parts {several(sorted(state))}" if isinstance(state, dict) else ""
            got = f"a {type(state).__name__}{names}"
            raise wrong(
                function, "state", got, f"that of its init, with parts {several(sorted(moving))}"
            )
        updates, following = jax.tree.map(jnp.zeros_like, like), {}
        for name, mask in masks(grads).items():
            own = None if params is None else select(params, mask)
            mine, following[name] = run_update(
                moving[name], select(grads, mask), state[name], own, _narrowed(extra, mask, params)
            )
            updates = _merged(mine, updates)
        return updates, following

    return kind_around(*moving.values())(init, update)


def _merged(part: Any, whole: Any) -> Any:
    """Return the whole tree with the leaves that the part has."""
    return jax.tree.map(
        lambda x, other: other if x is None else x, part, whole, is_leaf=lambda x: x is None
    )


def _narrowed(extra: dict[str, Any], mask: Mask, params: Any) -> dict[str, Any]:
    """Return the extra arguments of `fnn.make_step` for the part that the mask selects."""
    narrow = dict(extra)
    if "grad" in extra:
        narrow["grad"] = select(extra["grad"], mask)
    if "value_fn" in extra and params is not None:
        narrow["value_fn"] = lambda part: extra["value_fn"](_merged(part, params))
    return narrow
