"""The cells of the rule: every map belongs to one, by its slot and the static facts of its form.

Within a cell one kernel is the fastest, or nearly: which, `fnn.kernels.conv.rule` says. A cell is
named by its slot and a word for its kind. The limits were found in the sweep of the benchmarks.
"""

import math

import numpy as np

from fnn.kernels.conv.form import OUTPUT, WINDOW, Form
from fnn.kernels.conv.im2col import TIMES
from fnn.kernels.conv.im2col_blocks import BUDGET, blocks
from fnn.kernels.conv.taps import UNROLLED, elementwise
from fnn.kernels.conv.taps_planes import few_outputs
from fnn.kernels.conv.taps_window import APART
from fnn.kernels.conv.views import share_met
from fnn.windows import Windows

NARROW, MIDDLE, WIDE, DEEP = 16, 24, 32, 64  # channels; fewer than 16 do not fill a vector
VECTOR = 4  # outputs of a group; fewer make the sum of many elementwise products slow
TERMS = 64  # elementwise products of a sum
# Channels, and places, that pay for transforming a window for few places; of its gradient, more.
DEEPER, PLACES = 256, {OUTPUT: 64, WINDOW: 128}
FEW = 96  # places; as rows of a product they are few for the large window that it reads
PRODUCTS = 2500  # of a place and a tap of a line, with which minimal filtering may be faster
LONG = 9  # taps of a line; its patches are large, and the library stores none
# The most taps of a line of one input channel whose products are elementwise; into many outputs.
LINE, LINE_OF_MANY = 32, 16
SMALL = 5  # the longest window that may be filtered minimally
LARGE = 20  # outputs along each of the last two axes of a volume
# The most places that tiles may cover for each of the output: by whether dilated; few channels.
RAGGED, EVEN = {False: 1.5, True: 1.6}, 1.25
# One product for each tap is the fastest up to this share of taps that meet no padding; up to less
# of it for the window gradient, over a plane of fewer places than a large one has.
MET, MET_OF_FEW, LARGE_PLANE = 0.6, 0.4, 512
SMALL_PLANE = 256  # places; padded for the transforms of a large window, they are many times more
SIZES = {32: "small", 64: "middle", 128: "large", 256: "larger"}  # depthwise windows, in taps


def cell(slot: str, form: Form, n: int, c_in: int, c_out: int) -> str:
    """The cell of a map over n examples: its slot, and a word for the kind of its form."""
    places, each = n * math.prod(form.out), (c_in // form.groups, c_out // form.groups)
    few = places < max(each)  # the window is the larger array
    if _into_few(slot, form, *each):
        return f"{slot} few outputs"
    if few:
        filtered = _minimal_for_few(slot, form, places, *each)
    else:
        filtered = mostly_padding(slot, form, *each) or _minimal(form, *each)
        if filtered and _at_once(slot, form, n, c_in, c_out):
            filtered = None
    kind = filtered or _products(slot, form, c_in, c_out)
    kind = kind or _kind(form, few and places < FEW, c_in, c_out)
    large = slot == WINDOW and kind == "line" and _large_patches(form, places, c_in, c_out)
    return f"{slot} {kind}{', large patches' if large else ''}"


def mostly_padding(slot: str, form: Form, c_in: int, c_out: int) -> str | None:
    """The kind of a form of many channels whose taps meet much padding, None for all others.

    So it is under a wide dilation. Of a product for each tap, the padding may be left out.
    """
    few = slot == WINDOW and math.prod(form.out) < LARGE_PLANE
    many = form.groups == 1 and min(c_in, c_out) >= DEEP
    unrolled = 1 < math.prod(form.windows.size) <= UNROLLED
    found = many and unrolled and share_met(form) <= (MET_OF_FEW if few else MET)
    return "mostly padding" if found else None


def _into_few(slot: str, form: Form, c_in: int, c_out: int) -> bool:
    """Whether the output is of few channels, so that the terms of all taps come from one product.

    Not on one axis, which has no patches, nor for so many outputs that minimal filtering is faster.
    """
    fast = slot == OUTPUT and len(form.spatial) > 1 and c_out < MIDDLE
    return fast and few_outputs(form, c_in, c_out)


def _large_patches(form: Form, places: int, c_in: int, c_out: int) -> bool:
    """Whether a long line's patches, which the library does not store, are more than one block.

    Not where they are of the cotangent, which has far fewer channels, and not into few channels,
    whose products in the library are slow.
    """
    taps = form.windows.size[0]
    entries = places * taps * c_in
    fast = c_out >= MIDDLE and c_in < TIMES * c_out
    return taps >= LONG and fast and entries * np.dtype(np.float32).itemsize >= BUDGET


def _minimal(form: Form, c_in: int, c_out: int) -> str | None:
    """The kind of a form that minimal filtering may be the fastest for, None for all others.

    The window must be small, without a stride, and lead through many channels, of each group; where
    there are several groups, through more. In a volume it may not be dilated.
    """
    win, ones, least = form.windows, (1,) * len(form.spatial), min(c_in, c_out)
    small = all(1 < k <= SMALL for k in win.size[-2:]) and win.stride == ones
    if not small or (form.groups > 1 and least < WIDE):
        return None
    match len(ones), max(win.dilation) > 1:
        case 1, False if least >= 2 * DEEP:  # on one axis it saves less
            return "line, small window, deep"
        case 1, _ if least >= NARROW and c_in * c_out >= PRODUCTS:
            return "line, small window"
        case 2, False if least >= DEEP:
            return "plane, small window, deep"
        case 2, dilated if least >= WIDE:
            ragged = ", ragged" if _covered(form) > RAGGED[dilated] else ""
            return f"plane, small window{', dilated' if dilated else ''}{ragged}"
        case 2, False if least >= MIDDLE and max(win.size) < SMALL and _covered(form) <= EVEN:
            return "plane, small window, few channels"
        case 3, False if least >= WIDE and min(form.out[-2:]) >= LARGE:
            return "volume, small window, large"
    return None


def _minimal_for_few(slot: str, form: Form, places: int, c_in: int, c_out: int) -> str | None:
    """The same where channels outnumber places, and the window is the larger array.

    It grows severalfold when it is transformed. That costs too much, unless it grows least, with
    four points for up to three taps, and channels and places are many.
    """
    win, ones = form.windows, (1, 1)
    plain = win.stride == win.dilation == ones and form.groups == 1
    grows_least = plain and all(1 < k <= 3 for k in win.size)
    many = min(c_in, c_out) >= DEEPER and places >= PLACES[slot]
    return "plane, small window, few places" if grows_least and many else None


def _at_once(slot: str, form: Form, n: int, c_in: int, c_out: int) -> bool:
    """Whether products of groups, on both cores, are faster than minimal filtering, on one.

    They are, unless its tiles cover little more than the output.
    """
    size = blocks(n, c_in, c_out, form, np.dtype(np.float32).itemsize, slot)
    return size.at_once > 1 and _covered(form) > EVEN


def _covered(form: Form) -> float:
    """The places that the tiles of six points cover, of all phases, for each of the output."""
    steps = [(a.o, (7 - a.k) * a.d) for a in form.axes[-2:]]
    return math.prod(-(-o // step) * step / o for o, step in steps)


def _products(slot: str, form: Form, c_in: int, c_out: int) -> str | None:
    """The kind of a form of several groups or few channels, whose products may be elementwise.

    In several groups, those of the window gradient need whole vectors of outputs, unless the inputs
    of a group are taken one after the other. `TERMS` limits the products of one input; then, or
    with few outputs, those of all inputs together.
    """
    taps, each, outputs = math.prod(form.windows.size), c_in // form.groups, c_out // form.groups
    few = elementwise(form, each, outputs)
    if each == 1:
        return None
    if form.groups == 1:
        return "few products" if few and taps > 1 else None
    apart = slot == WINDOW and each <= APART
    terms = taps * each if apart or outputs < VECTOR else taps
    vectors = outputs <= NARROW <= c_out if apart else outputs % VECTOR == 0
    fast = few and terms <= TERMS and (vectors or slot != WINDOW)
    return "grouped, few channels" if fast else "grouped"


def _kind(form: Form, few: bool, c_in: int, c_out: int) -> str:
    """The kind of any other form: by window, rank, stride, channels and places, in this order."""
    win, rank, least = form.windows, len(form.spatial), min(c_in, c_out)
    taps = math.prod(win.size)
    if form.groups > 1:
        size = next((word for most, word in SIZES.items() if taps <= most), "huge")
        if size in ("larger", "huge") and math.prod(form.out) <= SMALL_PLANE:
            return "depthwise, small plane"
        return f"depthwise, {size} window"
    if taps == 1:
        return "pointwise, narrowing" if c_in >= 4 * c_out else "pointwise"
    if rank == 3:
        return "volume"
    channels = "" if least >= WIDE else ", few channels"
    if c_in == 1 and (rank == 2 or taps <= (LINE if c_out < WIDE else LINE_OF_MANY)):
        return "one input channel"
    if rank == 1 and least < NARROW:
        return "line, narrow"
    if max(win.stride) > 1:
        return f"strided{channels}"
    if rank == 1:
        return "line" if taps >= LONG else f"line{channels}"
    return _plane(win, few, c_in, c_out)


def _plane(win: Windows, few: bool, c_in: int, c_out: int) -> str:
    """The kind of a form of two axes and several input channels, without stride and groups."""
    least = min(c_in, c_out)
    if least < NARROW and max(c_in, c_out) < WIDE:
        return "narrow input and output"
    if least < NARROW:
        return "narrow input" if c_in < c_out else "narrow output"
    if max(win.size) > SMALL:
        return "plane, large window"
    if max(win.dilation) > 1:
        return "plane, dilated"
    return "plane, few places" if few else "plane"
