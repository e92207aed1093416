"""The rule that picks a kernel of pooling: its numbers, and how they come from the sweep."""

import json
from pathlib import Path

from benchmarks import derive, session
from fnn.kernels.pool import rule as pool_rules


def test_two_numbers_decide() -> None:
    sizes = [(3, 3), (3, 4), (10, 1), (2, 11)]
    got = [pool_rules.choice(size, most=10, longest=10) for size in sizes]
    assert got == ["at once", "by axes", "at once", "lax"]
    for platform, kinds in pool_rules.LIMITS.items():
        assert set(kinds) == {"max", "sum"}, platform


def test_they_are_those_with_the_least_loss(tmp_path: Path) -> None:
    times = {  # at once, by axes, lax
        (2, 2): (1.0, 2.0, 3.0),
        (3, 3): (1.0, 1.5, 3.0),
        (5, 5): (2.0, 1.0, 3.0),
        (9, 9): (5.0, 3.0, 1.0),
    }
    rows = [
        {"case": str(window), "kind": kind, "window": window, "contestant": name, "seconds": time}
        for kind in ("max", "sum")
        for window, found in times.items()
        for name, time in zip(pool_rules.KERNELS, found, strict=True)
    ]
    session.write(tmp_path / "sweep_pooling.json", {"platform": "cpu", "rows": rows})
    (tmp_path / "pool").mkdir()
    path = tmp_path / "pool" / "rules.json"
    path.write_text('{"gpu": {}}')
    derive.write([tmp_path], tmp_path)
    limits = {"most": 9, "longest": 5}
    assert json.loads(path.read_text()) == {"gpu": {}, "cpu": {"max": limits, "sum": limits}}
