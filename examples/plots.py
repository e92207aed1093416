"""The common look of all figures: lines that differ in grey, axes with units, files in a folder."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot  # after the choice of a backend that needs no screen

LINES = [
    {"color": color, "linestyle": style, "marker": marker, "markevery": 0.15, "markersize": 4}
    for color, style, marker in [
        ("#0b3d91", "-", "o"),
        ("#d1495b", "--", "s"),
        ("#3a7d44", "-.", "^"),
        ("#8d6a9f", ":", "D"),
        ("#e08e1b", (0, (5, 1)), "v"),
        ("#5c5c5c", (0, (1, 1)), "x"),
    ]
]


def figure(rows: int = 1, columns: int = 1, *, width: float = 4.4, height: float = 3.4) -> Any:
    """Return a figure and its axes, always as a list."""
    made, axes = pyplot.subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
    )
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
    return made, list(axes.flat)


def label(axes: Any, title: str, x: str, y: str, *, legend: bool = False) -> None:
    """Write title, axes and, if asked for, the legend."""
    axes.set_title(title, fontsize=10)
    axes.set(xlabel=x, ylabel=y)
    if legend:
        axes.legend(frameon=False, fontsize=8)


def contours(axes: Any, f: Any, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Draw the level curves of ``f(points (..., 2))`` in grey."""
    import numpy as np

    grid = np.stack(np.meshgrid(np.linspace(*x, 81), np.linspace(*y, 81)), -1)
    levels = np.asarray(f(grid))
    lowest = levels.min()
    steps = np.geomspace(0.02, 1, 9) * (levels.max() - lowest) + lowest
    axes.contour(grid[..., 0], grid[..., 1], levels, steps, colors="0.75", linewidths=0.8)
    axes.grid(visible=False)


def save(made: Any, folder: Path, name: str) -> None:
    """Write ``folder/name.png`` and say so."""
    folder.mkdir(parents=True, exist_ok=True)
    made.savefig(folder / f"{name}.png", dpi=120)
    pyplot.close(made)
    print(f"wrote {folder / name}.png")


def heat(axes: Any, values: Any, columns: Any, limits: Any, bar: str) -> None:
    """Draw ``values (rows, columns)`` as a map, row 1 at the bottom, beside its scale.

    ``columns`` are the numbers of the first and the last column, ``limits`` the ends of the scale;
    ``bar`` says what the values are.
    """
    extent = (*columns, 0.5, len(values) + 0.5)
    low, high = limits
    image = axes.imshow(
        values, "cividis", aspect="auto", origin="lower", interpolation="none",
        extent=extent, vmin=low, vmax=high,
    )  # fmt: skip
    axes.grid(visible=False)
    axes.figure.colorbar(image, ax=axes).set_label(bar)


def histograms(axes: Any, rows: Any) -> None:
    """Draw one histogram above the other by name, as `fnn.analysis.activity` returns them."""
    for place, layer in enumerate(rows.values(), 1):
        heights = 0.9 * layer.histogram / layer.histogram.max()
        axes.stairs(place + heights, layer.edges, baseline=place, fill=True, color="0.75")
        axes.stairs(place + heights, layer.edges, baseline=place, color="#0b3d91")
    axes.set_yticks(range(1, len(rows) + 1), list(rows))


def bars(axes: Any, names: Any, groups: Any) -> None:
    """Draw bars side by side: for every name one of each group ``{label: values}``."""
    width = 0.8 / len(groups)
    looks = zip(groups.items(), LINES, ("", "///", "..", "xx"), strict=False)
    for i, ((name, values), line, hatch) in enumerate(looks):
        places = [at + (i + 0.5) * width - 0.4 for at in range(len(values))]
        axes.bar(places, values, width, label=name, color=line["color"], hatch=hatch,
                 edgecolor="white", linewidth=0.5)  # fmt: skip
    axes.set_axisbelow(True)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
