"""Tables of results, as Markdown that also reads well in a terminal."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.machine import limit
from benchmarks.timing import Row, geometric_mean, ratio

Record = dict[str, Any]
PYTORCH = ("PyTorch", "PyTorch channels last", "PyTorch fused", "PyTorch compiled")
NONE = "-"
LOSES = " ◄"  # behind every ratio above what it may be


class Rows(NamedTuple):
    """The rows of one record, found by what they are about."""

    rows: list[Row]

    @property
    def cases(self) -> list[str]:
        return list(dict.fromkeys(row["case"] for row in self.rows))

    @property
    def contestants(self) -> list[str]:
        return list(dict.fromkeys(row["contestant"] for row in self.rows))

    def get(self, case: str, contestant: str, measure: str = "", place: str = "") -> Row:
        """The row of a contestant, or an empty one."""
        for row in self.rows:
            if (row["case"], row["contestant"]) == (case, contestant) and (
                measure in ("", row["measure"]) and place in ("", row["place"])
            ):
                return row
        return {}

    def best(self, case: str, names: Iterable[str], measure: str = "", place: str = "") -> Row:
        """The fastest row among these contestants, or an empty one."""
        rows = [self.get(case, name, measure, place) for name in names]
        return min((r for r in rows if "seconds" in r), key=lambda r: r["seconds"], default={})


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, its columns padded: the first to the left, the others right.

    Without lines it is empty.
    """
    rows = [list(head), *(list(line) for line in lines)]
    if len(rows) == 1:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.rjust(w) for c, w in zip(cells, widths, strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *padded[1:]]) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def ms(row: Row) -> str:
    """Median and spread in milliseconds, or what kept the row from being timed."""
    if "seconds" not in row:
        return {"not applicable": NONE, "": NONE}.get(row.get("status", ""), row.get("status", ""))
    value, spread = 1e3 * row["seconds"], 1e3 * row.get("spread", 0.0)
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4
    once = row.get("rounds") == 1
    return f"{value:.{digits}f}" + (" (once)" if once else f" ± {spread / 2:.{digits}f}")


def over(a: Row, b: Row, most: float | None = None) -> str:
    """The median ratio of a's time to b's within the rounds, marked where it is above ``most``."""
    both = ratio(a, b)
    if both is None:
        return NONE
    return f"{both[0]:.2f}" + (LOSES if most is not None and both[0] > most else "")


def of_limit(row: Row, record: Record) -> str:
    """Per cent of what the machine could do at best in this row's arithmetic and traffic."""
    if "seconds" not in row or "bytes" not in row:
        return NONE
    return f"{100 * limit(row['flops'], row['bytes'], record['ceiling']) / row['seconds']:.0f}"


def library(found: Rows, case: str, place: str) -> Row:
    """The library's kernel: `fnn.conv_lax` or plain `lax`, whichever is faster there."""
    return found.best(case, ("conv_lax", "lax"), "gradient", place)


def mean_of(ratios: Iterable[tuple[float, float] | None]) -> str:
    values = [r[0] for r in ratios if r]
    return f"{geometric_mean(values):.2f}" if values else NONE


def convolution(record: Record, targets: bool) -> str:
    """fnn's default beside the library and PyTorch: forward + backward."""
    rows = [r for r in record["rows"] if r["target"] == targets]
    return layers(record, rows, ("conv", "conv_transpose"), 1.25)


def pooling(record: Record) -> str:
    """fnn's default beside `reduce_window` and PyTorch: forward + backward."""
    rows = [r for r in record["rows"] if r["measure"] == "gradient"]
    return layers(record, rows, ("max_pool", "avg_pool"), 1.0)


def layers(record: Record, rows: list[Row], names: Sequence[str], most: float) -> str:
    """One line per layer, fnn's functions of these names; ``most`` is the limit over PyTorch."""
    found = Rows(rows)
    head = ["layer, ms", "fnn", "in scan", "lax", "in scan", "PyTorch"]
    head += ["fnn/lax", "in scan", "scan/jit", "fnn/PyTorch", "% of limit"]
    lines, ratios = [], []
    for case in found.cases:
        ours, scan = (found.best(case, names, "gradient", p) for p in ("jit", "scan"))
        lax, lax_scan = (library(found, case, p) for p in ("jit", "scan"))
        torch = found.best(case, PYTORCH, "gradient")
        pairs = [(ours, lax, 1.0), (scan, lax_scan, 1.0), (scan, ours, 1.2), (ours, torch, most)]
        ratios.append([ratio(a, b) for a, b, _ in pairs])
        times = [ms(r) for r in (ours, scan, lax, lax_scan, torch)]
        lines.append([case, *times, *(over(*p) for p in pairs), of_limit(ours, record)])
    if lines:
        means = [mean_of(column) for column in zip(*ratios, strict=True)]
        lines.append(["geometric mean", *[""] * 5, *means, ""])
    return table(head, lines)


def by_kind(record: Record) -> str:
    """Geometric mean and worst ratio of every kind of layer: forward + backward in jit.

    The last column is the layer that loses most to PyTorch.
    """
    found = Rows([r for r in record["rows"] if r["measure"] == "gradient"])
    kinds: dict[str, list[tuple[str, list[tuple[float, float] | None]]]] = {}
    for case in found.cases:
        kind, _, layer = case.partition(": ")
        ours, scan = (found.get(case, "conv", place=place) for place in ("jit", "scan"))
        pairs = (ours, found.get(case, "lax")), (scan, ours), (ours, found.best(case, PYTORCH))
        kinds.setdefault(kind, []).append((layer, [ratio(a, b) for a, b in pairs]))
    everything = [layer for layers in kinds.values() for layer in layers]
    lines = []
    for kind, layers in [*sorted(kinds.items()), ("all", everything)]:
        cells = []
        for i, most in enumerate((1.0, 1.2, 1.25)):
            column = [ratios[i] for _, ratios in layers]
            worst = max((r[0] for r in column if r), default=0.0)
            cells += [mean_of(column), f"{worst:.2f}" + LOSES * (worst > most) if worst else NONE]
        slowest, _ = max(layers, key=lambda layer: layer[1][2] or (0.0, 0.0), default=("", []))
        lines.append([kind, str(len(layers)), *cells, slowest if cells[-1] != NONE else NONE])
    head = ["kind", "layers", "fnn/lax", "worst", "scan/jit", "worst", "fnn/PyTorch", "worst", "of"]
    return table(head, lines if everything else [])


def by_contestant(
    record: Record, measure: str, place: str, cell: Callable[[Row], str], names: Sequence[str] = ()
) -> str:
    """One line per case, one column per contestant; of times also the fastest's share of limit."""
    rows = [r for r in record["rows"] if r["measure"] == measure and r["place"] in (place, "eager")]
    found = Rows(rows)
    names = names or found.contestants
    lines = [[case, *(cell(found.get(case, n)) for n in names)] for case in found.cases]
    if cell is not ms:
        return table(["", *names], lines)
    shares = [of_limit(found.best(case, names), record) for case in found.cases]
    both = zip(lines, shares, strict=True)
    return table(["", *names, "fastest: % of limit"], [[*line, share] for line, share in both])


def cost(row: Row) -> str:
    """Compile time and peak temporary memory."""
    if row.get("compile_seconds") is None:
        return NONE
    memory = row.get("temporary_bytes")
    seconds = f"{row['compile_seconds']:.2f} s"
    return seconds if memory is None else f"{seconds}, {memory / 1e6:.1f} MB"


def stacks(record: Record) -> str:
    """Compile time and memory of the gradient of a deep stack of poolings."""
    found = [r for r in record["rows"] if r["measure"] == "compile"]
    lines = [
        [
            f"{r['case']}, {r['contestant']}",
            f"{r['seconds']:.2f}",
            f"{r['temporary_bytes'] / 1e6:.2f}",
        ]
        for r in found
    ]
    return table(["gradient of a stack", "compile, s", "temporary, MB"], lines)


JAX_LAYERS = ("Flax NNX", "Equinox", "Haiku")


def recurrence(record: Record, measure: str) -> str:
    """fnn's layers beside PyTorch's and the best of the other JAX libraries."""
    found = Rows([r for r in record["rows"] if r["measure"] == measure])
    head = ["layer, ms", "fnn", "in scan", "best JAX peer", "in scan", "PyTorch"]
    head += ["fnn/peer", "in scan", "fnn/PyTorch", "in scan", "us a step", "% of limit"]
    lines, ratios = [], []
    for case in found.cases:
        ours, scan = (found.best(case, ("fnn.lstm", "fnn.gru"), place=p) for p in ("jit", "scan"))
        peer, peer_scan = (found.best(case, JAX_LAYERS, place=p) for p in ("jit", "scan"))
        torch = found.get(case, "PyTorch")
        pairs = [
            (ours, peer, 1.0),
            (scan, peer_scan, 1.0),
            (ours, torch, 1.25),
            (scan, torch, 1.25),
        ]
        ratios.append([ratio(a, b) for a, b, _ in pairs])
        step = f"{1e6 * ours['seconds'] / ours['steps']:.1f}" if "seconds" in ours else NONE
        times = [ms(r) for r in (ours, scan, peer, peer_scan, torch)]
        lines.append([case, *times, *(over(*p) for p in pairs), step, of_limit(ours, record)])
    if lines:
        means = [mean_of(column) for column in zip(*ratios, strict=True)]
        lines.append(["geometric mean", *[""] * 5, *means, "", ""])
    return table(head, lines)


def optimizers(record: Record) -> str:
    """One update and its application, and what it compiled in."""
    found = Rows(record["rows"])
    lines = []
    for case in found.cases:
        for name in found.contestants:
            row = found.get(case, name)
            if row:
                most = 1.0 if name.startswith("fnn") else None
                against = over(row, found.get(case, "optax.adam"), most)
                lines.append(
                    [f"{case}: {name}", ms(row), against, cost(row), of_limit(row, record)]
                )
    return table(["update", "ms", "of optax.adam", "compile, memory", "% of limit"], lines)


def training(record: Record) -> str:
    """Steps per second of every contestant, by model, and per cent of the limit."""
    found = Rows(record["rows"])

    def cell(row: Row) -> str:
        if "seconds" not in row:
            return ms(row)
        speed = 1 / row["seconds"]
        shown = f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
        return f"{shown} ({of_limit(row, record)} %)"

    lines = [
        [name, *(cell(found.get(case, name)) for case in found.cases)] for name in found.contestants
    ]
    return table(["steps/s (% of limit)", *found.cases], lines)


def first_steps(record: Record) -> str:
    """Time until the first step has run, which traces and compiles it, and its peak memory."""
    found = Rows(record["rows"])
    lines = [
        [name, *(cost(found.get(case, name)) for case in found.cases)] for name in found.contestants
    ]
    return table(["until the first step has run, temporary memory", *found.cases], lines)


def startup(record: Record) -> str:
    """Whole processes, seconds."""
    rows = [[f"{r['case']}: {r['contestant']}", ms(r)] for r in record["rows"]]
    return table(["process", "ms"], rows)


def scaling(record: Record) -> str:
    """The fitted exponents: 1 is proportional."""
    found = Rows([r for r in record["rows"] if "exponent" in r])
    lines = [
        [f"{case}: {name}", f"{row['exponent']:.2f}"]
        for case in found.cases
        for name in found.contestants
        if (row := found.get(case, name))
    ]
    return table(["time grows with the power", "exponent"], lines)
