"""Build the API reference into ``out/docs``: ``python -m tests.docs``, then open its index.html.

One page per room, in the reading order of `fnn`; every public name once, written as users write it.
pdoc renders, its warnings are errors, and the pages need no network.
"""

import importlib
import inspect
import re
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pdoc.doc
import pdoc.render

import fnn

OUT = Path(__file__).parents[1] / "out" / "docs"
ROOMS = ("layers", "losses", "analysis", "optimizers", "training", "data", "weights")
TOOLS = "Tools: sizes of windows, parameter pytrees, what suits this machine."
# Types that JAX's initializers name, and that exist for type checkers only.
JAX = r"Error parsing type annotation .* for fnn\.initializers\."
SHORT = {  # the names that the source has for types
    r"Union\[jaxtyping.Key\[.*?'4'\]\]": "PRNGKeyArray",
    r"\bjaxtyping\.|\bjaxlib\._jax\.|\btyping\.|\bcollections\.abc\.|\bjax\._src\.[\w.]*\.": "",
}


def public() -> Iterator[tuple[str, Any]]:
    """Yield every public thing under the name that follows ``fnn.``, each thing once."""
    names = {name: getattr(fnn, name) for name in fnn.__all__}
    groups = {name: thing for name, thing in names.items() if inspect.ismodule(thing)}
    for group, module in groups.items():
        listed = getattr(module, "__all__", None) or [
            name
            for name, thing in vars(module).items()
            if callable(thing) and str(thing.__module__).startswith(module.__name__)
        ]
        names |= {f"{group}.{name}": getattr(module, name) for name in listed if name[0] != "_"}
    seen: set[int] = set()
    for name, thing in names.items():
        if name not in groups and id(thing) not in seen:
            seen.add(id(thing))
            yield name, thing


def room(name: str, thing: Any) -> str:
    """Return the room whose page shows a public thing."""
    first = getattr(fnn, name.split(".")[0])
    source = first.__name__ if inspect.ismodule(first) else thing.__module__
    return source.split(".")[1] if source.split(".")[1] in ROOMS else "tools"


class Brief:
    """An annotation, shown as a signature in the source has it."""

    def __init__(self, annotation: Any) -> None:
        text = inspect.formatannotation(annotation)
        for long, short in SHORT.items():
            text = re.sub(long, short, text)
        self.text = text

    def __repr__(self) -> str:
        return self.text


def tidy(doc: pdoc.doc.Doc[Any]) -> None:
    """Show a public thing as users write it: its name, short types, no second list of fields."""
    doc.fullname, doc.name = f"fnn.{doc.qualname}", doc.qualname
    if isinstance(doc, pdoc.doc.Class):
        fields = getattr(doc.obj, "_fields", ())  # which the docstring lists
        doc.own_members = [m for m in doc.own_members if m.name[0] != "_" and m.name not in fields]
    if isinstance(doc, pdoc.doc.Function):
        doc.decorators = []
        signature = doc.signature
        parameters = [
            p if p.annotation is p.empty else p.replace(annotation=Brief(p.annotation))
            for p in signature.parameters.values()
        ]
        result = signature.return_annotation
        if result is not signature.empty:
            result = Brief(result)
        doc.signature = signature.replace(parameters=parameters, return_annotation=result)


class Page(pdoc.doc.Module):
    """A page, on which links find things by their public names; that of `fnn` finds all of them."""

    def __init__(self, name: str, doc: str | None, things: dict[str, Any]) -> None:
        module = types.ModuleType(name, doc)
        vars(module).update(things, __all__=list(things))
        super().__init__(module)
        self.submodules: list[Page] = []
        for member in self.members.values():
            tidy(member)

    def get(self, identifier: str) -> pdoc.doc.Doc[Any] | None:
        """Return what stands under a public name."""
        places = [doc for page in (self, *self.submodules) for doc in page.members.values()]
        return next((doc for doc in places if doc.qualname == identifier), None)


def files(things: dict[str, Any]) -> str:
    """Return what the files that define these things say of all that is in them, in this order."""
    found = dict.fromkeys(thing.__module__ for thing in things.values())
    docs = [str(importlib.import_module(name).__doc__) for name in found if name[:4] == "fnn."]
    heads = (doc.partition("\n")[::2] for doc in docs)
    return "\n".join(f"## {head.removesuffix('.')}\n{rest}" for head, rest in heads)


def pages() -> list[Page]:
    """Return the pages, that of `fnn` first."""
    found = []
    for place in (*ROOMS, "tools"):
        doc = TOOLS if place == "tools" else importlib.import_module(f"fnn.{place}").__doc__
        things = {name: thing for name, thing in public() if room(name, thing) == place}
        found.append(Page(f"fnn.{place}", f"{doc}\n\n{files(things)}", things))
    front = Page("fnn", fnn.__doc__, {})
    front.submodules = found
    return [front, *found]


def build(folder: Path) -> list[Path]:
    """Write the reference into a folder and return its files."""
    pdoc.render.configure(docformat="google", footer_text=f"fnn {fnn.__version__}")
    (folder / "fnn").mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", JAX)
        modules = {page.modulename: page for page in pages()}
        texts = {
            f"{name.replace('.', '/')}.html": pdoc.render.html_module(page, modules)
            for name, page in modules.items()
        }
        texts["index.html"] = pdoc.render.html_index(modules)
        texts["search.js"] = pdoc.render.search_index(modules)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


if __name__ == "__main__":
    print("\n".join(map(str, build(OUT))))
