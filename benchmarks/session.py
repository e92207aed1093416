"""One subject in one process: measure its jobs one by one, writing the results after each.

``python -m benchmarks`` starts one such process per subject, with the settings of
`machine.environment`; a subject that fails takes no other along, a job that fails no other job.
"""

import importlib
import json
import os
import random
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fnn
from benchmarks import machine
from benchmarks.timing import Budget, Row

RESULTS = machine.HERE / "results"
QUICK = RESULTS / "quick"
KEPT = "-memory-kept"  # ends the name of a folder of results after `fnn.keep_memory`

# Subjects, in the order in which they run, and the seconds after which no further job is started.
SUBJECTS = {
    "startup": 120,
    "training": 900,
    "conv": 1800,
    "half": 60,
    "pooling": 150,
    "recurrence": 420,
    "optimizers": 150,
    "scaling": 90,
}
EXTRA = {"sweep": 2700, "judge": 2700, "sweep_pooling": 120}  # by name only: what `derive` reads
QUICK_LIMIT = 16
LATE = ": not started within "  # what a case was left out for
CUT_OFF = "the process ended before"

Job = tuple[str, Callable[[], list[Row]]]


class Session(NamedTuple):
    """What every subject is told."""

    quick: bool
    peers: bool
    kept: bool  # whether the process keeps freed memory, see `fnn.keep_memory`
    seed: int
    busy: bool = False  # whether others use the machine: see `clock`

    @property
    def clock(self) -> Callable[[], float]:
        """The clock on the wall; on a busy machine the processor's, of all threads together.

        What runs on one core only then looks twice as fast as it is on two.
        """
        return time.process_time if self.busy else time.perf_counter

    @property
    def budget(self) -> Budget:
        """Of one contestant in one job."""
        return Budget(0.05, 5) if self.quick else Budget(0.4, 15)

    def rng(self, name: str) -> np.random.Generator:
        """Return the source of one job's random inputs."""
        return np.random.default_rng((self.seed, zlib.crc32(name.encode())))


def measure(subject: str, session: Session, folder: Path) -> None:
    """Run every job of a subject; ``folder/subject.json`` is complete after each of them."""
    if session.kept and not fnn.keep_memory():
        raise SystemExit("the C library here does not take the settings of fnn.keep_memory")
    start = time.perf_counter()
    limit = QUICK_LIMIT if session.quick else (SUBJECTS | EXTRA)[subject]
    record: dict[str, Any] = {"subject": subject, **machine.facts(), **session._asdict()}
    record["ceiling"] = machine.ceiling(session.quick)
    record["rows"], skipped = [], list[str]()
    jobs = list(importlib.import_module(f"benchmarks.{subject}").jobs(session))

    def save(done: int) -> None:  # if the process dies, what it has not come to is named
        record["skipped"] = [*skipped, *(f"{name}: {CUT_OFF}" for name, _ in jobs[done:])]
        record["wall_seconds"] = round(time.perf_counter() - start, 1)
        write(folder / f"{subject}.json", record)

    save(0)
    for done, (name, job) in enumerate(jobs, 1):
        if time.perf_counter() - start > limit:
            skipped.append(f"{name}{LATE}{limit} s")
        else:
            began = time.perf_counter()
            try:
                record["rows"] += job()
            except Exception:
                traceback.print_exc()
                skipped.append(f"{name}: {traceback.format_exc(limit=0).strip()}")
            print(f"  {subject}: {name}: {time.perf_counter() - began:.1f} s", flush=True)
        save(done)


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, one row a line, whole or not at all."""
    rows = ",\n".join("  " + json.dumps(row) for row in record["rows"])
    head = json.dumps({k: v for k, v in record.items() if k != "rows"}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n')
    part.replace(path)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a results folder by subject, in the order in which they run."""
    paths = {path.stem: path for path in folder.glob("*.json")}
    return {
        name: json.loads(paths[name].read_text()) for name in (*SUBJECTS, *EXTRA) if name in paths
    }


def main(arguments: list[str]) -> None:
    """Measure, with the settings that JAX and OpenMP read when a process starts."""
    settings = machine.environment()
    if settings.items() - os.environ.items():
        command = [sys.executable, "-m", "benchmarks.session", *arguments]
        os.execve(sys.executable, command, os.environ | settings)
    subject, folder, *words = arguments
    seed = random.SystemRandom().randrange(2**32)
    quick, peers, kept, busy = (word in words for word in ("quick", "peers", "kept", "busy"))
    measure(subject, Session(quick, peers, kept, seed, busy), Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
