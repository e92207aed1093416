"""Record a PyTorch CNN and a recurrent net: ``python -m tests.recorded.record_torch_network``.

Needs torch 2.13; the tests read the weights (safetensors) and what the nets gave, and need none.
"""

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from tests.recorded.network import VALUES, WEIGHTS


class Network(nn.Module):
    """Convolution, batch norm, grouped convolution, pooling, a flattened image, a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False),
            nn.PReLU(8),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.GroupNorm(2, 4),
        )
        self.head = nn.Linear(4 * 6 * 4, 5)
        self.words = nn.Embedding(7, 3)
        self.lstm = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(8, 5, batch_first=True)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.head(self.features(x).flatten(1))
        outputs, _ = self.gru(self.lstm(self.words(ids))[0])
        return logits, outputs


def main() -> None:
    torch.manual_seed(0)
    network = Network()
    x, ids = torch.randn(6, 3, 6, 4), torch.randint(0, 7, (2, 9))
    for _ in range(3):  # so that the running statistics are not where they started
        network(x, ids)
    network.eval()
    with torch.no_grad():
        logits, outputs = network(x, ids)
    save_file({k: v.numpy().copy() for k, v in network.state_dict().items()}, WEIGHTS)
    np.savez(VALUES, x=x.permute(0, 2, 3, 1), ids=ids, logits=logits, outputs=outputs)


if __name__ == "__main__":
    main()
