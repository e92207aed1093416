"""Initializers: measured fans, variance through depth, groups, and messages."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.layers import initializers as init

KEY = jax.random.key(3)
DEPTH, WIDTH = 30, 256


XAVIER, HE = init.glorot_normal(), init.he_normal()


@functools.partial(jax.jit, static_argnames=("weights", "relu"))
def variances(scale: Any, weights: init.Initializer, *, relu: bool) -> Any:
    """Last activations' and first gradients' mean square over the input's, by 30 dense layers."""

    def forward(x: Any) -> Any:
        def layer(x: Any, key: Any) -> Any:
            y = fnn.dense(x, scale * fnn.init_dense(key, WIDTH, WIDTH, weights=weights)["w"])
            return (jnp.maximum(y, 0.0) if relu else y), None

        return jax.lax.scan(layer, x, jax.random.split(KEY, DEPTH))[0]

    x = jax.random.normal(KEY, (64, WIDTH))
    y, pullback = jax.vjp(forward, x)
    return [jnp.square(a).mean() / jnp.square(x).mean() for a in (y, *pullback(x))]


def test_A3_xavier_keeps_the_variance_through_30_layers() -> None:
    for ratio in variances(1.0, XAVIER, relu=False):
        assert 1 / 3 < ratio < 3


@pytest.mark.parametrize(("scale", "low", "high"), [(0.5, 0.0, 1e-16), (2.0, 1e16, np.inf)])
def test_A3_a_smaller_scale_shrinks_and_a_larger_one_amplifies(
    scale: float, low: float, high: float
) -> None:
    for ratio in variances(scale, XAVIER, relu=False):
        assert low < ratio < high  # scale^2 per layer: 4^-30 = 9e-19 and 4^30 = 1e18


def test_he_keeps_the_mean_square_through_30_layers_of_relu_and_xavier_halves_it() -> None:
    for ratio in variances(1.0, HE, relu=True):
        assert 1 / 5 < ratio < 5
    for ratio in variances(1.0, XAVIER, relu=True):
        assert 2.0**-33 < ratio < 2.0**-27


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_conv_fans_follow_window_and_groups(groups: int) -> None:
    """LeCun keeps the variance of a convolution's output, and its mirror that of the gradient."""
    window, c_in, c_out = (3, 5), 64, 32
    rng = np.random.default_rng(0)
    shapes = (8, 12, 14, c_in), (8, 10, 10, c_out)
    x, g = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    backward = init.variance_scaling(1.0, "fan_out", "normal")
    ws = [
        fnn.init_conv(KEY, window, c_in, c_out, groups=groups, weights=weights)["w"]
        for weights in (init.lecun_normal(), backward)
    ]

    @jax.jit
    def value_and_gradient(ws: Any, x: Any, g: Any) -> Any:
        out = lambda w, x: fnn.conv(x, w, padding="VALID", groups=groups)
        return out(ws[0], x), jax.vjp(lambda x: out(ws[1], x), x)[1](g)[0]

    y, gradient = map(np.asarray, value_and_gradient(ws, x, g))
    assert y.var() == pytest.approx(1, rel=0.15)
    inside = gradient[:, 2:-2, 4:-4]  # where every tap of the window contributes
    assert inside.var() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("groups", [1, 4])
def test_transposed_fans_are_those_of_what_each_output_sums(groups: int) -> None:
    """LeCun keeps the variance where every tap contributes; "fan_out" that of the gradient."""
    config: dict[str, Any] = {"padding": "VALID", "groups": groups}
    shapes = (8, 12, 14, 64), (8, 14, 18, 32)
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    scale = functools.partial(init.variance_scaling, 1.0, distribution="normal")
    forward, backward = (
        fnn.init_conv_transpose(KEY, (3, 5), 64, 32, groups=groups, weights=scale(mode=mode))["w"]
        for mode in ("fan_in", "fan_out")
    )
    y = fnn.conv_transpose(x, forward, **config)
    assert y[:, 2:-2, 4:-4].var() == pytest.approx(1, rel=0.15)
    pull = jax.vjp(lambda x: fnn.conv_transpose(x, backward, **config), x)[1]
    assert pull(g)[0].var() == pytest.approx(1, rel=0.15)


def test_a_transposed_window_is_that_of_a_convolution_with_its_channels_exchanged() -> None:
    """Group by group, so an initializer sees inputs and outputs where it looks for them."""
    w = fnn.init_conv(KEY, (3, 2), 4, 6, groups=2)["w"]
    got = fnn.init_conv_transpose(KEY, (3, 2), 4, 6, groups=2)["w"]
    for group in range(2):
        block = w[..., 3 * group : 3 * group + 3]
        np.testing.assert_array_equal(
            got[..., 2 * group : 2 * group + 2], np.swapaxes(block, -1, -2)
        )


def test_A3_dense_xavier_variance_is_2_over_both_fans() -> None:
    w, want = np.asarray(fnn.init_dense(KEY, 32, 512)["w"]), 2 / (32 + 512)
    assert w.var() == pytest.approx(want, rel=0.05)
    assert w.mean() == pytest.approx(0, abs=4 * np.sqrt(want / w.size))


@pytest.mark.parametrize("groups", [1, 4])
def test_A3_conv_xavier_variance_is_2_over_both_fans(groups: int) -> None:
    params = fnn.init_conv(KEY, (3, 3), 32, 128, groups=groups)
    w, want = np.asarray(params["w"]), 2 / (9 * (32 + 128) / groups)
    assert w.var() == pytest.approx(want, rel=0.05)
    assert w.mean() == pytest.approx(0, abs=4 * np.sqrt(want / w.size))


def test_groups_draw_independently_and_orthogonal_holds_in_each() -> None:
    w = fnn.init_conv(KEY, (2,), 8, 12, groups=2, weights=init.orthogonal())["w"]
    assert w.shape == (2, 4, 12)
    first, second = (np.asarray(w)[..., i : i + 6].reshape(8, 6) for i in (0, 6))
    for block in (first, second):
        np.testing.assert_allclose(block.T @ block, np.eye(6), atol=1e-5)
    assert (first != second).any()


def test_A3_biases_are_zero_and_a_missing_bias_is_a_missing_key() -> None:
    assert (fnn.init_dense(KEY, 3, 4)["b"] == 0).all()
    assert (fnn.init_conv(KEY, (3,), 2, 4)["b"] == 0).all()
    assert (fnn.init_conv_transpose(KEY, (3,), 2, 4)["b"] == 0).all()
    assert list(fnn.init_dense(KEY, 3, 4, bias=False)) == ["w"]
    assert list(fnn.init_conv_transpose(KEY, (3,), 2, 4, bias=False)) == ["w"]
    assert list(fnn.init_conv(KEY, (3,), 2, 4, bias=False)) == ["w"]


def test_arrays_go_straight_into_their_layers() -> None:
    x = np.ones((2, 6, 4), np.float32)
    assert fnn.conv(x, **fnn.init_conv(KEY, (3,), 4, 8, groups=2), groups=2).shape == (2, 6, 8)
    up = fnn.init_conv_transpose(KEY, (3,), 4, 8, groups=2)
    assert fnn.conv_transpose(x, **up, groups=2, stride=2).shape == (2, 12, 8)
    assert fnn.dense(x, **fnn.init_dense(KEY, 4, 5)).shape == (2, 6, 5)
    assert fnn.embed(np.array([1, 2]), **fnn.init_embed(KEY, 7, 5)).shape == (2, 5)


def test_embed_is_standard_normal_and_dense_has_its_tails_cut() -> None:
    """Of JAX's two kinds of normal numbers, 68.3 and 65.0 % lie within their deviation."""
    table = np.asarray(fnn.init_embed(KEY, 200, 50)["table"])
    w = np.asarray(fnn.init_dense(KEY, 200, 50)["w"])
    for t, share in ((table, 0.683), (w * np.sqrt(250 / 2), 0.650)):
        assert t.var() == pytest.approx(1, rel=0.05)
        assert abs(t.mean()) < 4 / 100
        assert (abs(t) < 1).mean() == pytest.approx(share, abs=0.02)


def test_dtypes() -> None:
    for dtype in (jnp.bfloat16, jnp.float16):
        params = [
            fnn.init_dense(KEY, 3, 4, dtype=dtype),
            fnn.init_conv(KEY, (3,), 3, 4, dtype=dtype),
            fnn.init_conv_transpose(KEY, (3,), 3, 4, dtype=dtype),
            fnn.init_embed(KEY, 3, 4, dtype=dtype),
        ]
        assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    assert fnn.init_dense(KEY, 3, 4)["w"].dtype == jnp.float32
    with jax.enable_x64(True):
        assert fnn.init_dense(KEY, 3, 4)["w"].dtype == jnp.float64


def test_what_jax_has_is_its_own() -> None:
    reexported = set(init.__all__) - {"Initializer", "init_conv", "init_conv_transpose"}
    assert len(reexported) == 15
    for name in reexported:
        assert getattr(init, name) is getattr(jax.nn.initializers, name)


def test_equal_initializers_written_anew_compile_once(caplog: pytest.LogCaptureFixture) -> None:
    fresh = [
        lambda: fnn.init_dense(KEY, 3, 7, weights=lambda k, s, d: 0.5 * init.ones(k, s, d)),
        lambda: fnn.init_embed(KEY, 3, 7, weights=init.he_normal()),
        lambda: fnn.init_conv(KEY, (3,), 3, 7, weights=init.normal(0.3)),
    ]
    for call in fresh:
        caplog.clear()
        with jax.log_compiles():
            first, second = call(), call()
        assert sum("Compiling" in record.getMessage() for record in caplog.records) == 1
        jax.tree.map(np.testing.assert_array_equal, first, second)
    other = fnn.init_dense(KEY, 3, 7, weights=lambda k, s, d: 0.25 * init.ones(k, s, d))
    assert (other["w"] == 0.25).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=lambda d: d.__name__)
def test_orthogonal_in_half_precision(dtype: Any) -> None:
    """Found in single precision, and rounded."""
    some: dict[str, Any] = {"weights": init.orthogonal(), "dtype": dtype}
    for w in (
        fnn.init_dense(KEY, 8, 8, **some)["w"],
        fnn.init_conv(KEY, (1,), 8, 8, **some)["w"][0],
        fnn.init_embed(KEY, 8, 8, **some)["table"],
    ):
        assert w.dtype == dtype
        wide = np.asarray(w, np.float64)
        np.testing.assert_allclose(wide @ wide.T, np.eye(8), atol=4 * float(jnp.finfo(dtype).eps))


def test_orthogonal_weights_can_be_normalized() -> None:
    w = np.asarray(fnn.init_dense(KEY, 64, 64, weights=init.orthogonal())["w"])
    np.testing.assert_allclose(w.T @ w, np.eye(64), atol=1e-5)
    gates = jax.jit(jax.vmap(lambda k: init.orthogonal(0.5)(k, (16, 16))))(jax.random.split(KEY, 4))
    for gate in np.asarray(gates):
        np.testing.assert_allclose(gate.T @ gate, 0.25 * np.eye(16), atol=1e-6)
    normed, _ = jax.jit(jax.vmap(fnn.spectral_norm))(gates, np.ones((4, 16), np.float32))
    np.testing.assert_allclose(normed, 2 * np.asarray(gates), rtol=1e-4, atol=1e-6)


WRONG = [
    (lambda: fnn.init_dense(KEY, 0, 4), "init_dense: d_in: got 0; needed an int >= 1"),
    (lambda: fnn.init_dense(KEY, 3, 2.5), "init_dense: d_out: got 2.5; needed an int >= 1"),
    (lambda: fnn.init_embed(KEY, 3, True), "init_embed: d: got True; needed an int >= 1"),
    (lambda: fnn.init_conv(KEY, 3, 4, 4),
     "init_conv: window: got 3; needed a tuple of one to three ints"),
    (lambda: fnn.init_conv(KEY, (3, 0), 4, 4), "init_conv: window: got 0; needed an int >= 1"),
    (lambda: fnn.init_conv(KEY, (3,), 4, 6, groups=4),
     "init_conv: groups: got 4; needed a divisor of c_in = 4 and of c_out = 6"),
    (lambda: fnn.init_conv_transpose(KEY, 3, 4, 4),
     "init_conv_transpose: window: got 3; needed a tuple of one to three ints"),
    (lambda: fnn.init_conv_transpose(KEY, (3,), 4, 6, weights=1.0),
     "init_conv_transpose: weights: got float 1.0; needed an initializer of shape (3, 4, 6), such "
     "as fnn.initializers.he_normal()"),
    (lambda: fnn.init_dense(KEY, 2, 3, weights=1.0),
     "init_dense: weights: got float 1.0; needed an initializer of shape (2, 3), such as "
     "fnn.initializers.he_normal()"),
    (lambda: fnn.init_embed(KEY, 2, 3, weights=lambda k, s, d: jnp.zeros(s[::-1], d)),
     "init_embed: weights: got float32[3,2]; needed an initializer of shape (2, 3), such as "
     "fnn.initializers.he_normal()"),
    (lambda: fnn.init_conv(KEY, (3,), 2, 3, weights=lambda k, s, d: jnp.zeros(3, d)),
     "init_conv: weights: got float32[3]; needed an initializer of shape (3, 2, 3), such as "
     "fnn.initializers.he_normal()"),
]  # fmt: skip


@pytest.mark.parametrize("weights", [fnn.initializers.normal, fnn.initializers.constant])
def test_an_initializer_that_was_not_called(weights: Any) -> None:
    message = r"^fnn\.init_dense: weights: got weights\(.*; needed weights\(key, shape, dtype\)"
    with pytest.raises(TypeError, match=message):
        fnn.init_dense(KEY, 2, 3, weights=weights)


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_messages(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match="needed") as error:
        call()
    assert str(error.value) == "fnn." + message


@pytest.mark.parametrize(
    "call",
    [
        lambda key: fnn.init_dense(key, 2, 3),
        lambda key: fnn.init_embed(key, 2, 3),
        lambda key: fnn.init_conv(key, (3,), 2, 3),
        lambda key: fnn.init_conv_transpose(key, (3,), 2, 3),
    ],
)
@pytest.mark.parametrize("key", [0, None, np.float32(1), [0, 1], jax.random.split(KEY)])
def test_a_seed_is_no_key(call: Any, key: Any) -> None:
    with pytest.raises(TypeError, match=r"key: got .*; needed one random key, such as jax.random"):
        call(key)


INITS: dict[str, Any] = {
    "dense": lambda **given: fnn.init_dense(KEY, 2, 3, **given),
    "embed": lambda **given: fnn.init_embed(KEY, 2, 3, **given),
    "conv": lambda **given: fnn.init_conv(KEY, (3,), 2, 3, **given),
    "conv_transpose": lambda **given: fnn.init_conv_transpose(KEY, (3,), 2, 3, **given),
    "norm": lambda **given: fnn.init_norm(2, **given),
    "rnn": lambda **given: fnn.init_rnn(KEY, 2, 3, **given),
    "lstm": lambda **given: fnn.init_lstm(KEY, 2, 3, **given),
    "gru": lambda **given: fnn.init_gru(KEY, 2, 3, **given),
}


@pytest.mark.parametrize("dtype", [int, jnp.int32, bool, jnp.complex64, "foo"])
@pytest.mark.parametrize("layer", INITS)
def test_weights_are_floats(layer: str, dtype: Any) -> None:
    with pytest.raises(TypeError, match=rf"fnn.init_{layer}: dtype: got .*; needed one of float"):
        INITS[layer](dtype=dtype)
