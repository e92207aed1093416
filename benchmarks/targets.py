"""What the results must show, and what they show: one line per target."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from benchmarks import conv
from benchmarks.half import LAYERS
from benchmarks.recurrence import CASES
from benchmarks.shapes import POOLS, TARGETS
from benchmarks.sweep import drawn
from benchmarks.tables import JAX_LAYERS, NONE, PYTORCH, Record, Rows, library, table
from benchmarks.timing import Row, geometric_mean, ratio

JAX_PEERS = ("plain JAX + optax", "stax", "Flax NNX", "Haiku", "Equinox")
FNN = ("fnn.make_step", "fnn.train")


class Target(NamedTuple):
    """A ratio of times, fnn's over the other's; the most it may be; whether no row is missing."""

    what: str
    most: float
    value: float | None
    whole: bool = True

    @property
    def met(self) -> str:
        if self.value is not None and self.value > self.most:
            return "MISSED"
        if not self.whole:
            return "NOT ALL TIMED"
        return "not measured" if self.value is None else "met"

    @property
    def measured(self) -> str:
        return NONE if self.value is None else f"{self.value:.2f}"

    @property
    def cell(self) -> str:
        """What was measured, with what is not met said behind it."""
        plain = self.met in ("met", "not measured")
        return self.measured if plain else f"{self.measured} {self.met}"


def ratios(pairs: list[tuple[Row, Row]]) -> tuple[list[float], bool]:
    """Return the median ratio of each pair, and whether none is missing: others may not take part.

    A row that is wrong, failed or was left out has no time.
    """
    found = [r[0] for r in (ratio(a, b) for a, b in pairs) if r]
    whole = len(found) == len(pairs) and all(b.get("whole", True) for _, b in pairs)
    return found, whole or all("seconds" not in b for _, b in pairs)


def fastest(found: Rows, case: str, names: Iterable[str], place: str = "") -> Row:
    """Return the fastest of the others, marked where one of them is wrong or failed."""
    rows = [found.get(case, name, place=place) for name in names]
    untimed = any(row.get("status") in ("wrong", "failed") for row in rows)
    return found.best(case, names, place=place) | ({"whole": False} if untimed else {})


def worst(what: str, most: float, pairs: list[tuple[Row, Row]]) -> Target:
    """Return the target for the largest ratio."""
    found, whole = ratios(pairs)
    return Target(what, most, max(found, default=None), whole)


def mean(what: str, most: float, pairs: list[tuple[Row, Row]]) -> Target:
    """Return the target for the geometric mean of all ratios."""
    found, whole = ratios(pairs)
    return Target(what, most, geometric_mean(found) if found else None, whole)


def compiling(what: str, most: float, ours: Row, other: Row) -> Target:
    """Return the target for the ratio of two compile times, each measured once."""
    a, b = ours.get("compile_seconds"), other.get("compile_seconds")
    return Target(f"{what} (once)", most, a / b if a and b else None, bool(a or not b))


def cases(record: Record, found: Rows, names: Iterable[str]) -> list[str]:
    """Return the cases of a record, with those that it should have and has not."""
    return found.cases if record["quick"] else [*dict.fromkeys((*found.cases, *names))]


def convolution(record: Record) -> Iterator[Target]:
    found = Rows([r for r in record["rows"] if r["target"] and r["measure"] == "gradient"])
    names = ("conv", "conv_transpose")
    layers = cases(record, found, map(conv.name, TARGETS))

    def ours(case: str, place: str) -> Row:
        return found.best(case, names, place=place)

    for place in ("jit", "scan"):
        pairs = [(ours(c, place), library(found, c, place)) for c in layers]
        yield worst(f"convolution in {place}, slowest row against lax", 1 / 0.95, pairs)
    pairs = [(ours(c, "scan"), ours(c, "jit")) for c in layers]
    yield worst("convolution, slowest row inside scan against outside", 1 / 0.9, pairs)
    pairs = [(ours(c, "jit"), fastest(found, c, PYTORCH)) for c in layers]
    grouped = [conv.name(layer) for layer in TARGETS if 1 < layer.groups < layer.inputs]
    for what, most, are in ("grouped", 1.5, True), ("dense or depthwise", 1.25, False):
        some = [pair for c, pair in zip(layers, pairs, strict=True) if (c in grouped) == are]
        yield worst(f"convolution, slowest {what} row against PyTorch", most, some)
    yield mean("convolution, geometric mean against PyTorch", 0.9, pairs)


def kept(record: Record) -> Iterator[Target]:
    found = Rows(record["rows"])
    layers = cases(record, found, (layer.name for layer, is_kept in drawn() if is_kept))
    ours = [(c, found.get(c, "conv", place="jit")) for c in layers]
    by_lax = [(row, found.get(c, "lax")) for c, row in ours]
    yield worst("held-out layers, slowest against lax", 1 / 0.95, by_lax)
    by_jit = [(found.get(c, "conv", place="scan"), row) for c, row in ours]
    yield worst("held-out layers, slowest inside scan against outside", 1 / 0.9, by_jit)
    by_torch = [(row, fastest(found, c, PYTORCH)) for c, row in ours]
    yield mean("held-out layers, geometric mean against PyTorch", 1.0, by_torch)


def half(record: Record) -> Iterator[Target]:
    found = Rows(record["rows"])
    layers = cases(record, found, map(conv.name, LAYERS))
    pairs = [(found.get(c, "conv", place="jit"), fastest(found, c, PYTORCH)) for c in layers]
    yield worst("convolution in bfloat16, slowest row against PyTorch", 1.25, pairs)


def pooling(record: Record) -> Iterator[Target]:
    found = Rows([r for r in record["rows"] if r["measure"] == "gradient"])
    names = ("max_pool", "avg_pool")
    layers = cases(record, found, (pool.name for pool in POOLS))

    def ours(case: str, place: str = "jit") -> Row:
        return found.best(case, names, place=place)

    two, three = "max 2x2", "max 3x3 stride 2"
    for place in ("jit", "scan"):
        lax = found.get(two, "lax", place=place)
        yield worst(f"{two} in {place} against reduce_window", 1 / 6, [(ours(two, place), lax)])
    for place, (case, most) in itertools.product(("jit", "scan"), ((two, 1 / 1.5), (three, 1.0))):
        pair = ours(case, place), fastest(found, case, PYTORCH)
        yield worst(f"{case} in {place} against PyTorch", most, [pair])
    for place in ("jit", "scan"):
        pairs = [(ours(c, place), found.get(c, "lax", place=place)) for c in layers]
        yield worst(f"pooling in {place}, slowest row against reduce_window", 1.0, pairs)


def recurrence(record: Record) -> Iterator[Target]:
    for place in ("jit", "scan"):
        torch, peers = [], []
        for measure in ("forward", "gradient"):
            found = Rows([r for r in record["rows"] if r["measure"] == measure])
            for case in cases(record, found, (c.name for c in CASES)):
                ours = found.best(case, ("fnn.lstm", "fnn.gru"), place=place)
                torch.append((ours, found.get(case, "PyTorch")))
                peers.append((ours, fastest(found, case, JAX_LAYERS, place)))
        yield mean(f"recurrence in {place}, geometric mean against PyTorch", 1.0, torch)
        yield worst(f"recurrence in {place}, slowest row against PyTorch", 1.25, torch)
        yield mean(
            f"recurrence in {place}, geometric mean against the best JAX peer", 1 / 1.5, peers
        )
        yield worst(f"recurrence in {place}, slowest row against the best JAX peer", 1.0, peers)


def optimizers(record: Record) -> Iterator[Target]:
    found, many, few = Rows(record["rows"]), "2,000 leaves of 100", "20 leaves of 100,000"
    flat = found.get(many, "fnn.flat(fnn.adam)")
    for name in ("optax.adam", "optax.flatten(optax.adam)"):
        what = f"flat(adam), {many}: compile time against {name}"
        yield compiling(what, 1 / 5, flat, found.get(many, name))
    plain = found.get(many, "fnn.adam")
    yield worst(f"flat(adam), {many}: step against fnn.adam", 1 / 10, [(flat, plain)])
    pair = found.get(few, "fnn.flat(fnn.adam)"), found.get(few, "fnn.adam")
    yield worst(f"flat(adam), {few}: step against fnn.adam", 1.1, [pair])


def training(record: Record) -> Iterator[Target]:
    found, peers = Rows(record["rows"]), JAX_PEERS if record["peers"] else ()
    for case, torch, jax in (
        ("small CNN", 1.0, 1 / 4),
        ("MLP 784-128-10", 1 / 2, 1 / 5),
        ("ResNet-18 at 32x32", 1.0, 1 / 3),
    ):
        pair = found.best(case, FNN), fastest(found, case, PYTORCH)
        yield worst(f"training the {case}, against PyTorch", torch, [pair])
        pair = found.get(case, "fnn.make_step"), fastest(found, case, peers)
        yield worst(f"training the {case} with make_step, against the best JAX peer", jax, [pair])
    for case in ("ResNet-18 at 32x32", "ResNet-50 at 32x32"):
        rows = [found.get(case, name) for name in ("fnn.make_step", "plain JAX + optax")]
        what = f"{case}, compiling and the first step against plain JAX"
        yield compiling(what, 1.5, *rows)


def startup(record: Record) -> Iterator[Target]:
    found = Rows(record["rows"])
    ours, jax = (found.get("import", name).get("seconds") for name in ("fnn", "jax"))
    over = ours - jax if ours and jax else None
    yield Target("import of fnn beyond that of jax, seconds", 0.1, over, bool(ours or not jax))
    case = "first step of the small CNN"
    pair = found.get(case, "fnn"), found.get(case, "plain JAX + optax")
    yield worst("time to the first step against plain JAX", 1.2, [pair])


CHECKS = {
    "training": training,
    "conv": convolution,
    "judge": kept,
    "half": half,
    "pooling": pooling,
    "recurrence": recurrence,
    "optimizers": optimizers,
    "startup": startup,
}


def found(records: dict[str, Record]) -> list[Target]:
    """Return the targets of the subjects that were measured."""
    return [t for name, check in CHECKS.items() if name in records for t in check(records[name])]


def text(records: dict[str, Record]) -> str:
    """Return the table of the targets of one results folder."""
    lines = [[t.what, f"{t.most:.2f}", t.measured, t.met] for t in found(records)]
    return table(["fnn's time over the other's", "at most", "measured", ""], lines)


def beside(machines: Mapping[str, dict[str, Record]]) -> str:
    """Return the table of the targets of several results folders, by the names of their columns."""
    columns = [{t.what: t for t in found(records)} for records in machines.values()]
    every = {t.what: t for column in columns for t in column.values()}
    lines = [
        [what, f"{t.most:.2f}", *(c[what].cell if what in c else NONE for c in columns)]
        for what, t in every.items()
    ]
    return table(["fnn's time over the other's", "at most", *machines], lines)
