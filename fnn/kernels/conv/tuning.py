"""`tune`: measure the kernels on this machine, on the convolutions that a function really runs.

A choice is remembered by platform, JAX version, dtype, shapes and geometry, in one small JSON file
in the user's cache folder. `fnn.conv` reads it once per process, and goes by its rule for all that
the file lacks: the file may be deleted at any time.
"""

import functools
import json
import math
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import lazily
from fnn.checks import check_callable
from fnn.dtypes import accumulator
from fnn.kernels.conv.axes import ROLES, merged, shaped
from fnn.kernels.conv.cells import mostly_padding
from fnn.kernels.conv.form import INPUT, WINDOW, Form, Kernel, conv_p
from fnn.kernels.conv.rule import AUTO, KERNELS, cache_file, counted, key, prepared, tuned
from fnn.kernels.conv.taps import FEW, elementwise
from fnn.kernels.conv.taps_planes import few_outputs

ROUNDS = 9
# By what a platform rounds the factors of float32 products, unless told otherwise: TF32, bfloat16.
ROUNDED = {"gpu": 2**-10, "tpu": 2**-8}
HOPELESS = 4.0  # times the fastest: not worth more than one measurement
GAIN = 1.05  # below which two kernels are equally fast, and what is there stays
MEMORY = 2**30  # bytes of temporary memory beyond which a kernel is left out

_remembering = threading.Lock()
Task = tuple[str, Form, jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]


def tune(
    fn: Callable[..., Any], *args: Any, say: Callable[[str], Any] | None = print
) -> dict[str, str]:
    """Measure the kernels for every `fnn.conv` inside ``fn(*args)`` and remember the fastest.

    The function is traced, not run: every convolution found in it is measured alone, and its two
    gradients. Each kernel that may be the fastest is compiled, its output compared with the
    default's, and timed in turn with the others; the fastest is remembered if it gains 5 % on the
    default. Programs compiled afterwards on this machine, in this process and later ones, use the
    choices; those already compiled stay as they are. A map takes about a second.

    Args:
        fn: a function of arrays, for example a model's loss, or `fnn.conv` itself.
        args: its arguments, arrays or `jax.ShapeDtypeStruct` s; only shapes and dtypes are used.
        say: is called with a line of text after each map, and with what all have gained; None for
            silence.

    Returns:
        The name of the new kernel for each map that changed, by the key it is remembered under.

    Raises:
        RuntimeError: a kernel disagrees with the default beyond rounding, or there is no folder to
            remember in, which is tried first; nothing is remembered then.
        TypeError: ``fn`` or ``say`` is no function.

    Source: M. Frigo, S. Johnson, FFTW: an adaptive software architecture for the FFT (1998).

    >>> import os, tempfile
    >>> os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # only for this example
    >>> changes = fnn.tune(fnn.conv, jnp.ones((1, 8, 4)), jnp.ones((3, 4, 4)), say=None)
    >>> set(changes.values()) <= {"lax", "im2col", "taps", "winograd", "fft"}
    True
    """
    say = (lambda line: None) if say is None else say
    check_callable("tune", "fn", fn, "of arrays")
    check_callable("tune", "say", say, "of a line of text, or None")
    file = _writable(cache_file())
    found = Counter(_tasks(jax.make_jaxpr(fn)(*args).jaxpr))
    changes, before, after = dict[str, str](), 0.0, 0.0
    for place, (task, times) in enumerate(found.items(), 1):
        seconds = _seconds(*task)
        now, best = seconds[AUTO.name], min(seconds, key=lambda name: seconds[name])
        said = "as it was"
        if GAIN * seconds[best] <= now:
            changes[key(*task)], said = best, f"{best}, {now / seconds[best]:.2f} times as fast"
            after -= times * (now - seconds[best])
        before, after = before + times * now, after + times * now
        say(f"fnn.tune: {place} of {len(found)}: {task[0]} {task[2].shape} {task[3].shape}: {said}")
    if changes:
        _remember(changes, file)
        gain = f"all together are {before / after:.2f} times as fast"
        say(f"fnn.tune: {len(changes)} of {len(found)} maps changed; {gain}")
    return changes


def _writable(file: Path | None) -> Path:
    """Return the file to remember in, or raise, before anything is measured for nothing."""
    if file is None:
        message = "fnn.tune: no home directory to remember in: set XDG_CACHE_HOME to a folder"
        raise RuntimeError(message)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            return file
    except OSError as error:
        message = f"fnn.tune: cannot remember in {file.parent}: set XDG_CACHE_HOME to a folder"
        raise RuntimeError(message) from error


def _tasks(jaxpr: "lazily.Jaxpr") -> Iterator[Task]:
    """Yield the three maps of every convolution that leaves its kernel to the rule."""
    for equation in jaxpr.eqns:
        if equation.primitive is conv_p and equation.params["kernel"] is AUTO:
            yield from _maps(equation)
    for inner in lazily.subjaxprs(jaxpr):
        yield from _tasks(inner)


def _maps(equation: Any) -> Iterator[Task]:
    slot, form = equation.params["slot"], equation.params["form"]
    form = form._replace(platform=jax.default_backend())
    arrays = [v.aval for v in (*equation.invars, *equation.outvars)]
    floating = jnp.issubdtype(arrays[0].dtype, jnp.floating)
    if not floating or any(0 in a.shape for a in arrays):
        return
    dtype = counted(arrays[0].dtype, form)
    of = {
        role: jax.ShapeDtypeStruct(a.shape, dtype)
        for role, a in zip(ROLES[slot], arrays, strict=True)
    }
    for one, roles in ROLES.items():
        new = merged(form, one)
        a, b = (
            jax.eval_shape(functools.partial(shaped, role, form=form, new=new), of[role])
            for role in roles[:2]
        )
        yield one, new, a, b


def hopeless(name: str, slot: str, form: Form, c_in: int, c_out: int) -> bool:
    """Whether a kernel is not worth racing on such maps of a CPU.

    It takes severalfold the time of the fastest on all of them, or, as `winograd2` over fewer than
    128 channels, no less than another by the tables of `benchmarks/README.md`.
    """
    taps, each = math.prod(form.windows.size), c_in // form.groups
    if form.platform != "cpu":
        return False
    match name:
        case "lax":
            return form.groups > 1
        case "taps":
            if mostly_padding(slot, form, c_in, c_out):
                return False
            if slot == WINDOW:
                return each > (FEW if form.groups > 1 else 1) and taps > 16
            read, made = (c_out, c_in) if slot == INPUT else (c_in, c_out)
            ends = read // form.groups, made // form.groups
            return not (elementwise(form, *ends) or few_outputs(form, *ends))
        case "winograd" | "winograd2":
            return taps == 1 or min(each, c_out // form.groups) < (8 if name == "winograd" else 128)
        case "fft":
            return taps < 25 or max(form.windows.stride) > 1
    return False


def _seconds(slot: str, form: Form, a: Any, b: Any) -> dict[str, float]:
    """The time of what one map takes now, and of every other program; operands standard normal."""
    rng = np.random.default_rng(0)
    operands = jax.device_put([rng.standard_normal(t.shape).astype(t.dtype) for t in (a, b)])
    c_in = b.shape[-2] * form.groups if slot == INPUT else a.shape[-1]
    c_out = a.shape[-1] if slot == INPUT else b.shape[-1]
    products, programs, first = math.prod(a.shape) * math.prod(b.shape), set[str](), None
    runs: dict[str, Callable[[], Any]] = {}
    for name, kernel in ({AUTO.name: AUTO} | KERNELS).items():
        if kernel.refuses(form, a.dtype) or hopeless(name, slot, form, c_in, c_out):
            continue
        lowered = jax.jit(functools.partial(_map, kernel, slot, form)).lower(*operands)
        text = lowered.as_text()
        if text in programs:
            continue
        programs.add(text)
        program = lowered.compile()
        memory: Any = program.memory_analysis()  # None where a platform does not tell
        if memory and memory.temp_size_in_bytes > MEMORY and runs:
            continue
        out = np.asarray(program(*operands), np.float64)
        first = out if first is None else first
        _check_agreement(name, out, first, a.dtype, products, form.platform)
        runs[name] = functools.partial(program, *operands)
    return _race(runs)


def _map(kernel: Kernel, slot: str, form: Form, a: jax.Array, b: jax.Array) -> jax.Array:
    """One map, as `fnn.conv` runs it by this kernel."""
    dtype = a.dtype
    if kernel is not AUTO:  # which does so itself
        kernel, a, b = prepared(kernel, form, a, b)
    out: jax.Array = getattr(kernel, slot)(a, b, form)
    return out.astype(dtype)


def _check_agreement(
    name: str, out: Any, first: Any, dtype: Any, products: int, platform: str
) -> None:
    """Compare with the default's output, within the rounding of a sum of so many products.

    The transforms of minimal filtering enlarge the errors of factors that a platform rounds. Errors
    are held to the largest output; where all are 0, to 1, the order of a single product.
    """
    terms = max(1.0, math.sqrt(products / max(1, out.size)))
    error = np.abs(out - first).max() / max(np.abs(first).max(), 1.0)
    sums = 64 * float(jnp.finfo(accumulator(dtype)).eps) * math.sqrt(terms)
    bound = sums + 2 * float(jnp.finfo(dtype).eps) + 16 * ROUNDED.get(platform, 0.0)
    if not error <= bound:
        differs = f"kernel {name} differs from the default by {error:.2g}, more than {bound:.2g}"
        message = f"fnn.tune: {differs}"
        raise RuntimeError(message)


def _race(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Time the programs in turn and return the least time of each: others' work only adds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        best = min((min(t) for t in times.values() if t), default=math.inf)
        for name, run in runs.items():
            if times[name] and min(times[name]) > HOPELESS * best:
                continue
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
    return {name: min(some) for name, some in times.items()}


def _remember(choices: dict[str, str], file: Path) -> None:
    """Merge into the file, whole or not at all, and let this process read it again."""
    new = file.with_name(f"{file.name}.{uuid.uuid4().hex}")  # machines may share the folder
    with _remembering:
        tuned.cache_clear()
        try:
            new.write_text(json.dumps(tuned() | choices, indent=1, sort_keys=True))
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)
        tuned.cache_clear()
