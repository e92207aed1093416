"""Measure fnn against the library and against its peers.

    python -m benchmarks [SUBJECT ...] [--quick] [--peers]    measure, print tables, write results
    python -m benchmarks [SUBJECT ...] --keep-memory          the same after fnn.keep_memory()
    python -m benchmarks sweep judge --busy                   by processor time: others work here
    python -m benchmarks report [FOLDER]                      tables and figures of results
    python -m benchmarks compare A B                          what moved by more than the spread
    python -m benchmarks derive [FOLDER ...]                  kernel rules from all sweeps' results

Results go to benchmarks/results/<device>/, with --keep-memory to <device>-memory-kept/, those of
--quick to benchmarks/results/quick/.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import machine
from benchmarks.session import EXTRA, KEPT, QUICK, RESULTS, SUBJECTS

BUSY = {"sweep", "judge"}  # what can be measured by processor time
PEERS = ("torch", "flax", "equinox", "haiku")


def folder(device: str, kept: bool = False) -> Path:
    return RESULTS / (machine.slug(device) + KEPT * kept)


def device() -> str:
    """Ask a process of its own, so that this one never starts JAX."""
    code = "from benchmarks import machine; print(machine.device())"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip().split("\n")[-1]


def run(subjects: list[str], quick: bool, peers: bool, kept: bool, busy: bool) -> tuple[Path, bool]:
    """Measure each subject in a process of its own, with the same settings for all.

    Returns:
        The folder of the results, and whether every process came to its end.
    """
    target = QUICK if quick else folder(device(), kept)
    whole = True
    words = ["quick"] * quick + ["peers"] * peers + ["kept"] * kept + ["busy"] * busy
    for subject in subjects:
        command = [sys.executable, "-m", "benchmarks.session", subject, str(target), *words]
        print(f"{subject} ...", flush=True)
        try:
            limit = 60 if quick else 300 + (SUBJECTS | EXTRA)[subject]
            done = subprocess.run(command, env=os.environ | machine.environment(), timeout=limit)
            if done.returncode:
                whole = False
                print(f"{subject}: ended with status {done.returncode}; rows up to there are kept")
        except subprocess.TimeoutExpired:
            whole = False
            print(f"{subject}: stopped after {limit} s; rows up to there are kept")
    return target, whole


def arguments() -> argparse.Namespace:
    """Read the command line, or end with what is wrong in it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="SUBJECT",
        help=f"{', '.join((*SUBJECTS, *EXTRA))}; default: all",
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds: a try-out")
    parser.add_argument("--peers", action="store_true", help='with the peers of "fnn[peers]"')
    kept_help = "call fnn.keep_memory() first, for all contestants"
    parser.add_argument("--keep-memory", action="store_true", help=kept_help)
    busy_help = "sweep and judge by processor time, on a machine that others use"
    parser.add_argument("--busy", action="store_true", help=busy_help)
    options = parser.parse_args()
    if options.busy and (not options.words or {*options.words} - BUSY):
        got = " ".join(options.words) or "all subjects"
        parser.error(f"--busy: got {got}; needed {' or '.join(sorted(BUSY))}")
    if options.busy and options.peers:
        parser.error("--busy and --peers: PyTorch's threads count while they wait for work")
    if options.peers and (absent := [name for name in PEERS if not importlib.util.find_spec(name)]):
        parser.error(f'--peers: needs {", ".join(absent)}: pip install -e ".[peers]"')
    commands = {"compare", "derive", "report"} & {*options.words}
    if commands and any((options.quick, options.peers, options.keep_memory, options.busy)):
        parser.error(f"{commands.pop()} takes no options")
    if options.keep_memory and "startup" in options.words:
        parser.error("startup: the processes that it times are new, and keep no memory")
    return options


def main() -> None:
    options = arguments()
    match options.words:
        case ["compare", before, after]:
            from benchmarks import compare

            print(compare.text(Path(before), Path(after)))
        case ["derive", *where]:
            from benchmarks import derive

            every = (path for path in sorted(RESULTS.iterdir()) if path != QUICK)
            print(derive.write([*map(Path, where)] or [*every]))
        case ["report", *where] if len(where) < 2:
            from benchmarks import report

            print(report.write(Path(*where) if where else folder(device())))
        case subjects if set(subjects) <= {*SUBJECTS, *EXTRA}:
            from benchmarks import report

            every = (s for s in SUBJECTS if not (options.keep_memory and s == "startup"))
            subjects = subjects or [*every]
            flags = (options.quick, options.peers, options.keep_memory, options.busy)
            where, whole = run(subjects, *flags)
            print(report.text(where, subjects))
            sys.exit(0 if whole else 1)
        case words:
            sys.exit(f"no such subject or command: {' '.join(words)}")


if __name__ == "__main__":
    main()
