"""What the results must show, and what they show: one line per target."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.tables import JAX_LAYERS, NONE, PYTORCH, Record, Rows, table
from benchmarks.timing import Row, geometric_mean, ratio

JAX_PEERS = ("stax", "Flax NNX", "Haiku", "Equinox")
FNN = ("fnn.make_step", "fnn.train")


class Target(NamedTuple):
    """A ratio of times, fnn's over the other's, and the most it may be; half its spread."""

    what: str
    most: float
    value: float | None
    half: float = 0.0

    @property
    def met(self) -> str:
        if self.value is None:
            return "not measured"
        if self.value <= self.most:
            return "met"
        return "met within the spread" if self.value - self.half <= self.most else "MISSED"


def worst(what: str, most: float, pairs: list[tuple[Row, Row]]) -> Target:
    """Return the target for the largest ratio among the pairs that were timed."""
    found = [r for r in (ratio(a, b) for a, b in pairs) if r]
    value, spread = max(found, default=(None, 0.0))
    return Target(what, most, value, spread / 2)


def mean(what: str, most: float, pairs: list[tuple[Row, Row]]) -> Target:
    """Return the target for the geometric mean of all ratios."""
    values = [r[0] for r in (ratio(a, b) for a, b in pairs) if r]
    return Target(what, most, geometric_mean(values) if values else None)


def convolution(record: Record) -> Iterator[Target]:
    found = Rows([r for r in record["rows"] if r["target"] and r["measure"] == "gradient"])
    names = ("conv", "conv_transpose")

    def ours(case: str, place: str) -> Row:
        return found.best(case, names, place=place)

    def library(case: str, place: str) -> Row:
        return found.get(case, "conv_lax", place=place) or found.get(case, "lax", place=place)

    for place in ("jit", "scan"):
        pairs = [(ours(c, place), library(c, place)) for c in found.cases]
        yield worst(f"convolution in {place}, slowest row against lax", 1.0, pairs)
    pairs = [(ours(c, "scan"), ours(c, "jit")) for c in found.cases]
    yield worst("convolution, slowest row inside scan against outside", 1.2, pairs)
    pairs = [(ours(c, "jit"), found.best(c, PYTORCH)) for c in found.cases]
    yield worst("convolution, slowest row against PyTorch", 1.25, pairs)
    yield mean("convolution, geometric mean against PyTorch", 1.0, pairs)


def pooling(record: Record) -> Iterator[Target]:
    found = Rows([r for r in record["rows"] if r["measure"] == "gradient"])
    names = ("max_pool", "avg_pool")

    def ours(case: str, place: str = "jit") -> Row:
        return found.best(case, names, place=place)

    two, three = "max 2x2", "max 3x3 stride 2"
    for place in ("jit", "scan"):
        lax = found.get(two, "lax", place=place)
        yield worst(f"{two} in {place} against reduce_window", 1 / 6, [(ours(two, place), lax)])
    for place, (case, most) in itertools.product(("jit", "scan"), ((two, 1 / 1.5), (three, 1.0))):
        pair = ours(case, place), found.best(case, PYTORCH)
        yield worst(f"{case} in {place} against PyTorch", most, [pair])
    for place in ("jit", "scan"):
        pairs = [(ours(c, place), found.get(c, "lax", place=place)) for c in found.cases]
        yield worst(f"pooling in {place}, slowest row against reduce_window", 1.0, pairs)


def recurrence(record: Record) -> Iterator[Target]:
    for place in ("jit", "scan"):
        torch, peers = [], []
        for measure in ("forward", "gradient"):
            found = Rows([r for r in record["rows"] if r["measure"] == measure])
            for case in found.cases:
                ours = found.best(case, ("fnn.lstm", "fnn.gru"), place=place)
                torch.append((ours, found.get(case, "PyTorch")))
                peers.append((ours, found.best(case, JAX_LAYERS, place=place)))
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
        seconds = [r.get("compile_seconds") for r in (flat, found.get(many, name))]
        value = seconds[0] / seconds[1] if all(seconds) else None
        yield Target(f"flat(adam), {many}: compile time against {name}", 1 / 5, value)
    plain = found.get(many, "fnn.adam")
    yield worst(f"flat(adam), {many}: step against fnn.adam", 1 / 10, [(flat, plain)])
    pair = found.get(few, "fnn.flat(fnn.adam)"), found.get(few, "fnn.adam")
    yield worst(f"flat(adam), {few}: step against fnn.adam", 1.1, [pair])


def training(record: Record) -> Iterator[Target]:
    found = Rows(record["rows"])
    for case, torch, jax in (
        ("small CNN", 1.0, 1 / 4),
        ("MLP 784-128-10", 1 / 2, 1 / 5),
        ("ResNet-18 at 32x32", 1.0, 1 / 3),
    ):
        ours = found.best(case, FNN)
        against = found.best(case, PYTORCH)
        yield worst(f"training the {case}, against PyTorch", torch, [(ours, against)])
        against = found.best(case, JAX_PEERS)
        yield worst(f"training the {case}, against the best JAX peer", jax, [(ours, against)])
    rows = [found.get("ResNet-18 at 32x32", n) for n in ("fnn.make_step", "plain JAX + optax")]
    seconds = [row.get("compile_seconds") for row in rows]
    value = seconds[0] / seconds[1] if all(seconds) else None
    yield Target("ResNet-18 at 32x32, compiling and the first step against plain JAX", 1.5, value)


def startup(record: Record) -> Iterator[Target]:
    found = Rows(record["rows"])
    rows = [found.get("import", name) for name in ("fnn", "jax")]
    over = rows[0]["seconds"] - rows[1]["seconds"] if all("seconds" in r for r in rows) else None
    yield Target("import of fnn over import of jax, seconds", 0.1, over)
    case = "first step of the small CNN"
    pair = found.get(case, "fnn"), found.get(case, "plain JAX + optax")
    yield worst("time to the first step against plain JAX", 1.2, [pair])


CHECKS = {
    "training": training,
    "conv": convolution,
    "pooling": pooling,
    "recurrence": recurrence,
    "optimizers": optimizers,
    "startup": startup,
}


def text(records: dict[str, Record]) -> str:
    """Return the table of all targets of the subjects that were measured."""
    found = [t for name, check in CHECKS.items() if name in records for t in check(records[name])]
    lines = [
        [t.what, f"{t.most:.2f}", NONE if t.value is None else f"{t.value:.2f}", t.met]
        for t in found
    ]
    return table(["fnn's time over the other's", "at most", "measured", ""], lines)
