"""Devices: the time of a step with its examples on 1, 2, 4 and 8 devices, and what they exchange.

    python -m benchmarks.devices        prints the table, writes results/<device>/devices.json

The devices are eight that XLA makes of this machine's CPU. They share its cores, so that at best
the time stays what it is on one: what it grows by is the price of cutting the program up. How much
a step communicates is read from the compiled program and holds on any hardware.

On paper, a step of n examples on D devices takes

    t(D) = t(1) / D + 2 (D - 1) / D  bytes / bandwidth

with the bytes of all gradients, which a ring of devices passes on twice, and the bandwidth of one
device; nothing is said of latency, nor of sums that travel while the next layer is computed. For
ResNet-18 at 32x32, 11.2 million parameters, are 44.7 MB of gradients and 3.3 GFLOP an example.
Assume 128 examples on each GPU, 20 TFLOP/s reached, 450 GB/s between the eight GPUs of a machine
and 50 GB/s from each to other machines, numbers of data sheets and not measured here: computing
takes 21 ms, exchanging 0.2 ms on 8 GPUs and 1.8 ms on 64. That gives 7.9 times the examples per
second of one GPU on 8, and 59 times on 64. `paper` does this arithmetic.
"""

import math
import os
import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

COUNTS = (1, 2, 4, 8)
FORCED = f"--xla_force_host_platform_device_count={max(COUNTS)}"
ROUNDS = 9
COLLECTIVES = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
Row = dict[str, Any]


def paper(devices: int, seconds: float, bytes_: float, bandwidth: float) -> float:
    """Return how many times the examples per second of one device so many have.

    ``seconds`` is one device's own time for its examples of a step, without the exchange.
    """
    exchange = 2 * (devices - 1) / devices * bytes_ / bandwidth
    return devices * seconds / (seconds + exchange)


def exchanged(text: str) -> dict[str, int]:
    """Return the bytes of what every kind of collective operation of a program results in."""
    found: dict[str, int] = {}
    for result, kind in re.findall(rf"= (.*?) ({COLLECTIVES})(?:-start)?\(", text):
        bits = {"pred": 8, "bf16": 16}
        for dtype, shape in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", result):
            size = math.prod(int(s) for s in shape.split(",") if s)
            width = bits.get(dtype) or int(re.sub(r"\D", "", dtype))
            found[kind] = found.get(kind, 0) + size * width // 8
    return found


def layer() -> tuple[Callable[..., Any], list[Any], list[Any]]:
    """A convolution and its gradients: the function, its examples, its parameters."""
    import jax

    import fnn

    def run(g: Any, x: Any, w: Any) -> Any:
        y, pull = jax.vjp(fnn.conv, x, w)
        return y, pull(g)

    rng = np.random.default_rng(0)
    shapes = (64, 32, 32, 64), (64, 32, 32, 64), (3, 3, 64, 64)
    g, x, w = (rng.standard_normal(s, np.float32) for s in shapes)
    return run, [g, x], [w]


def step() -> tuple[Callable[..., Any], list[Any], list[Any]]:
    """A step of the small CNN by momentum."""
    import fnn
    from benchmarks.models import TASKS, batches, loss, start

    optimizer, params = fnn.momentum(0.01), start("cnn")
    take = fnn.make_step(loss(TASKS["cnn"].logits), optimizer)

    def run(batch: Any, params: Any, state: Any) -> Any:
        return take(params, state, batch)

    return run, batches("cnn", 1, np.random.default_rng(0)), [params, optimizer.init(params)]


def rows(case: str, make: Callable[[], Any]) -> list[Row]:
    """Compile for every number of devices, and time all in turn."""
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    run, examples, params = make()
    found, calls = [], []
    for count in COUNTS:
        mesh = jax.make_mesh(
            (count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
        )
        by_example = NamedSharding(mesh, PartitionSpec("data"))
        whole = NamedSharding(mesh, PartitionSpec())
        args = (*jax.device_put(examples, by_example), *jax.device_put(params, whole))
        compiled = jax.jit(run).lower(*args).compile()
        calls.append(partial(compiled, *args))
        moved = exchanged(compiled.as_text())
        memory = compiled.memory_analysis().temp_size_in_bytes
        found.append({"case": case, "devices": count, "exchanged": moved, "temporary": memory})
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS + 1):
        for call, times in zip(calls, samples, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - began)
    for row, (_, *times) in zip(found, samples, strict=True):
        row |= {"seconds": statistics.median(times), "best": min(times), "samples": times}
    return found


def table(rows: list[Row]) -> str:
    lines = ["| | devices | ms, median | best | steps/s | exchanged, kB | memory of each, MB |"]
    lines.append("|---|" + "---:|" * 6)
    for row in rows:
        moved = ", ".join(f"{kind} {n / 1e3:,.0f}" for kind, n in row["exchanged"].items())
        lines.append(
            f"| {row['case']} | {row['devices']} | {1e3 * row['seconds']:.0f}"
            f" | {1e3 * row['best']:.0f} | {1 / row['seconds']:.1f} | {moved or 0}"
            f" | {row['temporary'] / 1e6:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    os.environ |= {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FORCED}"}
    os.environ["JAX_PLATFORMS"] = "cpu"
    from benchmarks import machine
    from benchmarks.session import RESULTS, write

    record = {"subject": "devices", **machine.facts(), "load": os.getloadavg()[0]}
    record["rows"] = [
        *rows("3x3, 64 to 64 channels, 64 images 32x32, with gradients", layer),
        *rows("a step of the small CNN, 128 images", step),
    ]
    write(RESULTS / machine.slug(record["device"]) / "devices.json", record)
    print(table(record["rows"]))
    for devices, bandwidth in ((8, 450e9), (64, 50e9)):
        times = paper(devices, 21e-3, 44.7e6, bandwidth)
        print(f"on paper, ResNet-18 on {devices} GPUs: {times:.1f} times the examples/s of one")


if __name__ == "__main__":
    main()
