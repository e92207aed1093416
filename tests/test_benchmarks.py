"""The benchmark's clock, comparison and reports, on contestants and times made up for this."""

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    __main__,
    compare,
    conv,
    derive,
    machine,
    placement,
    reference,
    report,
    session,
    tables,
    targets,
    timing,
    training,
)
from benchmarks.conv import arrays, expected, library
from benchmarks.programs import looped, with_gradient
from benchmarks.shapes import LAYERS, POOLS, TARGETS, Layer
from benchmarks.timing import Budget, Contestant, Program, geometric_mean, race, ratio, worst
from tests.oracles import conv as loops


class Clock:
    """A clock that only the contestants advance."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """A contestant that takes these seconds per unit, in turn, and counts its runs."""

    def __init__(self, clock: Clock, name: str, answer: float, *seconds: float, units: int = 1):
        self.clock, self.name, self.answer, self.seconds = clock, name, answer, seconds
        self.units, self.runs = units, 0

    def run(self) -> np.ndarray:
        self.clock.now += self.seconds[self.runs % len(self.seconds)] * self.units
        self.runs += 1
        return np.array([self.answer, 1.0])

    @property
    def contestant(self) -> Contestant:
        return Contestant(self.name, "forward", "jit", lambda units: Program(self.run, self.units))


WANT = {"forward": np.array([2.0, 1.0])}


def test_a_wrong_contestant_is_shown_as_wrong_and_never_timed() -> None:
    clock = Clock()
    right, wrong = Fake(clock, "right", 2.0, 0.1), Fake(clock, "wrong", 2.01, 0.1)
    nan = Fake(clock, "nan", float("nan"), 0.1)
    rows = race([f.contestant for f in (right, wrong, nan)], WANT, Budget(1.0, 5), clock=clock)
    assert [row["status"] for row in rows] == ["ok", "wrong", "wrong"]
    assert rows[0]["seconds"] == pytest.approx(0.1)
    assert rows[1]["error"] == pytest.approx(0.005)
    assert "seconds" not in rows[1]
    assert wrong.runs == nan.runs == 1  # the run that was verified


def test_one_that_fails_takes_no_other_along() -> None:
    def refuse(units: int) -> Program:
        raise ValueError("fnn.conv_winograd: x, w: got stride 2; 1; fnn.conv takes every form")

    def crash(units: int) -> Program:
        raise RuntimeError("out of memory")

    def slip(units: int) -> Program:
        raise ValueError("fnn.conv: x, w: got something that every form should be")

    def later() -> Any:
        if len(calls) > 2:
            raise RuntimeError("late")
        calls.append(1)
        return WANT["forward"]

    clock, calls = Clock(), []
    entered = [
        Contestant("refuses", "forward", "jit", refuse),
        Contestant("crashes", "forward", "jit", crash),
        Contestant("slips", "forward", "jit", slip),
        Contestant("late", "forward", "jit", lambda units: Program(later)),
        Fake(clock, "right", 2.0, 0.1).contestant,
    ]
    rows = race(entered, WANT, Budget(1.0, 5), clock=clock)
    assert [row["status"] for row in rows] == ["not applicable", *["failed"] * 3, "ok"]
    assert "got stride 2" in rows[0]["note"]
    assert "seconds" not in rows[3]


def test_median_spread_rounds_and_ratio_within_rounds() -> None:
    clock = Clock()
    # The machine is 10 times slower in every second round: medians suffer, the ratio does not.
    slow = [1.0, 1.0, 1.0, 10.0, 1.0, 10.0, 1.0]
    a = Fake(clock, "a", 2.0, *(0.1 * s for s in slow))
    b = Fake(clock, "b", 2.0, *(0.2 * s for s in slow), units=4)
    rows = race([a.contestant, b.contestant], WANT, Budget(100.0, 5), clock=clock)
    assert [row["rounds"] for row in rows] == [5, 5]
    assert rows[0]["seconds"] == pytest.approx(0.1)
    assert rows[0]["spread"] == pytest.approx(0.9)
    assert rows[1]["seconds"] == pytest.approx(0.2)  # of one unit
    assert ratio(rows[1], rows[0]) == pytest.approx((2.0, 0.0))
    assert ratio(rows[1], {"status": "wrong"}) is None
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


def test_a_first_round_is_not_counted() -> None:
    clock = Clock()
    late = Fake(clock, "late", 2.0, 0.1, 0.1, 9.0, 0.1, 0.1, 0.1, 0.1, 0.1)
    (row,) = race([late.contestant], WANT, Budget(100.0, 5), clock=clock)
    assert row["samples"] == [0.1] * 5
    assert late.runs == 8


def test_a_turn_of_a_short_program_begins_warm() -> None:
    """It runs once before it is counted, and is built and verified first."""
    clock = Clock()
    short = Fake(clock, "short", 2.0, 0.01, 0.01, *[0.04, 0.01] * 4)
    (row,) = race([short.contestant], WANT, Budget(100.0, 3), clock=clock)
    assert row["samples"] == pytest.approx([0.01] * 3)
    assert short.runs == 10


def test_a_turn_after_one_of_pytorchs_waits_until_its_threads_sleep() -> None:
    clock = Clock()
    fakes = [Fake(clock, name, 2.0, 0.1) for name in ("PyTorch", "fnn")]
    start = time.perf_counter()
    race([fake.contestant for fake in fakes], WANT, Budget(100.0, 5), clock=clock)
    assert fakes[0].runs == 2 + 6  # it follows itself, or who has no such threads
    assert fakes[1].runs > 2 + 6
    assert time.perf_counter() - start > timing.LOOKED


def test_who_has_spent_the_budget_drops_out() -> None:
    clock = Clock()
    fakes = [Fake(clock, str(s), 2.0, s) for s in (0.02, 0.5, 5.0)]
    rows = race([f.contestant for f in fakes], WANT, Budget(0.3, 10), clock=clock)
    assert [row["rounds"] for row in rows] == [10, 3, 1]
    assert fakes[2].runs == 2  # its verification was its warm-up


def test_a_turn_waits_until_the_cores_share_a_cache() -> None:
    """Before every turn, for 50 budgets in all; the clock does not count it."""
    clock, asked = Clock(), list[float]()

    def wait(most: float) -> float:
        asked.append(most)
        clock.now += 1.5
        return 1.5

    fake = Fake(clock, "a", 2.0, 0.1)
    (row,) = race([fake.contestant], WANT, Budget(0.1, 5), clock=clock, wait=wait)
    assert row["samples"] == [0.1] * 3
    assert asked == pytest.approx([5.0, 3.5, 2.0, 0.5])


def test_the_probe_of_the_cores() -> None:
    """Slow once is not apart; slow every time is, until it is quick or the time is up."""
    clock = Clock()
    times = iter([1.0, 1.8, 1.8, 1.7, *[1.9] * 6, 1.0, *[1.8] * 9])

    def took() -> float:
        seconds = next(times)
        clock.now += seconds
        return seconds

    def pause(seconds: float) -> None:
        clock.now += 100

    probe = placement.Probe(took, clock, pause)
    assert not probe.apart()
    assert not probe.apart()
    assert probe.wait(1000.0) == pytest.approx(6 * 1.9 + 2 * 100 + 1.0)
    assert probe.wait(150.0) == pytest.approx(9 * 1.8 + 2 * 100)
    assert next(times, None) is None


@pytest.mark.parametrize(("cores", "waits"), [(1, 0.0), (2, 7.0), (16, 0.0)])
def test_two_cores_wait_for_a_shared_cache(
    cores: int, waits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one core both processes of the probe would spin in turns; on more it tells nothing."""
    monkeypatch.setattr(machine, "threads", lambda: cores)
    probe = placement.Probe(iter([1.0, *[2.0] * 3, 1.0]).__next__, pause=lambda _: None)
    probe.clock = iter([0.0, 3.0, 7.0]).__next__
    monkeypatch.setattr(placement, "probe", lambda: probe)
    assert not probe.apart()
    assert placement.wait(20.0) == waits


@pytest.fixture
def every_core() -> Iterator[None]:
    """Let this thread use all cores: a worker of the tests has one."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    yield
    os.sched_setaffinity(0, own)


def test_messages_between_two_processes(every_core: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than usual: on a busy machine each waits for its turn."""
    if machine.threads() == 1:
        pytest.skip("both processes wait without sleep")
    all_of_them = f"range({placement.PIECES * placement.MESSAGES})"
    fewer = placement.OTHER.replace(all_of_them, f"range({placement.PIECES * 40})")
    monkeypatch.setattr(placement, "OTHER", fewer)
    monkeypatch.setattr(placement, "MESSAGES", 40)
    messages = placement.Messages()
    assert 0 < messages() < 10
    assert 0 < messages() < 10
    assert messages.other.stdin is not None
    messages.other.stdin.close()
    assert messages.other.wait(10) == 0


def test_a_dead_probe_costs_one_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next race starts another, and collects garbage as before."""

    def dead() -> float:
        raise RuntimeError("the process that answers has ended")

    made = iter([lambda: dead, lambda: lambda: 1.0])
    monkeypatch.setattr(placement, "Messages", lambda: next(made)())
    monkeypatch.setattr(machine, "threads", lambda: 2)
    clock = Clock()
    fake = Fake(clock, "a", 2.0, 0.1)
    again = {"clock": clock, "wait": placement.wait}
    placement.probe.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="has ended"):
            race([fake.contestant], WANT, Budget(1.0, 5), **again)
        assert gc.isenabled()
        (row,) = race([fake.contestant], WANT, Budget(1.0, 5), **again)
    finally:
        placement.probe.cache_clear()
        gc.disable()  # as all tests have it
    assert row["status"] == "ok"


def test_the_ceiling_waits_until_the_cores_share_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[float]()
    monkeypatch.setattr(placement, "wait", lambda most: asked.append(most) or 1.5)
    assert machine.ceiling(quick=True).keys() == {"gflops", "gbytes"}
    assert asked == [20.0, 18.5, 17.0, 15.5, 14.0]


def test_messages_that_nobody_sends() -> None:
    """If this process is killed amid them, the other must not wait for ever."""
    messages = placement.Messages()
    messages.other.communicate(b"\n", timeout=20)
    assert messages.other.returncode == 0


def test_messages_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that answers takes itself for forgotten, say after a pause of this one."""
    monkeypatch.setattr(placement, "SPINS", 10)
    silent = placement.OTHER.replace(f"range({placement.PIECES * placement.MESSAGES})", "()")
    monkeypatch.setattr(placement, "OTHER", silent)
    messages = placement.Messages()
    assert messages() == float("inf")
    messages.other.communicate(timeout=20)


def test_messages_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "OTHER", "import sys; sys.stdin.readline()")
    messages = placement.Messages()
    with pytest.raises(RuntimeError, match="has ended"):
        messages()
    assert messages.other.stdin is not None
    messages.other.stdin.close()


def test_worst_looks_at_every_array() -> None:
    good = {"a": np.ones(3), "b": (np.ones(2), np.full((2, 2), 4.0))}
    bad = {"a": np.ones(3), "b": (np.ones(2), np.full((2, 2), 5.0))}
    assert worst(good, good) == 0.0
    assert worst(bad, good) == 0.25
    assert worst((np.ones(2),), (np.ones(2), np.ones(2))) == float("inf")
    assert worst(np.ones((2, 1)), np.ones(2)) == float("inf")


SMALL = Layer("grouped", "", 2, (5, 6), 4, 6, (3, 2), 2, (1, 0), groups=2)


@pytest.mark.parametrize("layer", [SMALL, SMALL._replace(stride=1, dilation=2)])
def test_the_reference_is_the_oracle_and_its_gradients_are_those_of_jax(layer: Layer) -> None:
    x, w, g = arrays(layer, np.random.default_rng(0))
    y, dx, dw = expected(layer, x, w, g)["gradient"]
    config = {"stride": layer.strides, "padding": layer.pads, "dilation": layer.dilations}
    wide = (np.asarray(x, np.float64), np.asarray(w, np.float64))
    np.testing.assert_allclose(y, loops.conv(*wide, groups=layer.groups, **config), rtol=1e-12)
    got = with_gradient(library(layer))(x, w, g)
    assert worst(got, (y, dx, dw)) < 1e-5


def test_the_transposed_reference_is_the_librarys() -> None:
    layer = SMALL._replace(groups=1, transposed=True)
    args = arrays(layer, np.random.default_rng(0))
    got = with_gradient(library(layer))(*args)
    assert worst(got, expected(layer, *args)["gradient"]) < 1e-5


def test_the_pooling_reference_gives_ties_to_the_first() -> None:
    x = np.array([1.0, 1.0, 0.0, 2.0], np.float32).reshape(1, 4, 1)
    g = np.array([3.0, 5.0]).reshape(1, 2, 1)
    y, dx = reference.pooling("max", x, g, (2,), (2,), ((0, 0),))
    assert (y.ravel().tolist(), dx.ravel().tolist()) == ([1.0, 2.0], [3.0, 0.0, 0.0, 5.0])
    y, dx = reference.pooling("avg", x, g, (2,), (2,), ((0, 0),))
    assert (y.ravel().tolist(), dx.ravel().tolist()) == ([1.0, 1.0], [1.5, 1.5, 2.5, 2.5])


def test_a_scan_does_the_work_of_every_iteration_and_changes_no_number() -> None:
    x, w = jnp.ones((200, 300)), jnp.ones((300, 200))
    product = looped(lambda x, w: (jnp.tanh(x) @ w,), 5)
    program = jax.jit(product).lower(jnp.zeros(()), x, w).compile()
    want = jax.jit(lambda x, w: jnp.tanh(x) @ w)(x, w)
    np.testing.assert_array_equal(program(jnp.zeros(()), x, w)[0], want)
    loop, once = program.as_text().split("ENTRY")
    for work in ("tanh(", " dot("):
        assert work in loop
    for work in ("tanh", "dot"):  # in the names of operations and of what they call
        assert work not in once


def test_the_least_work_of_a_training_step() -> None:
    first, rest = 2 * 32 * 784 * 128, 2 * 32 * 128 * 10  # each forward; backward twice that,
    params = 785 * 128 + 129 * 10
    want = {"flops": 2 * first + 3 * rest, "bytes": 28 * params + 4 * 32 * 784}
    convs = 2 * 128 * (2 * 28**2 * 9 * 32 + 3 * 14**2 * 9 * 32 * 64)
    with jax.numpy_rank_promotion("allow"):  # plain JAX as its users write it
        assert training.work("mlp") == want  # but for the gradient to the images
        assert training.work("cnn")["flops"] == convs + 3 * 2 * 128 * (3136 * 128 + 128 * 10)


def test_the_tables_of_shapes() -> None:
    assert len(TARGETS) == 13
    assert len({layer.name + layer.network for layer in LAYERS}) == len(LAYERS)
    for pool in POOLS:
        assert all(hi - lo in (0, 1) for lo, hi in pool.pads)


def row(contestant: str, *samples: float, case: str = "3x3", place: str = "jit") -> dict[str, Any]:
    found = {"case": case, "contestant": contestant, "measure": "gradient", "place": place}
    if not samples:
        return found | {"status": "wrong", "error": 0.5, "target": True}
    found |= {"status": "ok", "error": 0.0, "compile_seconds": 0.5, "temporary_bytes": 8}
    found |= {"seconds": float(np.median(samples)), "samples": list(samples)}
    found |= {"spread": float(np.subtract(*np.percentile(samples, [75, 25]))), "rounds": 3}
    return found | {"flops": 1e9, "bytes": 1e6, "target": True}


def record(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    ceiling = {"gflops": 200.0, "gbytes": 20.0}
    facts = {"commit": "abc", "device": "cpu", "date": "today", "threads": 2, "python": "3"}
    return {"subject": "conv", **facts, "versions": {"jax": "1"}, "environment": {},
            "ceiling": ceiling, "quick": True, "peers": False, "skipped": [],
            "rows": rows, **more}  # fmt: skip


def test_compare_flags_only_what_moved_beyond_the_spread(tmp_path: Path) -> None:
    before = [row("same", 1.0, 1.0, 1.0), row("noisy", 1.0, 2.0, 3.0), row("up", 1.0, 1.0, 1.1)]
    after = [row("same", 1.04, 1.04, 1.04), row("noisy", 2.0, 2.8, 4.0), row("up", 2.0, 2.0, 2.1)]
    before += [row("broken", 1.0, 1.0, 1.0), row("gone", 1.0, 1.0, 1.0)]
    after.append(row("broken"))
    for name, rows in (("a", before), ("b", after)):
        session.write(tmp_path / name / "conv.json", record(rows))
    text = compare.text(tmp_path / "a", tmp_path / "b")
    assert "x 2.00" in text
    assert "3 moved" in text
    assert "broken" in text
    assert "gone" in text
    assert "wrong" in text
    assert "same" not in text
    assert "noisy" not in text
    assert "nothing moved" in compare.text(tmp_path / "a", tmp_path / "a")
    session.write(tmp_path / "a" / "conv.json", record(before, versions={"jax": "0"}))
    session.write(tmp_path / "b" / "half.json", record(after))
    text = compare.text(tmp_path / "a", tmp_path / "b")
    assert "conv: abc to abc, jax 0 to 1" in text
    assert f"half: only in {tmp_path / 'b'}" in text


def test_results_are_written_after_each_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pooling.json"
    seen = []

    def look(name: str) -> list[dict[str, Any]]:
        record = json.loads(path.read_text())
        seen.append((len(record["rows"]), *record["skipped"]))
        if name == "two":
            raise RuntimeError("this job fails")
        return [row(name, 1.0)]

    made = [(name, lambda name=name: look(name)) for name in ("one", "two", "three")]
    monkeypatch.setattr("benchmarks.pooling.jobs", lambda told: iter(made))
    monkeypatch.setattr("benchmarks.machine.ceiling", lambda quick: {"gflops": 1.0, "gbytes": 1.0})
    session.measure("pooling", session.Session(True, False, False, 0), tmp_path)
    found = session.read(tmp_path)["pooling"]
    ended = [f"{name}: the process ended before" for name in ("one", "two", "three")]
    assert seen[:2] == [(0, *ended), (1, *ended[1:])]
    assert seen[2] == (1, "two: RuntimeError: this job fails", ended[2])
    assert [r["contestant"] for r in found["rows"]] == ["one", "three"]
    assert found["skipped"] == ["two: RuntimeError: this job fails"]
    assert {"commit", "date", "versions", "device", "environment", "seed"} <= set(found)


def test_a_row_where_fnn_loses_is_marked_and_a_wrong_one_listed(tmp_path: Path) -> None:
    rows = [row("conv", 2.0, 2.0, 2.0), row("conv_lax", 1.0, 1.0, 1.0), row("conv_fft")]
    rows.append(row("PyTorch", 4.0, 4.0, 4.0, place="eager"))
    session.write(tmp_path / "conv.json", record(rows))
    text = report.text(tmp_path)
    assert "2.00 ◄" in text
    assert "0.50 ◄" not in text
    assert "conv_fft, gradient in jit: wrong (error 0.5)" in text
    found = {t.what: t for t in targets.convolution(record(rows))}
    assert found["convolution in jit, slowest row against lax"].met == "MISSED"
    assert found["convolution, slowest dense or depthwise row against PyTorch"].met == "met"
    assert found["convolution, slowest grouped row against PyTorch"].met == "not measured"
    assert found["convolution in scan, slowest row against lax"].met == "not measured"


def test_a_ratio_above_its_target_is_missed_and_marked_whatever_its_spread(tmp_path: Path) -> None:
    rows = [row("conv", 1.0, 1.0, 2.0), row("conv_lax", 2.0, 0.9, 0.9)]
    first, *_ = targets.convolution(record(rows))
    assert (first.value, first.met) == (pytest.approx(1.11, abs=0.01), "MISSED")
    session.write(tmp_path / "conv.json", record(rows))
    assert "1.11 ◄" in report.text(tmp_path)


def test_grouped_rows_have_a_target_of_their_own() -> None:
    rows = []
    for place, layer in enumerate(TARGETS, 1):
        times = {"conv": float(place), "PyTorch": 1.0}
        rows += [row(name, seconds, case=conv.name(layer)) for name, seconds in times.items()]
    found = {t.what: t.value for t in targets.convolution(record(rows, quick=False))}
    grouped = [layer.name for layer in TARGETS].index("grouped (32) 3x3") + 1
    assert found["convolution, slowest grouped row against PyTorch"] == grouped
    assert found["convolution, slowest dense or depthwise row against PyTorch"] == len(TARGETS)


def test_a_target_is_not_met_by_the_rows_that_are_left() -> None:
    """A row of ours is wrong, a layer was never started, or the other's was not timed."""
    rows = [row("conv", 1.0), row("conv_lax", 2.0)]
    wrong = [*rows, row("conv", case="5x5"), row("conv_lax", 2.0, case="5x5")]
    other = [*rows, row("conv", 1.0, case="5x5"), row("conv_lax", case="5x5")]
    for found in (record(wrong), record(other), record(rows, quick=False)):
        first, *_ = targets.convolution(found)
        assert (first.value, first.met) == (0.5, "NOT ALL TIMED")
    first, *_ = targets.convolution(record([row("conv"), row("conv_lax", 1.0)]))
    assert (first.value, first.met) == (None, "NOT ALL TIMED")
    slow = [*wrong, row("conv", 3.0, case="7x7"), row("conv_lax", 2.0, case="7x7")]
    first, *_ = targets.convolution(record(slow))
    assert (first.value, first.met) == (1.5, "MISSED")
    # The fastest of PyTorch's may be the one that failed.
    torch = [row("PyTorch", 2.0), row("PyTorch channels last")]
    found = {t.what: t for t in targets.convolution(record([row("conv", 1.0), *torch]))}
    mean = found["convolution, geometric mean against PyTorch"]
    assert (mean.value, mean.met) == (0.5, "NOT ALL TIMED")
    flat, plain = row("fnn.flat(fnn.adam)"), row("optax.adam", 1.0)
    many = [r | {"case": "2,000 leaves of 100"} for r in (flat, plain)]
    assert next(targets.optimizers(record(many))).met == "NOT ALL TIMED"


def test_kept_layers_are_told_by_kind_and_must_all_be_timed() -> None:
    rows = []
    for case, ours in (("line: short", 1.0), ("line: long", 4.0), ("plane: wide", 3.0)):
        rows += [row("conv", ours, case=case), row("conv", ours, case=case, place="scan")]
        rows += [row("lax", 2.0, case=case), row("PyTorch", 2.0, case=case, place="eager")]
    lines = tables.by_kind(record(rows)).splitlines()[2:]
    line, _, everything = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    assert line == ["line", "2", "1.00", "2.00 ◄", "1.00", "1.00", "1.00", "2.00 ◄", "long"]
    assert everything[:4] == ["all", "3", "1.14", "2.00 ◄"]
    assert tables.by_kind(record([])) == ""
    lax, scan, torch = targets.kept(record(rows))
    assert (lax.met, scan.met, torch.met) == ("MISSED", "met", "MISSED")
    assert [t.met for t in targets.kept(record(rows, quick=False))][1] == "NOT ALL TIMED"


def test_a_step_a_call_is_compared_with_a_step_a_call() -> None:
    times = {"fnn.make_step": 2.0, "fnn.train": 1.0, "Haiku": 4.0, "PyTorch": 4.0}
    rows = [row(name, seconds, case="small CNN") for name, seconds in times.items()]
    torch, jax, *_ = targets.training(record(rows, peers=True))
    assert (torch.value, jax.value) == (0.25, 0.5)
    _, jax, *_ = targets.training(record(rows))  # of plain JAX alone
    assert jax.met == "not measured"


def test_a_report_names_each_commit_with_what_was_measured_at_it() -> None:
    records = {"conv": record([]), "half": record([]), "sweep": record([], commit="a, b")}
    commit = lambda record: record["commit"]
    assert report.of_all(records, commit) == "abc (conv, half); a, b (sweep)"
    del records["sweep"]
    assert report.of_all(records, commit) == "abc"


def test_a_report_by_a_relative_path_writes_all_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder has its page, a sweep alone has none, nor an empty table; both READMEs link."""
    rows = [row("conv", 1.0), row("conv_lax", 2.0)]
    conv = record(rows, skipped=["b: not started within 5 s"])
    session.write(tmp_path / "results" / "a" / "conv.json", conv)
    session.write(tmp_path / "results" / "b" / "conv.json", record(rows, versions={"jax": "2"}))
    session.write(tmp_path / "results" / "c" / "sweep.json", record([], subject="sweep", threads=1))
    for name in ("README.md", "FRONT.md"):
        (tmp_path / name).write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "README", tmp_path / "README.md")
    monkeypatch.setattr(report, "FRONT", tmp_path / "FRONT.md")
    monkeypatch.setattr("benchmarks.figures.draw", lambda records, folder: [])
    monkeypatch.setattr("benchmarks.figures.machines", lambda records, path: path)
    monkeypatch.chdir(tmp_path / "results")
    assert "README.md" in report.write(Path("c"))
    assert not (tmp_path / "results" / "c" / "README.md").exists()
    text = (tmp_path / "results" / "a" / "README.md").read_text()
    assert text.startswith("# cpu, JAX 1\n")
    assert "conv: 1 case not started" in text
    assert "further layers" not in text  # none was measured
    text = (tmp_path / "README.md").read_text()
    assert "[cpu, JAX 1](results/a/README.md)" in text
    assert "[cpu, JAX 2](results/b/README.md)" in text
    assert "old" not in text
    assert "old" in (tmp_path / "FRONT.md").read_text()  # no folder has all subjects
    assert "cpu; 1 thread for everybody" in report.text(tmp_path / "results" / "c")


def test_the_targets_of_machines_stand_side_by_side() -> None:
    def importing(seconds: float) -> dict[str, Any]:
        rows = [row("fnn", 0.1 + seconds, case="import"), row("jax", 0.1, case="import")]
        return {"startup": record(rows)}

    text = targets.beside({"one": importing(0.2), "two": importing(0.05), "three": {}})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert cells[0] == ["fnn's time over the other's", "at most", "one", "two", "three"]
    assert cells[2][1:] == ["0.10", "0.20 MISSED", "0.05", "-"]


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ("model name\t: AMD EPYC\ncpu family\t: 26\n", "AMD EPYC family 26"),
        ("cpu family\t: 6\nmodel name\t: Xeon 8481C\n", "Xeon 8481C"),
        ("model name\t: AMD EPYC\n", "AMD EPYC"),
    ],
)
def test_a_processor_without_a_number_is_named_by_its_family(
    facts: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: facts)
    assert machine.processor() == name


def test_a_session_has_the_settings_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JAX and OpenMP read them when a process starts: one without them starts anew."""
    started, measured = [], []

    def start(path: str, command: list[str], environment: dict[str, str]) -> None:
        started.append(command)
        for name in machine.environment():
            monkeypatch.setenv(name, environment[name])

    monkeypatch.setattr(os, "execve", start)
    monkeypatch.setattr(session, "measure", lambda *args: measured.append(args))
    monkeypatch.delenv("JAX_DEFAULT_MATMUL_PRECISION", raising=False)
    session.main(["sweep", str(tmp_path), "busy"])
    assert started == [[sys.executable, "-m", "benchmarks.session", "sweep", str(tmp_path), "busy"]]
    session.main(["sweep", str(tmp_path), "busy"])
    assert len(started) == 1
    assert measured[1][0] == "sweep"


@pytest.mark.parametrize("words", [[], ["conv"], ["sweep", "pooling"], ["report"]])
def test_processor_time_is_for_sweep_and_judge(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words, "--busy"])
    monkeypatch.setattr(__main__, "run", lambda *args: pytest.fail("measured"))
    with pytest.raises(SystemExit):
        __main__.main()
    assert "needed judge or sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["judge", "--busy", "--peers"], "PyTorch's threads count"),
        (["report", "--keep-memory"], "report takes no options"),
        (["startup", "--keep-memory"], "are new, and keep no memory"),
        (["conv", "--peers"], 'needs torch, haiku: pip install -e ".[peers]"'),
    ],
)
def test_options_that_do_not_fit_are_refused(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    monkeypatch.setattr(__main__, "run", lambda *args: pytest.fail("measured"))
    there = lambda name: name not in ("torch", "haiku")
    monkeypatch.setattr(__main__.importlib.util, "find_spec", there)
    with pytest.raises(SystemExit):
        __main__.main()
    assert said in capsys.readouterr().err


def timed(name: str, seconds: float, layer: Layer, place: str = "scan") -> dict[str, Any]:
    found = row(name, seconds, case=layer.name, place=place)
    return found | {"measure": "output", "layer": layer._asdict()}


PLANE = Layer("a", "grid", 4, (28, 28), 48, 48, (3, 3))
DEPTHWISE = PLANE._replace(name="c", groups=48)


def test_a_cell_is_that_of_merged_axes() -> None:
    """40 slices are 40 examples of 16 places each: more places than channels."""
    layer = Layer("slices", "", 1, (40, 4, 4), 64, 64, (1, 3, 3), padding=(0, 1, 1))
    row = {"measure": "window", "layer": layer._asdict()}
    assert derive.cell_of(row, "cpu") == "window plane, small window, deep"
    assert derive.cell_of(row, "gpu") == "window volume"


def test_the_rule_is_deterministic_and_chooses_the_fastest_that_can(tmp_path: Path) -> None:
    a, b = PLANE, PLANE._replace(name="b", inputs=40)
    rows = [
        timed("taps", 1.0, a),
        timed("im2col", 1.1, a),
        timed("lax", 0.5, a, "jit"),  # the fastest there,
        timed("im2col", 1.0, a, "jit"),
        timed("taps", 1.0, a, "jit"),
        timed("lax", 20.0, a),  # and far behind inside scan
        timed("taps", 2.0, b),
        timed("im2col", 1.0, b),
        timed("lax", 20.0, b),
        timed("fft", 0.1, b),  # but it cannot do a
        timed("taps", 1.0, DEPTHWISE),
    ]
    cells = derive.by_cell(derive.races(rows, "here", "cpu"))
    assert [derive.choose(found) for found in cells.values()] == ["taps", "im2col"]
    assert derive.by_cell(derive.races(rows[::-1], "here", "cpu")).keys() == cells.keys()
    session.write(tmp_path / "sweep.json", record(rows, subject="sweep", platform="cpu"))
    (tmp_path / "conv").mkdir()
    path = tmp_path / "conv" / "rules.json"
    path.write_text('{"gpu": {"output plane": "lax"}}')
    first = derive.write([tmp_path], tmp_path), path.read_text()
    assert (derive.write([tmp_path], tmp_path), path.read_text()) == first
    rules = json.loads(first[1])
    assert rules["gpu"] == {"output plane": "lax"}
    assert sorted(rules["cpu"].values()) == ["im2col", "taps"]


def test_a_kernel_that_fails_one_machine_is_not_chosen_for_being_the_best_on_average() -> None:
    """The means are 1.19 for lax and 1.2 for im2col, but lax once takes twice the least time."""
    times = {"lax": [1.0, 1.0, 1.0, 2.0], "im2col": [1.2, 1.2, 1.2, 1.2], "taps": [2.0] * 4}
    found = [
        derive.Race(
            "plane", f"machine {i}", False, {"fft": 1.0} | {k: t[i] for k, t in times.items()}
        )
        for i in range(4)
    ]
    found[0].times.pop("fft")
    assert derive.choose(found[:3]) == "lax"
    assert derive.choose(found) == "im2col"
    for one in found[:3]:
        one.times.pop("lax" if one is found[1] else "im2col")
        one.times.pop("taps")
    with pytest.raises(ValueError, match=r"plane: got no kernel that was timed in all"):
        derive.choose(found)


def test_a_cell_without_a_layer_for_the_rule_is_named(tmp_path: Path) -> None:
    rows = [timed("lax", 1.0, PLANE) | {"kept": True}]
    session.write(tmp_path / "sweep.json", record(rows, platform="cpu"))
    with pytest.raises(ValueError, match=r"output plane.* on cpu: got held-out layers only"):
        derive.write([tmp_path], tmp_path)


def test_layers_kept_for_judging_are_told_and_not_used(tmp_path: Path) -> None:
    kept = PLANE._replace(name="kept")
    rows = [timed("lax", 1.0, PLANE), timed("im2col", 2.0, PLANE)]
    rows += [row | {"kept": True} for row in (timed("lax", 3.0, kept), timed("im2col", 1.0, kept))]
    for device in ("one", "two"):
        session.write(tmp_path / device / "sweep.json", record(rows, platform="cpu"))
    (tmp_path / "conv").mkdir()
    text = derive.write([tmp_path / "one", tmp_path / "two"], tmp_path)
    rules = json.loads((tmp_path / "conv" / "rules.json").read_text())
    assert set(rules["cpu"].values()) == {"lax"}
    head, _, cell, *_ = ([part.strip() for part in line.split("|")] for line in text.split("\n"))
    assert head[3:7] == ["used", "kept", "one", "two"]
    assert cell[3:7] == ["1.00, 1.00 (2)", "3.00, 3.00 (2) ◄", *["1.73, 3.00 (2) ◄"] * 2]
