"""A run whose process is killed, again and again, ends with the very numbers of one that is not."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import fnn
from tests.training import killed_run


def run(folder: Path, kind: str, kills: int) -> tuple[Any, Any]:
    """Return what a run ends with, and what it ends with after so many kills."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),  # compile once for all processes
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    seed = random.SystemRandom().randrange(2**32)
    command = [sys.executable, "-m", killed_run.__name__, str(folder), kind, str(kills), str(seed)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | cache
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    for end in (folder / "whole", folder / "parts"):
        assert {p.name for p in end.iterdir()} == {"run.safetensors", "run.1.safetensors"}
    return fnn.load(folder / "whole/run.safetensors"), fnn.load(folder / "parts/run.safetensors")


@pytest.mark.parametrize("kind", ["arrays", "batches"])
def test_killed_ten_times(tmp_path: Path, kind: str) -> None:
    whole, parts = run(tmp_path, kind, 10)
    assert (whole.epoch, whole.batch, whole.step) == (killed_run.EPOCHS, 0, 3 * killed_run.EPOCHS)
    assert parts[3:6] == whole[3:6]
    for a, b in zip(jax.tree.leaves(parts[:3]), jax.tree.leaves(whole[:3]), strict=True):
        np.testing.assert_array_equal(a, b)
