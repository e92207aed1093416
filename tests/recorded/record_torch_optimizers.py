"""Record what PyTorch's optimizers do on the reference systems, for test_optimizers.py.

    python -m tests.recorded.record_torch_optimizers  # needs torch

Each trajectory is 200 steps in float64, of which every tenth is kept; the file says which PyTorch.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tests.oracles.optimizers import START, gradient

FILE = Path(__file__).parent / "optimizers_torch.npz"
STEPS, KEPT = 200, 10


def record(make: Any) -> np.ndarray:
    import torch

    x = torch.tensor(START, dtype=torch.float64)
    optimizer = make([x])
    rows = []
    for step in range(STEPS):
        if step % KEPT == 0:
            rows.append(x.numpy().copy())
        x.grad = torch.stack(gradient(x))
        optimizer.step()
    return np.stack([*rows, x.numpy().copy()])


def main() -> None:
    import torch

    o = torch.optim
    runs = {
        "sgd": lambda p: o.SGD(p, 1e-3),
        "momentum": lambda p: o.SGD(p, 1e-4, momentum=0.9),
        "nesterov": lambda p: o.SGD(p, 1e-4, momentum=0.9, nesterov=True),
        "l2": lambda p: o.SGD(p, 1e-4, momentum=0.9, weight_decay=0.1),
        "adagrad": lambda p: o.Adagrad(p, 0.1),
        "rmsprop": lambda p: o.RMSprop(p, 1e-2),
        "rmsprop_centered": lambda p: o.RMSprop(p, 1e-2, centered=True),
        "rmsprop_momentum": lambda p: o.RMSprop(p, 1e-3, momentum=0.9),
        "adadelta": lambda p: o.Adadelta(p, 1.0),
        "adam": lambda p: o.Adam(p, 0.1),
        "adamw": lambda p: o.AdamW(p, 0.1),
        "amsgrad": lambda p: o.Adam(p, 0.1, amsgrad=True),
        "adamax": lambda p: o.Adamax(p, 0.1),
        "nadam": lambda p: o.NAdam(p, 0.1),
        "radam": lambda p: o.RAdam(p, 1e-3, eps=1e-3),
    }
    np.savez_compressed(
        FILE, version=torch.__version__, **{name: record(make) for name, make in runs.items()}
    )


if __name__ == "__main__":
    main()
