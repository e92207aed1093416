"""How a public function is made: `jitted` compiles it, `variant` gives it another algorithm.

A jitted function compiles once per shape and way of writing the call, as arguments by position and
by name are two for `jax.jit`, and is part of the caller's program inside one. Checkers, editors,
`help` and pickle see the plain function. What each argument may be follows from its annotation and
is settled before the program sees it:

- static (windows, axes, flags, functions): a list counts as a tuple, a NumPy number as Python's,
  and a flag is a bool;
- an array: a Python list is refused, and integers where the annotation says ``Float`` are read in
  the default float dtype; NumPy integers that JAX would wrap are refused where the annotation
  admits integers; a tuple of arrays holds nothing else;
- a ``float``: an ordinary argument that may be traced. It never changes a dtype, and one that is
  known is held to its range;
- a random key: a seed is refused;
- a pytree: looked into only after the program has failed, as a look costs time.
"""

import functools
import inspect
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from fnn.checks import (
    ANY,
    Range,
    check_array,
    check_arrays,
    check_callable,
    check_fits,
    check_flags,
    check_key,
    check_number,
    describe,
    wrong,
)
from fnn.dtypes import is_floating, is_held, is_real, real
from fnn.static import frozen

KEYS = {PRNGKeyArray, *get_args(PRNGKeyArray)}
F = TypeVar("F", bound=Callable[..., Any])
Reader = Callable[[Any], Any]


def jitted(
    *, static: Sequence[str] = (), ranges: Mapping[str, Range] | None = None
) -> Callable[[F], F]:
    """Compile a public function; see the top of this file.

    Args:
        static: names of the arguments that change the program.
        ranges: for arguments that are numbers, which numbers they may be; default any.
    """

    def decorate(function: F) -> F:
        call = _reading(function, static, ranges or {}, _program)
        call.static = tuple(static)  # type: ignore[attr-defined]  # for whoever asks what may be traced
        call.ranges = ranges  # type: ignore[attr-defined]  # for `variant`
        return cast(F, call)

    return decorate


def checked(function: F) -> F:
    """Hold the arguments of a public function to their annotations, as `jitted` does.

    Nothing is compiled: for functions that choose among their arguments in Python.
    """
    return cast(F, _reading(function, (), {}, lambda same, _: same))


def taken(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the offered keyword arguments that a function takes."""
    takes = inspect.signature(function).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    return {name: value for name, value in offered.items() if every or name in takes}


def takes_key(function: Callable[..., Any]) -> bool:
    """Whether a function has a parameter ``key`` that `functools.partial` has not bound already.

    It may have been bound before the function was wrapped, as by `jax.jit`.
    """
    try:
        if "key" not in inspect.signature(function).parameters:
            return False
    except (TypeError, ValueError):  # as of some that are written in C
        return False
    inner: Any = function
    while inner is not None:
        partial = isinstance(inner, functools.partial)
        if partial and "key" in inner.keywords:
            return False
        inner = inner.func if partial else getattr(inner, "__wrapped__", None)
    return True


def _program(function: Callable[..., Any], static: Sequence[str]) -> Callable[..., Any]:
    # In profiles, and in the compiler's own messages, operations stand under this name.
    scoped = jax.named_scope(f"fnn.{function.__name__}")(function)

    @functools.wraps(scoped)
    def program(*args: Any, **kwargs: Any) -> Any:
        return jax.tree.map(_strong, scoped(*args, **kwargs))

    return jax.jit(program, static_argnames=tuple(static), inline=True)


def _strong(x: Any) -> Any:
    return jnp.asarray(x, x.dtype) if getattr(x, "weak_type", False) else x


def _reading(
    function: Callable[..., Any],
    static: Sequence[str],
    ranges: Mapping[str, Range],
    make: Callable[[Callable[..., Any], Sequence[str]], Callable[..., Any]],
) -> Callable[..., Any]:
    """Return ``make(function, static)`` as called with its arguments read.

    It is made at the first call: what is not used costs no time at import.
    """
    made: tuple[Callable[..., Any], dict[str, Reader], list[Reader]] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        if made is None:
            made = make(function, static), *_readers(function, static, ranges)
        program, by_name, in_order = made
        for unknown in kwargs.keys() - by_name.keys():
            needed = f"one of the arguments {', '.join(by_name)}"
            raise wrong(function.__name__, unknown, "an argument of this name", needed, TypeError)
        if len(args) > len(in_order) and not _open_ended(function):
            raise _too_many(function.__name__, len(args), [*by_name], len(in_order))
        if rest := args[len(in_order) :]:
            check_arrays(function.__name__, "args", rest)
        read = [reader(value) for reader, value in zip(in_order, args, strict=False)]
        named = {k: by_name[k](v) for k, v in kwargs.items()}
        config: Any = jax.config
        if config.jax_disable_jit:
            read, named = jax.tree.map(_as_jit_reads, (read, named))
        try:
            return program(*read, *rest, **named)
        except Exception:  # looked into afterwards, which costs nothing before
            given = {**dict(zip(by_name, read, strict=False)), "args": rest, **named}
            arrays = {name: value for name, value in given.items() if name not in static}
            unreadable = _unreadable(function.__name__, arrays) if make is _program else None
            if unreadable is None:
                raise
            raise unreadable from None

    return call


def _unreadable(function: str, arguments: Mapping[str, Any]) -> Exception | None:
    """Return the error of the first array that no program takes: JAX's own names no argument."""
    try:
        for argument, value in arguments.items():
            check_arrays(function, argument, value, "an array of numbers")
    except (TypeError, ValueError) as error:
        return error
    return None


def _open_ended(function: Callable[..., Any]) -> bool:
    """Whether a function takes any number of arguments, as ``*args``."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values())


def _too_many(function: str, got: int, names: list[str], most: int) -> Exception:
    """Return the error to raise for arguments that have no place in the order."""
    needed = f"at most {most} ({', '.join(names[:most])})"
    if names[most:]:
        needed += f", and {', '.join(names[most:])} by name"
    return wrong(function, "arguments", f"{got} by position", needed, TypeError)


def _as_jit_reads(value: Any) -> Any:
    """Return a NumPy array as JAX's, in the dtype that JAX gives it."""
    return jnp.asarray(value) if isinstance(value, np.ndarray) else value


def variant(
    base: F, run: Callable[..., Any], kernel: Any, how: str, *, example: str, notes: str = ""
) -> F:
    """Derive ``<base>_<kernel.name>``: the base function by one fixed algorithm.

    Args:
        base: a public function made by `jitted`, whose body is
            ``return run(its name, its kernel, *args, **kwargs)`` of its own arguments.
        run: the same, to be called with the variant's name and kernel.
        kernel: the algorithm; its ``name`` ends the variant's.
        how: completes the first sentence of the docstring, "by ...".
        example: arguments, as they stand in a call: there the docstring's example compares both.
        notes: a paragraph on what this algorithm takes, costs or rounds.
    """
    plain = inspect.unwrap(base)
    name, signature = f"{plain.__name__}_{kernel.name}", _signature(plain)

    def derived(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return run(name, kernel, *bound.args, **bound.kwargs)

    derived.__name__ = derived.__qualname__ = name
    derived.__module__ = plain.__module__
    derived.__annotations__ = plain.__annotations__
    derived.__signature__ = signature  # type: ignore[attr-defined]  # as inspect documents it
    first, _, _ = (inspect.getdoc(plain) or "").partition("\n")
    paragraph = notes and f"\n{textwrap.indent(textwrap.fill(notes, 96), '    ')}\n"
    derived.__doc__ = f"""{first.rstrip(".")}, {how}.
{paragraph}
    Returns:
        As `fnn.{plain.__name__}`, whose arguments, derivatives and errors these are too. What this
        algorithm cannot do it refuses; speed and rounding differ.

    >>> got, want = (f({example}) for f in (fnn.{name}, fnn.{plain.__name__}))
    >>> jax.tree.all(jax.tree.map(jnp.allclose, got, want))
    True
    """
    made: Any = base  # by `jitted`
    return jitted(static=made.static, ranges=made.ranges)(cast(F, derived))


_signature = functools.cache(inspect.signature)  # one for all variants of a function


def _readers(
    function: Callable[..., Any], static: Sequence[str], ranges: Mapping[str, Range]
) -> tuple[dict[str, Reader], list[Reader]]:
    """Return what reads every argument, by its name, and in order where it may stand so."""
    parameters = inspect.signature(function).parameters.values()
    found = {
        p.name: _reader(function.__name__, p, p.name in static, ranges.get(p.name, ANY))
        for p in parameters
    }
    return found, [found[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def _reader(function: str, parameter: inspect.Parameter, static: bool, allowed: Range) -> Reader:
    """Return what brings one argument into its form, or refuses it."""
    annotation = parameter.annotation
    union = get_origin(annotation) in (Union, types.UnionType)
    kinds = set(get_args(annotation)) if union else {annotation}
    optional = type(None) in kinds
    kinds.discard(type(None))
    read: Callable[[str, str, Any], Any]
    if static:
        called = not optional and all(get_origin(kind) is Callable for kind in kinds)
        known = _function if called else _flag if annotation is bool else _known
        return functools.partial(known, function, parameter.name)
    if kinds & KEYS:
        read = _key
    elif kinds and kinds <= {int, float}:
        read = functools.partial(_number, allowed, float in kinds)
    elif arrays := {kind for kind in kinds if hasattr(kind, "array_type")}:
        of_reals = not any(_admits_complex(kind) for kind in arrays)
        floats = all(_is_float_only(kind) for kind in arrays)
        read = _real_array if floats else functools.partial(_array, of_reals)
        if float in kinds:
            read = functools.partial(_number_or_array, allowed)
    elif kinds and all(get_origin(kind) is tuple for kind in kinds):
        read = _arrays
    else:
        return lambda value: value
    return lambda value: (
        None if value is None and optional else read(function, parameter.name, value)
    )


def _admits_complex(kind: Any) -> bool:
    return not isinstance(kind.dtypes, tuple) or "complex64" in kind.dtypes


def _is_float_only(kind: Any) -> bool:
    floats: Any = Float
    return isinstance(kind.dtypes, tuple) and set(kind.dtypes) <= set(floats.dtypes)


def _key(function: str, argument: str, value: Any) -> Any:
    check_key(function, argument, value)
    return value


def _number(allowed: Range, floats: bool, function: str, argument: str, value: Any) -> Any:
    if type(value) is not float or value not in allowed:
        check_number(function, argument, value, allowed)
    value = value.item() if isinstance(value, np.generic | np.ndarray) else value
    return float(value) if floats and isinstance(value, int) else value


def _array(of_reals: bool, function: str, argument: str, value: Any, kind: Any = None) -> Any:
    """Read an array; a number of Python as JAX reads it, or as one of this kind."""
    numpy = type(value) is np.ndarray  # and no masked array
    known = (numpy or isinstance(value, jax.Array)) and isinstance(value.dtype, np.dtype)
    if known and is_real(value.dtype) and (not numpy or is_held(value.dtype)):
        if numpy and kind is None:  # else integers become floats
            check_fits(function, argument, value)
        return value  # first: the checks cost more than a call
    check_array(function, argument, value)
    if of_reals and not is_real(jnp.result_type(value)):
        raise wrong(function, argument, describe(value), "real numbers", TypeError)
    if hasattr(value, "dtype"):
        if kind is None and isinstance(value, np.ndarray | np.generic):
            check_fits(function, argument, value)
        return value
    dtype = jnp.result_type(value if kind is None else kind)
    try:
        return np.asarray(value, dtype)  # for runs without jit; jnp.asarray takes 25 us
    except OverflowError:
        needed = f"a number that {dtype} can hold"
        raise wrong(function, argument, describe(value), needed) from None


def _real_array(function: str, argument: str, value: Any) -> Any:
    value = _array(True, function, argument, value, float)
    return value if is_floating(value.dtype) else real(value)


def _number_or_array(allowed: Range, function: str, argument: str, value: Any) -> Any:
    if np.shape(value) == ():
        return _number(allowed, True, function, argument, value)
    return _real_array(function, argument, value)


def _arrays(function: str, argument: str, value: Any) -> Any:
    """Read a tuple of arrays; how many and of which shape is for the function to check."""
    for x in jax.tree.leaves(value):
        check_array(function, argument, x)
    return value


def _function(function: str, argument: str, value: Any) -> Any:
    check_callable(function, argument, value)
    return _known(function, argument, value)


def _flag(function: str, argument: str, value: Any) -> Any:
    known = _known(function, argument, value)
    check_flags(function, **{argument: known if isinstance(known, bool) else value})
    return known


def _known(function: str, argument: str, value: Any) -> Any:
    """Return a static argument as something that can be hashed."""
    if isinstance(value, jax.Array):
        needed = "a Python value, known before compilation"
        raise wrong(function, argument, describe(value), needed, TypeError)
    known = frozen(value)
    try:
        hash(known)
    except TypeError:
        needed = "numbers, strings, tuples or functions"
        raise wrong(function, argument, describe(value), needed, TypeError) from None
    return known
