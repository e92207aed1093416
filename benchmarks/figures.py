"""Figures of results: a roofline, bars of ratios, scaling lines; each readable without the text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.tables import PYTORCH, Record, Rows, library
from benchmarks.targets import FNN
from benchmarks.timing import ratio

OURS, LIBRARY = "#d62728", "#555555"
COLOURS = {
    "fnn": OURS,
    "fnn.flat": "#ff9896",
    "lax": LIBRARY,
    "im2col": "#1f77b4",
    "taps": "#2ca02c",
    "winograd": "#9467bd",
    "winograd2": "#c5b0d5",
    "fft": "#8c564b",
    "pool_slices": "#17becf",
    "pool_lax": "#9edae5",
    "optax": "#aaaaaa",
    "optax.flatten": "#dddddd",
    "PyTorch": "#ff7f0e",
    "PyTorch channels last": "#e3b505",
    "PyTorch fused": "#8a6d00",
}
LABELS = {
    "conv": "fnn",
    "conv_transpose": "fnn",
    "max_pool": "fnn",
    "avg_pool": "fnn",
    "fnn.adam": "fnn",
    "fnn.flat(fnn.adam)": "fnn.flat",
    "optax.adam": "optax",
    "optax.flatten(optax.adam)": "optax.flatten",
}
TICKS = [m * 10.0**e for e in range(-3, 6) for m in (1, 2, 5)]
plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})


def stamp(figure: Any, records: Sequence[Record]) -> None:
    """Write the device, and the date and commit of every record, into the lower edge."""
    each = dict.fromkeys(f"{record['date']}, commit {record['commit']}" for record in records)
    text = "; ".join([records[0]["device"], *each])
    figure.text(0.995, -0.01, text, ha="right", va="top", fontsize=7, color="#666666")


def save(figure: Any, path: Path, *records: Record) -> Path:
    stamp(figure, records)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def plain_ticks(axis: Any, ticks: list[float]) -> None:
    """Ticks of a logarithmic axis as plain numbers, those outside its limits left out."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(NullLocator())


def kernel(contestant: str) -> str:
    """Return a contestant's name in a figure: the kernel, or fnn where that chooses it."""
    name = LABELS.get(contestant, contestant)
    return name.removeprefix("conv_").replace("max_pool", "pool").replace("avg_pool", "pool")


def dot(axes: Any, x: float, y: float, contestant: str) -> None:
    """Draw one measurement, those of fnn's own choice larger and in front."""
    name = kernel(contestant)
    size = {"marker": "o", "ms": 7, "zorder": 3} if name == "fnn" else {"marker": ".", "ms": 7}
    axes.plot(x, y, label=name, color=COLOURS.get(name, "#000000"), ls="", **size)


def roofline(records: dict[str, Record], path: Path) -> Path:
    """Every kernel under the ceiling: convolution's arithmetic rate, the others' traffic."""
    others = [records[name] for name in ("pooling", "optimizers") if name in records]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(15, 6.5), layout="constrained", width_ratios=(3, 2)
    )
    arithmetic(left, records["conv"])
    traffic(right, others)
    marks = {}
    for axes in (left, right):
        handles, names = axes.get_legend_handles_labels()
        marks |= dict(zip(names, handles, strict=True))
    names = [name for name in COLOURS if name in marks]
    figure.legend([marks[n] for n in names], names, loc="outside upper center", ncols=8)
    return save(figure, path, records["conv"], *others)


def arithmetic(axes: Any, record: Record) -> None:
    """Arithmetic rates over intensity, under the roof of product and copy."""
    peak, bandwidth = record["ceiling"]["gflops"], record["ceiling"]["gbytes"]
    x = np.geomspace(0.5, 1000, 200)
    axes.plot(x, np.minimum(peak, bandwidth * x), color="black", lw=1.5)
    axes.text(x[-1], peak * 1.07, f"large matrix product: {peak:.0f} GFLOP/s", ha="right")
    place = peak / bandwidth / 3
    axes.text(place, bandwidth * place * 1.12, f"copy: {bandwidth:.0f} GB/s", ha="right")
    for row in record["rows"]:
        if "seconds" in row and row["measure"] == "gradient" and row["place"] != "scan":
            y = 1e-9 * row["flops"] / row["seconds"]
            dot(axes, row["flops"] / row["bytes"], y, row["contestant"])
    axes.set(xscale="log", yscale="log", xlabel="arithmetic that a layer needs, FLOP per byte")
    axes.set_ylabel("GFLOP/s")
    axes.set_title("Convolution layers, forward + backward, under the roof of the machine")


def traffic(axes: Any, records: list[Record]) -> None:
    """Traffic rates of what does next to no arithmetic, under the rate of a copy."""
    cases: list[str] = []
    for record in records:
        rows = [r for r in record["rows"] if "seconds" in r and "bytes" in r]
        for row in rows:
            if row["place"] != "scan" and row["measure"] != "forward":
                if row["case"] not in cases:
                    cases.append(row["case"])
                dot(axes, 1e-9 * row["bytes"] / row["seconds"], cases.index(row["case"]),
                    row["contestant"])  # fmt: skip
    if cases:
        bandwidth = records[0]["ceiling"]["gbytes"]
        axes.axvline(bandwidth, color="black", lw=1.5)
        axes.text(bandwidth, -0.7, f"copy: {bandwidth:.0f} GB/s ", ha="right")
    axes.set_yticks(range(len(cases)), cases)
    axes.set_ylim(len(cases) - 0.5, -1)
    axes.set(xscale="log", xlabel="GB/s of the bytes that must be read and written")
    axes.set_title("Pooling, forward + backward, and Adam's update")


def bars(axes: Any, names: list[str], values: list[float | None], title: str) -> None:
    """Horizontal bars around 1 on a logarithmic axis; each says its number."""
    for i, value in enumerate(values):
        if value is None:
            axes.text(1.02, i, "not timed", va="center", fontsize=8, color="#666666")
            continue
        axes.barh(i, value - 1, left=1, color="#2ca02c" if value <= 1 else "#d62728", height=0.7)
        side = "right" if value <= 1 else "left"
        axes.text(value, i, f" {value:.2g} ", ha=side, va="center", fontsize=8)
    axes.axvline(1, color="black", lw=1)
    known = [v for v in values if v is not None] or [1.0]
    axes.set_xscale("log")
    low, high = min(0.5, *known), max(2.0, *known)
    room = (high / low) ** 0.2  # for the numbers
    axes.set_xlim(low / room, high * room)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    plain_ticks(axes.xaxis, [0.0001, 0.001, 0.01, 0.1, 1, 10] if high / low > 100 else TICKS)
    axes.set_title(title, fontsize=10)


def over_others(record: Record) -> Iterator[tuple[str, list[float | None]]]:
    """Yield each layer, and fnn's time over lax's in jit and in scan, and over PyTorch's."""
    found = Rows([r for r in record["rows"] if r["measure"] == "gradient"])
    for case in found.cases:
        ours = [
            found.best(case, ("conv", "conv_transpose", "max_pool", "avg_pool"), place=place)
            for place in ("jit", "scan")
        ]
        lax = [library(found, case, place) for place in ("jit", "scan")]
        pairs = *zip(ours, lax, strict=True), (ours[0], found.best(case, PYTORCH))
        yield case, [r[0] if (r := ratio(a, b)) else None for a, b in pairs]


TITLES = ("over the library's, in jit", "over the library's, inside scan", "over PyTorch's")
SIDES = "Forward + backward; left of 1: fnn is faster, right: slower"


def ratios(records: dict[str, Record], path: Path) -> Path:
    """fnn's time over the library's and over PyTorch's, layer by layer."""
    shown = [records[subject] for subject in ("conv", "pooling") if subject in records]
    lines = [line for record in shown for line in over_others(record)]
    figure, all_axes = plt.subplots(
        1, 3, figsize=(14, 1.5 + 0.27 * len(lines)), sharey=True, layout="constrained"
    )
    for i, (axes, title) in enumerate(zip(all_axes, TITLES, strict=True)):
        bars(axes, [n for n, _ in lines], [v[i] for _, v in lines], f"fnn's time {title}")
    all_axes[0].invert_yaxis()  # shared
    figure.suptitle(SIDES)
    return save(figure, path, *shown)


def machines(records: dict[str, Record], path: Path) -> Path:
    """The same of convolution, with a dot for every machine; ``records`` by the machine's name."""
    layers = {name: dict(over_others(record)) for name, record in records.items()}
    cases = [*dict.fromkeys(case for found in layers.values() for case in found)]
    figure, all_axes = plt.subplots(
        1, 3, figsize=(14, 1.5 + 0.27 * len(cases)), sharey=True, layout="constrained"
    )
    for name, found in layers.items():
        for i, axes in enumerate(all_axes):
            times = [values[i] for values in found.values()]
            axes.plot(times, [*map(cases.index, found)], "o", label=name)
    for axes, title in zip(all_axes, TITLES, strict=True):
        axes.axvline(1, color="black", lw=1)
        axes.set(xscale="log", title=f"fnn's time {title}")
        plain_ticks(axes.xaxis, [0.001, 0.01, 0.1, 0.5, 1, 2])
        axes.grid(axis="y", lw=0.3)
    all_axes[0].set_yticks(range(len(cases)), cases)
    all_axes[0].invert_yaxis()
    figure.suptitle(SIDES)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def in_a_row(cases: Sequence[str], width: float) -> tuple[Figure, Any]:
    """Return a figure with a panel for each case, side by side."""
    size = (width * len(cases), 4)
    figure, panels = plt.subplots(1, len(cases), figsize=size, layout="constrained", squeeze=False)
    return figure, panels[0]


def training(records: dict[str, Record], path: Path) -> Path:
    """Steps per second, one panel per model."""
    record = records["training"]
    found = Rows([r for r in record["rows"] if "seconds" in r])
    figure, panels = in_a_row(found.cases, 4.6)
    for axes, case in zip(panels, found.cases, strict=True):
        rows = sorted((r for r in found.rows if r["case"] == case), key=lambda r: -r["seconds"])
        for i, row in enumerate(rows):
            name, speed = row["contestant"], 1 / row["seconds"]
            colour = OURS if name in FNN else "#ff7f0e" if name in PYTORCH else "#777777"
            axes.barh(i, speed, color=colour, height=0.7)
            axes.text(speed, i, f" {speed:,.0f}" if speed >= 100 else f" {speed:.3g}", va="center")
        axes.set_yticks(range(len(rows)), [r["contestant"] for r in rows])
        axes.set_xlim(0, 1.25 / min(r["seconds"] for r in rows))
        axes.set_title(f"{case}, batch {rows[0]['batch']}", fontsize=10)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("steps per second")
    return save(figure, path, record)


def scaling(records: dict[str, Record], path: Path) -> Path:
    """Time over size, with the fitted exponent at the end of each line."""
    record = records["scaling"]
    found = Rows([r for r in record["rows"] if "exponent" in r])
    figure, panels = in_a_row(found.cases, 4.4)
    for axes, case in zip(panels, found.cases, strict=True):
        ends = []
        for name in found.contestants:
            line = [r for r in found.rows if (r["case"], r["contestant"]) == (case, name)]
            if line:
                sizes, times = [r["size"] for r in line], [1e3 * r["seconds"] for r in line]
                ours = name in ("conv", *FNN)
                colour = OURS if ours else COLOURS.get(kernel(name), LIBRARY)
                axes.plot(sizes, times, marker="o", ms=4, lw=2.5 if ours else 1.2, color=colour)
                ends.append(
                    (times[-1], sizes[-1], f"{name}: power {line[0]['exponent']:.2f}", colour)
                )
        axes.set(xscale="log", yscale="log", xlabel=case.split(" by ")[-1])
        axes.set_ylabel("milliseconds" if "step" in case else "milliseconds, forward + backward")
        axes.set_title(case, fontsize=10)
        label(axes, ends)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * (high / low) ** 0.9)  # room for the names
        plain_ticks(axes.xaxis, sorted({r["size"] for r in found.rows if r["case"] == case}))
        plain_ticks(axes.yaxis, TICKS)
    figure.suptitle("Time over size; power p: in proportion to the size to the p", fontsize=10)
    return save(figure, path, record)


def label(axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Write each line's name at its end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.2)  # room to move up
    below = 0.0
    for time, size, text, colour in sorted(ends):
        height = max(time, below * (high / low) ** 0.06)
        axes.annotate(text, (size, height), (6, 0), textcoords="offset points", va="center",
                      fontsize=8, color=colour)  # fmt: skip
        below = height


DRAWN = {
    "conv": ("roofline", roofline),
    "training": ("training", training),
    "scaling": ("scaling", scaling),
}


def draw(records: dict[str, Record], folder: Path) -> list[Path]:
    """Draw every figure of whose subject something was timed; return the paths."""
    records = {s: r for s, r in records.items() if any("seconds" in row for row in r["rows"])}
    paths = [fn(records, folder / f"{n}.png") for s, (n, fn) in DRAWN.items() if s in records]
    if {"conv", "pooling"} & set(records):
        paths.append(ratios(records, folder / "ratios.png"))
    return paths
