"""The API reference: every public name once, every link leads somewhere, nothing from a network."""

import html
import inspect
import re
from pathlib import Path

import pytest

import fnn
from tests import docs

Pages = dict[str, str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("docs")
    return {str(p.relative_to(folder)): p.read_text() for p in docs.build(folder)}


def anchors(page: str) -> list[str]:
    return re.findall(r'<section id="([^"]+)">', page)


def test_every_public_name_stands_on_one_page(built: Pages) -> None:
    found = [name for page in built.values() for name in anchors(page)]
    flat = {name for name in fnn.__all__ if not inspect.ismodule(getattr(fnn, name))}
    assert not flat - set(found)
    assert {"schedules.cosine", "initializers.he_normal", "trees.cast", "data.digits",
            "weights.latest", "analysis.summary"} <= set(found)  # fmt: skip
    assert len(found) == len(set(found))


def test_links_lead_to_a_page_and_an_anchor(built: Pages) -> None:
    checked = 0
    for name, page in built.items():
        for link in map(html.unescape, re.findall(r'<a[^>]* href="([^"]+)"', page)):
            if link.startswith(("http", "$")):  # another site, or made by the script of the search
                continue
            path, _, anchor = link.partition("#")
            target = str((Path("/") / Path(name).parent / path).resolve())[1:] if path else name
            assert target in built, f"{name}: {link}"
            assert not anchor or f'id="{anchor}"' in built[target], f"{name}: {link}"
            checked += 1
    assert checked > 500


def test_pages_need_no_network(built: Pages) -> None:
    for page in built.values():
        assert not re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="http', page)


def test_rooms_in_reading_order(built: Pages) -> None:
    rooms = [Path(name).stem for name in built if name.startswith("fnn/")]
    assert rooms == [*docs.ROOMS, "tools"]
    assert re.findall(r"^- `fnn\.(\w+)`", str(fnn.__doc__), re.MULTILINE) == rooms[:-1]


def test_search_knows_every_name(built: Pages) -> None:
    known = set(re.findall(r'"fullname": "fnn\.([^"]+)"', built["search.js"]))
    assert not {name for name, _ in docs.public()} - known


def test_a_signature_reads_as_in_the_source(built: Pages) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", "", built["fnn/layers.html"]))
    assert "x: Float[Array, '*n d_in']" in text
    assert "key: PRNGKeyArray | None" in text
