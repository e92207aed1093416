"""Whether the machine's two cores share a cache, so that a sample can wait until they do.

The host of a virtual machine moves its cores. For seconds to minutes they may lie on different
caches, and what one has written the other then reads slowly. XLA's threads, it seems, share out
their work anew in every operation: JAX then takes up to 2.4 times as long, PyTorch hardly longer,
and no order of turns makes up for that. The probe is a message to another process and back, over
and over, each waiting for the other without sleep. On more than two cores it would tell nothing.
"""

import functools
import mmap
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks import machine

APART = 1.75  # times the least seconds of the probe: then the cores are taken to lie apart
PIECES, MESSAGES = 5, 200  # the least time counts: at first both may be on one core
SPINS = 10**7  # looks for a message, half a second; then the other side has ended, or is paused
LOOKS, PAUSE = 3, 0.05  # looks in a row, and seconds between two rows
LIMIT = 20.0  # seconds that a race waits at most; then it takes the machine as it is
ASKED, ANSWERED, READY = 0, 128, 256  # bytes of the shared memory, no two on one line of a cache

OTHER = f"""
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    shared = mmap.mmap(file.fileno(), 0)
spins = range({SPINS})
for _ in sys.stdin:
    shared[{READY}] = 1
    for i in range({PIECES * MESSAGES}):
        for _ in spins:
            if shared[{ASKED}] == 1 + i % 128:
                break
        else:
            break
        shared[{ANSWERED}] = 1 + i % 128
"""


class Probe:
    """Takes the probe now and then, and remembers the least time that it took."""

    def __init__(
        self,
        probe: Callable[[], float],
        clock: Callable[[], float] = time.perf_counter,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take what returns the seconds of one probe, a clock, and what sleeps."""
        self.probe, self.clock, self.pause = probe, clock, pause
        self.least = float("inf")

    def apart(self) -> bool:
        """Whether the probe is slow every time: a single time may have another cause."""
        return all(self._slow() for _ in range(LOOKS))

    def _slow(self) -> bool:
        took = self.probe()
        self.least = min(self.least, took)
        return took > APART * self.least

    def wait(self, most: float) -> float:
        """Wait until the cores are together, so many seconds at most; return those waited."""
        start = self.clock()
        while self.apart() and self.clock() - start < most:
            self.pause(PAUSE)
        return self.clock() - start


class Messages:
    """Exchanges messages with a process that sleeps until it is asked, and ends with this one."""

    def __init__(self) -> None:
        """Start the other process."""
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115  # it lives as long as this does
        file.truncate(mmap.PAGESIZE)
        self.file, self.shared = file, mmap.mmap(file.fileno(), 0)
        command = [sys.executable, "-S", "-c", OTHER, file.name]
        self.other = subprocess.Popen(command, stdin=subprocess.PIPE)

    def __call__(self) -> float:
        """Seconds of `MESSAGES` messages and answers, infinite if one of them has none.

        Raises if the other process has ended.
        """
        shared = self.shared
        shared[READY] = shared[ASKED] = shared[ANSWERED] = 0
        assert self.other.stdin is not None  # it is a pipe
        self.other.stdin.write(b"\n")
        self.other.stdin.flush()
        while shared[READY] != 1:
            if self.other.poll() is not None:
                raise RuntimeError("benchmarks.placement: the process that answers has ended")
        return min(self._piece(k * MESSAGES) for k in range(PIECES))

    def _piece(self, first: int) -> float:
        shared, spins = self.shared, range(SPINS)
        start = time.perf_counter()
        for i in range(first, first + MESSAGES):
            shared[ASKED] = 1 + i % 128
            for _ in spins:
                if shared[ANSWERED] == 1 + i % 128:
                    break
            else:
                return float("inf")
        return time.perf_counter() - start


@functools.cache
def probe() -> Probe:
    """The one probe of this process."""
    return Probe(Messages())


def wait(most: float) -> float:
    """As `Probe.wait`, with the probe of this process, on two cores; on others nothing waits."""
    if machine.threads() != 2:
        return 0.0
    try:
        return probe().wait(most)
    except (OSError, RuntimeError):
        probe.cache_clear()  # its other process is dead: the next race starts another
        raise
