"""Whether the machine's cores share a cache, so that a sample can wait until they do.

The host of a virtual machine moves its cores. For seconds to minutes they may lie on different
caches, and what one has written another then reads slowly: a message there and back took 331 ns
instead of 57. XLA's threads share out their work anew in every operation, so JAX then takes up to
2.4 times as long, PyTorch as long as before, and no order of turns makes up for that. In the probe
all cores write what one reads: it takes five times as long.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

APART = 2  # times the least seconds of the probe: then the cores are taken to lie apart
SHAPE, PASSES = (2048, 512), 8  # of the probe: as often all cores write 4 MB that one core sums
LOOKS, PAUSE = 3, 0.05  # looks in a row, and seconds between two rows
LIMIT = 20.0  # seconds that a race waits at most; then it takes the machine as it is


class Probe:
    """Runs the probe now and then, and remembers the least time that it took."""

    def __init__(
        self, run: Callable[[], object], clock: Callable[[], float], pause: Callable[[float], None]
    ) -> None:
        """Take the probe, a clock, and what sleeps for so many seconds."""
        self.run, self.clock, self.pause = run, clock, pause
        self.least = float("inf")

    def look(self) -> float:
        """Seconds that the probe takes."""
        start = self.clock()
        self.run()
        took = self.clock() - start
        self.least = min(self.least, took)
        return took

    def apart(self) -> bool:
        """Whether the probe is slow every time: a single time may have another cause."""
        return all(self.look() > APART * self.least for _ in range(LOOKS))

    def wait(self, most: float) -> float:
        """Wait until the cores are together, so many seconds at most; return those waited."""
        start = self.clock()
        while self.apart() and self.clock() - start < most:
            self.pause(PAUSE)
        return self.clock() - start


@functools.cache
def probe() -> Probe:
    """The one probe of the process."""
    ones = jnp.ones((1, SHAPE[0]))

    def step(_: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, sums = carry
        a = 0.5 * a + 1
        return a, sums + ones @ a

    start = jnp.ones(SHAPE), jnp.zeros((1, SHAPE[1]))
    loop = jax.jit(lambda start: lax.fori_loop(0, PASSES, step, start))
    made = Probe(lambda: jax.block_until_ready(loop(start)), time.perf_counter, time.sleep)
    for _ in range(20):
        made.look()
    return made
