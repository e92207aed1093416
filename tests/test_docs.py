"""The API reference: every public name once, every link leads somewhere, nothing from a network."""

import html
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
            "weights.latest", "analysis.summary", "analysis.Layer"} <= set(found)  # fmt: skip
    assert len(found) == len(set(found))


def classes(annotation: Any) -> Iterator[type]:
    """The classes of fnn that an annotation is made of."""
    if inspect.isclass(annotation) and annotation.__module__.startswith("fnn."):
        yield annotation
    for part in typing.get_args(annotation):
        yield from classes(part)


def test_what_a_public_function_returns_is_public() -> None:
    """And so is what the fields of a result are."""
    public = dict(docs.public())
    known = [thing for thing in public.values() if inspect.isclass(thing)]
    for name, thing in public.items():
        function = inspect.isfunction(thing) and thing.__module__.startswith("fnn.")
        fields = getattr(thing, "_fields", ())
        hints = typing.get_type_hints(thing) if function or fields else {}
        for place in ("return", *fields):
            for result in classes(hints.get(place)):
                assert result in known, f"{name}: {place}: {result.__name__} is not public"


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


def test_a_page_says_what_the_files_of_its_room_say(built: Pages) -> None:
    """There stands what holds for all that a file defines."""
    for name, thing in docs.public():
        if thing.__module__.startswith("fnn."):
            said = str(importlib.import_module(thing.__module__).__doc__)
            page = html.unescape(
                re.sub(r"<[^>]+>", "", built[f"fnn/{docs.room(name, thing)}.html"])
            )
            for line in said.splitlines():
                assert re.sub(r"[`*]", "", line).strip().rstrip(".") in page.replace("*", ""), line


def test_a_signature_reads_as_in_the_source(built: Pages) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", "", built["fnn/layers.html"]))
    assert "x: Float[Array, '*n d_in']" in text
    assert "key: PRNGKeyArray | None" in text
