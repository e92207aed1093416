"""The shapes of the measured layers and models, those of known networks; free of fnn."""

from collections.abc import Callable
from typing import Any, NamedTuple

Params = dict[str, Any]  # of the models that are trained, nested by layer
Stages = tuple[tuple[int, int], ...]  # channels and stride of every block of a ResNet
Inner = Callable[[Any, Params, int], Any]  # what a block adds, of its input, itself and its stride
RATE = 1e-3  # at which they are trained
INPUTS = {"mlp": (784,), "cnn": (28, 28, 1), "resnet": (32, 32, 3)}  # of one example
STAGES = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))  # ResNet-18
DEEP_STAGES = tuple(  # ResNet-50, whose blocks end in four times as many channels
    (c, 2 if first and c > 64 else 1)
    for c, blocks in ((64, 3), (128, 4), (256, 6), (512, 3))
    for first in (True, *(False,) * (blocks - 1))
)


class Layer(NamedTuple):
    """One convolution layer: ``n`` examples, ``inputs -> outputs`` channels.

    Attributes:
        name: as the tables show it.
        network: where it comes from.
        padding: per side, the same on both, as PyTorch can express it.
        transposed: whether it is the transposed convolution of these arguments.
    """

    name: str
    network: str
    n: int
    spatial: tuple[int, ...]
    inputs: int
    outputs: int
    window: tuple[int, ...]
    stride: int = 1
    padding: tuple[int, ...] = (1, 1)
    dilation: int = 1
    groups: int = 1
    transposed: bool = False

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        return tuple((p, p) for p in self.padding)

    @property
    def strides(self) -> tuple[int, ...]:
        return (self.stride,) * len(self.window)

    @property
    def dilations(self) -> tuple[int, ...]:
        return (self.dilation,) * len(self.window)

    @property
    def out(self) -> tuple[int, ...]:
        """Spatial output sizes."""
        sizes = zip(self.spatial, self.window, self.padding, strict=True)
        if self.transposed:
            return tuple((i - 1) * self.stride + k - 2 * p for i, k, p in sizes)
        return tuple(
            (i + 2 * p - (k - 1) * self.dilation - 1) // self.stride + 1 for i, k, p in sizes
        )


RESNET, VGG, MOBILE, NEXT = "ResNet-50", "VGG-16", "MobileNet", "ConvNeXt"
AUDIO, VIDEO = "audio net", "video net"

# The thirteen layers whose targets are fixed: forward + backward, in jit and inside scan.
TARGETS = [
    Layer("3x3", RESNET, 8, (56, 56), 64, 64, (3, 3)),
    Layer("3x3 stride 2", RESNET, 8, (56, 56), 64, 128, (3, 3), stride=2),
    Layer("7x7 stride 2", RESNET, 4, (224, 224), 3, 64, (7, 7), stride=2, padding=(3, 3)),
    Layer("depthwise 3x3", MOBILE, 8, (56, 56), 128, 128, (3, 3), groups=128),
    Layer("grouped (32) 3x3", "ResNeXt-50", 8, (28, 28), 256, 256, (3, 3), groups=32),
    Layer("dilated (2) 3x3", "DeepLab", 8, (28, 28), 128, 128, (3, 3), padding=(2, 2), dilation=2),
    Layer("16x16 stride 16", "ViT-S", 8, (224, 224), 3, 384, (16, 16), stride=16, padding=(0, 0)),
    Layer(
        "depthwise 31x31", "RepLKNet", 4, (28, 28), 64, 64, (31, 31), padding=(15, 15), groups=64
    ),
    Layer("1-D k9", AUDIO, 16, (1000,), 64, 64, (9,), padding=(4,)),
    Layer("3-D 3x3x3", VIDEO, 2, (16, 28, 28), 32, 32, (3, 3, 3), padding=(1, 1, 1)),
    Layer("1x1", RESNET, 8, (56, 56), 64, 256, (1, 1), padding=(0, 0)),
    Layer("transposed 4x4 stride 2", "DCGAN", 8, (28, 28), 64, 64, (4, 4), 2, transposed=True),
    Layer(
        "transposed 1-D k16 stride 8", AUDIO, 8, (500,), 128, 64, (16,), 8, (4,), transposed=True
    ),
]

# Further layers: no target names them.
OTHERS = [
    Layer("3x3 deep", RESNET, 8, (14, 14), 256, 256, (3, 3)),
    Layer("1x1 narrowing", RESNET, 8, (28, 28), 512, 128, (1, 1), padding=(0, 0)),
    Layer("1x1 stride 2", RESNET, 8, (56, 56), 256, 512, (1, 1), stride=2, padding=(0, 0)),
    Layer("3x3 from colours", VGG, 1, (224, 224), 3, 64, (3, 3)),
    Layer("3x3 large", VGG, 1, (112, 112), 64, 128, (3, 3)),
    Layer("3x3 last", VGG, 2, (14, 14), 512, 512, (3, 3)),
    Layer("depthwise 3x3 stride 2", MOBILE, 2, (112, 112), 64, 64, (3, 3), stride=2, groups=64),
    Layer("depthwise 3x3 deep", MOBILE, 4, (14, 14), 512, 512, (3, 3), groups=512),
    Layer("depthwise 3x3 large", MOBILE, 8, (112, 112), 96, 96, (3, 3), stride=2, groups=96),
    Layer("grouped (32) 3x3 deep", "ResNeXt-50", 8, (14, 14), 512, 512, (3, 3), groups=32),
    Layer("1x1 pointwise", MOBILE, 8, (14, 14), 512, 512, (1, 1), padding=(0, 0)),
    Layer("4x4 stride 4", NEXT, 4, (224, 224), 3, 96, (4, 4), stride=4, padding=(0, 0)),
    Layer("depthwise 7x7", NEXT, 2, (28, 28), 192, 192, (7, 7), padding=(3, 3), groups=192),
    Layer("1-D k10 stride 5 stem", AUDIO, 2, (8000,), 1, 256, (10,), stride=5, padding=(0,)),
    Layer("1-D k3 dilated (8)", AUDIO, 4, (2000,), 64, 64, (3,), padding=(8,), dilation=8),
    Layer("3-D 3x1x1", VIDEO, 2, (8, 28, 28), 144, 64, (3, 1, 1), padding=(1, 0, 0)),
    Layer("3-D 3x7x7 stem", VIDEO, 1, (8, 56, 56), 3, 64, (3, 7, 7), 2, padding=(1, 3, 3)),
    Layer("first layer", "small CNN", 128, (28, 28), 1, 32, (3, 3)),
    Layer("second layer", "small CNN", 128, (14, 14), 32, 64, (3, 3)),
]
LAYERS = TARGETS + OTHERS


class Pool(NamedTuple):
    """One pooling layer over ``(n, *spatial, channels)``; padding "SAME" or "VALID"."""

    name: str
    kind: str
    n: int
    spatial: tuple[int, ...]
    channels: int
    window: tuple[int, ...]
    stride: int
    padding: str = "VALID"

    @property
    def out(self) -> tuple[int, ...]:
        """Spatial output sizes."""
        if self.padding == "SAME":
            return tuple(-(-i // self.stride) for i in self.spatial)
        return tuple(
            (i - k) // self.stride + 1 for i, k in zip(self.spatial, self.window, strict=True)
        )

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """Padding per axis; with SAME the odd element at the end."""
        pairs = []
        for i, o, k in zip(self.spatial, self.out, self.window, strict=True):
            total = max(0, (o - 1) * self.stride + k - i) if self.padding == "SAME" else 0
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)


POOLS = [
    Pool("max 2x2", "max", 64, (56, 56), 64, (2, 2), 2),
    Pool("max 3x3 stride 2", "max", 64, (56, 56), 64, (3, 3), 2, "SAME"),
    Pool("average 2x2", "avg", 64, (56, 56), 64, (2, 2), 2),
    Pool("max 3x3 stride 1", "max", 16, (28, 28), 192, (3, 3), 1, "SAME"),
    Pool("average 3x3 stride 2", "avg", 16, (28, 28), 192, (3, 3), 2),
    Pool("small CNN's first", "max", 128, (28, 28), 32, (2, 2), 2),
    Pool("1-D max 4", "max", 32, (4000,), 64, (4,), 4),
    Pool("3-D max 2x2x2", "max", 4, (16, 56, 56), 32, (2, 2, 2), 2),
]
