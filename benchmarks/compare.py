"""What moved between two results folders by more than both spreads together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.session import read
from benchmarks.tables import table
from benchmarks.timing import Row

LEAST = 0.05  # a change below five per cent is no change, however small the spreads
KEYS = ("case", "contestant", "measure", "place", "size")


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(k, "") for k in KEYS)


def moved(before: list[Row], after: list[Row]) -> Iterator[tuple[Row, Row]]:
    """Yield the pairs of rows whose medians differ by more than both spreads together.

    A row that was timed in one and not in the other, such as one that is now wrong, moved too.
    """
    old, new = ({key(row): row for row in rows} for rows in (before, after))
    for name in dict.fromkeys((*old, *new)):
        nothing = dict(zip(KEYS, name, strict=True)) | {"status": "not there"}
        other, row = old.get(name, nothing), new.get(name, nothing)
        if ("seconds" in row) != ("seconds" in other):
            yield other, row
        elif "seconds" in row:
            change = abs(row["seconds"] - other["seconds"])
            spread = row.get("spread", 0.0) + other.get("spread", 0.0)
            if change > max(spread, LEAST * other["seconds"]):
                yield other, row


def state(row: Row) -> str:
    """The median and the spread in milliseconds, or why there are none."""
    if "seconds" not in row:
        return str(row["status"])
    return f"{1e3 * row['seconds']:.4g} ± {500 * row.get('spread', 0.0):.2g}"


def text(before: Path, after: Path) -> str:
    """Return a table of what moved, the largest changes first, with the two commits on top."""
    old, new = read(before), read(after)
    both = [subject for subject in new if subject in old]
    if not both:
        return f"no subject in both {before} and {after}"
    lines = [
        [f"{subject}: only in {here}", "", "", ""]
        for here, has, lacks in ((before, old, new), (after, new, old))
        for subject in has
        if subject not in lacks
    ]
    for subject in both:
        a, b = old[subject], new[subject]
        head = f"{subject}: {a['commit']} to {b['commit']}"
        for name in sorted(a["versions"].keys() & b["versions"].keys()):
            if a["versions"][name] != b["versions"][name]:
                head += f", {name} {a['versions'][name]} to {b['versions'][name]}"
        pairs = list(moved(a["rows"], b["rows"]))
        lines.append([head, "", "", "nothing moved" if not pairs else f"{len(pairs)} moved"])
        timed = [p for p in pairs if "seconds" in p[0] and "seconds" in p[1]]
        timed.sort(key=lambda p: p[1]["seconds"] / p[0]["seconds"], reverse=True)
        for was, row in [p for p in pairs if p not in timed] + timed:
            name = "  " + ", ".join(str(part) for part in key(row) if part != "")
            times = f"x {row['seconds'] / was['seconds']:.2f}" if (was, row) in timed else ""
            lines.append([name, state(was), state(row), times])
    return table(["moved by more than the spread, ms", "before", "after", "change"], lines)
