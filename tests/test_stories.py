"""The scripts of the gallery: each runs, and prints what its docstring promises."""

import ast
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import fnn

FOLDER = Path(__file__).parents[1] / "examples"
GALLERY = (FOLDER / "README.md").read_text()


def parts(path: Path) -> tuple[set[str], list[str]]:
    """The ids of the systems that a script shows, and the lines that it promises to print."""
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    systems = re.search(r"^Systems +(.+)$", doc, re.MULTILINE)
    expected = doc.partition("\nExpected\n")[2]
    lines = [line.strip() for line in expected.splitlines() if line.strip()]
    return set(systems[1].split() if systems else ()), lines


STORIES = sorted(path for path in FOLDER.glob("*.py") if parts(path)[0])


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_it_prints_what_it_promises(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a command, but in this process, where JAX and what scripts share is there already."""
    monkeypatch.setattr(sys, "argv", [str(path), "--quick", "--out", str(tmp_path)])
    monkeypatch.syspath_prepend(FOLDER)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as users do
        runpy.run_path(str(path), run_name="__main__")
    promised = parts(path)[1]
    assert promised
    assert capsys.readouterr().out.splitlines()[-len(promised) :] == promised
    assert (tmp_path / f"{path.stem}.png").stat().st_size > 10_000


def test_a_line_ends_in_the_baseline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is cut: by frequency and by the network, the same letters are counted."""
    monkeypatch.syspath_prepend(FOLDER)
    script = runpy.run_path(str(FOLDER / "sequences.py"))
    codes, lengths, _ = script["text"](None)
    assert (lengths == codes.shape[1]).any()
    said = script["following"](codes, lengths)
    assert len(said) == lengths.sum()
    assert (said == 0).sum() == len(codes)


def test_any_algorithm_of_convolution_learns_the_digits() -> None:
    source = (FOLDER / "digits.py").read_text()
    offered = re.search(r'"--conv", choices=(\[.*?\])', source)
    assert offered
    names = {name for name in fnn.__all__ if name.startswith("conv_")}
    others = {"conv_transpose", "conv_matrix"}
    assert {f"conv_{name}" for name in ast.literal_eval(offered[1])} == names - others
    reports = runpy.run_path(str(FOLDER / "digits.py"))["reports"]
    train = fnn.data.Dataset(*(a[:128] for a in fnn.data.digits()[0]))
    curves = [
        [report.loss for report in reports(train, conv=getattr(fnn, name), epochs=2)]
        for name in sorted(names - others)
    ]
    for first, second in curves:
        assert second < first
        np.testing.assert_allclose((first, second), curves[0], rtol=1e-3)
    assert len(set(map(tuple, curves))) > 1, "every algorithm rounds in its own way"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_gallery_shows_it(path: Path) -> None:
    row = next(line for line in GALLERY.splitlines() if f"[{path.name}]" in line)
    assert set(row.split("|")[2].split()) == parts(path)[0]
    assert f"(figures/{path.stem}.png)" in GALLERY
    assert (FOLDER / "figures" / f"{path.stem}.png").exists()
