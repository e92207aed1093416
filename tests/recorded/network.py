"""Where the recorded PyTorch network is."""

from pathlib import Path

WEIGHTS = Path(__file__).with_name("network_torch.safetensors")
VALUES = Path(__file__).with_name("network_torch.npz")
