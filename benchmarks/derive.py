"""From the sweeps' results to the rules of `fnn.conv` and pooling, by one fixed procedure.

The rule of `fnn.conv` names a kernel for each cell of static facts (`fnn.kernels.conv.rule.cell`):
the kernel whose times, relative to the fastest at each shape, in jit and in scan, have the least
geometric mean among those that can do the whole cell; within `TIE` of it, which is noise, the first
in the order of the kernels. The rule of pooling has two numbers for a maximum and two for a sum
(`fnn.kernels.pool.rule`): those with the least mean. The same results always give the same rules.
"""

import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.machine import HERE
from benchmarks.session import read
from benchmarks.shapes import Layer
from benchmarks.timing import Row, geometric_mean

KERNELS = HERE.parent / "fnn" / "kernels"  # each room there has its rules.json
TIE = 1.05
Ranking = dict[str, list[tuple[str, float]]]


def cell_of(row: Row) -> str:
    """Return the cell that the rule puts this row's map into."""
    from benchmarks.sweep import form_of
    from fnn.kernels.conv.rule import cell

    facts = {k: tuple(v) if isinstance(v, list) else v for k, v in row["layer"].items()}
    layer = Layer(**facts)
    return cell(row["measure"], form_of(layer), layer.n, layer.inputs, layer.outputs)


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
    from fnn.kernels.conv.rule import KERNELS

    order = list(KERNELS)
    near = [name for name, loss in kernels if loss <= TIE * kernels[0][1]]
    return min(near, key=lambda name: order.index(name) if name in order else len(order))


def limits(rows: list[Row], kind: str) -> tuple[dict[str, int], float]:
    """Return the numbers of the rule of pooling for a "max" or a "sum", and its mean loss.

    All pairs from the sweep's windows are tried; of those as good to 1 % the least is taken.
    """
    from fnn.kernels.pool.rule import choice

    races: dict[tuple[str, tuple[int, ...]], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["kind"] == kind and "seconds" in row:
            races[row["case"], tuple(row["window"])][row["contestant"]] = row["seconds"]

    def loss(pair: tuple[int, int]) -> float:
        lost = [t[choice(size, *pair)] / min(t.values()) for (_, size), t in races.items()]
        return round(geometric_mean(lost), 2)

    taps, sides = ({measure(size) for _, size in races} for measure in (math.prod, max))
    most, longest = min(itertools.product(taps, sides), key=lambda pair: (loss(pair), pair))
    return {"most": most, "longest": longest}, loss((most, longest))


def _update(path: Path, platform: str, rules: Any) -> None:
    """Write the rules of one platform beside those of others."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {platform: rules}, indent=2, sort_keys=True) + "\n")


def write(folder: Path, kernels: Path = KERNELS) -> str:
    """Write the rules of this platform into fnn, and return them with their losses."""
    records, said = read(folder), []
    if record := records.get("sweep"):
        ranked = rank(record["rows"])
        chosen = {where: first(found) for where, found in ranked.items()}
        _update(kernels / "conv" / "rules.json", record["platform"], chosen)
        for where, found in ranked.items():
            said.append(f"{where}: " + ", ".join(f"{k} {loss:.2f}" for k, loss in found))
    if record := records.get("sweep_pooling"):
        pools = {kind: limits(record["rows"], kind) for kind in ("max", "sum")}
        numbers = {kind: found for kind, (found, _) in pools.items()}
        _update(kernels / "pool" / "rules.json", record["platform"], numbers)
        said += [f"pooling, {kind}: {found} {loss:.2f}" for kind, (found, loss) in pools.items()]
    return "\n".join(said) or f"no sweep in {folder}: run python -m benchmarks sweep sweep_pooling"
