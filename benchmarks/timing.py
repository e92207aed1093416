"""The one clock: every time that contestants are compared by is measured here.

Measured elsewhere are compile times and first steps, once each (`programs`, `training`), the
machine's ceiling (`machine`) and steps on several devices (`devices`).

A contestant first shows its outputs; they are compared with a float64 reference, and a wrong one is
reported as wrong and never timed. The others run in turns, one sample each per round and in a new
order every round, all in one process, so that whatever slows the machine slows everybody. A sample
is as many runs as fill `SAMPLE` seconds, each waited for. A first round is not counted. The result
is the median over the others, the spread (between the quartiles), and between two contestants the
median of their ratios within each round. A turn begins warm, when the threads of the one before
sleep (`warm`), and waits while the machine's cores lie apart (`placement`). A contestant that has
spent its budget drops out: one that takes longer has fewer rounds, down to `LEAST` of them, and a
slow one (`SLOW` seconds a round and more) down to one.
"""

import gc
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import placement

# Every turn runs its program once before it is counted, if that takes less than this many seconds:
# else the caches hold what the turn before has left. Whoever follows PyTorch runs for that long:
# PyTorch's threads, as installed, look for work for 7 to 11 ms before they sleep, on busy cores
# several times as long, and slow whoever comes next. To forbid it slows PyTorch: the MLP's step
# takes four times as long. XLA's threads look for 0.05 ms. To sleep until then slows everybody, by
# up to two times.
LOOKED = 0.05
SAMPLE = 0.01  # seconds: far above the clock's and the dispatch's grain
LOOP = 0.1  # seconds: a loop that is shorter than this is built anew with its longest length
SLOW = 1.0  # seconds: what takes longer runs once to be verified, and at least once for the clock
LEAST = 3  # rounds, even beyond the budget, of whatever is not slow
TOLERANCE = 1e-3  # of the largest entry: roundings of float32 stay below it, a wrong term does not
REFUSAL = "fnn.conv takes every form"  # how fnn says that an algorithm cannot do a layer
ORDER = random.Random(0)  # of the turns, another one in every race


class Program(NamedTuple):
    """What a contestant has prepared.

    Attributes:
        run: does the work, waits until it is done, returns the outputs as the reference has them.
        units: how many times over one run does the work.
        compile_seconds: time to trace and compile it, where it compiles.
        temporary_bytes: peak temporary memory of the compiled program, where it is known.
        show: outputs of run to NumPy arrays in the reference's layout.
    """

    run: Callable[[], Any]
    units: int = 1
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    show: Callable[[Any], Any] = lambda outputs: outputs


class Contestant(NamedTuple):
    """One who takes part: ``prepare(units)`` builds its program, outside the clock.

    Attributes:
        name: as the tables show it.
        measure: what it does ("forward", "gradient", "step", ...): the key of its reference.
        place: where ("jit", "scan", "eager", ...).
        prepare: builds the program that does the work ``units`` times over in one run.
        units: the shortest run to build, and the longest, used when the shortest is quick.
    """

    name: str
    measure: str
    place: str
    prepare: Callable[[int], Program]
    units: tuple[int, int] = (1, 1)


class Budget(NamedTuple):
    """Seconds and rounds that one contestant may use up, verification apart."""

    seconds: float
    rounds: int


Row = dict[str, Any]


def worst(got: Any, want: Any) -> float:
    """Return the largest error over all arrays, relative to each reference's largest entry."""
    if isinstance(want, Mapping):
        return max(worst(got[key], want[key]) for key in want)
    if isinstance(want, tuple | list):
        if len(got) != len(want):
            return float("inf")
        return max(worst(g, w) for g, w in zip(got, want, strict=True))
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return float("inf")
    if want.size == 0:
        return 0.0
    largest = max(float(np.abs(want).max()), 1e-30)
    error = float(np.abs(got.astype(np.float64) - want).max()) / largest
    return error if error == error else float("inf")  # NaN is as wrong as can be


def enter(
    c: Contestant, want: Mapping[str, Any], tolerance: float, clock: Callable[[], float]
) -> tuple[Row, Program | None, float]:
    """Build one contestant's program and verify it.

    Returns:
        Its row; the program, if it may be timed; and the seconds of one run.
    """
    row: Row = {"contestant": c.name, "measure": c.measure, "place": c.place, "status": "ok"}
    try:
        program = c.prepare(c.units[0])
        start = clock()
        outputs = program.run()
        once = clock() - start
        row["error"] = worst(program.show(outputs), want[c.measure])
        del outputs
        if row["error"] > tolerance:
            return row | {"status": "wrong"}, None, 0
        row["compile_seconds"] = program.compile_seconds
        row["temporary_bytes"] = program.temporary_bytes
        if once > SLOW:
            return row, program, once
        if c.units[1] > c.units[0] and once < LOOP:
            program = c.prepare(c.units[1])
            program.run()
        return row, program, sample(program, 1, clock)
    except Exception as failure:  # one that fails must not take the others' results along
        refuses = isinstance(failure, ValueError) and REFUSAL in str(failure)
        status = "not applicable" if refuses else "failed"
        return row | {"status": status, "note": first_line(failure)}, None, 0


def first_line(error: Exception) -> str:
    """Return the kind and the first line of an exception, cut to a table's width."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}"[:200]


def race(
    contestants: Iterable[Contestant],
    want: Mapping[str, Any],
    budget: Budget,
    *,
    tolerance: float = TOLERANCE,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[float], float] | None = None,
) -> list[Row]:
    """Verify all contestants, time those that are right in interleaved rounds, and return the rows.

    Args:
        contestants: who takes part.
        want: the reference outputs by measure.
        budget: of each contestant.
        tolerance: largest error of a right output, relative to the reference's largest entry.
        clock: a monotonic time in seconds.
        wait: waits before a turn, for so many seconds at most, and returns those waited; by default
            that of `placement`, if the clock is the one on the wall.

    Returns:
        One row per contestant, in order: median, spread and samples are seconds for one unit.
    """
    entered = [enter(c, want, tolerance, clock) for c in contestants]
    racing = [(row, program, once) for row, program, once in entered if program is not None]
    samples: list[list[float]] = [[] for _ in racing]
    spent, waited = [0.0] * len(racing), 0.0
    if wait is None:
        wait = placement.wait if clock is time.perf_counter else lambda most: 0.0
    patience = min(placement.LIMIT, 50 * budget.seconds)
    torch = False  # whether the turn before was one of PyTorch's
    gc.collect()
    gc.disable()
    try:
        for n in range(1 + budget.rounds):
            turns = [i for i in range(len(racing)) if due(len(samples[i]), spent[i], budget)]
            if n == 0:  # not counted: memory settles when all have been built; the slow are warm
                turns = [i for i in turns if racing[i][2] <= SLOW]
            ORDER.shuffle(turns)
            for i in turns:
                row, program, once = racing[i]
                calls = max(1, round(SAMPLE / max(once, 1e-7)))
                before, torch = torch, "PyTorch" in row["contestant"]
                looking = before and not torch
                waited += wait(patience - waited)
                try:
                    if once < (SLOW if looking else LOOKED):
                        warm(program, LOOKED if looking else 0.0)
                    seconds = sample(program, calls, clock)
                except Exception as failure:
                    row |= {"status": "failed", "note": first_line(failure)}
                    spent[i] = float("inf")
                    continue
                if n > 0:
                    samples[i].append(seconds / (calls * program.units))
                    spent[i] += seconds
    finally:
        gc.enable()
    for (row, _, _), times in zip(racing, samples, strict=True):
        if row["status"] == "ok":
            row |= summary(times)
    return [row for row, _, _ in entered]


def due(rounds: int, spent: float, budget: Budget) -> bool:
    """Whether a contestant takes another turn, after this many rounds and seconds."""
    return spent < budget.seconds or (rounds < LEAST and spent < LEAST * SLOW)


def warm(program: Program, seconds: float) -> None:
    """Run a program once, and again until so many seconds have passed."""
    end = time.perf_counter() + seconds
    program.run()
    while time.perf_counter() < end:
        program.run()


def sample(program: Program, calls: int, clock: Callable[[], float]) -> float:
    """Seconds for this many runs of a program, one after the other."""
    start = clock()
    for _ in range(calls):
        program.run()
    return clock() - start


def summary(samples: Sequence[float]) -> Row:
    """Return median, spread and the number of rounds of a contestant's samples."""
    low, middle, high = np.percentile(samples, [25, 50, 75])
    return {
        "seconds": float(middle),
        "spread": float(high - low),
        "rounds": len(samples),
        "samples": [float(f"{s:.4g}") for s in samples],
    }


def ratio(a: Row, b: Row) -> tuple[float, float] | None:
    """Return median and spread of a's time over b's within each round that both took part in."""
    pairs = zip(a.get("samples", ()), b.get("samples", ()), strict=False)
    ratios = [x / y for x, y in pairs]
    if not ratios:
        return None
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return float(middle), float(high - low)


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean: the mean of ratios that does not depend on their direction."""
    return float(np.exp(np.mean(np.log(values))))
