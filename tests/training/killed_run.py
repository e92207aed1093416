"""A run that saves every report, in processes that are killed; run by test_killed.py.

    python -m tests.training.killed_run FOLDER KIND KILLS SEED

Processes are forked before JAX starts, so that each costs a compilation and no import. KIND is
"arrays" or "batches". FOLDER/whole is of a run that nobody kills. That of FOLDER/parts goes on to
its last epoch after so many kills.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fnn

EPOCHS, SIZE = 150, 4


def loss(params: Any, stats: Any, batch: Any, key: Any) -> Any:
    x, y = batch
    noise = jax.random.normal(key, y.shape)
    value = ((x @ params["w"] - y + 0.1 * noise) ** 2).mean()
    return value, 0.9 * stats + 0.1 * x.mean(0)


def batches(epoch: int) -> Iterator[Any]:
    x, y = data()
    for rows in np.split(np.random.default_rng(epoch).permutation(10), [4, 8]):
        yield x[rows], y[rows]


def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    return x, x @ np.array([1.0, -2.0, 0.5], np.float32)


def train(folder: Path, kind: str, saved: int | None = None) -> None:
    """Begin the run or go on with it, saving every report; then write its step."""
    file = fnn.weights.latest(folder)
    source, size = (data(), SIZE) if kind == "arrays" else (batches, None)
    reports = fnn.train(
        loss, {"w": jnp.zeros(3)}, fnn.adam(0.05), source, batch_size=size, epochs=EPOCHS,
        key=jax.random.key(1), stats=jnp.zeros(3), report_every=2,
        resume=fnn.load(file) if file else None,
    )  # fmt: skip
    for report in reports:
        fnn.save(folder / "run.safetensors", report.run, keep=2)
        if saved is not None:
            os.write(saved, report.step.to_bytes(4, "little"))


def kill(folder: Path, kind: str, chance: random.Random) -> int:
    """Start the run in a process of its own and kill it at any moment.

    Return the first step that it saved, or 0 where nobody waited for one.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        train(folder, kind, writer)
        os._exit(1)  # it must not come to its end
    os.close(writer)
    first = os.read(reader, 4) if chance.random() < 0.9 else b""
    time.sleep(chance.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    assert os.WIFSIGNALED(status), "the run is too short for this many kills"
    return int.from_bytes(first, "little")


def main(folder: str, kind: str, kills: str, seed: str) -> None:
    whole, parts = Path(folder, "whole"), Path(folder, "parts")
    whole.mkdir()
    parts.mkdir()
    child = os.fork()
    if child == 0:
        train(whole, kind)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    chance = random.Random(int(seed))
    firsts = [first for _ in range(int(kills)) if (first := kill(parts, kind, chance))]
    assert firsts == sorted(set(firsts)), "a run began anew"
    train(parts, kind)


if __name__ == "__main__":
    main(*sys.argv[1:])
