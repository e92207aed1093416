"""Results as text: the tables of one run, a page per results folder, and the READMEs' targets."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from benchmarks import machine, tables, targets
from benchmarks.session import EXTRA, KEPT, LATE, QUICK, RESULTS, SUBJECTS, read
from benchmarks.tables import Record

README = machine.HERE / "README.md"
FRONT = machine.HERE.parent / "README.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def plural(n: int, word: str) -> str:
    return f"{n} {word}" + "s" * (n != 1)


def sections(records: dict[str, Record]) -> Iterator[tuple[str, str]]:
    """Yield title and table of everything that was measured: no table without rows."""
    return ((title, body) for title, body in bodies(records) if body)


def bodies(records: dict[str, Record]) -> Iterator[tuple[str, str]]:
    """As `sections`, with the tables that are empty."""
    if not records.keys().isdisjoint(targets.CHECKS):
        yield "Targets", targets.text(records)
    if record := records.get("training"):
        yield "Training, steps per second", tables.training(record)
        yield "Training, the first step", tables.first_steps(record)
    if record := records.get("conv"):
        yield (
            "Convolution, forward + backward: the layers with targets",
            tables.convolution(record, True),
        )
        yield "Convolution, forward + backward: further layers", tables.convolution(record, False)
        args = (record, "gradient", "jit")
        yield (
            "Every algorithm, forward + backward in jit, ms",
            tables.by_contestant(*args, tables.ms),
        )
        yield (
            "Every algorithm, forward in jit, ms",
            tables.by_contestant(record, "forward", "jit", tables.ms),
        )
        names = [n for n in tables.Rows(record["rows"]).contestants if n not in tables.PYTORCH]
        yield (
            "Compile time and peak temporary memory, forward + backward in jit",
            tables.by_contestant(*args, tables.cost, names),
        )
    if record := records.get("judge"):
        yield "Held-out layers, forward + backward", tables.by_kind(record)
    if record := records.get("half"):
        yield "Convolution in bfloat16, forward + backward", tables.convolution(record, False)
    if record := records.get("pooling"):
        yield "Pooling, forward + backward", tables.pooling(record)
        yield (
            "Pooling, forward in jit, ms",
            tables.by_contestant(record, "forward", "jit", tables.ms),
        )
        yield "A stack of poolings", tables.stacks(record)
    if record := records.get("recurrence"):
        for measure, title in (("gradient", "forward + backward"), ("forward", "forward")):
            yield f"Recurrence, {title}", tables.recurrence(record, measure)
            yield (
                f"Every recurrent layer, {title} in jit, ms",
                tables.by_contestant(record, measure, "jit", tables.ms),
            )
    if record := records.get("optimizers"):
        yield "Optimizer updates", tables.optimizers(record)
    if record := records.get("startup"):
        yield "Start-up", tables.startup(record)
    if record := records.get("scaling"):
        yield "Growth", tables.scaling(record)


def trouble(records: dict[str, Record]) -> str:
    """Return what was wrong, failed or was left out for time: nothing is dropped silently.

    Cases that were not started are counted; the results name each.
    """
    lines = []
    for subject, record in records.items():
        late = Counter(line.partition(LATE)[2] for line in record["skipped"])
        lines += [
            f"- {subject}: {plural(n, 'case')}{LATE[1:]}{limit}"
            for limit, n in late.items()
            if limit
        ]
        lines += [f"- {subject}: {line}" for line in record["skipped"] if LATE not in line]
        for row in record["rows"]:
            if row["status"] in ("wrong", "failed"):
                what = f"error {row['error']:.2g}" if row["status"] == "wrong" else row["note"]
                where = f"{subject}, {row['case']}: {row['contestant']}, {row['measure']}"
                lines.append(f"- {where} in {row['place']}: {row['status']} ({what})")
    return "\n".join(lines)


def of_all(records: dict[str, Record], fact: Callable[[Record], str]) -> str:
    """Return a fact of all subjects, or each that there is with the subjects that it is of."""
    subjects: dict[str, list[str]] = {}
    for subject, record in records.items():
        subjects.setdefault(fact(record), []).append(subject)
    if len(subjects) == 1:
        return next(iter(subjects))
    return "; ".join(f"{what} ({', '.join(names)})" for what, names in subjects.items())


def settings(record: Record) -> str:
    """Return the settings of the environment, as they are written in front of a command."""
    written = f"`{' '.join(f'{k}={v}' for k, v in record['environment'].items())}`"
    return f"{written}, by processor time" if record.get("busy") else written


def versions(record: Record) -> str:
    """Return the versions of Python and of the packages."""
    packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"Python {record['python']}, {packages}"


def latest(records: dict[str, Record]) -> str:
    """Return the date of the last measurement."""
    return max(record["date"] for record in records.values())


def facts(records: dict[str, Record]) -> str:
    """Return one line with device, commit, date, versions and the machine's ceiling."""
    first = next(iter(records.values()))
    products = ", ".join(f"{r['ceiling']['gflops']:.0f}" for r in records.values())
    copies = ", ".join(f"{r['ceiling']['gbytes']:.0f}" for r in records.values())
    threads = plural(first["threads"], "thread")
    commits = of_all(records, lambda record: str(record["commit"]))
    return (
        f"{first['device']}; {threads} for everybody; {latest(records)}; commit "
        f"{commits}; {of_all(records, versions)}. Ceiling measured before each "
        f"of {', '.join(records)}: {products} GFLOP/s of a large float32 matrix product and "
        f"{copies} GB/s of a copy. Settings of every process: {of_all(records, settings)}."
    )


def text(folder: Path, subjects: Collection[str] = (*SUBJECTS, *EXTRA)) -> str:
    """Return the tables of these subjects of a results folder."""
    records = {name: record for name, record in read(folder).items() if name in subjects}
    if not records:
        return f"no results in {folder}"
    parts = [f"{title}\n\n{body}" for title, body in sections(records)]
    missing = trouble(records)
    return "\n\n".join([facts(records), *parts, *([f"Not timed\n\n{missing}"] if missing else [])])


def kept(folder: Path) -> bool:
    """Whether the processes kept the memory that they freed."""
    return folder.name.endswith(KEPT)


def name(folder: Path, records: dict[str, Record]) -> str:
    """Return what was measured, in words."""
    first = next(iter(records.values()))
    what = f"{first['device']}, JAX {first['versions']['jax']}"
    return f"{what}, after `fnn.keep_memory()`" if kept(folder) else what


def markdown(folder: Path) -> str:
    """Return the page of one results folder, figures first."""
    records = read(folder)
    method = "Method, and causes of what falls short: [benchmarks/README.md](../../README.md)."
    parts = [f"# {name(folder, records)}", method, facts(records)]
    parts += [f"![{path.stem}]({path.name})" for path in sorted(folder.glob("*.png"))]
    parts += [f"## {title}\n\n{body}" for title, body in sections(records)]
    if missing := trouble(records):
        parts.append(f"## Not timed\n\n{missing}")
    return "\n\n".join(parts) + "\n"


def across(folders: Sequence[Path], page: Path) -> str:
    """Return every target by results folder, each column's head a link to the folder's page."""
    columns = {}
    for folder in folders:
        there = (folder / "README.md").relative_to(page.parent)
        records = read(folder)
        columns[f"[{name(folder, records)}]({there}), {latest(records)[:10]}"] = records
    return re.sub(r"-{2,}", "--", re.sub(r" {2,}", " ", targets.beside(columns)))


def fill(page: Path, body: str) -> None:
    """Replace what stands between the marks of a page."""
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{rest.split(END)[1]}")


def write(folder: Path) -> str:
    """Draw figures, write every folder's page and the READMEs' targets, and return their paths.

    Of a folder that has no page, as that of ``--quick``, the tables are returned.
    """
    from benchmarks import figures

    folder = folder.resolve()
    records = read(folder)
    if not records:
        return f"no results in {folder}"
    if folder.parent != RESULTS or folder == QUICK:
        return "\n".join([text(folder), "", *map(str, figures.draw(records, folder))])
    every = (f for f in sorted(RESULTS.iterdir()) if f != QUICK)
    found = [f for f in every if any(sections(read(f)))]  # a sweep alone has no table
    folders = sorted(found, key=lambda f: (kept(f), "training" not in read(f)))
    both = {name(f, r): r["conv"] for f in folders if "conv" in (r := read(f)) and not kept(f)}
    drawn = [path for f in folders for path in figures.draw(read(f), f)]
    drawn.append(figures.machines(both, RESULTS / "machines.png"))
    pages = [f / "README.md" for f in folders]
    for page in pages:
        page.write_text(markdown(page.parent))
    fill(README, f"![machines](results/{drawn[-1].name})\n\n{across(folders, README)}")
    whole = [f for f in folders if not kept(f) and "training" in read(f)]
    if whole:
        fill(FRONT, across(whole, FRONT))
    return "\n".join(map(str, (*drawn, *pages, README, FRONT)))
