"""The rule by which pooling picks its kernel.

For a maximum or a sum two numbers decide: a window of up to ``most`` taps is pooled at once, a
larger one axis by axis, and one longer than ``longest`` along an axis by the library; a norm goes
as a sum. ``python -m benchmarks derive`` writes the numbers into ``rules.json`` from measurements;
a platform that was not measured goes by those of the CPU.
"""

import json
import math
from collections.abc import Sequence
from importlib import resources

import jax

from fnn.kernels.pool.form import PoolKernel
from fnn.kernels.pool.library import LIBRARY
from fnn.kernels.pool.slices import AT_ONCE, BY_AXES
from fnn.windows import Windows

KERNELS = {kernel.name: kernel for kernel in (AT_ONCE, BY_AXES, LIBRARY)}
LIMITS: dict[str, dict[str, dict[str, int]]] = json.loads(
    (resources.files("fnn.kernels.pool") / "rules.json").read_text()
)


def choice(size: Sequence[int], most: float, longest: float) -> str:
    """Return the name of the kernel for a window of this size."""
    if max(size) > longest:
        return "lax"
    return "at once" if math.prod(size) <= most else "by axes"


def _by_rule(name: str, library: bool) -> PoolKernel:
    """Return the kernel that picks one for each window; ``library`` for whether it may be `lax`."""

    def pick(kind: str, windows: Windows) -> PoolKernel:
        limits = LIMITS.get(jax.default_backend(), LIMITS["cpu"])[kind]
        longest = limits["longest"] if library else math.inf
        return KERNELS[choice(windows.size, limits["most"], longest)]

    return PoolKernel(
        name,
        lambda x, windows: pick("max", windows).max(x, windows),
        lambda x, windows: pick("sum", windows).sum(x, windows),
        lambda x, windows, p: pick("sum", windows).norm(x, windows, p),
    )


AUTO = _by_rule("auto", library=True)
SLICES = _by_rule("slices", library=False)
