"""`tune`: measure every kernel on this machine, on the convolutions that a function really runs.

A choice is remembered by platform, JAX version, dtype, shapes and geometry, in one small JSON file
in the user's cache folder. `fnn.conv` reads it once per process, and goes by its rule for all that
the file lacks: the file may be deleted at any time.
"""

import functools
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, subjaxprs

from fnn.dtypes import accumulator
from fnn.kernels.conv.form import INPUT, OUTPUT, WINDOW, Form, Kernel, conv_p
from fnn.kernels.conv.rule import AUTO, KERNELS, cache_file, key, tuned

ROUNDS = 7
HOPELESS = 4.0  # times the fastest: not worth more than one measurement
MEMORY = 2**30  # bytes of temporary memory beyond which a kernel is left out

Task = tuple[str, Form, jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]


def tune(fn: Callable[..., Any], *args: Any) -> dict[str, str]:
    """Measure the kernels for every `fnn.conv` inside ``fn(*args)`` and remember the fastest.

    The function is traced, not run: every convolution found in it is measured alone, and its two
    gradients. Each kernel that can do it is compiled, its output compared with the library's, and
    timed in turn with the others; the least median wins. Programs compiled afterwards on this
    machine, in this process and later ones, use the choices; those already compiled stay as they
    are.

    Args:
        fn: a function of arrays, for example a model's loss, or `fnn.conv` itself.
        args: its arguments, arrays or `jax.ShapeDtypeStruct` s; only shapes and dtypes are used.

    Returns:
        The name of the chosen kernel for each distinct map, by the key it is remembered under.

    Raises:
        RuntimeError: a kernel disagrees with the library's beyond rounding, or there is no folder
            to remember in; nothing is remembered then.

    Source: M. Frigo, S. Johnson, FFTW: an adaptive software architecture for the FFT (1998).

    >>> import os, tempfile
    >>> os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # only for this example
    >>> choices = fnn.tune(fnn.conv, jnp.ones((1, 8, 4)), jnp.ones((3, 4, 4)))
    >>> sorted({name.split()[2] for name in choices})
    ['input', 'output', 'window']
    """
    file = cache_file()
    if file is None:
        message = "fnn.tune: no home directory to remember in: set XDG_CACHE_HOME to a folder"
        raise RuntimeError(message)
    found = dict.fromkeys(_tasks(jax.make_jaxpr(fn)(*args).jaxpr))
    choices = {key(*task): _fastest(*task) for task in found}
    if choices:
        _remember(choices, file)
    return choices


def _tasks(jaxpr: Jaxpr) -> Iterator[Task]:
    """Yield the three maps of every convolution that leaves its kernel to the rule."""
    for equation in jaxpr.eqns:
        if equation.primitive is conv_p and equation.params["kernel"] is AUTO:
            yield from _maps(equation)
    for inner in subjaxprs(jaxpr):
        yield from _tasks(inner)


def _maps(equation: Any) -> Iterator[Task]:
    slot, form = equation.params["slot"], equation.params["form"]
    form = form._replace(platform=jax.default_backend())
    a, b, c = (v.aval for v in (*equation.invars, *equation.outvars))
    x, w, y = {OUTPUT: (a, b, c), INPUT: (c, b, a), WINDOW: (a, c, b)}[slot]
    if 0 in (*x.shape, *w.shape, *y.shape) or not jnp.issubdtype(x.dtype, jnp.floating):
        return
    dtype = accumulator(x.dtype) if form.platform == "cpu" else x.dtype
    x, w, y = (jax.ShapeDtypeStruct(t.shape, dtype) for t in (x, w, y))
    yield from ((OUTPUT, form, x, w), (INPUT, form, y, w), (WINDOW, form, x, y))


def _fastest(slot: str, form: Form, a: Any, b: Any) -> str:
    """The name of the fastest kernel of one map; operands are standard normal."""
    rng = np.random.default_rng(0)
    operands = [jnp.asarray(rng.standard_normal(t.shape), t.dtype) for t in (a, b)]
    runs: dict[str, Callable[[], Any]] = {}
    reference = None
    for name, kernel in KERNELS.items():
        if kernel.refuses(form, a.dtype):
            continue
        program = jax.jit(functools.partial(_map, kernel, slot, form)).lower(*operands).compile()
        memory: Any = program.memory_analysis()  # None where a platform does not tell
        if memory and memory.temp_size_in_bytes > MEMORY and reference is not None:
            continue
        out = np.asarray(program(*operands), np.float64)
        reference = out if reference is None else reference
        _check_agreement(name, out, reference, a.dtype, math.prod(a.shape) * math.prod(b.shape))
        runs[name] = functools.partial(program, *operands)
    return _race(runs)


def _map(kernel: Kernel, slot: str, form: Form, a: jax.Array, b: jax.Array) -> jax.Array:
    out: jax.Array = getattr(kernel, slot)(a, b, form)
    return out


def _check_agreement(name: str, out: Any, reference: Any, dtype: Any, products: int) -> None:
    """Compare with the largest output, within the rounding of a sum of so many products.

    A single product is of the order of 1: where all outputs are 0, that is what errors are held to.
    """
    terms = max(1.0, math.sqrt(products / max(1, out.size)))
    error = np.abs(out - reference).max() / max(np.abs(reference).max(), 1.0)
    bound = 64 * float(jnp.finfo(dtype).eps) * math.sqrt(terms)
    if not error <= bound:
        message = f"fnn.tune: kernel {name} differs from lax by {error:.2g}, more than {bound:.2g}"
        raise RuntimeError(message)


def _race(runs: dict[str, Callable[[], Any]]) -> str:
    """Time the programs in turn and return the name of the one with the least median."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        best = min((min(t) for t in times.values() if t), default=math.inf)
        for name, run in runs.items():
            if times[name] and min(times[name]) > HOPELESS * best:
                continue
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
    return min(times, key=lambda name: statistics.median(times[name]))


def _remember(choices: dict[str, str], file: Path) -> None:
    """Merge into the file, whole or not at all, and let this process read it again."""
    tuned.cache_clear()
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tuned() | choices, indent=1, sort_keys=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as new:
        new.write(text)
    os.replace(new.name, file)
    tuned.cache_clear()
