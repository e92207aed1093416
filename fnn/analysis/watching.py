"""Intermediate values of a model, by name, and the gradients that reach them.

A model says what may be seen, ``x = fnn.analysis.watch(x, "conv1")``, and is otherwise unchanged:
`watch` is the identity, and compiles to nothing. `watched` and `gradients_at` trace the model, find
the marks in its program and run that program once more, with what they were asked for as results.
So the marks may stand inside `jax.jit`, `grad`, `vmap`, `lax.scan` and `jax.checkpoint`, and both
functions compose with all of these.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Shaped

from fnn import lazily
from fnn.analysis.program import Known, carried, inner, split, trace
from fnn.checks import check_array, check_callable, check_scalar, describe, shown, wrong
from fnn.dtypes import is_floating
from fnn.static import frozen

Arrays = dict[str, Any]


def watch(x: Shaped[Array, "*shape"], name: str) -> Shaped[Array, "*shape"]:
    """Return x, marked so that `watched` and `gradients_at` find it under this name.

    Nothing is computed or stored for the mark. Go on with the array that is returned: a mark on an
    array that nothing depends on may be dropped.

    Args:
        x: any array.
        name: one that no other array of the model has.

    Returns:
        x.

    Raises:
        TypeError: x is no array.
        ValueError: name is no string, or empty.

    >>> fnn.analysis.watch(jnp.ones(2), "ones").tolist()
    [1.0, 1.0]
    """
    check_array("analysis.watch", "x", x)
    if not isinstance(name, str) or not name:
        raise wrong("analysis.watch", "name", shown(name), "a string that is not empty")
    y: Array = _watch_p.bind(jnp.asarray(x), name=name, mapped=())
    return y


def watched(model: Callable[..., Any]) -> Callable[..., Arrays]:
    """Return a function that gives what a model marks with `watch`, instead of its result.

    Args:
        model: any function. Of its arguments, arrays may be traced; all others are as they are.
            What it reads in a dict, an array or an object that changes is fixed at the first call.

    Returns:
        A function of the same arguments. It returns a dict of the marked arrays by their names, in
        order of execution (`jax.jit` sorts the names of a dict). An array has one axis more for
        each `lax.scan` around it, the steps, and one for each `jax.vmap` that maps what the array
        depends on, the examples: first all steps, then all examples, of either the outermost first.
        The function can be differentiated, mapped and compiled as the model can.

    Raises:
        ValueError: when called, two arrays have one name, or an array is marked inside
            `lax.while_loop`, `lax.cond`, `jax.shard_map`, or a function with its own derivative.
        TypeError: when called, an argument is a `jax.ShapeDtypeStruct`, or has no hash.

    Source: interpreters of traced programs, as in the JAX documentation, "Writing custom Jaxpr
    interpreters in JAX".

    >>> def model(w, x):
    ...     return (fnn.analysis.watch(fnn.relu(x * w), "hidden") ** 2).sum()
    >>> fnn.analysis.watched(model)(2.0, jnp.array([-1.0, 3.0]))
    {'hidden': Array([0., 6.], dtype=float32)}
    """
    return _of_a_call("watched", "model", model, _watched)


def gradients_at(loss: Callable[..., Any]) -> Callable[..., Arrays]:
    """Return a function that gives the gradients of a loss to what it marks with `watch`.

    The gradient at y is d loss / d y through everything that is computed from y.

    Args:
        loss: any function that returns a scalar and nothing else, as `watched` takes it.

    Returns:
        A function of the same arguments. It returns a dict of the gradients, in the order, the
        shapes and the dtypes in which `watched` returns the arrays.

    Raises:
        ValueError: when called, as `watched`; loss is no scalar.
        TypeError: when called, as `watched`; a marked array holds no floating-point numbers.

    Source: Introduction to Deep Learning (2020), back-propagation: the delta of every layer.

    >>> def loss(w, x):
    ...     return (fnn.analysis.watch(fnn.relu(x * w), "hidden") ** 2).sum()
    >>> fnn.analysis.gradients_at(loss)(2.0, jnp.array([-1.0, 3.0]))
    {'hidden': Array([ 0., 12.], dtype=float32)}
    """
    return _of_a_call("gradients_at", "loss", loss, _gradients)


def _of_a_call(
    name: str, argument: str, function: Callable[..., Any], analysis: Callable[..., Arrays]
) -> Callable[..., Arrays]:
    check_callable(f"analysis.{name}", argument, function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Arrays:
        known, arrays = split(args, kwargs)
        known.check_hashable(f"analysis.{name}")
        for x in arrays:
            if isinstance(x, jax.ShapeDtypeStruct):
                got = f"{describe(x)} without values"
                needed = "an array; jax.eval_shape takes shapes"
                raise wrong(f"analysis.{name}", "an argument", got, needed, TypeError)
        return dict(analysis(frozen(function), known, arrays))  # what it reaches may have changed

    return call


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _watched(model: Callable[..., Any], known: Known, arrays: list[Any]) -> Arrays:
    program = trace(model, known, arrays)
    return _run("watched", program.jaxpr, program.consts, arrays, {})[1]


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _gradients(loss: Callable[..., Any], known: Known, arrays: list[Any]) -> Arrays:
    function = "analysis.gradients_at"

    def scalar(*args: Any, **kwargs: Any) -> Any:
        return check_scalar(function, loss(*args, **kwargs))

    program = trace(scalar, known, arrays)

    def run(nudges: Arrays) -> tuple[list[Any], Arrays]:
        return _run("gradients_at", program.jaxpr, program.consts, arrays, nudges)

    def value(nudges: Arrays) -> Array:
        result: Array = run(nudges)[0][0]
        return result

    shapes = jax.eval_shape(run, {})[1]
    for name, x in shapes.items():
        if not is_floating(x.dtype):
            needed = "an array of floating-point numbers, which has a gradient"
            raise wrong(function, name, describe(x), needed, TypeError)
    zeros = OrderedDict((name, jnp.zeros_like(x)) for name, x in shapes.items())  # sharded as x
    gradients: Arrays = jax.grad(value)(zeros)
    return gradients


def _batch(args: Any, dims: Any, *, name: str, mapped: tuple[int, ...]) -> tuple[Array, int]:
    (x,), (new,) = args, dims
    mapped = (new, *(axis + (axis >= new) for axis in mapped))
    return _watch_p.bind(x, name=name, mapped=mapped), new


# The mark: the identity, with a name; ``mapped`` are the axes that `jax.vmap` added, the outermost
# first.
_watch_p = lazily.Primitive("fnn_watch")
_watch_p.def_impl(lambda x, **_: x)
_watch_p.def_abstract_eval(lambda x, **_: x)
ad.primitive_jvps[_watch_p] = lambda primals, tangents, **params: (
    _watch_p.bind(*primals, **params),
    tangents[0],
)
ad.primitive_transposes[_watch_p] = lambda cotangent, x, **_: [cotangent]
batching.primitive_batchers[_watch_p] = _batch
mlir.register_lowering(_watch_p, lambda context, x, **_: [x])


def _run(
    function: str, jaxpr: "lazily.Jaxpr", consts: Any, args: Any, nudges: Arrays
) -> tuple[list[Any], Arrays]:
    """Run a program; return its results, and the marked arrays with ``nudges`` added to them."""
    variables = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(x: Any) -> Any:
        return x.val if isinstance(x, lazily.Literal) else variables[x]

    seen: Arrays = OrderedDict()  # as JAX sorts the names of other dicts
    for eqn in jaxpr.eqns:
        step = _plain if not _marks(eqn) else _steps().get(eqn.primitive, _refuse)
        with eqn.ctx.manager:
            results, new = step(function, eqn, [read(x) for x in eqn.invars], nudges)
        for name in seen.keys() & new.keys():
            if not _marks(eqn)[name]:
                needed = "another name for every array, such as an f-string with the layer's number"
                raise wrong(f"analysis.{function}", "name", f"{name!r} twice", needed)
        seen.update({name: x for name, x in new.items() if name not in seen})
        variables.update(zip(eqn.outvars, results, strict=True))
    return [read(x) for x in jaxpr.outvars], seen


def _marks(eqn: "lazily.JaxprEqn") -> dict[str, bool]:
    """Return the names marked in an equation, and whether each is marked for a second time only.

    It is where `jax.checkpoint` repeats in the backward pass what the forward pass did.
    """
    if eqn.primitive is _watch_p:
        return {eqn.params["name"]: False}
    marks: dict[str, bool] = {}
    for within in (e for held in inner(eqn) for e in held.jaxpr.eqns):
        for name, again in _marks(within).items():
            marks[name] = marks.get(name, True) and again
    return dict.fromkeys(marks, True) if eqn.params.get("differentiated") else marks


Step = tuple[Any, Arrays]


def _plain(function: str, eqn: "lazily.JaxprEqn", values: list[Any], nudges: Arrays) -> Step:
    results = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return (results if eqn.primitive.multiple_results else [results]), {}


def _mark(function: str, eqn: "lazily.JaxprEqn", values: list[Any], nudges: Arrays) -> Step:
    (x,), name, mapped = values, eqn.params["name"], eqn.params["mapped"]
    front = tuple(range(len(mapped)))
    if name in nudges:
        x = x + jnp.moveaxis(nudges[name], front, mapped)
    return [x], {name: jnp.moveaxis(x, mapped, front)}


def _call(function: str, eqn: "lazily.JaxprEqn", values: list[Any], nudges: Arrays) -> Step:
    closed = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
    return _run(function, closed.jaxpr, closed.consts, values, nudges)


def _checkpoint(function: str, eqn: "lazily.JaxprEqn", values: list[Any], nudges: Arrays) -> Step:
    def body(nudges: Arrays, *values: Any) -> Step:
        return _run(function, eqn.params["jaxpr"], (), list(values), nudges)

    apart, policy = eqn.params["prevent_cse"], eqn.params["policy"]
    apart = (True, *apart) if isinstance(apart, tuple) else apart  # a flag for each value
    result: Step = jax.checkpoint(body, prevent_cse=apart, policy=policy)(nudges, *values)
    return result


def _scan(function: str, eqn: "lazily.JaxprEqn", values: list[Any], nudges: Arrays) -> Step:
    closed, place = eqn.params["jaxpr"], carried(eqn.params)
    consts, carry, xs = values[: place.start], values[place], values[place.stop :]

    def body(carry: list[Any], step: Any) -> Any:
        own, nudges = step
        args = [*consts, *carry, *own]
        results, seen = _run(function, closed.jaxpr, closed.consts, args, nudges)
        return results[: len(carry)], (results[len(carry) :], seen)

    nudges = {name: nudges[name] for name in _marks(eqn).keys() & nudges.keys()}
    how = {key: eqn.params[key] for key in ("length", "reverse", "unroll")}
    carry, (ys, seen) = lax.scan(body, carry, (xs, nudges), **how)
    return [*carry, *ys], seen


def _refuse(function: str, eqn: "lazily.JaxprEqn", values: list[Any], nudges: Arrays) -> Step:
    got = f"{', '.join(sorted(_marks(eqn)))} inside {eqn.primitive}"
    needed = "a mark outside of it; inside jit, grad, vmap, scan and checkpoint it may stand"
    raise wrong(f"analysis.{function}", "name", got, needed)


@functools.cache
def _steps() -> dict[Any, Callable[..., Step]]:
    """Return what runs an equation that holds marks, by its primitive."""
    known = lazily.primitives
    return {
        _watch_p: _mark,
        known.jit_p: _call,
        known.closed_call_p: _call,
        known.remat_p: _checkpoint,
        known.scan_p: _scan,
    }
