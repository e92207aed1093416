"""Which layer each operation of a traced program belongs to.

Every array of the program is computed from some leaves of params, from data, or from both. A layer
is where they meet: an operation that takes data and something made of params alone uses these
leaves. A constant that is multiplied by weights is data too: a recurrence starts from one. Leaves
that it starts from instead are data from its second step on, and biases of what reads them first.
Operations of one call of an fnn function are one layer. Outside of such calls, those that
use leaves of one branch of params are, until one uses a leaf for the second time.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from fnn.analysis.arithmetic import PRODUCTS, flops, multiply_adds
from fnn.analysis.program import LOOPS, Call, Operation, Program, carried
from fnn.analysis.reach import reach, volume
from fnn.checks import wrong

ADDED = ("add", "sub", "add_any")  # where a leaf of params meets data as a bias
SCALED = ("mul", "div", "gather")  # where every number of the output has one weight


@dataclasses.dataclass
class Entry:
    """A layer, as it is counted.

    Attributes:
        function: of fnn, or the primitive.
        uses: by the path of every leaf that it uses, whether the leaf is only added to data.
        output: shape and dtype of its largest result.
        array: the number of this array; None inside a loop.
        units: numbers in the output, of all steps of a loop.
        mixes: whether a number of the output depends on several numbers of an input.
        connections: pairs of a unit and a weight.
        multiply_adds: of matrix products and convolutions.
    """

    function: str
    uses: dict[str, bool]
    output: Any = None
    array: int | None = None
    units: int = 0
    mixes: bool = False
    connections: int = 0
    multiply_adds: int = 0


class Source(NamedTuple):
    """What an array is computed from: these leaves of params alone, or data as well.

    Of data, leaves are what a loop starts from, where this is the state of its later steps.
    """

    leaves: frozenset[str]
    data: bool


DATA, NOTHING = Source(frozenset(), True), Source(frozenset(), False)


def ledger(program: Program, names: Sequence[str]) -> tuple[list[Entry], set[str]]:
    """Return the layers of a program whose first inputs are the leaves of these names.

    With them, the leaves that layers use in branches of `lax.cond` that do not count.

    Calls that use no params count where they mix numbers.
    """
    sources = [Source(frozenset([name]), False) for name in names]
    sources += [DATA] * (len(program.inputs) - len(names))
    book = Book([], {}, set())
    _enter(book, program, _flow(program, sources), Place(1, None, True))
    for entry in book.entries:
        if entry.connections and not entry.multiply_adds:  # scales, which may meet statistics first
            entry.connections = max(entry.connections, entry.units)
    return [e for e in book.entries if e.uses or e.multiply_adds or e.mixes], book.elsewhere


def _merged(sources: Sequence[Source]) -> Source:
    if any(s.data for s in sources):
        return DATA
    return Source(frozenset().union(*(s.leaves for s in sources)), False)


def _takes_data(op: Operation, reads: Sequence[Source]) -> bool:
    if any(source.data for source in reads):
        return True
    return op.name in PRODUCTS and NOTHING in reads and bool(_merged(reads).leaves)


def _flow(program: Program, inputs: Sequence[Source]) -> list[Source]:
    """Return what every array of a program is computed from."""
    sources = [NOTHING] * len(program.arrays)
    for i, source in zip(program.inputs, inputs, strict=True):
        sources[i] = source
    for op in program.operations:
        reads = [sources[i] for i in op.reads]
        result = DATA if _takes_data(op, reads) else _merged(reads)
        for i in op.writes:
            sources[i] = result
    return sources


def _flow_in_scan(op: Operation, reads: list[Source]) -> list[Source]:
    """Return the same for the body of a scan, whose carry may be data from a later step on."""
    (body,), place = op.bodies, carried(op.params)
    while True:
        sources = _flow(body, reads)
        before = reads[place]
        after = [sources[i] for i in body.outputs[: len(before)]]
        carry = [_later(*pair) for pair in zip(before, after, strict=True)]
        if carry == before:
            return sources
        reads = [*reads[: place.start], *carry, *reads[place.stop :]]


def _later(start: Source, end: Source) -> Source:
    """A state of a loop, from what it is before a step and after it."""
    both = _merged((start, end))
    return Source(start.leaves, True) if both.data else both


class Book(NamedTuple):
    """What is entered.

    Attributes:
        entries: in order.
        latest: by every call, and by every branch of params, the latest one.
        elsewhere: leaves that layers use in branches of `lax.cond` that do not count.
    """

    entries: list[Entry]
    latest: dict[Any, Entry]
    elsewhere: set[str]

    def entry(self, op: Operation, leaves: frozenset[str], products: int) -> Entry | None:
        """Return the entry that an operation belongs to, a new one if need be."""
        key: Any = op.call
        if key is None and leaves:
            path = min(leaves)
            key = path.rpartition("/")[0] or path
            if key == path and op.name in ADDED and self.entries:
                return self.entries[-1]
        elif key is None and products:
            key = op.writes
        if key is None:
            return None
        found = self.latest.get(key)
        if found is None or (op.call is None and leaves & found.uses.keys()):
            found = Entry(op.call.function if op.call else op.name, {})
            self.entries.append(found)
            self.latest[key] = found
        return found

    def starts(self, reads: Sequence[Source]) -> frozenset[str]:
        """Return the leaves that a loop starts from, where its state is read for the first time."""
        found: frozenset[str] = frozenset().union(*(s.leaves for s in reads if s.data))
        return found.difference(*(entry.uses for entry in self.entries)) if found else found


class Place(NamedTuple):
    """Where operations stand: how often they run, inside of which call, and whether in no loop."""

    times: int
    call: Call | None
    top: bool


def _enter(book: Book, program: Program, sources: list[Source], place: Place) -> None:
    """Enter the operations of a program that take data."""
    taken, given = _ends(program, sources)
    for op in program.operations:
        reads = [sources[i] for i in op.reads]
        if not op.writes or not _takes_data(op, reads):
            continue  # without a result: it prints, or checks
        loop = op.name in LOOPS
        leaves = _merged([source for source in reads if not source.data]).leaves
        starts = book.starts(reads)
        products, taps = multiply_adds(op, program.arrays)
        entry = None if loop and not op.call else book.entry(op, leaves or starts, products)
        if loop:
            _enter_loop(book, op, reads, place)
        if entry is None:
            continue
        if not loop:
            scaled = program.arrays[op.writes[0]].size if op.name in SCALED else 0
            entry.multiply_adds += place.times * products
            entry.connections += place.times * (taps or scaled) * bool(leaves)
            entry.uses.update(dict.fromkeys(starts, True))
            for path in leaves:
                entry.uses[path] = entry.uses.get(path, True) and op.name in ADDED
        if entry.units and not (op.call or leaves or products):
            continue  # as it reads no more than a state, the layer keeps its output
        if op.call is None or op.call != place.call:
            for i in op.writes:
                units = place.times * program.arrays[i].size
                if op.call is None or ((op.call, i) in given and units >= entry.units):
                    entry.units, entry.output = units, program.arrays[i]
                    entry.array = i if place.top else None
    for call, i in given:
        if call is not None and call != place.call and call in book.latest:
            boxes = (reach(program, i, j) for other, j in taken if other == call)
            book.latest[call].mixes |= any(box and volume(box) > 1 for box in boxes)


def _ends(program: Program, sources: list[Source]) -> tuple[set[Any], set[Any]]:
    """Return pairs of a call and an array: data that it takes, and results that others read."""
    writer = {i: op.call for op in program.operations for i in op.writes}
    last = {op.call: op.writes[-1] for op in program.operations if op.writes}
    reads = [(op.call, i) for op in program.operations for i in op.reads]
    taken = {(call, i) for call, i in reads if sources[i].data and writer.get(i) != call}
    given = {(writer[i], i) for call, i in reads if i in writer and writer[i] != call}
    given |= {(writer[i], i) for i in program.outputs if i in writer}
    without = last.keys() - {call for call, _ in given}
    return taken, given | {(call, last[call]) for call in without}


def _enter_loop(book: Book, op: Operation, reads: list[Source], place: Place) -> None:
    """Enter what a loop or a branch repeats."""
    if op.name == "scan":
        inside = Place(place.times * op.params["length"], op.call, False)
        _enter(book, op.bodies[0], _flow_in_scan(op, reads), inside)
    elif op.name == "cond":
        *others, most = sorted(op.bodies, key=flops)
        inside = Place(place.times, op.call, False)
        _enter(book, most, _flow(most, reads[1:]), inside)
        for body in others:
            trial = Book([], {}, book.elsewhere)
            _enter(trial, body, _flow(body, reads[1:]), inside)
            book.elsewhere.update(*(entry.uses for entry in trial.entries))
    else:
        body, trial = op.bodies[-1], Book([], {}, set())
        inputs = [DATA if source.data else source for source in reads[-len(body.inputs) :]]
        _enter(trial, body, _flow(body, inputs), Place(1, None, False))
        if any(entry.uses or entry.multiply_adds for entry in trial.entries):
            needed = "lax.scan, whose number of steps is known"
            raise wrong("analysis.summary", "model", "a layer inside lax.while_loop", needed)
