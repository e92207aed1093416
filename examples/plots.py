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
