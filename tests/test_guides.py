"""The guides: their code runs and prints what stands there; their links and names are good."""

import functools
import json
import re
from pathlib import Path

import pytest

import fnn
from tests import guides

PAGES = sorted((guides.EXAMPLES / "guides").glob("*.md"))
NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[-+]\d+)?")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@functools.cache
def printed(page: Path, folder: Path) -> list[str]:
    """What every block of code of a page prints, run in this folder."""
    blocks = [part.text for part in guides.parts(page.read_text()) if part.kind == "python"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return list(guides.run(blocks, page.stem))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guides")


def agree(got: str, want: str) -> None:
    """Equal texts, but for numbers: training on another machine rounds otherwise."""
    assert NUMBER.sub("#", got).split() == NUMBER.sub("#", want).split()
    for a, b in zip(NUMBER.findall(got), NUMBER.findall(want), strict=True):
        assert float(a.replace(",", "")) == pytest.approx(float(b.replace(",", "")), rel=0.1)


@each_page
def test_it_prints_what_it_shows(page: Path, folder: Path) -> None:
    outputs = iter(printed(page, folder))
    shown, last = 0, ""
    for part in guides.parts(page.read_text()):
        if part.kind == "python":
            last = next(outputs)
        elif part.kind == "text":
            agree(last, part.text)
            shown += 1
    assert shown > 2


FRONT = [guides.EXAMPLES.parent / "README.md", *guides.EXAMPLES.parent.glob(".github/*.md")]


@pytest.mark.parametrize("page", [*PAGES, *FRONT], ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link


@each_page
def test_its_names_exist_and_the_gallery_shows_it(page: Path) -> None:
    text = page.read_text()
    for name in set(re.findall(r"\bfnn\.([a-z]\w*(?:\.[a-z]\w*)?)", text)):
        assert functools.reduce(getattr, name.split("."), fnn), name
    gallery = (guides.EXAMPLES / "README.md").read_text()
    assert f"(guides/{page.name})" in gallery


def test_the_notebook_is_the_first_guide_with_the_outputs_of_a_run(folder: Path) -> None:
    committed = json.loads(guides.NOTEBOOK.read_text())
    assert ["".join(cell["source"]) for cell in committed["cells"]] == [
        text for _, text in guides.pieces(guides.FIRST.read_text())
    ]
    code = [cell for cell in committed["cells"] if cell["cell_type"] == "code"]
    for cell, text in zip(code, printed(guides.FIRST, folder), strict=True):
        agree(text, "".join(line for out in cell["outputs"] for line in out["text"]))
