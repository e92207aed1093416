"""Record PyTorch's recurrence: ``python -m tests.recorded.record_torch_recurrent``.

Outputs, last states and gradients of its packed sequences, in float64, read by
`tests/layers/test_recurrent_recorded.py` from ``recurrent_torch.npz``. Needs torch 2.13; the tests
need none.
"""

import pathlib
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).parent / "recurrent_torch.npz"
N, TIME, FEATURES, UNITS = 4, 6, 3, 5
LENGTHS = (6, 1, 4, 4)
KINDS = {"rnn": 1, "lstm": 4, "gru": 3}  # and their blocks of columns


def arrays(kind: str) -> dict[str, np.ndarray]:
    """PyTorch's weights by its names, inputs, first states, and a cotangent of all results."""
    rng, rows = np.random.default_rng(list(KINDS).index(kind)), KINDS[kind] * UNITS
    shapes = {
        "x": (N, TIME, FEATURES),
        "weight_ih_l0": (rows, FEATURES),
        "weight_hh_l0": (rows, UNITS),
        "bias_ih_l0": (rows,),
        "bias_hh_l0": (rows,),
        "h": (N, UNITS),
        "c": (N, UNITS),
        "gy": (N, TIME, UNITS),
        "gh": (N, UNITS),
        "gc": (N, UNITS),
    }
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def record(kind: str, reverse: bool) -> dict[str, Any]:
    """Run one direction of a bidirectional layer, the only place where PyTorch reverses."""
    import torch
    from torch.nn.utils import rnn as pack

    given = {name: torch.from_numpy(a).requires_grad_() for name, a in arrays(kind).items()}
    module = getattr(torch.nn, kind.upper())(FEATURES, UNITS, bidirectional=True, batch_first=True)
    weights = {name: p.detach().double() for name, p in module.named_parameters()}
    way = "_reverse" if reverse else ""
    weights |= {name + way: a for name, a in given.items() if name.startswith(("weight", "bias"))}
    states = [torch.stack([torch.zeros(N, UNITS).double()] * 2) for _ in range(2)]
    for whole, name in zip(states, ("h", "c"), strict=True):
        whole[int(reverse)] = given[name]
    packed = pack.pack_padded_sequence(
        given["x"], torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    first = tuple(states) if kind == "lstm" else states[0]
    y, last = torch.func.functional_call(module.double(), weights, (packed, first))
    y, _ = pack.pad_packed_sequence(y, batch_first=True)
    y = y[..., UNITS:] if reverse else y[..., :UNITS]
    last = [part[int(reverse)] for part in (last if kind == "lstm" else (last,))]
    value = (y * given["gy"]).sum()
    for part, g in zip(last, ("gh", "gc"), strict=False):
        value = value + (part * given[g]).sum()
    value.backward()
    found = {"y": y} | dict(zip(("last_h", "last_c"), last, strict=False))
    found |= {
        f"to_{name}": a.grad for name, a in given.items() if name[0] != "g" and a.grad is not None
    }
    return {f"{kind}{way}_{name}": a.detach().numpy() for name, a in found.items()}


def main() -> None:
    found: dict[str, Any] = {}
    for kind in KINDS:
        for reverse in (False, True):
            found |= record(kind, reverse)
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    main()
