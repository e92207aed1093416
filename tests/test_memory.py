"""What the C library keeps, counted in pages that the kernel hands out."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, resource, statistics
import jax, jax.numpy as jnp, fnn

def calls():
    negative = jax.jit(lambda x: -x)
    x = jnp.ones(9 * 2**20)
    pages = [0]
    for call in range(40):
        negative(x).block_until_ready()
        pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return int(statistics.median(b - a for a, b in zip(pages[20:], pages[21:])))

if os.fork():  # before JAX starts
    os.wait()
    assert fnn.keep_memory()
print(calls(), flush=True)
"""


HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is what it sets up")
@pytest.mark.skipif(
    HUGE.exists() and "[always]" in HUGE.read_text(), reason="its pages are larger than 4 kB"
)
def test_results_are_written_where_the_last_ones_were() -> None:
    """The median of 20 calls with results of 36 MB, once 20 others have settled where these lie.

    Above 32 MB glibc asks the kernel each time. The median, as a thread that is late may free its
    block after the next has been asked for.
    """

    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    fresh, kept = map(int, done.stdout.split())
    assert kept < 10 < 1000 < fresh
