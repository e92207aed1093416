"""Every algorithm of convolution with its examples on eight devices; `test_devices.py` runs this.

The axis is automatic, so that the compiler partitions the program; blocks are so small that every
loop over them takes several turns on each device.
"""

from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from fnn.kernels.conv import im2col_blocks, taps_planes, taps_window, tiling
from tests.devices import collectives, error, strict

X, W = (16, 12, 4), (3, 4, 4)
CASES: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "conv_lax": (fnn.conv_lax, {"groups": 2}, (3, 2, 4)),
    "conv_taps": (fnn.conv_taps, {}, W),
    "conv_taps, few outputs": (fnn.conv_taps, {}, (2, 4, 1)),
    "conv_taps, groups": (fnn.conv_taps, {"groups": 2}, (3, 2, 4)),
    "conv_im2col, folded": (fnn.conv_im2col, {}, W),
    "conv_im2col, strided": (fnn.conv_im2col, {"stride": 2, "groups": 2}, (3, 2, 4)),
    "conv_im2col, few outputs": (fnn.conv_im2col, {}, (2, 4, 1)),
    "conv_winograd": (fnn.conv_winograd, {}, W),
    "conv_winograd, few outputs": (fnn.conv_winograd, {}, (2, 4, 1)),
    "conv_winograd2, groups": (fnn.conv_winograd2, {"groups": 2}, (3, 2, 4)),
    "conv_fft": (fnn.conv_fft, {"stride": 2}, W),
}


def run(fn: Any, x: Any, w: Any) -> Any:
    y, pull = jax.vjp(fn, x, w)
    return y, pull(y)


def main() -> None:
    im2col_blocks.BUDGET = taps_planes.BUDGET = taps_window.BUDGET = tiling.SHARE = 2**9
    tiling.BLOCK = dict.fromkeys(tiling.BLOCK, 2**9)
    tiling.WORTH = 0
    rng = np.random.default_rng(0)
    mesh = jax.make_mesh((2, 4), ("model", "data"), axis_types=(AxisType.Auto,) * 2)
    for place, (name, (fn, config, window)) in enumerate(CASES.items()):
        axes = ("data", ("data", "model"))[place % 2]
        x, w = (rng.standard_normal(s).astype(np.float32) for s in (X, window))
        program = jax.jit(partial(run, partial(fn, **config)))
        by_example, whole = NamedSharding(mesh, P(axes)), NamedSharding(mesh, P())
        placed = jax.device_put(x, by_example), jax.device_put(w, whole)
        compiled = program.lower(*placed).compile()
        assert collectives(compiled.as_text()) == ["all-reduce"], (name, axes)
        y, gradients = compiled(*placed)
        for result in (y, gradients[0]):
            assert result.sharding.is_equivalent_to(by_example, result.ndim), (name, axes)
        print(f"{name}: {error((y, gradients), program(x, w)):.1e}", flush=True)


if __name__ == "__main__":
    strict()
    main()
