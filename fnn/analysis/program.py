"""A function as its traced program: the equations, and the arrays that they start from.

What an analysis has to know about a model it reads here, so that no layer has to be registered. A
program is a list of equations, ``outvars = primitive(invars)``; `jax.jit`, `lax.scan` and the like
are equations that hold programs of their own.
"""

import itertools
import re
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fnn import lazily
from fnn.checks import describe, wrong
from fnn.static import Same, frozen

ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


class Known(NamedTuple):
    """The arguments of a call without its arrays: hashable, so that it can be static.

    Attributes:
        structure: of the pytree ``(args, kwargs)``.
        rest: its leaves, `ARRAY` in the place of an array.
        kinds: of the leaves, which tell apart numbers that are equal: 1 and 1.0, 0.0 and -0.0.
    """

    structure: Any
    rest: tuple[Hashable, ...]
    kinds: tuple[Hashable, ...]

    def call(self, function: Callable[..., Any], arrays: list[Any]) -> Any:
        """Call a function with these arrays in their places."""
        place = iter(arrays)
        own = [x.function if isinstance(x, Same) else x for x in self.rest]
        leaves = [next(place) if x is ARRAY else x for x in own]
        args, kwargs = jax.tree.unflatten(self.structure, leaves)
        return function(*args, **kwargs)

    def check_hashable(self, function: str) -> None:
        """Raise for a leaf that cannot be part of a compiled program."""
        for x in self.rest:
            try:
                hash(x)
            except TypeError:
                needed = "arrays, numbers, strings, functions, or others with a hash"
                raise wrong(function, "an argument", describe(x), needed, TypeError) from None


ARRAY = object()  # stands where an array was


def split(args: Any, kwargs: Any) -> tuple[Known, list[Any]]:
    """Take the arrays out of the arguments of a call."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    rest = [ARRAY if isinstance(x, ARRAYS) else frozen(x) for x in leaves]
    kinds: list[Hashable] = [
        repr(x) if isinstance(x, complex | float | int) else type(x) for x in rest
    ]
    found = Known(structure, tuple(rest), tuple(kinds))
    return found, [x for x in leaves if isinstance(x, ARRAYS)]


def trace(function: Callable[..., Any], known: Known, arrays: list[Any]) -> "lazily.ClosedJaxpr":
    """Return the program of ``known.call(function, arrays)``; nothing is computed."""
    with jax.disable_jit(False):  # without jit, a scan is no scan and a call leaves no mark
        return jax.make_jaxpr(lambda arrays: known.call(function, arrays))(arrays)


def inner(eqn: "lazily.JaxprEqn") -> list["lazily.ClosedJaxpr"]:
    """Return the programs that an equation holds."""
    held = []
    for value in eqn.params.values():
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, lazily.ClosedJaxpr):
                held.append(x)
            elif isinstance(x, lazily.Jaxpr):
                held.append(lazily.ClosedJaxpr(x, ()))
    return held


def carried(params: dict[str, Any]) -> slice:
    """Return which inputs of a scan are its carry: its constants come before, its steps after."""
    if "num_carry" in params:  # JAX 0.10
        start = params["num_consts"]
        return slice(start, start + params["num_carry"])
    start, carries, _ = map(len, params["ft_in"].unpack())  # JAX 0.12
    return slice(start, start + carries)


class Call(NamedTuple):
    """One call of a function of fnn.

    Attributes:
        function: its name.
        place: what all equations of this call have in common, and those of no other call.
    """

    function: str
    place: tuple[int, int]


class Operation(NamedTuple):
    """One equation, its arrays by their numbers.

    Attributes:
        primitive, params: as in the equation.
        reads, writes: numbers of arrays.
        call: of fnn that it is part of, or None.
        bodies: the programs of a loop or of branches.
    """

    primitive: Any
    params: dict[str, Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    call: Call | None
    bodies: tuple["Program", ...]

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return str(self.primitive.name)


class Program(NamedTuple):
    """A program in one list: what `jax.jit` and the like enclose stands in its place.

    Attributes:
        arrays: shape and dtype of every array, by number.
        constants: the values of those that the program begins with, by number.
        inputs, outputs: numbers of arrays.
        operations: in order of execution.
    """

    arrays: list[Any]
    constants: dict[int, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operations: list[Operation]


LOOPS = ("scan", "while", "cond")  # which run their programs otherwise than once
FOLDS = ("reduce", "reduce_window")  # whose programs are of single numbers


def flat(
    closed: "lazily.ClosedJaxpr", call: Call | None = None, runs: Iterator[int] | None = None
) -> Program:
    """Return a traced program as one list; ``call`` is where all of it stands."""
    program = Program([], {}, (), (), [])
    inputs = [_new(program, x) for x in closed.jaxpr.invars]
    outputs = _run(program, closed, inputs, call, itertools.count() if runs is None else runs)
    return program._replace(inputs=tuple(inputs), outputs=tuple(outputs))


def _new(program: Program, x: Any, value: Any = None) -> int:
    """Add an array to a program and return its number."""
    program.arrays.append(x.aval)
    if value is not None:
        program.constants[len(program.arrays) - 1] = value
    return len(program.arrays) - 1


def _run(
    program: Program,
    closed: "lazily.ClosedJaxpr",
    inputs: list[int],
    call: Call | None,
    runs: Iterator[int],
) -> list[int]:
    """Add what a traced program does with these inputs, and return the numbers of its outputs."""
    jaxpr = closed.jaxpr
    numbers = dict(zip(jaxpr.invars, inputs, strict=True))
    for x, value in zip(jaxpr.constvars, closed.consts, strict=True):
        numbers[x] = _new(program, x, value)
    this = next(runs)  # as one program may be run more than once

    def read(x: Any) -> int:
        return _new(program, x, x.val) if isinstance(x, lazily.Literal) else numbers[x]

    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "shard_map":  # whose arrays are one device's share
            needed = "its function without jax.shard_map, for whole arrays"
            raise wrong("analysis.summary", "model", "one inside jax.shard_map", needed)
        held = inner(eqn)
        place = call or _call(eqn, held, this)
        reads = [read(x) for x in eqn.invars]
        alone = len(held) == 1 and len(held[0].jaxpr.invars) == len(reads)
        if alone and eqn.primitive.name not in (*LOOPS, *FOLDS):
            writes = _run(program, held[0], reads, place, runs)
        else:
            writes = [_new(program, x) for x in eqn.outvars]
            bodies = tuple(flat(body, place, runs) for body in held)
            facts = eqn.primitive, eqn.params, tuple(reads), tuple(writes)
            program.operations.append(Operation(*facts, place, bodies))
        numbers.update(zip(eqn.outvars, writes, strict=True))
    return [read(x) for x in jaxpr.outvars]


def known(program: Program, array: int) -> Any:
    """Return the value of an array, no key, that is computed from constants alone, or None."""

    def is_key(i: int) -> bool:
        return bool(jax.numpy.issubdtype(program.arrays[i].dtype, jax.dtypes.extended))

    needed, steps = {array}, []  # each operation once: there may be many paths, and long ones
    for op in reversed(program.operations):
        if needed.isdisjoint(op.writes):
            continue
        if op.bodies or any(map(is_key, op.reads)):
            return None
        needed.difference_update(op.writes)
        needed.update(op.reads)
        steps.append(op)
    if is_key(array) or not needed <= program.constants.keys():
        return None
    values = {i: np.asarray(program.constants[i]) for i in needed}
    with jax.ensure_compile_time_eval():
        for op in reversed(steps):
            results = op.primitive.bind(*(values[i] for i in op.reads), **op.params)
            results = results if op.primitive.multiple_results else [results]
            values.update(zip(op.writes, results, strict=True))
        return np.asarray(values[array])


def _call(eqn: "lazily.JaxprEqn", held: list["lazily.ClosedJaxpr"], run: int) -> Call | None:
    """Return the call of fnn that an equation is from: `fnn.functions.jitted` leaves its name.

    JAX 0.10 writes the equations of a call into the caller's program, all with the traceback of the
    line where the function was called. JAX 0.12 writes one equation, which holds them.
    """
    if name := _scope(eqn):
        return Call(name, (run, id(eqn.source_info.traceback)))
    name = eqn.params.get("name")
    called = any(name == _scope(first) for body in held for first in body.eqns[:1])
    return Call(str(name), (run, id(eqn))) if name and called else None


def _scope(eqn: "lazily.JaxprEqn") -> str | None:
    found = re.search(r"fnn\.([a-z]\w*)", str(eqn.source_info.name_stack))
    return found[1] if found else None
