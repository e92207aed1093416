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


def agree(got: str, want: str) -> None:
    """Equal texts, but for reals and percentages: training on another machine rounds otherwise."""
    assert NUMBER.sub("#", got).split() == NUMBER.sub("#", want).split()
    for a, b in zip(NUMBER.findall(got), NUMBER.findall(want), strict=True):
        slack = 0.1 if "." in b or "e" in b or "%" in want else 0
        assert float(a.replace(",", "")) == pytest.approx(float(b.replace(",", "")), rel=slack)


@each_page
def test_it_prints_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = guides.parts(page.read_text())
    printed = guides.run((text for kind, text in parts if kind == "python"), page.stem)
    for (kind, _), after in zip(parts, [*parts[1:], guides.Part("", "")], strict=True):
        if kind == "python":
            agree(next(printed), after.text if after.kind == "text" else "")


ROOT = guides.EXAMPLES.parent
PLACES = ("*.md", ".github/*.md", "examples/*.md", "benchmarks/**/*.md")
WRITTEN = [*PAGES, *(page for place in PLACES for page in sorted(ROOT.glob(place)))]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
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


def test_the_notebook_is_the_first_guide_with_what_it_prints() -> None:
    cells = json.loads(guides.NOTEBOOK.read_text())["cells"]
    page = guides.FIRST.read_text()
    assert ["".join(cell["source"]) for cell in cells] == [text for _, text in guides.pieces(page)]
    outputs = [out for cell in cells for out in cell.get("outputs", ())]
    shown = [text for kind, text in guides.parts(page) if kind == "text"]
    for output, text in zip(outputs, shown, strict=True):
        agree("".join(output["text"]), text)
