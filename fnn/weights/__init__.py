"""Weights: parameters and runs in files. The names of this room are used as ``fnn.weights.<name>``.

Imports the ground only. Read structure (a pytree as arrays by path), checkpoint, torch.
"""

from fnn.weights.checkpoint import latest as latest
from fnn.weights.torch import from_torch as from_torch
from fnn.weights.torch import to_torch as to_torch
