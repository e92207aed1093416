"""`examples/distributed.py` in several processes: one is killed, others resume, none differs."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

import fnn
from tests.devices import ROOT, environment

Process = subprocess.Popen[str]
SECONDS = 60  # within which the others end after one has been lost
FILE = "distributed.safetensors"
HOSTS = """
ip link add wire netns $0 type veth peer name wire netns $1
ip -n $0 address add 10.77.0.1/24 dev wire; ip -n $1 address add 10.77.0.2/24 dev wire
for host in $0 $1; do ip -n $host link set lo up; ip -n $host link set wire up; done
"""
INSIDE = """
address=$(ip -brief -4 address show wire | awk '{print substr($3, 1, index($3, "/") - 1)}')
echo "$address $(hostname)" > $0; mount --bind $0 /etc/hosts  # of this host alone
exec "$@"
"""


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces, 10.77.0.1 and 10.77.0.2, joined by a wire as two machines are."""
    names = [f"fnn-{os.getpid()}-{i}" for i in range(2)]
    add = ["sh", "-ec", "ip netns add $0; ip netns add $1", *names]
    made = subprocess.run(add, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no network namespaces are permitted here: {made.stderr}")
    try:
        subprocess.run(["sh", "-ec", HOSTS, *names], check=True)
        yield names
    finally:
        subprocess.run(["sh", "-c", "ip netns del $0; ip netns del $1", *names], check=False)


def begin(
    folder: Path, epochs: int, processes: int, devices: int, hosts: Sequence[str] = ()
) -> list[Process]:
    """Start the script in so many processes, each with so many devices, or on a host of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"{'10.77.0.1' if hosts else 'localhost'}:{free.getsockname()[1]}"
    command = [sys.executable, "examples/distributed.py", f"--out={folder}", f"--epochs={epochs}"]
    if processes > 1:
        command += [f"--coordinator={coordinator}", f"--processes={processes}"]
    at = [["ip", "netns", "exec", h, "sh", "-ec", INSIDE, f"{folder}.{h}"] for h in hosts]
    return [
        subprocess.Popen(
            [*(at[i] if at else []), *command, f"--process={i}"],
            cwd=ROOT,
            env=environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(processes)
    ]


def wait(process: Process) -> None:
    """Wait until a process has reported its second epoch."""
    assert process.stdout
    said = [process.stdout.readline()]
    while "epoch   2" not in said[-1]:
        assert process.poll() is None, said
        said.append(process.stdout.readline())


def finish(processes: list[Process], seconds: float = 300) -> list[str]:
    """Wait for all, and return what they printed."""
    try:
        return [p.communicate(timeout=seconds)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()


def test_a_process_dies_and_more_go_on(tmp_path: Path) -> None:
    """Two processes of two devices, one killed; four of one device; and one device all the way."""
    survivor, victim = begin(tmp_path / "many", 10**6, 2, 2)
    wait(survivor)
    victim.kill()
    (said,) = finish([survivor], SECONDS)
    assert survivor.returncode != 0, said
    finish([victim])

    epochs = fnn.load(tmp_path / "many" / FILE).epoch + 1
    many, one = begin(tmp_path / "many", epochs, 4, 1), begin(tmp_path / "one", epochs, 1, 1)
    for said in finish([*many, *one]):
        assert f"epoch {epochs:3d}" in said, said
    assert {p.returncode for p in (*many, *one)} == {0}
    got, want = (fnn.load(tmp_path / folder / FILE) for folder in ("many", "one"))
    assert got[3:6] == want[3:6] == (epochs, 0, 22 * epochs)
    for a, b in zip(jax.tree.leaves(got[:2]), jax.tree.leaves(want[:2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    assert os.listdir(tmp_path / "many") == [FILE]  # and nothing that is unfinished


def test_a_network_fails_and_both_hosts_go_on(tmp_path: Path, hosts: list[str]) -> None:
    """No connection is closed: heartbeats alone tell each host that the other one is lost."""
    folder = tmp_path / "run"
    lost = begin(folder, 10**6, 2, 2, hosts)
    wait(lost[0])
    wire = ["ip", "-n", hosts[0], "link", "set", "wire"]
    subprocess.run([*wire, "down"], check=True)
    said = finish(lost, SECONDS)
    assert all(p.returncode for p in lost), said

    subprocess.run([*wire, "up"], check=True)
    epochs = fnn.load(folder / FILE).epoch + 1
    again = begin(folder, epochs, 2, 2, hosts)
    for said in finish(again):
        assert f"epoch {epochs:3d}" in said, said
    assert {p.returncode for p in again} == {0}
