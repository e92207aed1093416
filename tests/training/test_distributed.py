"""`examples/distributed.py` in several processes: one is killed, others resume, none differs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

import fnn
from tests.devices import ROOT, environment

SECONDS = 60  # within which the others end after one has been killed


def begin(folder: Path, epochs: int, processes: int, devices: int) -> list[subprocess.Popen[str]]:
    """Start the script in so many processes, each with so many devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "examples/distributed.py", f"--out={folder}", f"--epochs={epochs}"]
    if processes > 1:
        command += [f"--coordinator={coordinator}", f"--processes={processes}"]
    return [
        subprocess.Popen(
            [*command, f"--process={i}"],
            cwd=ROOT,
            env=environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(processes)
    ]


def finish(processes: list[subprocess.Popen[str]], seconds: float = 300) -> list[str]:
    """Wait for all, and return what they printed."""
    try:
        return [p.communicate(timeout=seconds)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()


def test_a_process_dies_and_more_go_on(tmp_path: Path) -> None:
    """Two processes of two devices, one killed; four of one device; and one device all the way."""
    survivor, victim = begin(tmp_path / "many", 10**6, 2, 2)
    assert survivor.stdout
    while "epoch   2" not in survivor.stdout.readline():
        assert survivor.poll() is None
    victim.kill()
    (said,) = finish([survivor], SECONDS)
    assert survivor.returncode != 0, said
    finish([victim])

    file = "distributed.safetensors"
    epochs = fnn.load(tmp_path / "many" / file).epoch + 1
    many, one = begin(tmp_path / "many", epochs, 4, 1), begin(tmp_path / "one", epochs, 1, 1)
    for said in finish([*many, *one]):
        assert f"epoch {epochs:3d}" in said, said
    assert {p.returncode for p in (*many, *one)} == {0}
    got, want = (fnn.load(tmp_path / folder / file) for folder in ("many", "one"))
    assert got[3:6] == want[3:6] == (epochs, 0, 22 * epochs)
    for a, b in zip(jax.tree.leaves(got[:2]), jax.tree.leaves(want[:2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    assert os.listdir(tmp_path / "many") == [file]  # and nothing that is unfinished
