"""From the sweep's results to a rule: which kernel for which static facts, by one fixed procedure.

The facts of a map fall into cells: which of the three maps, how the channels are grouped, taps of the
window, channels of a group, stride. In each cell the kernel is chosen whose times, relative to the
fastest at each shape, have the least geometric mean; ties go to the earlier name. No cell names a
shape, and the same results always give the same rule.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.session import read
from benchmarks.timing import Row, geometric_mean

TAPS = (1, 9, 49)  # upper ends of the bins; the last is open
CHANNELS = (1, 4, 16, 64)

Cell = tuple[str, str, str, str, str]


def bin_of(value: int, ends: tuple[int, ...]) -> str:
    """Return the bin of a value as text, ``<=9`` or ``>49``."""
    return next((f"<={end}" for end in ends if value <= end), f">{ends[-1]}")


def cell(row: Row) -> Cell:
    """Return the cell of a row."""
    facts = row["facts"]
    depthwise = facts["groups"] > 1 and facts["inputs"] == 1
    grouping = "depthwise" if depthwise else "grouped" if facts["groups"] > 1 else "dense"
    return (
        row["measure"],
        grouping,
        f"taps {bin_of(facts['taps'], TAPS)}",
        f"channels {bin_of(min(facts['inputs'], facts['outputs']), CHANNELS)}",
        "stride 1" if facts["stride"] == 1 else "strided",
    )


def rule(rows: list[Row]) -> dict[Cell, list[tuple[str, float]]]:
    """Return for every cell the kernels that can do all of it, best first, with their mean loss."""
    shapes: dict[tuple[Cell, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if "seconds" in row:
            shapes[cell(row), row["case"]][row["contestant"]] = row["seconds"]
    losses: dict[Cell, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (where, _), times in shapes.items():
        for kernel, seconds in times.items():
            losses[where][kernel].append(seconds / min(times.values()))
    ranked = {}
    for where in sorted(losses):
        count = max(len(found) for found in losses[where].values())
        able = {k: geometric_mean(v) for k, v in losses[where].items() if len(v) == count}
        ranked[where] = sorted(able.items(), key=lambda item: (round(item[1], 3), item[0]))
    return ranked


def write(folder: Path) -> str:
    """Write ``rules/conv.json`` beside the sweep's results and return the rule as text."""
    records = read(folder)
    if "sweep" not in records:
        return f"no sweep in {folder}: run python -m benchmarks sweep"
    ranked = rule(records["sweep"]["rows"])
    table: list[dict[str, Any]] = [
        {"cell": list(where), "kernels": [[k, round(loss, 3)] for k, loss in kernels]}
        for where, kernels in ranked.items()
    ]
    head = {"commit": records["sweep"]["commit"], "device": records["sweep"]["device"]}
    lines = ",\n".join("  " + json.dumps(line) for line in table)
    path = folder / "rules" / "conv.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(head)[:-1] + f', "rule": [\n{lines}\n]}}\n')
    return "\n".join(
        f"{', '.join(where)}: " + ", ".join(f"{k} {loss:.2f}" for k, loss in kernels)
        for where, kernels in ranked.items()
    )
