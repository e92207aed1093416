"""Run mypy and pyright over the user's script and the mistakes: ``python -m tests.typed``.

Both must pass on ``script.py`` and find every marked line of ``mistakes.py``, and no other.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MYPY = [sys.executable, "-m", "mypy", "--strict", "--no-incremental"]
PYRIGHT = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]


def lines(checker: list[str], file: Path) -> set[int]:
    """Return the numbers of the lines that a checker reports as errors."""
    done = subprocess.run(
        [*checker, str(file)], capture_output=True, text=True, cwd=HERE.parents[1]
    )
    found = re.findall(rf"{file.name}:(\d+)(?::\d+)?:? .*error", done.stdout)
    if done.returncode and not found:
        sys.exit(f"{checker[2]} failed:\n{done.stdout}{done.stderr}")
    return set(map(int, found))


def main() -> None:
    script, mistakes = HERE / "script.py", HERE / "mistakes.py"
    marked = {
        i for i, line in enumerate(mistakes.read_text().split("\n"), 1) if "# MISTAKE" in line
    }
    for checker in (MYPY, PYRIGHT):
        name = checker[2]
        if wrong := lines(checker, script):
            sys.exit(f"{name} finds errors in {script.name}, lines {sorted(wrong)}")
        if (found := lines(checker, mistakes)) != marked:
            sys.exit(f"{name} finds lines {sorted(found)} of {mistakes.name}, not {sorted(marked)}")
        print(f"{name}: {script.name} passes, all {len(marked)} mistakes found")


main()
