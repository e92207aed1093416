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


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[str]]:
    """Two network namespaces, 10.77.0.1 and 10.77.0.2, joined by a wire as two machines are.

    The list is empty where none are permitted.
    """
    names = [f"fnn-{os.getpid()}-{i}" for i in range(2)]
    add = ["sh", "-ec", "ip netns add $0; ip netns add $1", *names]
    if subprocess.run(add, capture_output=True, check=False).returncode:
        yield []
        return
    try:
        subprocess.run(["sh", "-ec", HOSTS, *names], check=True)
        yield names
    finally:
        subprocess.run(["sh", "-c", "ip netns del $0; ip netns del $1", *names], check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def ended(folder: Path, hosts: list[str]) -> dict[str, list[tuple[int, str]]]:
    """How two runs of two processes end, and what they print: a process is killed, a wire is cut.

    Both at once, as each run takes ten seconds to notice.
    """
    runs = {"killed": begin(folder / "killed", 10**6, 2, 2)}
    if hosts:
        runs["cut"] = begin(folder / "cut", 10**6, 2, 2, hosts)
    processes = [process for run in runs.values() for process in run]
    try:
        for run in runs.values():
            wait(run[0])
        runs["killed"][1].kill()
        if hosts:
            subprocess.run(["ip", "-n", hosts[0], "link", "set", "wire", "down"], check=True)
        said = {name: finish(run, SECONDS) for name, run in runs.items()}
    finally:
        for process in processes:
            process.kill()
    return {
        name: [(process.returncode, text) for process, text in zip(run, said[name], strict=True)]
        for name, run in runs.items()
    }


def test_a_process_dies_and_more_go_on(
    folder: Path, ended: dict[str, list[tuple[int, str]]]
) -> None:
    """Two processes of two devices, one killed; four of one device; and one device all the way."""
    assert all(code for code, _ in ended["killed"]), ended

    epochs = fnn.load(folder / "killed" / FILE).epoch + 1
    many, one = begin(folder / "killed", epochs, 4, 1), begin(folder / "one", epochs, 1, 1)
    *resumed, whole = finish([*many, *one])
    for said in (*resumed, whole):
        assert f"epoch {epochs:3d}" in said, said
    assert {said.count("epoch ") for said in resumed} == {1}, "a run began anew"
    assert {p.returncode for p in (*many, *one)} == {0}
    got, want = (fnn.load(folder / name / FILE) for name in ("killed", "one"))
    assert got[3:6] == want[3:6] == (epochs, 0, 22 * epochs)
    for a, b in zip(jax.tree.leaves(got[:2]), jax.tree.leaves(want[:2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    assert os.listdir(folder / "killed") == [FILE]  # and nothing that is unfinished


def test_a_network_fails_and_both_hosts_go_on(
    folder: Path, hosts: list[str], ended: dict[str, list[tuple[int, str]]]
) -> None:
    """No connection is closed: heartbeats alone tell each host that the other one is lost."""
    if not hosts:
        pytest.skip("no network namespaces are permitted here")
    assert all(code for code, _ in ended["cut"]), ended

    subprocess.run(["ip", "-n", hosts[0], "link", "set", "wire", "up"], check=True)
    epochs = fnn.load(folder / "cut" / FILE).epoch + 1
    again = begin(folder / "cut", epochs, 2, 2, hosts)
    for said in finish(again):
        assert f"epoch {epochs:3d}" in said, said
        assert said.count("epoch ") == 1, "a run began anew"
    assert {p.returncode for p in again} == {0}
