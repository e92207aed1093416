"""Static arguments: what decides whether two of them are equal, and so one compiled program."""

import dis
import functools
import inspect
import itertools
import sys
import types
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple

import jax
import numpy as np


def frozen(value: Any) -> Any:
    """Return lists and arrays as tuples, NumPy numbers as Python's, and functions as `Same`.

    A method of an object that may change is another one whenever it is read, as in `model.loss`.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return tuple(map(frozen, value))
    own = value.__func__ if isinstance(value, types.MethodType) else value
    if isinstance(own, types.FunctionType):
        return Same.of(value)
    unhashable = callable(value) and getattr(value, "__hash__", None) is None  # as a dataclass is
    return Same(value, _Identity(value)) if unhashable else value


PLAIN = (int, str, bytes, bool, type(None))
LIBRARIES = {"fnn", "jax", "jaxlib", "numpy", "math", "functools", "builtins"}
IMPORT = dis.opmap["IMPORT_NAME"]
OPEN = {"globals", "eval", "exec", "__import__"}  # what they reach, the code does not name


class _Given(NamedTuple):
    field: int


# Of every NamedTuple.
GIVEN, FIELD = vars(_Given).keys() - {"field"}, type(vars(_Given)["field"])


class Same:
    """A function that equals every other of the same code over the same immutable values.

    `jax.jit` compiles anew for every new function object, so a lambda written into a loop would
    compile at each call. Two functions are the same where their code is, and all that it can reach
    is: numbers, strings, JAX arrays, names of libraries, and functions of which this holds in turn.
    A function that reaches anything else, which could change in between, equals itself only.
    """

    def __init__(self, function: Any, facts: Any) -> None:
        """Wrap the function with what decides about it."""
        functools.update_wrapper(self, function)
        self.function, self.facts = function, facts

    @classmethod
    def of(cls, function: Any) -> Any:
        """Return the function so wrapped, with its own identity where it equals itself only."""
        method = isinstance(function, types.MethodType)
        parts = (function.__self__, function.__func__) if method else (function,)
        try:
            seen: dict[int, int] = {}
            return cls(function, tuple(_facts(part, seen) for part in parts))
        except _Changeable:  # two methods of one object are equal, whatever it holds by then
            return cls(function, _Identity(function)) if method else function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        """Show the function, for messages."""
        return repr(self.function)

    def __hash__(self) -> int:
        """Hash the code alone."""
        return hash(getattr(self.function, "__code__", None))

    def __eq__(self, other: object) -> bool:
        """Compare all that the code can reach."""
        return isinstance(other, Same) and self.facts == other.facts


class _Changeable(Exception):
    """What a function reaches may be another value at the next call."""


class _Identity(NamedTuple):
    """A value that is immutable but compares otherwise than by identity."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _facts(value: Any, seen: dict[int, int]) -> Any:
    """Return what decides about a value that a function reaches.

    One already met is represented by its number; ``seen`` maps ids to numbers.
    """
    if isinstance(value, float | complex):  # by its bits: 0.0 == -0.0, and no NaN equals itself
        return type(value), np.asarray(value).tobytes()
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        return _Identity(value)
    if isinstance(value, tuple):
        if type(value).__dictoffset__ and vars(value):
            raise _Changeable
        return _facts(type(value), seen), tuple(_facts(v, seen) for v in value)
    if id(value) in seen:
        return seen[id(value)]
    if _of_a_library(value) and (not getattr(value, "__closure__", None) or _has_name(value)):
        return _Identity(value)
    seen[id(value)] = len(seen)
    if isinstance(value, types.FunctionType):
        return _facts_of_code(value, seen)
    if isinstance(value, type) and issubclass(value, tuple):
        return value, tuple(_facts(thing, seen) for thing in _given_by(value))
    raise _Changeable


def _given_by(kind: type) -> list[Any]:
    """Return what a class of tuples, such as a NamedTuple, gives them: methods and properties."""
    return [
        _plain(thing)
        for base in kind.__mro__
        if base is not Generic and not _of_a_library(base)
        for name, thing in vars(base).items()
        if name not in GIVEN and (callable(thing) or not name.startswith("__"))
        if not isinstance(thing, FIELD)
    ]


def _plain(thing: Any) -> Any:
    """Return the function inside, where a class holds one in another thing."""
    if isinstance(thing, property):
        return thing.fget
    return thing.__func__ if isinstance(thing, classmethod | staticmethod) else thing


def _of_a_library(value: Any) -> bool:
    # The type is asked first: an object of the user's may raise anything for an attribute.
    program = type(value).__module__.partition(".")[0] in ("jax", "jaxlib")
    module, function = (isinstance(value, t) for t in (types.ModuleType, types.FunctionType))
    builtin = isinstance(value, types.BuiltinFunctionType)
    if not (program or module or function or builtin or isinstance(value, type)):
        return False
    if (program or function) and isinstance(inspect.unwrap(value), functools.partial):
        return False  # it holds any function, as `jax.tree_util.Partial` does
    if builtin and not isinstance(value.__self__, types.ModuleType | type | None):
        return False  # a method of what may change, as {}.get
    owners = [value.__name__ if module else getattr(value, "__module__", None) or "builtins"]
    if function:  # `functools.wraps` copies the module of the function inside
        owners.append(value.__globals__.get("__name__"))
    return all(str(owner).partition(".")[0] in LIBRARIES for owner in owners)


def _has_name(value: Any) -> bool:
    """Whether its module holds it under its own name, as it does a public function."""
    module = sys.modules.get(str(getattr(value, "__module__", None)))
    return getattr(module, getattr(value, "__name__", ""), None) is value


def _facts_of_code(function: Any, seen: dict[int, int]) -> Any:
    codes = tuple(_codes(function.__code__))
    names = list(itertools.chain.from_iterable(code.co_names for code in codes))
    imports = any(IMPORT in code.co_code[::2] for code in codes)  # a module, which may change
    if imports or not OPEN.isdisjoint(names) or vars(function).keys() - {"__wrapped__"}:
        raise _Changeable
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a name that is not bound yet
        raise _Changeable from None
    reached = [function.__globals__[name] for name in names if name in function.__globals__]
    defaults = (function.__defaults__, *(function.__kwdefaults__ or {}).items())
    rest = tuple(_facts(value, seen) for value in (*cells, *reached, *defaults))
    return function.__code__, rest


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield this code and all code inside it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _codes(inner)
