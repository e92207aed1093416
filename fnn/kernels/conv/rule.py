"""The rule by which `fnn.conv` picks its kernel, and the kernel that follows it.

The static facts of a map put it in one of a few cells (`fnn.kernels.conv.cells`), and
``rules.json`` names the fastest kernel of each cell for each platform, as written by
``python -m benchmarks derive`` from measurements. A platform that was not measured uses the
library's kernel throughout, and so do arrays with symbols for sizes (`jax.export`). What `fnn.tune`
measured on this machine goes before the rule. The input gradient has no cells of its own: it goes
by those of the plain convolution that it is (`fnn.kernels.conv.adjoint`), or with a stride is one
product (`fnn.kernels.conv.col2im`), unless its phases are faster as a convolution. All this is of a
form whose axes are merged (`fnn.kernels.conv.axes`).
"""

import functools
import json
import math
import os
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fnn.dtypes import accumulator, widen
from fnn.kernels.conv.adjoint import read, through_output
from fnn.kernels.conv.axes import merging
from fnn.kernels.conv.cells import cell
from fnn.kernels.conv.col2im import applies, turns
from fnn.kernels.conv.fft import FFT
from fnn.kernels.conv.form import INPUT, OUTPUT, WINDOW, Form, Kernel
from fnn.kernels.conv.im2col import IM2COL
from fnn.kernels.conv.library import LIBRARY
from fnn.kernels.conv.taps import TAPS
from fnn.kernels.conv.winograd import WINOGRAD2, WINOGRAD4
from fnn.windows import is_known

MINIMAL = {kernel.name: kernel for kernel in (WINOGRAD2, WINOGRAD4)}
KERNELS = {kernel.name: kernel for kernel in (LIBRARY, IM2COL, TAPS, FFT)} | MINIMAL
# Turns of a strided window's last axes, with which its phases may be filtered minimally.
TURNS = {1: 3, 2: 8}

CHOICES: dict[str, Any] = json.loads(
    (resources.files("fnn.kernels.conv") / "rules.json").read_text()
)


def cache_file() -> Path | None:
    """Where `fnn.tune` remembers: ``fnn/tuned.json`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    None where there is no home directory, as in a container without HOME.
    """
    try:
        folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(folder) / "fnn" / "tuned.json"


@functools.cache
def tuned() -> dict[str, str]:
    """What was tuned on this machine: kernel names by `key`, empty without a readable file."""
    file = cache_file()
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        warnings.warn(f"fnn: {file} is not readable and ignored: {error}", stacklevel=2)
        return {}
    if not isinstance(found, dict):
        said = f"fnn: {file} holds no table of kernels and is ignored: {type(found).__name__}"
        warnings.warn(said, stacklevel=2)
        return {}
    known = {k: name for k, name in found.items() if isinstance(name, str) and name in KERNELS}
    if unknown := {repr(name) for k, name in found.items() if k not in known}:
        said = f"fnn: {file} names no kernel by {', '.join(sorted(unknown))}: ignored"
        warnings.warn(said, stacklevel=2)
    return known


def key(slot: str, form: Form, a: Any, b: Any) -> str:
    """The name of one map over these very shapes, as the cache of `fnn.tune` stores it."""
    win = form.windows
    window = f"{win.size} {win.stride} {win.padding} {win.dilation}"
    arrays = f"{a.dtype}{a.shape}{b.shape} {form.spatial}"
    return f"{form.platform} jax-{jax.__version__} {slot} {arrays} {window} {form.groups}"


def _named(name: str | None, form: Form, dtype: Any) -> Kernel | None:
    """The kernel of this name, unless it refuses the form."""
    kernel = KERNELS[name] if name else None
    return None if kernel is None or kernel.refuses(form, dtype) else kernel


def _choose(slot: str, form: Form, a: Any, b: Any) -> Kernel:
    """The kernel for one map: what was tuned here, else the rule's, else the library's."""
    if not is_known(a, b):
        return LIBRARY
    rule = CHOICES.get(form.platform, {})
    names = (
        tuned().get(key(slot, form, a, b)),
        rule.get(cell(slot, form, len(a), a.shape[-1], b.shape[-1])),
    )
    found = (_named(name, form, a.dtype) for name in names)
    return next((kernel for kernel in found if kernel), LIBRARY)


def prepared(
    kernel: Kernel, form: Form, a: jax.Array, b: jax.Array
) -> tuple[Kernel, jax.Array, jax.Array]:
    """The kernel and the operands as they are faster: on a CPU in float32, but for bfloat16.

    Its products are summed in float32 at up to twice the speed of those of float32, so patches in
    bfloat16 are also faster than minimal filtering, which has to transform in float32.
    """
    if form.platform != "cpu":
        return kernel, a, b
    if a.dtype == jnp.bfloat16 and kernel in (IM2COL, *MINIMAL.values()):
        return IM2COL, a, b
    return kernel, widen(a), widen(b)


def counted(dtype: Any, form: Form) -> Any:
    """The dtype that a map is tuned in: on a CPU float16 is computed, and so tuned, in float32."""
    return accumulator(dtype) if form.platform == "cpu" and dtype == jnp.float16 else dtype


def _counted(form: Form, *arrays: jax.Array) -> list[Any]:
    return [jax.ShapeDtypeStruct(a.shape, counted(a.dtype, form)) for a in arrays]


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    kernel = _choose(OUTPUT, form, *_counted(form, x, w))
    kernel, x, w = prepared(kernel, form, x, w)
    return kernel.output(x, w, form)


def _input(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    like = _counted(form, y, w)
    kernel = _named(tuned().get(key(INPUT, form, *like)), form, like[0].dtype)
    if not kernel and (form.platform not in CHOICES or not is_known(y, w)):
        kernel = LIBRARY
    if not kernel and applies(form, y, w) and not _by_phases(form, y, w):
        kernel = IM2COL
    if not kernel:
        rule = _of_phases(form, y, w)
        kernel = _named(rule, form, like[0].dtype) if rule in MINIMAL else None
        if not kernel:  # minimal filtering need not flip the window
            return through_output(_output)(y, w, form)
    kernel, y, w = prepared(kernel, form, y, w)
    return kernel.input(y, w, form)


def _of_phases(form: Form, y: jax.Array, w: jax.Array) -> str | None:
    """The rule's kernel for the convolution that all phases are, or the only one of no stride."""
    columns = math.prod(form.windows.stride) * w.shape[-2] * form.groups
    plain = read(y, form)[1]
    if 0 in plain.spatial:  # all that the window meets is padding
        return None
    name: str | None = CHOICES[form.platform].get(cell(OUTPUT, plain, len(y), y.shape[-1], columns))
    return name


def _by_phases(form: Form, y: jax.Array, w: jax.Array) -> bool:
    """Whether the phases of a strided window are faster as the convolution that they are.

    They are if enough taps are filtered minimally, or if each group has few channels.
    """
    last, rule = turns(form)[-2:], _of_phases(form, y, w)
    if rule == TAPS.name:
        return y.shape[-1] > form.groups > 1
    return rule == WINOGRAD4.name and math.prod(last) >= TURNS[len(last)]


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    kernel = _choose(WINDOW, form, *_counted(form, x, y))
    kernel, x, y = prepared(kernel, form, x, y)
    return kernel.window(x, y, form)


AUTO = merging(Kernel("auto", _output, _input, _window, symbols="all"))
