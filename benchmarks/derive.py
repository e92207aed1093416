"""From the sweep's results to the rule of `fnn.conv`, by one fixed procedure.

The rule names a kernel for each cell of static facts (`fnn.kernels.rules.cell`). In each cell it is
the kernel whose times, relative to the fastest at each shape, in jit and in scan, have the least
geometric mean among those that can do the whole cell; within `TIE` of it, which is noise, the first
in the order of the kernels. The same results always give the same rule.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.machine import HERE
from benchmarks.session import read
from benchmarks.shapes import Layer
from benchmarks.timing import Row, geometric_mean

RULES = HERE.parent / "fnn" / "kernels" / "rules.json"
TIE = 1.05
Ranking = dict[str, list[tuple[str, float]]]


def cell_of(row: Row) -> str:
    """Return the cell that the rule puts this row's map into."""
    from benchmarks.sweep import form_of
    from fnn.kernels.rules import cell

    facts = {k: tuple(v) if isinstance(v, list) else v for k, v in row["layer"].items()}
    layer = Layer(**facts)
    return cell(row["measure"], form_of(layer), layer.inputs, layer.outputs)


def rank(rows: list[Row]) -> Ranking:
    """Return for every cell the kernels that can do all of it, best first, with their mean loss."""
    races: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if "seconds" in row:
            races[cell_of(row), row["case"], row["place"]][row["contestant"]] = row["seconds"]
    losses: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (where, _, _), times in races.items():
        for kernel, seconds in times.items():
            losses[where][kernel].append(seconds / min(times.values()))
    ranked = {}
    for where in sorted(losses):
        count = max(len(found) for found in losses[where].values())
        able = {k: geometric_mean(v) for k, v in losses[where].items() if len(v) == count}
        ranked[where] = sorted(able.items(), key=lambda item: (round(item[1], 3), item[0]))
    return ranked


def first(kernels: list[tuple[str, float]]) -> str:
    """Return the choice among the kernels of a cell, ranked best first."""
    from fnn.kernels.rules import KERNELS

    order = list(KERNELS)
    near = [name for name, loss in kernels if loss <= TIE * kernels[0][1]]
    return min(near, key=lambda name: order.index(name) if name in order else len(order))


def write(folder: Path, path: Path = RULES) -> str:
    """Write the rule of this platform into fnn, and return it with its losses."""
    records = read(folder)
    if "sweep" not in records:
        return f"no sweep in {folder}: run python -m benchmarks sweep"
    record = records["sweep"]
    ranked = rank(record["rows"])
    rules: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    rules[record["platform"]] = {where: first(kernels) for where, kernels in ranked.items()}
    path.write_text(json.dumps(rules, indent=2, sort_keys=True) + "\n")
    return "\n".join(
        f"{where}: " + ", ".join(f"{k} {loss:.2f}" for k, loss in kernels)
        for where, kernels in ranked.items()
    )
