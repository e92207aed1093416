"""The guides of ``examples/guides``, and the notebook that is made of the first one.

``python -m tests.guides`` runs the first guide and writes ``examples/first_network.ipynb``.

In a guide, a block of ``python`` is run, all of a page in one namespace, and a block of ``text``
after it is what it prints. A block of ``py`` is shown only: it needs another library.
"""

import contextlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLES = Path(__file__).parents[1] / "examples"
FIRST, NOTEBOOK = EXAMPLES / "guides" / "first_network.md", EXAMPLES / "first_network.ipynb"


class Part(NamedTuple):
    """A piece of a page: prose, of kind "", or a block of this kind."""

    kind: str
    text: str


def parts(page: str) -> list[Part]:
    """Return the prose and the blocks of a page in order."""
    prose, *rest = re.split(r"^```(\w+)\n(.*?)^```\n", page, flags=re.DOTALL | re.MULTILINE)
    found = [Part("", prose)]
    for kind, block, after in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        found += [Part(kind, block), Part("", after)]
    return [part for part in found if part.text.strip()]


def run(blocks: Iterable[str], name: str) -> Iterator[str]:
    """Run blocks of code in one namespace, and yield what each of them prints."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks, 1):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile(block, f"{name}, block {number}", "exec"), names)
        yield shown.getvalue()


def pieces(page: str) -> list[Part]:
    """Return what a notebook has of a guide in the folder beside it: all but the printed text."""
    links = re.compile(r"\]\((?!http)")
    return [
        Part(kind, text.strip() if kind else links.sub("](guides/", text.strip()))
        for kind, text in parts(page)
        if kind != "text"
    ]


def notebook(page: str) -> dict[str, Any]:
    """Return a guide as a notebook, with the outputs of a run."""
    shown = run((text for kind, text in pieces(page) if kind == "python"), "first_network")
    cells = []
    for number, (kind, text) in enumerate(pieces(page)):
        cell: dict[str, Any] = {"cell_type": "code" if kind else "markdown", "id": f"cell-{number}"}
        cell |= {"metadata": {}, "source": text.splitlines(keepends=True)}
        if kind:
            lines = next(shown).splitlines(keepends=True)
            streams = [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []
            cell |= {"execution_count": None, "outputs": streams}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    NOTEBOOK.write_text(json.dumps(notebook(FIRST.read_text()), indent=1) + "\n")
    print(NOTEBOOK)
