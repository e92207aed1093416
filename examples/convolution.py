"""One operation, every number of the texts: convolution as sums, as a matrix, as equivariance.

Systems   A5 A7 A8 A9 A11 B12 B13 E9 E10
Command   python examples/convolution.py
Time      15 s on 2 cores
Expected
    The moving average of 1..6 is 3/2, 5/2, 7/2, 9/2, 11/2; with the ends 1/2 and 3; stride 2 skips.
    The 2-D examples of the texts come out to the digit, with and without padding and strides.
    A convolution is a banded matrix times the image; 4x4 under 2x2 gives 3x3 or, padded, 5x5.
    A shifted image gives the shifted result, by every algorithm.
    The textbooks' convolution is commutative and linear; ours is it with the window flipped.
    Two linear convolutions are one; opposite edges cancel unless a ReLU stands between.
    A dense layer over an image that is equal everywhere and local is exactly a convolution.
"""

import jax.numpy as jnp
import numpy as np
from plots import figure, label, save
from story import arguments, confirm, table

import fnn

ALGORITHMS = (
    *(fnn.conv_lax, fnn.conv_im2col, fnn.conv_taps),
    *(fnn.conv_winograd, fnn.conv_winograd2, fnn.conv_fft),
)


def line(y, w, conv=fnn.conv, **options):
    """A convolution of one signal, as the texts write it: no padding unless asked for."""
    x, k = jnp.asarray(y, float).reshape(1, -1, 1), jnp.asarray(w, float).reshape(-1, 1, 1)
    return np.asarray(conv(x, k, **{"padding": "VALID", **options})).ravel()


def plane(y, w, conv=fnn.conv, **options):
    y, w = jnp.asarray(y, float), jnp.asarray(w, float)
    out = conv(y[None, :, :, None], w[:, :, None, None], **{"padding": "VALID", **options})
    return np.asarray(out)[0, :, :, 0]


def same(a, b):
    return np.allclose(a, np.asarray(b, float), atol=1e-5)


def shift(x, rows, columns):
    return jnp.roll(x, (rows, columns), (1, 2))


def worst_shift(conv, x, w):
    """How far conv(shift(x)) is from shift(conv(x)), where nothing wraps around."""
    image = jnp.pad(x, ((0, 0), (8, 8), (8, 8), (0, 0)))
    gap = conv(shift(image, 3, -2), w) - shift(conv(image, w), 3, -2)
    return float(jnp.abs(gap).max())


def main(argv=None):
    args = arguments(__doc__, argv)
    rng = np.random.default_rng(0)

    average = np.array([0.5, 0.5])
    signals = {
        "inside": line(range(1, 7), average),
        "full": line(range(1, 7), average, padding=1),
        "stride 2": line(range(1, 7), average, stride=2),
    }
    table(["moving average of 1..6", "values"], [(k, v.tolist()) for k, v in signals.items()])
    moving = (
        same(signals["inside"], [1.5, 2.5, 3.5, 4.5, 5.5])
        and same(signals["full"], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 3])
        and same(signals["stride 2"], [1.5, 3.5, 5.5])
    )

    small, corner = [[1, 2, 1], [3, 4, 0], [2, 6, 1]], [[-1, 2], [1, 0]]
    wide, kernel = [[1, 2, 3, 2], [4, 0, -1, 3], [0, 1, 2, 1], [6, 2, -1, 4]], [[-1, 4], [1, 5]]
    nine, ramp = np.arange(9).reshape(3, 3), [[0, 1], [2, 3]]
    digits = (
        same(plane(small, corner), [[6, 4], [7, 2]])
        and same(plane(wide, kernel, stride=2), [[11, 19], [20, 21]])
        and same(plane(nine, ramp), [[19, 25], [37, 43]])
        and same(
            plane(nine, ramp, padding=1),
            [[0, 3, 8, 4], [9, 19, 25, 10], [21, 37, 43, 16], [6, 7, 8, 0]],
        )
        and same(plane(nine, ramp, padding=1, stride=(3, 2)), [[0, 8], [6, 8]])
    )

    w = jnp.asarray(rng.standard_normal((2, 2, 2, 3)), float)
    x = jnp.asarray(rng.standard_normal((1, 4, 4, 2)), float)
    as_matrix = [
        (p, fnn.conv(x, w, padding=p), fnn.conv_matrix(w, 4, padding=p)) for p in ("VALID", 1)
    ]
    unwound = all(same(m @ x.ravel(), y.ravel()) for _, y, m in as_matrix)
    sizes = [y.shape[1:3] for _, y, _ in as_matrix] == [(3, 3), (5, 5)]

    train, _ = fnn.data.digits()
    image = jnp.asarray(train.x[:1])
    edges = jnp.asarray([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])[:, :, None, None]
    gaps = {conv.__name__: worst_shift(conv, image, edges) for conv in ALGORITHMS}
    table(["algorithm", "conv(shift(x)) - shift(conv(x))"], list(gaps.items()))

    a, b, c = (rng.standard_normal(n) for n in (5, 3, 3))
    full = {"conv": fnn.convolve, "padding": 2}
    commutes = same(line(a, b, **full), line(b, a, conv=fnn.convolve, padding=4))
    linear = same(line(a, 2 * b + c, **full), 2 * line(a, b, **full) + line(a, c, **full))
    flipped = same(line(a, b, **full), line(a, b[::-1], padding=2))

    twice = line(line(a, b, **full), c, **full)
    one = line(a, line(b, c, **full), conv=fnn.convolve, padding=4)
    right, left = fnn.conv(image, edges), fnn.conv(image, -edges)
    cancelled = float(jnp.abs(right + left).max())
    rectified = float(jnp.abs(fnn.relu(right) + fnn.relu(left)).max())

    places = [(i, j) for i in range(4) for j in range(4)]
    window = rng.standard_normal((3, 3))
    dense = np.zeros((16, 16))  # V~[a, b] = V[-a, -b] turns one text's window into the other's
    for row, (i, j) in enumerate(places):
        for column, (p, q) in enumerate(places):
            if abs(p - i) <= 1 and abs(q - j) <= 1:
                dense[row, column] = window[p - i + 1, q - j + 1]
    picture = rng.standard_normal((4, 4))
    constrained = same(dense @ picture.ravel(), plane(picture, window, padding=1).ravel())
    matrix = np.asarray(fnn.conv_matrix(jnp.asarray(window[:, :, None, None], float), 4))

    made, axes = figure(1, 4, width=3.0, height=2.8)
    views = {
        "a digit": image[0, :, :, 0],
        "its edges": right[0, :, :, 0],
        "rectified, both ways": (fnn.relu(right) + fnn.relu(left))[0, :, :, 0],
        "3x3 over 4x4 as a matrix": matrix,
    }
    for at, (title, view) in zip(axes, views.items(), strict=True):
        at.imshow(view, cmap="gray")
        at.set(xticks=[], yticks=[])
        at.grid(visible=False)
        label(at, title, "", "")
    save(made, args.out, "convolution")

    confirm(
        __doc__,
        moving,
        digits,
        unwound and sizes,
        max(gaps.values()) < 1e-4,
        commutes and linear and flipped,
        same(twice, one) and cancelled < 1e-5 and rectified > 1,
        constrained and same(matrix, dense),
    )


if __name__ == "__main__":
    main()
