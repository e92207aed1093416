"""The machine: the same settings for everybody, its facts, and its measured ceiling."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGES = ("jax", "jaxlib", "numpy", "optax", "torch", "flax", "equinox", "dm-haiku")


def threads() -> int:
    """Cores that this process may use: the threads of every contestant."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, str]:
    """Settings of every measuring process, the same for all contestants in it.

    Single-precision matrix products of a GPU are single precision. Python keeps the bytecode of
    what it imports, as installed packages have theirs: or else fnn in this tree is compiled anew in
    every process, half its time to import.
    """
    return {
        "OMP_NUM_THREADS": str(threads()),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONDONTWRITEBYTECODE": "",
    }


def commit() -> str:
    """Return the commit of this tree, marked when the measured code differs from it."""
    git = ["git", "-C", str(HERE.parent)]
    try:
        name = subprocess.check_output([*git, "rev-parse", "--short=12", "HEAD"], text=True)
        state = [*git, "status", "--porcelain", "--", "fnn", "benchmarks/*.py"]
        changes = subprocess.check_output(state, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip() + ("+changes" if changes else "")


def processor() -> str:
    """Return the model name of the processor; with its family where that carries no number.

    So it is in some virtual machines, and two generations would be one device: in products of
    large matrices AMD's family 26 (Zen 5) is twice as fast as 25 (Zen 4).
    """
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        facts = ""
    found = (re.search(rf"^{key}\s*: (.+)", facts, re.M) for key in ("model name", "cpu family"))
    name, family = (match[1] if match else "" for match in found)
    name = name or platform.processor() or platform.machine()
    return name if re.search(r"\d", name) or not family else f"{name} family {family}"


def device() -> str:
    """Return the device that JAX computes on, in words."""
    import jax

    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"{processor()}, {threads()} core" + "s" * (threads() > 1)
    return first.device_kind


def slug(text: str) -> str:
    """Return a text as a folder name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def facts() -> dict[str, Any]:
    """Return what a result must carry to be believed: commit, date, versions, device, settings."""
    import jax

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device(),
        "platform": jax.default_backend(),
        "threads": threads(),
        "python": platform.python_version(),
        "versions": versions,
        "environment": {k: os.environ.get(k, "unset") for k in environment()},
    }


def ceiling(quick: bool) -> dict[str, float]:
    """Measure what the machine can do at best: GFLOP/s of a matrix product, GB/s of a copy."""
    import jax
    import jax.numpy as jnp

    from benchmarks import placement  # which imports this module

    size, length = (1024, 2**24) if quick else (2048, 2**26)
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    copy = jax.jit(jnp.negative, donate_argnums=0)  # reads and writes every element, in place
    x = jnp.ones((length,), jnp.float32)
    products, copies, waited = [], [], 0.0
    for _ in range(5 if quick else 8):
        waited += placement.wait(placement.LIMIT - waited)
        start = time.perf_counter()
        product(a, a).block_until_ready()
        products.append(time.perf_counter() - start)
        start = time.perf_counter()
        x = copy(x).block_until_ready()
        copies.append(time.perf_counter() - start)
    return {"gflops": 2e-9 * size**3 / min(products), "gbytes": 8e-9 * length / min(copies)}


def limit(flops: float, bytes_: float, ceiling: dict[str, float]) -> float:
    """Return the seconds below which this machine cannot do that much arithmetic and traffic."""
    return max(1e-9 * flops / ceiling["gflops"], 1e-9 * bytes_ / ceiling["gbytes"])
