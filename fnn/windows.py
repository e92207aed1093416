"""Window arithmetic: stride, padding and dilation, output sizes, receptive fields.

Convolution and pooling slide the same window. Along an axis of size ``i``, a window of ``k`` taps
with dilation ``d`` spans ``(k - 1) d + 1`` elements, and with stride ``s`` and padding ``(lo, hi)``
it stops at ``o = (lo + i + hi - span) // s + 1`` places. Every layer reads its window arguments
here, so that they mean the same, and fail with the same words, everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from fnn.checks import LAST, shown, wrong
from fnn.static import frozen

Ints = int | Sequence[int]
Padding = str | int | Sequence[int | Sequence[int]]
Pads = tuple[tuple[int, int], ...]
LAYER = ("window", "stride", "padding", "dilation")


class Axis(NamedTuple):
    """One spatial axis: its input and output sizes, the taps, stride, dilation and padding."""

    i: int
    o: int
    k: int
    s: int
    d: int
    lo: int
    hi: int

    @property
    def span(self) -> int:
        """Elements from the first to the last tap, both included."""
        return (self.k - 1) * self.d + 1


class Windows(NamedTuple):
    """A window in its explicit form: one entry per spatial axis."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]

    @property
    def span(self) -> tuple[int, ...]:
        """Elements from the first to the last tap, both included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True))

    def output(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Places at which the window stops over an input of these spatial sizes."""
        return tuple(
            jax.core.max_dim((lo + i + hi - e) // s + 1, 0)
            for i, e, s, (lo, hi) in zip(spatial, self.span, self.stride, self.padding, strict=True)
        )

    def axes(self, spatial: Sequence[int]) -> list[Axis]:
        """The axes, over an input of these spatial sizes."""
        size, stride, padding, dilation = self
        each = zip(spatial, self.output(spatial), size, stride, dilation, padding, strict=True)
        return [Axis(*sizes, *pads) for *sizes, pads in each]


def is_known(*arrays: Any) -> bool:
    """Whether all sizes are numbers, none a symbol that stands for any number."""
    return all(isinstance(size, int) for a in arrays for size in a.shape)


def per_axis(function: str, argument: str, value: Any, rank: int, least: int) -> tuple[int, ...]:
    """Read an int, which stands for every axis, or one int per axis; each at least ``least``."""
    value = frozen(value)
    values = (value,) * rank if _is_int(value) else value
    if (
        not isinstance(values, tuple)
        or len(values) != rank
        or not all(_is_int(v) and v >= least for v in values)
    ):
        needed = f"an int >= {least} or a tuple of {rank} such ints, one per spatial axis"
        raise wrong(function, argument, shown(value), needed)
    _check_most(function, argument, value, values)
    return tuple(values)


def same_pads(spatial: Sequence[int], span: Sequence[int], stride: Sequence[int]) -> Pads:
    """Padding that gives ``ceil(i / s)`` outputs, the odd element at the end."""
    pads = []
    for i, e, s in zip(spatial, span, stride, strict=True):
        total = jax.core.max_dim((-(-i // s) - 1) * s + e - i, 0)  # a symbol too
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_most(function: str, argument: str, given: Any, values: tuple[int, ...]) -> None:
    """Raise for what was given if one of its ints is more than a program can count to."""
    if max(values, default=0) > LAST:
        raise wrong(function, argument, shown(given), f"ints of at most {LAST:,}")


def _read_sizes(function: str, spatial: Any) -> tuple[int, ...]:
    sizes = frozen(spatial)
    if not (isinstance(sizes, tuple) and sizes and all(_is_int(i) and i >= 0 for i in sizes)):
        raise wrong(function, "spatial", shown(spatial), "one int >= 0 per spatial axis")
    return sizes


def _explicit_pads(function: str, padding: Any, rank: int) -> Pads:
    values = (padding,) * rank if _is_int(padding) else padding
    if isinstance(values, tuple) and len(values) == rank:
        pairs = [(p, p) if _is_int(p) else p for p in values]
        if all(
            isinstance(p, tuple) and len(p) == 2 and all(_is_int(v) and v >= 0 for v in p)
            for p in pairs
        ):
            _check_most(function, "padding", padding, sum(pairs, ()))
            return tuple((lo, hi) for lo, hi in pairs)
    needed = f'"SAME", "VALID", an int >= 0, {rank} ints, or {rank} pairs (lo, hi) of ints >= 0'
    raise wrong(function, "padding", shown(padding), needed)


def explicit(
    function: str,
    spatial: Sequence[int],
    window: Ints,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
) -> Windows:
    """Read every argument per axis; "SAME" is that of an input of these spatial sizes.

    The padding comes `frozen`.
    """
    rank = len(spatial)
    size = per_axis(function, "window", window, rank, 1)
    strides = per_axis(function, "stride", stride, rank, 1)
    dilations = per_axis(function, "dilation", dilation, rank, 1)
    bare = Windows(size, strides, ((0, 0),) * rank, dilations)
    if padding == "VALID":
        return bare
    if padding == "SAME":
        return bare._replace(padding=same_pads(spatial, bare.span, strides))
    return bare._replace(padding=_explicit_pads(function, padding, rank))


def check_fits(function: str, spatial: Sequence[int], windows: Windows) -> None:
    """Raise for a window that is larger than the padded input."""
    for i, e, (lo, hi) in zip(spatial, windows.span, windows.padding, strict=True):
        if e > lo + i + hi:
            got = f"{windows.size} with dilation {windows.dilation}, a span of {windows.span}"
            needed = f"a span within the padded input {tuple(spatial)} + {windows.padding}"
            raise wrong(function, "window", got, needed)


def resolve(
    function: str,
    spatial: Sequence[int],
    window: Ints,
    stride: Ints = 1,
    padding: Padding = "VALID",
    dilation: Ints = 1,
) -> Windows:
    """Read one layer's window arguments into their explicit form.

    Args:
        function: the public name of the caller, for messages.
        spatial: the spatial sizes of the input.
        window: taps per axis.
        stride, padding, dilation: as the layers take them.

    Returns:
        One int or pair per spatial axis, throughout.

    Raises:
        ValueError: a malformed argument, or a window that is larger than the padded input.

    >>> resolve("max_pool", (7, 8), 2, 2, "SAME").padding
    ((0, 1), (0, 0))
    """
    padding = frozen(padding)
    windows = explicit(function, spatial, window, stride, padding, dilation)
    if padding != "SAME":
        check_fits(function, spatial, windows)
    return windows


def resolve_transposed(
    function: str,
    spatial: Sequence[int],
    window: Ints,
    stride: Ints = 1,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    output_padding: Ints = 0,
) -> tuple[tuple[int, ...], Windows]:
    """Read a transposed layer's arguments: its output sizes, and the layer it is the transpose of.

    With a stride that layer leads from s input sizes to one output size; ``output_padding`` says
    from which, "SAME" means the largest.
    """
    rank, padding = len(spatial), frozen(padding)
    strides = per_axis(function, "stride", stride, rank, 1)
    full = tuple(i * s for i, s in zip(spatial, strides, strict=True))
    windows = explicit(function, full, window, strides, padding, dilation)
    extra = per_axis(function, "output_padding", output_padding, rank, 0)
    if padding == "SAME":
        if any(extra):
            needed = '0 with the padding "SAME", which gives i s outputs'
            raise wrong(function, "output_padding", extra, needed)
        return full, windows
    if any(p >= max(s, d) for p, s, d in zip(extra, strides, windows.dilation, strict=True)):
        needed = f"less than the stride {strides} or the dilation {windows.dilation}"
        raise wrong(function, "output_padding", extra, needed)
    sizes = tuple(
        (i - 1) * s - lo - hi + e + p
        for i, s, (lo, hi), e, p in zip(
            spatial, strides, windows.padding, windows.span, extra, strict=True
        )
    )
    if any(size < 0 for size in sizes):
        free = zip(spatial, strides, windows.span, extra, strict=True)
        if any(i == 0 and s > e + p for i, s, e, p in free):  # less padding would not do
            needed = f"1 or more: an empty axis of x has no transpose with the stride {strides}"
            raise wrong(function, "spatial sizes", tuple(spatial), needed)
        raise wrong(function, "padding", windows.padding, f"less: it leaves the sizes {sizes}")
    return sizes, windows


def output_size(
    spatial: Sequence[int],
    window: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "VALID",
    dilation: Ints = 1,
) -> tuple[int, ...]:
    """Spatial sizes of a convolution's or pooling's output.

    ``o = (lo + i + hi - (k - 1) d - 1) // s + 1`` along each axis.

    Args:
        spatial: input sizes, one int per spatial axis.
        window: taps per axis.
        stride, dilation: as in `fnn.conv`.
        padding: likewise, but by default "VALID", as in `fnn.max_pool`; `fnn.conv` has "SAME".

    Returns:
        One int per spatial axis.

    Raises:
        ValueError: a malformed argument, or a window larger than the padded input.

    Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning (2016).

    >>> output_size((224, 224), 7, stride=2, padding=3)
    (112, 112)
    >>> output_size((8,), 3), output_size((8,), 3, padding="SAME")
    ((6,), (8,))
    """
    sizes = _read_sizes("output_size", spatial)
    return resolve("output_size", sizes, window, stride, padding, dilation).output(sizes)


def transposed_size(
    spatial: Sequence[int],
    window: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "VALID",
    dilation: Ints = 1,
    output_padding: Ints = 0,
) -> tuple[int, ...]:
    """Spatial sizes of a transposed convolution's output.

    ``(i - 1) s - lo - hi + (k - 1) d + 1 + output_padding`` along each axis, ``i s`` for "SAME":
    an input size from which `output_size` with the same arguments leads back to i, where
    output_padding is less than the stride.

    Args:
        spatial: input sizes, one int per spatial axis.
        window: taps per axis.
        stride, dilation, output_padding: as in `fnn.conv_transpose`.
        padding: likewise, but by default "VALID"; `fnn.conv_transpose` has "SAME".

    Returns:
        One int per spatial axis.

    Raises:
        ValueError: a malformed argument, an output_padding with "SAME", padding that leaves less
            than nothing, or an empty axis with a stride that does so.

    Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning (2016).

    >>> transposed_size((7, 7), 4, stride=2, padding=1)
    (14, 14)
    >>> transposed_size((6,), 3), transposed_size((6,), 3, padding="SAME")
    ((8,), (6,))
    """
    sizes = _read_sizes("transposed_size", spatial)
    arguments = (sizes, window, stride, padding, dilation, output_padding)
    return resolve_transposed("transposed_size", *arguments)[0]


class ReceptiveField(NamedTuple):
    """What one unit of a layer sees of the network's input, per axis.

    Attributes:
        size: input elements from the first to the last that can change the unit.
        stride: input elements between two neighbouring units.
        start: position of the first unit's first element; negative inside the padding.
        output: the layer's spatial output sizes.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    start: tuple[int, ...]
    output: tuple[int, ...]


def receptive_field(
    spatial: Sequence[int], layers: Sequence[Mapping[str, Any]]
) -> tuple[ReceptiveField, ...]:
    """Receptive field of every layer of a stack of convolutions and poolings.

    With jump ``j``, the product of the strides before it, a layer adds ``(k - 1) d j`` to the size,
    the taps included that meet nothing but padding, which `conv` leaves out.

    Args:
        spatial: input sizes of the stack, one int per spatial axis.
        layers: the window arguments of each layer, first layer first: dicts with ``window`` and,
            where they differ from the defaults of `output_size`, ``stride``, ``padding``,
            ``dilation``.

    Returns:
        One `ReceptiveField` per layer.

    Raises:
        ValueError: as `output_size`, for each layer.

    Source: A. Araujo, W. Norris, J. Sim, Computing receptive fields of convolutional networks
    (Distill, 2019).

    >>> vgg = [dict(window=3, padding="SAME"), dict(window=3, padding="SAME"),
    ...        dict(window=2, stride=2)]
    >>> [field.size for field in receptive_field((32, 32), vgg)]
    [(3, 3), (5, 5), (6, 6)]
    """
    output = _read_sizes("receptive_field", spatial)
    needed = f"dicts of window and, where they are not the default, {', '.join(LAYER[1:])}"
    if not isinstance(layers, Iterable):
        raise wrong("receptive_field", "layers", shown(layers), needed)
    rank = len(output)
    size, jump, start = (1,) * rank, (1,) * rank, (0,) * rank
    fields = []
    for layer in layers:
        if not isinstance(layer, Mapping) or not {"window"} <= {*layer} <= {*LAYER}:
            raise wrong("receptive_field", "layers", shown(layer), needed)
        win = resolve("receptive_field", output, **layer)
        size = tuple(r + (e - 1) * j for r, e, j in zip(size, win.span, jump, strict=True))
        start = tuple(a - lo * j for a, (lo, _), j in zip(start, win.padding, jump, strict=True))
        jump = tuple(j * s for j, s in zip(jump, win.stride, strict=True))
        output = win.output(output)
        fields.append(ReceptiveField(size, jump, start, output))
    return tuple(fields)
