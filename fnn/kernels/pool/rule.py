"""The rule by which pooling picks its kernel.

For a maximum or a sum two numbers decide: a window of up to ``most`` taps is pooled at once, a
larger one axis by axis, and one longer than ``longest`` along an axis by the library.
``python -m benchmarks derive`` writes them into ``rules.json`` from measurements; a platform that
was not measured goes by those of the CPU.
"""

import math
from collections.abc import Sequence

import jax

from fnn.kernels.conv.rule import POOLING
from fnn.kernels.pool.form import PoolKernel
from fnn.kernels.pool.library import LIBRARY
from fnn.kernels.pool.slices import AT_ONCE, BY_AXES
from fnn.windows import Windows

KERNELS = {"at once": AT_ONCE, "by axes": BY_AXES, "lax": LIBRARY}


def choice(size: Sequence[int], most: float, longest: float) -> str:
    """The name of the kernel for a window of this size."""
    if max(size) > longest:
        return "lax"
    return "at once" if math.prod(size) <= most else "by axes"


def _pick(kind: str, w: Windows, slices: bool = False) -> PoolKernel:
    limits = POOLING.get(jax.default_backend(), POOLING["cpu"])[kind]
    return KERNELS[choice(w.size, limits["most"], math.inf if slices else limits["longest"])]


CHOSEN = PoolKernel(
    lambda x, w: _pick("max", w).max(x, w),
    lambda x, w: _pick("sum", w).sum(x, w),
)
SLICES = PoolKernel(
    lambda x, w: _pick("max", w, slices=True).max(x, w),
    lambda x, w: _pick("sum", w, slices=True).sum(x, w),
)
