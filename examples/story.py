"""What the scripts share: their arguments, their tables, and what they promise."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path


def arguments(doc: str, argv: Sequence[str] | None = None, **more: str) -> argparse.Namespace:
    """Read ``--out``, ``--quick`` and ``more`` switches by name, each with its help.

    The help of the whole is the script's own docstring.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the figure")
    parser.add_argument("--quick", action="store_true", help="a short run, as the tests make it")
    for name, text in more.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser.parse_args(argv)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns, numbers with four digits."""
    cells = [list(head), *([_text(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        print("  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)))
    print()


def confirm(doc: str, *holds: object) -> None:
    """Check the lines under "Expected" in a docstring, one condition each, and print them."""
    lines = [line.strip() for line in doc.partition("Expected")[2].strip().splitlines()]
    if len(lines) != len(holds):
        raise SystemExit(f"{len(lines)} lines are expected, {len(holds)} were checked")
    for line, holding in zip(lines, holds, strict=True):
        if not bool(holding):
            raise SystemExit(f"does not hold: {line}")
        print(line)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
