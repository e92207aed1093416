"""From the sweeps' results to the rules of `fnn.conv` and pooling, by one fixed procedure.

The rule of `fnn.conv` names a kernel for each cell of static facts (`fnn.kernels.conv.cells.cell`).
A race is one map of one layer on one machine, and a kernel's regret there is its least time over
that of the fastest. A cell takes the kernel with the least geometric mean of regrets, among those
that can do all its races and whose worst regret is at most `BOUND` times the least worst; of those
within `TIE` of the least mean, which is noise, the one with the least worst regret. Races that the
sweep keeps for judging are left out; their regrets are told beside those of the races used.

The rule of pooling has two numbers for a maximum and two for a sum (`fnn.kernels.pool.rule`): those
with the least mean. The same results always give the same rules.
"""

import functools
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import HERE
from benchmarks.session import read
from benchmarks.shapes import Layer
from benchmarks.tables import LOSES, NONE, table
from benchmarks.timing import Row, geometric_mean

KERNELS = HERE.parent / "fnn" / "kernels"  # each room there has its rules.json
TIE, BOUND = 1.05, 1.5
GREAT = 1.1  # a mean regret above which a cell is marked: to be split, or left to `fnn.tune`


class Race(NamedTuple):
    """One map of one layer on one machine.

    Attributes:
        cell: where the rule puts it.
        machine: the name of its results.
        kept: whether it may judge the rule only.
        times: the least of each kernel's samples, in seconds.
    """

    cell: str
    machine: str
    kept: bool
    times: dict[str, float]

    def regret(self, kernel: str) -> float:
        """Time over the fastest; a kernel left out as hopeless counts as the slowest."""
        return self.times.get(kernel, max(self.times.values())) / min(self.times.values())


def cell_of(row: Row, platform: str) -> str:
    """Return the cell that the rule puts this row's map into on a platform."""
    import jax

    from benchmarks.sweep import form_of
    from fnn.kernels.conv.axes import merged, shaped
    from fnn.kernels.conv.cells import cell

    facts = {k: tuple(v) if isinstance(v, list) else v for k, v in row["layer"].items()}
    layer = Layer(**facts)
    whole, _ = form_of(layer, platform)
    form = merged(whole, row["measure"])
    x = jax.ShapeDtypeStruct((layer.n, *layer.spatial, layer.inputs), "float32")
    n, *_, inputs = jax.eval_shape(functools.partial(shaped, "x", form=whole, new=form), x).shape
    return cell(row["measure"], form, n, inputs, layer.outputs)


def races(rows: Iterable[Row], machine: str, platform: str) -> list[Race]:
    """Return the races of one machine's sweep on a platform."""
    found: dict[tuple[str, str, str], Race] = {}
    for row in rows:
        if "seconds" in row:
            where = row["case"], row["measure"], row["place"]
            if where not in found:
                found[where] = Race(cell_of(row, platform), machine, row.get("kept", False), {})
            found[where].times[row["contestant"]] = min(row["samples"])
    return list(found.values())


def by_cell(found: Iterable[Race]) -> dict[str, list[Race]]:
    """Return the races of every cell, in the order of their names."""
    cells: dict[str, list[Race]] = defaultdict(list)
    for race in found:
        cells[race.cell].append(race)
    return dict(sorted(cells.items()))


def choose(found: Sequence[Race]) -> str:
    """Return the kernel of a cell."""
    from fnn.kernels.conv.rule import KERNELS

    able = [k for k in KERNELS if all(k in race.times for race in found)]
    if not able:
        raise ValueError(
            f"benchmarks.derive: {found[0].cell}: got no kernel that was timed in all of its "
            "races; needed one: see the rows of its sweeps that failed or are wrong"
        )
    regrets = {k: [race.regret(k) for race in found] for k in able}
    most = BOUND * min(map(max, regrets.values()))
    means = {k: geometric_mean(r) for k, r in regrets.items() if max(r) <= most}
    near = [k for k, mean in means.items() if mean <= TIE * min(means.values())]
    return min(near, key=lambda k: round(max(regrets[k]), 2))


def told(cells: Mapping[str, Sequence[Race]], rules: Mapping[str, str]) -> str:
    """Return mean and worst regret of every cell's kernel: used, kept, and per machine."""
    everything = [race for found in cells.values() for race in found]
    machines = sorted({race.machine for race in everything})

    def regret(race: Race) -> float:
        return race.regret(rules[race.cell])

    def over_lax(race: Race) -> float:
        return regret(race) / race.regret("lax")

    def line(name: str, found: Sequence[Race], value: Callable[[Race], float]) -> list[str]:
        halves = [[r for r in found if r.kept == kept] for kept in (False, True)]
        parts = [*halves, *([r for r in found if r.machine == m] for m in machines)]
        return [name, rules.get(name, NONE), *(summary([*map(value, p)]) for p in parts)]

    with_lax = [race for race in everything if "lax" in race.times]
    return table(
        ["cell", "kernel", "used", "kept", *machines],
        [
            *(line(cell, found, regret) for cell, found in cells.items()),
            line("all", everything, regret),
            line("all, over lax", with_lax, over_lax),
        ],
    )


def summary(values: Sequence[float]) -> str:
    """Return geometric mean, worst and number; marked where the mean is great."""
    if not values:
        return NONE
    mean = geometric_mean(values)
    return f"{mean:.2f}, {max(values):.2f} ({len(values)})" + LOSES * (mean > GREAT)


def limits(rows: list[Row], kind: str) -> tuple[dict[str, int], float]:
    """Return the numbers of the rule of pooling for a "max" or a "sum", and its mean loss.

    All pairs from the sweep's windows are tried; of those as good to 1 % the least is taken.
    """
    from fnn.kernels.pool.rule import choice

    found: dict[tuple[str, tuple[int, ...]], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["kind"] == kind and "seconds" in row:
            found[row["case"], tuple(row["window"])][row["contestant"]] = row["seconds"]

    def loss(pair: tuple[int, int]) -> float:
        lost = [t[choice(size, *pair)] / min(t.values()) for (_, size), t in found.items()]
        return round(geometric_mean(lost), 2)

    taps, sides = ({measure(size) for _, size in found} for measure in (math.prod, max))
    most, longest = min(itertools.product(taps, sides), key=lambda pair: (loss(pair), pair))
    return {"most": most, "longest": longest}, loss((most, longest))


def _update(path: Path, platform: str, rules: Any) -> None:
    """Write the rules of one platform beside those of others."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {platform: rules}, indent=2, sort_keys=True) + "\n")


def write(folders: Sequence[Path], kernels: Path = KERNELS) -> str:
    """Write the rules of each platform measured there into fnn, and return the regrets."""
    found: dict[str, list[Race]] = defaultdict(list)
    pools: dict[str, list[Row]] = defaultdict(list)
    for folder in folders:
        records = read(folder)
        if record := records.get("sweep"):
            platform = record["platform"]
            found[platform] += races(record["rows"], folder.name, platform)
        if record := records.get("sweep_pooling"):
            rows = [row | {"case": (folder.name, row["case"])} for row in record["rows"]]
            pools[record["platform"]] += rows
    said = []
    for platform, measured in found.items():
        cells = by_cell(measured)
        used = {cell: [r for r in some if not r.kept] for cell, some in cells.items()}
        if bare := [cell for cell, some in used.items() if not some]:
            raise ValueError(
                f"benchmarks.derive: {'; '.join(bare)} on {platform}: got held-out layers only; "
                "needed one in each cell that the rule may use"
            )
        rules = {cell: choose(some) for cell, some in used.items()}
        _update(kernels / "conv" / "rules.json", platform, rules)
        said.append(told(cells, rules))
    for platform, rows in pools.items():
        best = {kind: limits(rows, kind) for kind in ("max", "sum")}
        numbers = {kind: chosen for kind, (chosen, _) in best.items()}
        _update(kernels / "pool" / "rules.json", platform, numbers)
        said += [f"pooling, {kind}: {chosen} {loss:.2f}" for kind, (chosen, loss) in best.items()]
    return "\n".join(said) or "no sweep there: run python -m benchmarks sweep sweep_pooling"
