"""Errors, and the checks that more than one file needs.

Every error of the library has one form: which function, which argument, what came, what was needed.
A check takes the public function's name and the argument's, raises that error, or returns.
"""

import inspect
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.dtypes import accumulator, is_floating, is_held, is_real
from fnn.static import Same

LAST = 2**31 - 1  # of int32, in which programs count


def wrong(
    function: str, argument: str, got: Any, needed: str, kind: type[Exception] = ValueError
) -> Exception:
    """Return the error to raise for a wrong call.

    >>> raise wrong("conv", "groups", 3, "a divisor of c_in = 4")
    Traceback (most recent call last):
    ...
    ValueError: fnn.conv: groups: got 3; needed a divisor of c_in = 4
    """
    return kind(f"fnn.{function}: {argument}: got {got}; needed {needed}")


def attribute(x: Any, name: str) -> Any:
    """Return an attribute, or None where there is none: objects may raise anything for that.

    >>> attribute(np.ones(3), "shape"), attribute([1, 2], "shape")
    ((3,), None)
    """
    try:
        return getattr(x, name, None)
    except Exception:  # KeyError, of a dict whose attributes are its entries
        return None


def describe(x: Any) -> str:
    """Return dtype and shape of an array as one word, ``float32[8,28,28,1]``.

    >>> describe(np.zeros((2, 3), np.float32))
    'float32[2,3]'
    """
    shape, dtype = attribute(x, "shape"), attribute(x, "dtype")
    if shape is None or dtype is None:
        kind, text = type(x).__name__, shown(x)
        return text if text.startswith(f"<{kind} that") else f"{kind} {text}"
    return f"{dtype}[{','.join(map(str, shape))}]"


def shown(x: Any) -> str:
    """Return how an object shows itself, on one line that is not too long.

    >>> shown("a\\nb"), shown(["same"] * 99)[-15:]
    ("'a\\\\nb'", "'same', 'sam...")
    """
    try:
        return short(repr(x))
    except Exception:  # as of a list with a deleted array, or an int of too many digits
        return f"<{type(x).__name__} that cannot be shown>"


def short(text: str) -> str:
    """Return a text on one line, its end left out where it is long."""
    line = " ".join(text.split())
    return line if len(line) < 80 else line[:77] + "..."


def several(names: Iterable[str]) -> str:
    """Return the first names as a list, and how many there are more.

    >>> several("abcdefghij")
    "['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'] and 2 more"
    """
    every = [*names]
    return f"{every[:8]}" + (f" and {len(every) - 8} more" if len(every) > 8 else "")


def check_int(function: str, argument: str, value: Any, least: int | None = None) -> None:
    """Raise unless the value is an int, no bool, of at least ``least``."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        needed = "an int" if least is None else f"an int >= {least}"
        raise wrong(function, argument, shown(value), needed)


def check_size(function: str, argument: str, value: Any, least: int = 1) -> None:
    """Raise unless this is an int of at least ``least`` that a program can count to."""
    check_int(function, argument, value, least)
    if value > LAST:
        raise wrong(function, argument, shown(value), f"an int of at most {LAST:,}")


def check_int_or_array(function: str, argument: str, value: Any, least: int) -> None:
    """Raise unless this is an int >= ``least``, or an integer array of shape ()."""
    if isinstance(value, jax.Array | np.ndarray):
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.integer):
            needed = f"an int >= {least}, or an integer array of shape ()"
            raise wrong(function, argument, describe(value), needed)
        if isinstance(value, jax.core.Tracer):
            return
        value = int(value)
    check_int(function, argument, value, least)


def check_axis(function: str, x: Any, axis: Any) -> None:
    """Raise unless this is an axis of x, counted from the front or, negative, from the back."""
    whole = isinstance(axis, int) and not isinstance(axis, bool)
    if not whole or not -x.ndim <= axis < x.ndim:
        raise wrong(function, "axis", shown(axis), f"an axis of x {describe(x)}")


def check_one_of(function: str, argument: str, value: Any, allowed: Any) -> None:
    """Raise unless the value is one of these strings."""
    if not isinstance(value, str) or value not in allowed:
        raise wrong(function, argument, shown(value), " or ".join(map(repr, allowed)))


def read_path(function: str, argument: str, value: Any) -> Path:
    """Return a path, or raise for what is none."""
    if not isinstance(value, str | os.PathLike):
        raise wrong(function, argument, describe(value), "a str or a pathlib.Path", TypeError)
    return Path(value)


def check_flags(function: str, **flags: Any) -> None:
    """Raise for one of these arguments that is neither True nor False, Python's or NumPy's."""
    for argument, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise wrong(function, argument, describe(value), "True or False", TypeError)


def check_array(function: str, argument: str, x: Any) -> None:
    """Raise for a list, strings, keys, or whatever else is no number and no array of numbers.

    A mask of NumPy's is refused too: a conversion would drop it.
    """
    if not isinstance(x, jax.Array | np.ndarray | np.generic | int | float | complex):
        needed = "an array, such as jnp.asarray makes of a list"
        raise wrong(function, argument, describe(x), needed, TypeError)
    check_unmasked(function, argument, x)
    dtype = getattr(x, "dtype", np.dtype(float))
    if not is_real(dtype) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise wrong(function, argument, describe(x), "an array of numbers", TypeError)
    if not is_held(dtype):
        how = "np.float32" if dtype.isnative else 'x.dtype.newbyteorder("=")'
        needed = f"numbers that JAX can hold: native, of 64 bits or less, by x.astype({how})"
        raise wrong(function, argument, f"{describe(x)} of {dtype.str}", needed, TypeError)


def check_unmasked(function: str, argument: str, x: Any) -> None:
    """Raise for a masked array of NumPy's."""
    if isinstance(x, np.ma.MaskedArray):
        needed = "an array without a mask, such as x.filled(0) and, as another one, ~x.mask"
        raise wrong(function, argument, f"a masked {describe(x)}", needed, TypeError)


def check_fits(function: str, argument: str, x: np.ndarray | np.generic) -> None:
    """Raise for 64-bit integers that do not fit: without x64 JAX holds them in 32 bits."""
    if x.dtype.kind not in "iu" or x.dtype.itemsize < 8 or x.size == 0:
        return
    held = np.iinfo(jax.dtypes.canonicalize_dtype(x.dtype))
    if held.dtype != x.dtype and (x.min() < held.min or x.max() > held.max):
        got = f"{describe(x)} from {x.min()} to {x.max()}"
        needed = f'numbers that fit {held.dtype}, or jax.config.update("jax_enable_x64", True)'
        raise wrong(function, argument, got, needed)


def check_arrays(
    function: str,
    argument: str,
    tree: Any,
    needed: str = "arrays, with all else bound to the function by functools.partial",
) -> None:
    """Raise for the first leaf that a program cannot take, or would change.

    Those are what is no array of numbers, number or key; a masked or donated array; integers that
    do not fit.
    """
    with suppress(TypeError, ValueError):
        for x in jax.tree.leaves(tree):
            _check_leaf(function, argument, x, needed)
        return
    for path, x in jax.tree.leaves_with_path(tree):  # which takes long to write
        _check_leaf(function, argument + jax.tree_util.keystr(path), x, needed)


def _check_leaf(function: str, place: str, x: Any, needed: str) -> None:
    """Raise for this leaf as `check_arrays` does."""
    if isinstance(x, jax.Array):
        check_alive_array(function, place, x)
        return
    if not isinstance(x, np.ndarray | np.generic | int | float | complex):
        raise wrong(function, place, describe(x), needed, TypeError)
    if isinstance(x, np.ndarray) and x.dtype == jax.dtypes.float0:  # the gradient of integers
        return
    check_array(function, place, x)
    if isinstance(x, np.ndarray | np.generic):
        check_fits(function, place, x)


def check_dtype_or_wider(function: str, argument: str, array: Any, x: Any) -> None:
    """Raise unless the array has the dtype of x, or that of the sums of x."""
    allowed = dict.fromkeys((x.dtype, accumulator(x.dtype)))
    if array.dtype not in allowed:
        needed = f"{' or '.join(map(str, allowed))} for x {describe(x)}"
        raise wrong(function, argument, describe(array), needed, TypeError)


def check_key(function: str, argument: str, key: Any) -> None:
    """Raise unless this is one random key: a seed is not one."""
    if is_key(key) and (key.shape == () or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        return
    needed = "one random key, such as jax.random.key(0)"
    raise wrong(function, argument, describe(key), needed, TypeError)


def is_key(x: Any) -> bool:
    """Whether this is an array of typed keys, or one raw key."""
    if not isinstance(x, jax.Array | np.ndarray):
        return False
    raw = x.dtype == jnp.uint32 and x.shape in ((2,), (4,))
    return raw or jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


class Range(NamedTuple):
    """The numbers from ``low`` to ``high``; an end counts where it is closed."""

    low: float
    high: float = math.inf
    low_closed: bool = True
    high_closed: bool = True

    def __contains__(self, value: Any) -> bool:
        """Whether the number is one of them; NaN never is."""
        above = value >= self.low if self.low_closed else value > self.low
        below = value <= self.high if self.high_closed else value < self.high
        return bool(above and below)

    def __str__(self) -> str:
        """Return the words that a message needs."""
        if (self.low, self.high) == (-math.inf, math.inf):
            return "a number"
        if self.high == math.inf:
            return f"a number {'>=' if self.low_closed else '>'} {self.low:g}" + (
                "" if self.high_closed else ", and finite"
            )
        left, right = "[" if self.low_closed else "(", "]" if self.high_closed else ")"
        return f"a number in {left}{self.low:g}, {self.high:g}{right}"


ANY = Range(-math.inf)
POSITIVE = Range(0, low_closed=False)
POSITIVE_FINITE = Range(0, low_closed=False, high_closed=False)
NOT_NEGATIVE = Range(0)
FRACTION = Range(0, 1)
BELOW_ONE = Range(0, 1, high_closed=False)


def is_number(value: Any) -> bool:
    """Whether this is one real number, traced or not."""
    kinds = int | float | np.integer | np.floating | np.ndarray | jax.Array
    real = isinstance(value, kinds) and not isinstance(value, bool)
    return real and np.shape(value) == () and is_real(jnp.result_type(value))


def check_number(function: str, argument: str, value: Any, allowed: Range = ANY) -> None:
    """Raise unless this is one real number in the range; a traced one has a shape only."""
    if not is_number(value):
        raise wrong(function, argument, describe(value), str(allowed), TypeError)
    if isinstance(value, jax.core.Tracer):
        return
    try:
        inside = float(value) in allowed
    except OverflowError:
        needed = "a number that a float can hold"
        raise wrong(function, argument, describe(value), needed) from None
    if not inside:
        raise wrong(function, argument, value, str(allowed))


def check_known(function: str, **arguments: Any) -> None:
    """Raise for a traced array in these arguments: the function needs its values at once."""
    for argument, tree in arguments.items():
        for x in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Iterator)):
            check_known_array(function, argument, x)


def check_known_array(function: str, place: str, x: Any) -> None:
    """Raise for this array as `check_known` does."""
    if isinstance(x, jax.core.Tracer):
        needed = "arrays with values: call it outside of jit, grad, vmap and scan"
        raise wrong(function, place, "a traced array", needed, TypeError)


def check_outside(function: str, instead: str) -> None:
    """Raise for a call inside a program that JAX traces.

    What the function reaches may have no value there, even where all arguments have.
    """
    try:
        jax.sharding.get_mesh()  # which JAX refuses to tell then: nothing public says more
    except ValueError:
        got, needed = "one inside jit, grad, vmap or scan", f"one outside of them; {instead}"
        raise wrong(function, "the call", got, needed, TypeError) from None


def check_callable(function: str, argument: str, value: Any, needed: str = "") -> None:
    """Raise unless this is a function; ``needed`` may tell its arguments."""
    if not callable(value):
        needed = f"a function {needed}".rstrip()
        raise wrong(function, argument, describe(value), needed, TypeError)


def check_takes(
    function: str, argument: str, value: Any, inputs: str, *, may_draw: bool = False
) -> None:
    """Raise unless this can be called with these inputs and, if it may draw, with a key."""
    check_callable(function, argument, value, f"{argument}({inputs})")
    given = value.function if isinstance(value, Same) else value
    while _is_unbound(given):
        given = given.__call__
    try:
        signature = inspect.signature(given, follow_wrapped=False)  # a wrapper may take others
    except Exception:  # as of some that are written in C, or whose attributes raise
        return
    key = {"key": None} if may_draw and "key" in signature.parameters else {}
    try:
        signature.bind(*inputs.split(", "), **key)
    except TypeError:
        needed = f"{argument}({inputs})" + (", and key where it draws" if may_draw else "")
        got = short(f"{argument}{signature}")
        raise wrong(function, argument, got, needed, TypeError) from None


def _is_unbound(value: Any) -> bool:
    """Whether an object is called without itself: of such, Python before 3.13 drops an input."""
    call = inspect.getattr_static(type(value), "__call__")
    return isinstance(call, staticmethod | classmethod) or not hasattr(call, "__get__")


def check_alive(function: str, **arguments: Any) -> None:
    """Raise for an array in these arguments whose memory was donated to another computation."""
    for argument, tree in arguments.items():
        for path, x in jax.tree.leaves_with_path(tree):
            check_alive_array(function, argument + jax.tree_util.keystr(path), x)


def check_alive_array(function: str, place: str, x: Any) -> None:
    """Raise for this array as `check_alive` does."""
    concrete = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    if concrete and x.is_deleted():
        needed = "an array that was not donated, as a step donates its params and state; keep"
        needed += " jax.tree.map(jnp.copy, tree)"
        raise wrong(function, place, f"a deleted {describe(x)}", needed)


def count_examples(function: str, data: Any) -> int:
    """Return the length of the one leading axis that all arrays of data have, or raise."""
    sizes = {
        "data" + jax.tree_util.keystr(path): jnp.shape(x)[0] if jnp.ndim(x) else None
        for path, x in jax.tree.leaves_with_path(data)
    }
    first, n = next(iter(sizes.items()), ("", None))
    if not n or len(set(sizes.values())) > 1:
        odd_first = sorted(sizes, key=lambda path: (path != first, sizes[path] == n))
        got = ", ".join(f"{sizes[path] or 'no'} examples in {path}" for path in odd_first[:3])
        got += f", and {len(sizes) - 3} arrays more" if len(sizes) > 3 else ""
        needed = "arrays with one common leading axis, the examples, at least one"
        raise wrong(function, "data", got or "no array", needed)
    return n


def check_scalar(name: str, value: Any) -> Any:
    """Return the value of a loss, or raise the error of public function ``name``."""
    if attribute(value, "shape") != ():
        raise wrong(name, "loss", describe(value), "a scalar array: call .mean()")
    if not is_floating(value.dtype):
        raise wrong(name, "loss", describe(value), "a floating-point number", TypeError)
    return value
