"""Record PyTorch's convolutions for test_conv.py: ``python -m tests.recorded.record_torch_conv``.

Needs torch 2.13; the tests read ``tests/recorded/conv_torch.npz`` and need none.
"""

import pathlib
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).parent / "conv_torch.npz"

# name: x shape, w shape (both fnn's layout), bias, arguments
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool, dict[str, Any]]] = {
    "transpose_1d": ((2, 5, 4), (16, 3, 4), True, {"stride": 8, "padding": 4}),
    "transpose_2d": ((2, 4, 5, 6), (4, 4, 3, 6), True, {"stride": 2, "padding": 1}),
    "transpose_odd": (
        (1, 3, 4, 4),
        (3, 2, 3, 4),
        False,
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "groups": 2},
    ),
    "transpose_dilated": ((2, 6, 5, 2), (3, 2, 3, 2), False, {"padding": 1, "dilation": (2, 3)}),
    "transpose_depthwise": ((1, 5, 5, 3), (3, 3, 1, 3), True, {"stride": 2, "groups": 3}),
    "transpose_3d": (
        (1, 2, 3, 2, 4),
        (3, 2, 3, 2, 4),
        True,
        {"stride": (2, 1, 2), "padding": (1, 0, 1), "output_padding": (1, 0, 0)},
    ),
    "conv_strided": ((2, 8, 9, 4), (3, 5, 2, 6), True, {"stride": 2, "padding": 2, "groups": 2}),
    "conv_circular": ((2, 6, 5, 3), (3, 4, 3, 2), True, {"padding": 2, "padding_mode": "circular"}),
    "conv_reflect": ((2, 6, 5, 3), (3, 4, 3, 2), True, {"padding": 2, "padding_mode": "reflect"}),
    "conv_replicate": ((1, 6, 3), (4, 3, 2), True, {"padding": 3, "padding_mode": "replicate"}),
}


def arrays(name: str) -> list[np.ndarray]:
    """x, w and, where the case has one, b."""
    x, w, bias, config = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    channels = w[-2] * config.get("groups", 1) if name.startswith("transpose") else w[-1]
    shapes = [x, w, (channels,)] if bias else [x, w]
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def main() -> None:
    import torch
    from torch.nn import functional as F

    results = {}
    for name, (_, w_shape, _, config) in CASES.items():
        rank = len(w_shape) - 2
        x, w, *b = (torch.from_numpy(a).double() for a in arrays(name))
        x, w = x.movedim(-1, 1), w.movedim((-1, -2), (0, 1))  # channels first, (c_out, c_in, ...)
        rest = dict(config) | {"padding": config.get("padding", 0)}
        mode = rest.pop("padding_mode", None)
        if mode:
            x, rest["padding"] = F.pad(x, [rest["padding"]] * (2 * rank), mode), 0
        kind = "conv_transpose" if name.startswith("transpose") else "conv"
        y = getattr(F, f"{kind}{rank}d")(x, w, *b, **rest)
        results[name] = y.movedim(1, -1).numpy()
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **results)


if __name__ == "__main__":
    main()
