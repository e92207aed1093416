"""PyTorch: layers, optimizers and models, channels first and channels last, eager and compiled."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.machine import threads
from benchmarks.shapes import Layer, Pool
from benchmarks.timing import Contestant, Program

DEVICE = "cuda" if jax.default_backend() == "gpu" else "cpu"  # where JAX computes
torch.set_num_threads(threads())
torch.backends.cudnn.benchmark = True  # as XLA looks for the fastest algorithm on a GPU
torch.compiler.config.force_disable_caches = True  # a first step compiles, as JAX's does
torch.backends.cudnn.allow_tf32 = False  # as JAX's products of float32 are float32 on a GPU

CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAXES = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def placed(a: Any, axes: Any, to: Any, last: bool) -> torch.Tensor:
    """An array with its axes moved, in this memory order and its own dtype, on the device."""
    a = np.asarray(a)
    moved = np.ascontiguousarray(np.moveaxis(a, axes, to).astype(np.float32))
    order = LAST[a.ndim] if last else torch.contiguous_format
    return torch.from_numpy(moved).to(DEVICE, getattr(torch, a.dtype.name), memory_format=order)


def tensor(a: Any, last: bool = False) -> torch.Tensor:
    """``(n, *spatial, c)`` as ``(n, c, *spatial)``."""
    return placed(a, -1, 1, last)


def array(t: torch.Tensor) -> np.ndarray:
    """``(n, c, *spatial)`` as ``(n, *spatial, c)``."""
    return np.moveaxis(t.detach().float().cpu().numpy(), 1, -1)


def wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def window(w: Any, last: bool) -> torch.Tensor:
    """``(*window, a, b)`` as PyTorch's ``(b, a, *window)``."""
    return placed(w, (-1, -2), (0, 1), last)


def window_back(t: torch.Tensor) -> np.ndarray:
    return np.moveaxis(t.detach().float().cpu().numpy(), (0, 1), (-1, -2))


def layouts(rank: int) -> Sequence[tuple[str, bool]]:
    """PyTorch's memory orders; it has channels last for two and three spatial axes only."""
    return [("PyTorch", False), ("PyTorch channels last", True)][: 1 if rank == 1 else 2]


def programs(
    name: str, call: Callable[..., Any], args: list[torch.Tensor], g: torch.Tensor, back: Any
) -> list[Contestant]:
    """Contestants of ``call(*args)``: forward, and forward + backward along g."""

    def show(outputs: Any) -> Any:
        y, *gradients = outputs if isinstance(outputs, tuple) else (outputs,)
        shown = (array(y), *(b(d) for b, d in zip(back, gradients, strict=False)))
        return shown if gradients else shown[0]

    def forward(units: int) -> Program:
        def run() -> torch.Tensor:
            with torch.no_grad():
                y = call(*args)
            wait()
            return y

        return Program(run, show=show)

    def gradient(units: int) -> Program:
        leaves = [a.detach().requires_grad_() for a in args]

        def run() -> tuple[torch.Tensor, ...]:
            y = call(*leaves)
            gradients = torch.autograd.grad(y, leaves, g)
            wait()
            return (y, *gradients)

        return Program(run, show=show)

    return [
        Contestant(name, "forward", "eager", forward),
        Contestant(name, "gradient", "eager", gradient),
    ]


def convolution(layer: Layer, x: Any, w: Any, g: Any) -> list[Contestant]:
    """Contestants of a convolution layer, one per memory order."""
    rank = len(layer.window)
    same = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
    op = TRANSPOSED[rank] if layer.transposed else CONVS[rank]

    def call(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return op(x, w, dilation=layer.dilation, **same)

    return [
        contestant
        for name, last in layouts(rank)
        for contestant in programs(
            name, call, [tensor(x, last), window(w, last)], tensor(g, last), (array, window_back)
        )
    ]


def pooling(pool: Pool, x: Any, g: Any) -> list[Contestant]:
    """Contestants of a pooling layer; "SAME" is `ceil_mode` where it pads at the end only."""
    rank = len(pool.window)
    op = (MAXES if pool.kind == "max" else AVERAGES)[rank]
    before = {lo for lo, _ in pool.pads}.pop()

    def call(x: torch.Tensor) -> torch.Tensor:
        return op(x, pool.window, pool.stride, before, ceil_mode=pool.padding == "SAME")

    return [
        contestant
        for name, last in layouts(rank)
        for contestant in programs(name, call, [tensor(x, last)], tensor(g, last), (array,))
    ]


def adam(
    values: Sequence[np.ndarray], grads: Sequence[np.ndarray], rate: float, steps: int, seen: int
) -> list[Contestant]:
    """Contestants of one Adam update: PyTorch's default (foreach), and fused."""

    def prepare(units: int, fused: bool) -> Program:
        params = [torch.tensor(v, device=DEVICE, requires_grad=True) for v in values]
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(g, device=DEVICE)
        optimizer = torch.optim.Adam(params, rate, fused=fused, foreach=not fused)
        for _ in range(steps - 1):
            optimizer.step()

        def run() -> Any:
            optimizer.step()
            wait()
            return params

        def show(params: Any) -> list[np.ndarray]:
            pairs = zip(params, values, strict=True)
            return [p.detach().cpu().numpy().ravel()[:seen] - v.ravel()[:seen] for p, v in pairs]

        return Program(run, show=show)

    return [
        Contestant("PyTorch", "step", "eager", functools.partial(prepare, fused=False)),
        Contestant("PyTorch fused", "step", "eager", functools.partial(prepare, fused=True)),
    ]
