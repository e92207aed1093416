"""The reference systems of convolution, each with the numbers that the courses print."""

from typing import Any

import jax
import numpy as np
import pytest

import fnn
from tests.check import close, vjp
from tests.layers.test_conv import normal
from tests.oracles import conv as oracle


def image(rows: Any) -> np.ndarray:
    """One example with one channel."""
    a = np.asarray(rows, np.float32)
    return a.reshape(1, *a.shape, 1)


def window(rows: Any) -> np.ndarray:
    a = np.asarray(rows, np.float32)
    return a.reshape(*a.shape, 1, 1)


def rows(y: jax.Array) -> Any:
    return np.asarray(y)[0, ..., 0].tolist()


Y = [1, 2, 3, 4, 5, 6]
SQUARE = [[1, 2, 1], [3, 4, 0], [2, 6, 1]]
FOUR = [[1, 2, 3, 2], [4, 0, -1, 3], [0, 1, 2, 1], [6, 2, -1, 4]]
NINE = np.arange(9.0).reshape(3, 3)
RAMP = [[0, 1], [2, 3]]
NUMBERS: list[tuple[Any, Any, dict[str, Any], Any]] = [
    (Y, [0.5, 0.5], {}, [1.5, 2.5, 3.5, 4.5, 5.5]),  # A5
    (Y, [0.5, 0.5], {"padding": 1}, [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 3]),
    (Y, [0.5, 0.5], {"stride": 2}, [1.5, 3.5, 5.5]),
    (SQUARE, [[-1, 2], [1, 0]], {}, [[6, 4], [7, 2]]),  # A7
    (FOUR, [[-1, 4], [1, 5]], {"stride": 2}, [[11, 19], [20, 21]]),
    (NINE, RAMP, {}, [[19, 25], [37, 43]]),  # E9
    (NINE, RAMP, {"padding": 1}, [[0, 3, 8, 4], [9, 19, 25, 10], [21, 37, 43, 16], [6, 7, 8, 0]]),
    (NINE, RAMP, {"padding": 1, "stride": (3, 2)}, [[0, 8], [6, 8]]),
    (Y, [1, 1, 1], {"padding": "SAME"}, [3, 6, 9, 12, 15, 11]),
    (Y, [1, 1, 1], {"padding": 1, "padding_mode": "circular"}, [9, 6, 9, 12, 15, 12]),
    (Y, [1, 1, 1], {"padding": 1, "padding_mode": "circular", "stride": 2}, [9, 9, 15]),
    (Y, [1, 1, 1], {"padding": 1, "padding_mode": "reflect"}, [5, 6, 9, 12, 15, 16]),
    (Y, [1, 1, 1], {"padding": 1, "padding_mode": "replicate"}, [4, 6, 9, 12, 15, 17]),
]


@pytest.mark.parametrize(("x", "w", "config", "want"), NUMBERS)
def test_A5_A7_A9_E9_numbers(x: Any, w: Any, config: dict[str, Any], want: Any) -> None:
    """From the convolution, and from its matrix."""
    config = {"padding": "VALID"} | config
    assert rows(fnn.conv(image(x), window(w), **config)) == want
    matrix = np.asarray(fnn.conv_matrix(window(w), np.shape(x), **config))
    assert (matrix @ image(x).ravel()).tolist() == np.ravel(want).tolist()


def test_A5_a_moving_average_is_a_banded_matrix() -> None:
    """F(x) = W x + b; a stride r leaves every r-th row; k taps of 1 / k average k neighbours."""
    half, bands = window([0.5, 0.5]), 0.5 * (np.eye(5, 6) + np.eye(5, 6, 1))
    for stride in (1, 2):
        matrix = fnn.conv_matrix(half, 6, stride=stride, padding="VALID")
        assert np.asarray(matrix).tolist() == bands[::stride].tolist()
    y = fnn.conv(image(Y), half, np.array([2], np.float32), padding="VALID")
    assert rows(y) == (bands @ Y + 2).tolist()
    thirds = fnn.conv(image(Y), window([1 / 3] * 3), padding="VALID")
    close(np.ravel(thirds), np.array([2.0, 3, 4, 5]), length=3)


def test_A7_A11_sizes() -> None:
    """(H - h) / a + 1 by (W - w) / b + 1; p more zeros on each side make H + 2 p of H."""
    x, w = normal((1, 7, 9, 1), (3, 5, 1, 1))
    y = fnn.conv(x, w, stride=(2, 4), padding="VALID")
    assert y.shape[1:-1] == ((7 - 3) // 2 + 1, (9 - 5) // 4 + 1)
    assert fnn.output_size((7, 9), (3, 5), stride=(2, 4)) == y.shape[1:-1]
    assert fnn.conv(image(FOUR), window(RAMP), padding="VALID").shape == (1, 3, 3, 1)
    padded = fnn.conv(image(FOUR), window(RAMP), padding=1)
    assert padded.shape == (1, 5, 5, 1)
    by_hand = fnn.conv(image(np.pad(FOUR, 1)), window(RAMP), padding="VALID")
    assert rows(padded) == rows(by_hand)


@pytest.mark.parametrize("h", [1, 3, 5])
def test_A11_same_padding_of_an_odd_window(h: int) -> None:
    x, w = normal((1, 6, 5, 1), (h, h, 1, 1))
    same = fnn.conv(x, w, padding="SAME")
    assert same.shape == x.shape
    assert np.array_equal(same, fnn.conv(x, w, padding=(h - 1) // 2))


MATRICES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((5, 4, 3), (3, 2, 3, 2), {"stride": (2, 1)}),
    ((4, 5, 4), (2, 3, 2, 6), {"groups": 2, "padding": ((1, 0), (2, 2)), "dilation": (1, 2)}),
    ((4, 4, 2), (3, 3, 2, 2), {"padding_mode": "reflect", "stride": 3}),
    ((3, 2, 4, 1), (2, 2, 3, 1, 2), {"padding_mode": "circular"}),
]


@pytest.mark.parametrize(("x", "w", "config"), MATRICES)
def test_A9_unwinding(x: tuple[int, ...], w: tuple[int, ...], config: dict[str, Any]) -> None:
    """Any convolution is one matrix-vector product."""
    a, b = normal((1, *x), w)
    matrix = np.asarray(fnn.conv_matrix(b, x[:-1], **config))
    want = oracle.conv(a.astype(np.float64), b.astype(np.float64), **config)
    close(matrix @ a.ravel(), want.ravel(), length=b[..., 0].size)


def test_A10_feature_maps() -> None:
    """Summed over the input's maps; not summed, f_in f_out maps; a bias at each place."""
    x, w, untied = normal((2, 5, 4, 3), (3, 2, 3, 2), (5, 4, 2))
    single = lambda i, j: np.asarray(fnn.conv(x[..., i : i + 1], w[..., i : i + 1, j : j + 1]))
    maps = [[single(i, j) for j in range(2)] for i in range(3)]
    summed = np.concatenate([sum(maps[i][j] for i in range(3)) for j in range(2)], -1)
    close(fnn.conv(x, w, untied), summed + untied[None], length=18)
    multiplied = np.concatenate([maps[i][j] for i in range(3) for j in range(2)], -1)
    depthwise = w.reshape(3, 2, 1, 6)  # of channel i the maps 2 i and 2 i + 1
    close(fnn.conv(x, depthwise, groups=3), multiplied, length=6)


def test_A10_a_sum_inside_each_colour() -> None:
    """3 colours of 2 maps lead to 3 colours of 4: each sums over the 2 maps of its own colour."""
    x, w, b = normal((2, 5, 4, 3 * 2), (3, 3, 2, 3 * 4), (5, 4, 3 * 4))
    wide = x.astype(np.float64), w.astype(np.float64)
    want = np.zeros((2, 5, 4, 3, 4))
    for colour in range(3):
        for i in range(2):
            of_map = wide[0][..., [2 * colour + i]]
            taps = wide[1][..., [i], 4 * colour : 4 * colour + 4]
            want[..., colour, :] += oracle.conv(of_map, taps)
    close(fnn.conv(x, w, b, groups=3), want.reshape(2, 5, 4, 12) + b, length=18)


def test_B12_the_true_convolution() -> None:
    """Flipped, it is commutative and linear; `numpy.convolve` is its 1-D case."""
    x, y, w = normal((6,), (6,), (4,))
    full = lambda a, v: np.asarray(fnn.convolve(image(a), window(v), padding=len(v) - 1))[0, :, 0]
    close(full(x, w), np.convolve(x, w), length=4)
    close(full(w, x), np.convolve(x, w), length=4)
    close(full(2 * x - 3 * y, w), 2 * full(x, w) - 3 * full(y, w), length=16)
    a, b = normal((5, 4), (2, 3))
    there = fnn.convolve(image(a), window(b), padding=((1, 1), (2, 2)))
    back = fnn.convolve(image(b), window(a), padding=((4, 4), (3, 3)))
    close(there, back, length=6)


def test_B13_opposite_edges_cancel() -> None:
    """Summed over the image the two edges of a bar cancel, unless a ReLU comes first."""
    bar = np.zeros((5, 6))
    bar[:, 2:4] = 1
    edges = fnn.conv(image(bar), window([[-1.0, 1.0]]), padding="VALID")
    assert np.sum(edges) == 0.0
    assert np.sum(fnn.relu(edges)) == 5.0


def test_B13_two_linear_convolutions_are_one() -> None:
    """Its window sums the products of their taps; a ReLU between them lets no window do."""
    x, w, v = normal((1, 6, 7, 2), (3, 2, 2, 3), (2, 3, 3, 2))
    one = np.zeros((4, 4, 2, 2))
    for i, j in np.ndindex(3, 2):
        for k, m in np.ndindex(2, 3):
            one[i + k, j + m] += w[i, j].astype(np.float64) @ v[k, m]
    layer = lambda x, w: fnn.conv(x, w, padding="VALID")
    close(layer(layer(x, w), v), oracle.conv(x, one, padding="VALID"), length=12 * 18)
    one_sided = lambda x: np.asarray(layer(fnn.relu(layer(x, w)), v))
    assert np.abs(one_sided(x) + one_sided(-x)).max() > 1  # of a linear layer it would be 0


def test_B16_a_convolution_moves_and_pooling_forgets_small_shifts() -> None:
    """Real digits, one row lower: the more pooling takes together, the less it notices."""
    digits = np.pad(fnn.data.digits()[0].x[:50], ((0, 0), (4, 4), (4, 4), (0, 0)))
    (w,) = normal((3, 3, 1, 4))
    here = fnn.conv(digits, w)
    there = fnn.conv(np.roll(digits, 1, 1), w)
    close(there, np.roll(here, 1, 1), length=9)

    def change(size: int) -> float:
        a, b = (np.ravel(fnn.max_pool(y, size, stride=1)) for y in (here, there))
        return float(np.linalg.norm(a - b) / np.linalg.norm(a))

    changes = [change(size) for size in (1, 3, 5)]
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] < changes[0] / 2
    moved = fnn.global_max_pool(there)
    close(moved, fnn.global_max_pool(here), length=9)


def test_C8_the_hard_boundary_of_the_text() -> None:
    x, w = normal((1, 9, 9, 3), (3, 3, 3, 1))
    assert fnn.convolve(x, w, stride=2, padding="VALID").shape == (1, 4, 4, 1)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_C8_one_sided_windows_and_three_boundaries(stride: int) -> None:
    """``y_i = sum_k w_k x_(i - k)`` at the multiples i of the stride, in two dimensions.

    Left of the image x is zero, or periodic, or, at the hard boundary, such i are left out. With
    "VALID" the first window starts at the image's corner: the same where s divides k - 1.
    """
    k = 3
    x, w = normal((1, 9, 8, 2), (k, k, 2, 2))
    ahead, config = ((k - 1, 0), (k - 1, 0)), {"stride": stride}
    at = {}
    for mode, numpy_mode in (("zeros", "constant"), ("circular", "wrap")):
        padded = np.pad(x[0].astype(np.float64), (*ahead, (0, 0)), numpy_mode)
        want = np.zeros((*(len(range(0, n, stride)) for n in (9, 8)), 2))
        for i, j, o in np.ndindex(want.shape):
            for a, b in np.ndindex(k, k):  # the element before by a rows and b columns
                seen = padded[i * stride - a + k - 1, j * stride - b + k - 1]
                want[i, j, o] += seen @ w[a, b, :, o]
        got = np.asarray(fnn.convolve(x, w, padding=ahead, padding_mode=mode, **config))
        close(got[0], want, length=18)
        at[mode] = got
    first = -(-(k - 1) // stride)  # the first multiple of the stride whose window fits
    hard = at["zeros"][:, first:, first:]
    close(hard, at["circular"][:, first:, first:], length=18)
    valid = np.asarray(fnn.convolve(x, w, padding="VALID", **config))
    if (k - 1) % stride == 0:
        close(valid, hard, length=18)
    else:
        assert np.abs(valid[:, : hard.shape[1], : hard.shape[2]] - hard).max() > 0.1


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_C10_backward_by_hand(stride: tuple[int, int]) -> None:
    """Both gradients of a convolution are convolutions, here in NumPy.

    The gradient of its output is first pulled apart, with s - 1 zeros between its elements.
    """
    x, w = normal((2, 6, 9, 3), (3, 2, 3, 4))
    y, pull = vjp(lambda x, w: fnn.conv(x, w, stride=stride, padding="VALID"), x, w)
    (g,) = normal(y.shape, seed=1)
    to_x, to_w = pull(g)
    apart = np.zeros((2, 6 - 3 + 1, 9 - 2 + 1, 4))  # as many as at stride 1
    apart[:, :: stride[0], :: stride[1]] = g
    exchanged = np.swapaxes(w, -1, -2)[::-1, ::-1].astype(np.float64)
    close(to_x, oracle.conv(apart, exchanged, padding=((2, 2), (1, 1))), length=24)
    channels_as_examples = x.transpose(3, 1, 2, 0).astype(np.float64), apart.transpose(1, 2, 0, 3)
    by_hand = oracle.conv(*channels_as_examples, padding="VALID")  # (c_in, *window, c_out)
    close(to_w, by_hand.transpose(1, 2, 0, 3), length=2 * apart[0, ..., 0].size)


def test_E10_from_dense_to_convolution() -> None:
    """H_ij = u + sum_kl W_ijkl X_kl with W_(i, j, i + a, j + b) = V_ab, and V = 0 far off.

    With V~_ab = V_(-a, -b) the flipped definition gives the same.
    """
    sizes = (5, 6)
    weights, x = normal((*sizes, *sizes), (2, *sizes))
    places = list(np.ndindex(*sizes))
    near = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    v, local = np.zeros((3, 3), np.float32), np.zeros_like(weights)
    for a, b in near:
        onto = [(i, j, (i + a) % 5, (j + b) % 6) for i, j in places]
        v[a + 1, b + 1] = np.mean([weights[at] for at in onto])  # the nearest that is invariant
        for at in onto:
            local[at] = v[a + 1, b + 1]
    bias = np.full(30, 0.5, np.float32)
    dense = np.asarray(fnn.dense(x.reshape(2, 30), local.reshape(30, 30).T, bias))
    dense = dense.reshape(2, *sizes, 1)
    torus = {"b": bias[:1], "padding_mode": "circular"}
    close(fnn.conv(x[..., None], v[..., None, None], **torus), dense, length=30)
    flipped = v[::-1, ::-1, None, None]
    close(fnn.convolve(x[..., None], flipped, **torus), dense, length=30)
    inner = fnn.dense(np.roll(x, (1, 2), (1, 2)).reshape(2, 30), local.reshape(30, 30).T, bias)
    inner = np.asarray(inner).reshape(2, *sizes)
    close(inner, np.roll(dense[..., 0], (1, 2), (1, 2)), length=30)
