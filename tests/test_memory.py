"""What the C library keeps, counted in pages that the kernel hands out."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp, fnn
if sys.argv[1] == "kept":
    assert fnn.keep_memory()
negative = jax.jit(lambda x: -x)
x = jnp.ones(2**24)
for call in range(40):
    if call == 30:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    negative(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is what it sets up")
def test_results_are_written_where_the_last_ones_were() -> None:
    """Ten calls with results of 64 MB, once the first thirty have settled where these lie."""

    def pages(how: str) -> int:
        command = [sys.executable, "-c", PROGRAM, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    fresh, kept = pages("fresh"), pages("kept")
    assert kept < 100 < fresh
