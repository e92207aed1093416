"""Tests on several devices: a module runs in a process of its own, which is told to have them.

A module prints one line a case, ``name: number``; the number is an error.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

ROOT = Path(__file__).parents[1]


def environment(devices: int) -> dict[str, str]:
    """The environment of a process with so many devices, all of them this machine's CPU."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def errors_of(module: str, *arguments: str, devices: int = 8) -> dict[str, float]:
    """Run a module and return the numbers that it printed, by name."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment(devices),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    return {name: float(e) for name, e in re.findall(r"^(.*): (\S+)$", done.stdout, re.MULTILINE)}


def strict() -> None:
    """Set what `conftest.py` sets, in a process that pytest does not run."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")


def error(got: Any, want: Any) -> float:
    """The largest difference over all leaves, each relative to its own largest entry or 1e-30.

    NaN where any is, which Python's ``max`` would pass over.
    """
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    found = [np.abs(np.asarray(a) - b).max() / max(np.abs(b).max(), 1e-30) for a, b in pairs]
    return float(np.max(found))


def collectives(text: str) -> list[str]:
    """The names of the operations of a compiled program by which devices communicate."""
    names = "all-gather|all-reduce|all-to-all|collective-[a-z]*|reduce-scatter"
    return re.findall(rf"\b({names})(?:-start)?\(", text)
