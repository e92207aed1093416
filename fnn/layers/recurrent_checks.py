"""What the recurrent layers may be given: lengths, arrays, states and activations."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks import attribute, check_dtype_or_wider, describe, wrong
from fnn.dtypes import is_floating, real
from fnn.kernels.recurrent.form import State, Weights

F = TypeVar("F", bound=Callable[..., Any])
Activation = Callable[..., jax.Array]  # of one array, number by number


def known_lengths(function: F) -> F:
    """Refuse lengths outside [0, time] before compilation, where their values are known."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        lengths: Any = kwargs.get("lengths")
        x: Any = args[0] if args else kwargs.get("x")
        known = isinstance(lengths, np.ndarray) or (
            isinstance(lengths, jax.Array)
            and not isinstance(lengths, jax.core.Tracer)
            and lengths.is_fully_addressable  # else other processes hold the rest
            and not lengths.is_deleted()
        )
        time = x.shape[1] if attribute(x, "ndim") == 3 else None
        if (
            known
            and attribute(lengths.dtype, "kind") in ("i", "u")  # else the function names what it is
            and lengths.shape == x.shape[:1] != (0,)
            and isinstance(time, int)
        ):
            values = np.asarray(lengths)
            if values.min() < 0 or values.max() > time:
                got = f"lengths from {values.min()} to {values.max()}"
                needed = f"lengths from 0 to the time of x, {time}"
                raise wrong(function.__name__, "lengths", got, needed)
        return function(*args, **kwargs)

    return cast(F, call)


def check_arrays(name: str, blocks: int, axes: str, x: jax.Array, weights: Weights) -> None:
    """Refuse shapes and dtypes that do not fit each other."""
    if x.ndim != axes.count(",") + 1:
        raise wrong(name, "x", describe(x), f"shape ({axes})")
    wh, features = weights.wh, x.shape[-1]
    if wh.ndim != 2 or wh.shape[1] != blocks * wh.shape[0]:
        needed = f"shape (units, {f'{blocks} ' * (blocks > 1)}units)"
        raise wrong(name, "wh", describe(wh), needed)
    units, columns = wh.shape
    shapes = {"wx": (features, columns), "b": (columns,), "bh": (units,), "peephole": (3, units)}
    for argument, a in weights._asdict().items():
        if a is None:
            continue
        if a.shape != shapes.get(argument, a.shape):
            needed = f"shape {shapes[argument]} for x {describe(x)} and wh {describe(wh)}"
            raise wrong(name, argument, describe(a), needed)
        if a.dtype != x.dtype:
            raise wrong(name, argument, describe(a), f"the dtype of x, {x.dtype}", TypeError)


def initial_state(name: str, parts: str, x: jax.Array, weights: Weights, state: Any) -> State:
    """Return the initial state as a tuple, zeros for None."""
    shape = (x.shape[0], weights.wh.shape[0])
    if state is None:
        return (jnp.zeros(shape, x.dtype),) * len(parts)
    arrays = (state,) if parts == "h" else state
    if not isinstance(arrays, tuple | list) or len(arrays) != len(parts):
        raise wrong(name, "state", describe(state), "the pair (h, c)", TypeError)
    for a in arrays:
        if getattr(a, "shape", None) != shape:
            raise wrong(name, "state", describe(a), f"shape {shape} for x {describe(x)}")
    read = tuple(map(real, arrays))
    for a in read:
        check_dtype_or_wider(name, "state", a, x)
    return tuple(map(jnp.asarray, read))


def by_number(name: str, activation: Activation) -> Activation:
    """Return the activation, refused where its result is not one float for each number."""

    needed = "a function of each number, such as jnp.tanh"

    def checked(z: jax.Array) -> jax.Array:
        try:
            jax.eval_shape(activation, jax.ShapeDtypeStruct((), z.dtype))
        except (TypeError, ValueError, IndexError) as error:  # it needs an axis, as softmax does
            got = f"one that takes no single number: {error}"
            raise wrong(name, "activation", got, needed) from None
        h = activation(z)
        if jnp.shape(h) != z.shape or not is_floating(getattr(h, "dtype", None)):
            got = f"one that makes {describe(h)} of {describe(z)}"
            raise wrong(name, "activation", got, needed)
        return h

    return checked
