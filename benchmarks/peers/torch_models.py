"""PyTorch's models: eager and compiled, channels first and last, with its fused Adam."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.pytorch import DEVICE, window
from benchmarks.peers.trainer import Batch, Trainer
from benchmarks.shapes import RATE, STAGES, Params


class Unit(nn.Sequential):
    def __init__(self, size: int, c_in: int, c_out: int, stride: int = 1):
        conv = nn.Conv2d(c_in, c_out, size, stride, size // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(c_out))


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.one, self.two = Unit(3, c_in, c_out, stride), Unit(3, c_out, c_out)
        self.short = Unit(1, c_in, c_out, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.two(F.relu(self.one(x))) + self.short(x))


def resnet() -> nn.Sequential:
    ins = [64, *(c for c, _ in STAGES)]
    blocks = [Block(i, c, s) for i, (c, s) in zip(ins, STAGES, strict=False)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(Unit(3, 3, 64), nn.ReLU(), *blocks, *pool)


def mlp(inputs: int = 784) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn() -> nn.Sequential:
    convs = [nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)]
    layers = [part for conv in convs for part in (conv, nn.ReLU(), nn.MaxPool2d(2))]
    return nn.Sequential(*layers, nn.Flatten(), *mlp(7 * 7 * 64))


def tensors(task: str, params: Params) -> list[Any]:
    """fnn's parameters in the order and layout of the model's."""

    def dense(p: Params) -> list[Any]:
        return [torch.tensor(p["w"].T), torch.tensor(p["b"])]

    def unit(p: Params) -> list[Any]:
        norm = [torch.tensor(p["norm"][name]) for name in ("scale", "bias")]
        return [window(p["conv"]["w"], False), *norm]

    if task == "resnet":
        blocks = [params[f"block{i}"] for i in range(len(STAGES))]
        units = [u for b in blocks for n in ("one", "two", "short") if n in b for u in unit(b[n])]
        return [*unit(params["stem"]), *units, *dense(params["head"])]
    own = [*dense(params["hidden"]), *dense(params["head"])]
    if task == "cnn":  # its flattened images are channels first
        w = params["hidden"]["w"].reshape(7, 7, 64, 128).transpose(2, 0, 1, 3)
        own[0] = torch.tensor(np.ascontiguousarray(w.reshape(-1, 128).T))
        convs = [params["conv1"], params["conv2"]]
        own = [t for p in convs for t in (window(p["w"], False), torch.tensor(p["b"]))] + own
    return own


def make(task: str, params: Params, *, last: bool = False, compiled: bool = False) -> Trainer:
    model = {"mlp": mlp, "cnn": cnn, "resnet": resnet}[task]()
    order = torch.channels_last if last else torch.contiguous_format
    with torch.no_grad():
        for p, value in zip(model.parameters(), tensors(task, params), strict=True):
            p.copy_(value)
    model.to(DEVICE, memory_format=order)
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y)

    if compiled:
        loss = torch.compile(loss)

    def put(batch: Batch) -> Any:
        x, y = batch
        x = torch.from_numpy(x if task == "mlp" else np.ascontiguousarray(np.moveaxis(x, -1, 1)))
        x = x.to(DEVICE) if task == "mlp" else x.to(DEVICE, memory_format=order)
        return x, torch.from_numpy(y).long().to(DEVICE)

    def step(batch: Any) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(*batch)
        value.backward()
        optimizer.step()
        return value.detach()

    return Trainer(put, step, lambda losses: [float(v) for v in losses])
