"""What the compiler makes of the kernels."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fnn
from fnn.kernels.conv import im2col

pytestmark = pytest.mark.usefixtures("users_passes")

FAST = "b01f_01io->b01f"  # the layout for which XLA's CPU backend has a fast convolution


def test_a_convolution_inside_a_loop_keeps_the_fast_layout() -> None:
    """All three: the gradient to the window, where channels are examples, is transposed before."""

    def gradients(x: jax.Array, w: jax.Array) -> jax.Array:
        def step(w: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            loss = lambda w, x: (fnn.conv_lax(x, w) ** 2).sum()
            by_w, by_x = jax.grad(loss, (0, 1))(w, x)
            return w - by_w, by_x

        return jax.lax.scan(step, w, x)

    x, w = jnp.zeros((3, 4, 8, 8, 16)), jnp.zeros((3, 3, 16, 16))
    text = jax.jit(gradients).lower(x, w).compile().as_text()
    layouts = re.findall(r"dim_labels=([\w>-]+)", text)
    assert layouts == [FAST] * 3


def test_winograd_transforms_a_window_when_its_turn_comes() -> None:
    """Not those of all layers at the start, which would be in memory together."""
    x, w = jnp.zeros((1, 8, 8, 128)), jnp.zeros((3, 3, 128, 128))
    points = 4 * 36 * 128 * 128

    def temporary(depth: int) -> int:
        def stack(x: jax.Array, windows: list[jax.Array]) -> jax.Array:
            for w in windows:
                x = fnn.conv_winograd(x, w)
            return x

        program = jax.jit(stack).lower(x, [w] * depth).compile()
        return int(program.memory_analysis().temp_size_in_bytes)

    assert temporary(8) < temporary(2) + points


def test_the_window_of_a_group_lies_together() -> None:
    """In rows, one per group, though the window's own rows hold a tap of all groups."""
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 9, 9, 64), (3, 3, 4, 64)))
    conv = functools.partial(fnn.conv_taps, groups=16)
    text = jax.jit(conv).lower(x, w).compile().as_text()
    assert f"f32[16,{3 * 3 * 4 * 4}]{{1,0}}" in text


def test_all_taps_read_the_padded_copy() -> None:
    """Not the one that meets no padding the array itself, which would then be read as well."""
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 9, 9, 16), (5, 5, 1, 16)))
    conv = functools.partial(fnn.conv_taps, groups=16)
    text = jax.jit(conv).lower(x, w).compile().as_text()
    assert " pad(" in text
    lines = text[text.index("ENTRY") :].splitlines()[1:]
    assert sum(bool(re.search(r"%x\b", line)) for line in lines) == 2  # its own, and the padding's


def test_a_depthwise_gradient_that_is_read_twice_is_one_pass() -> None:
    """Else what each turn of the window gives is stored, for both to read."""
    x, w, y = jnp.ones((2, 28, 28, 64)), jnp.ones((3, 3, 1, 64)), jnp.ones((2, 14, 14, 64))
    conv = functools.partial(fnn.conv, w=w, stride=2, groups=64)

    def twice(y: jax.Array) -> tuple[jax.Array, jax.Array]:
        (gradient,) = jax.vjp(conv, x)[1](y)
        return gradient, gradient[0, 0, 0, 0] * 3

    memory = jax.jit(twice).lower(y).compile().memory_analysis()
    assert memory.temp_size_in_bytes < x.nbytes


@pytest.mark.parametrize(("groups", "products"), [(8, False), (2, True)])
def test_phases_of_few_channels_are_no_products(groups: int, products: bool) -> None:
    """The input gradient with a stride adds elementwise where its groups have few channels."""
    x, w = jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32 // groups, 32))

    def gradient(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: fnn.conv(x, w, stride=2, groups=groups).sum())(x)

    text = jax.jit(gradient).lower(x).compile().as_text()
    assert bool(re.search(r"\bdot\(|ynn", text)) == products


@pytest.mark.parametrize("outputs", [64, 256])
def test_blocks_that_are_made_at_once_share_no_memory(outputs: int) -> None:
    """Or they would wait for each other. Tiles, points and products of both exist together."""
    c, examples = 128, 2 if outputs == 64 else 1  # of a block: 3 MB
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((8, 28, 28, c), (3, 3, c, outputs)))
    program = jax.jit(fnn.conv_winograd).lower(x, w).compile()
    of_window, of_block = 4 * 36 * c * outputs, 4 * 36 * examples * 7 * 7 * (2 * c + outputs)
    assert program.memory_analysis().temp_size_in_bytes > of_window + 2 * of_block


@pytest.mark.parametrize(("cores", "least", "most"), [(2, 8, 16), (1, 0, 2)])
def test_groups_that_are_taken_together_share_no_memory(
    cores: int, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padded copies, patches and products of eight, beside the result before it is transposed.

    On one core they go one by one.
    """
    monkeypatch.setattr(im2col, "cores", lambda: cores)
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((8, 14, 14, 512), (3, 3, 16, 512)))
    program = jax.jit(functools.partial(fnn.conv_im2col, groups=32)).lower(x, w).compile()
    of_group = 4 * 8 * 14 * (16 * 16 + 14 * 3 * 16 + 14 * 3 * 16)
    groups_in_memory = (program.memory_analysis().temp_size_in_bytes - 4 * x.size) / of_group
    assert least < groups_in_memory < most, groups_in_memory


@pytest.mark.parametrize("conv", [fnn.conv_im2col, fnn.conv_winograd])
def test_a_loop_begins_with_zeros_of_its_own(conv: Callable[..., jax.Array]) -> None:
    """Not with copies of those of all layers, made at the start and in memory together."""
    x, w = jax.ShapeDtypeStruct((16, 32, 32, 64), jnp.float32), jnp.zeros((3, 3, 64, 64))

    def temporary(depth: int) -> int:
        stack = jax.jit(lambda x: functools.reduce(conv, [w] * depth, x)).lower(x)
        return int(stack.compile().memory_analysis().temp_size_in_bytes)

    assert temporary(8) < temporary(4) + 4 * x.size


@pytest.mark.parametrize(
    ("c_in", "c_out", "axis", "shape"),
    [(16, 16, 0, (48, 48)), (4, 96, 0, (36, 96)), (1, 64, 1, (9, 64)), (16, 64, 1, (144, 64))],
)
def test_no_factor_of_a_small_window_gradient_is_transposed(
    c_in: int, c_out: int, axis: int, shape: tuple[int, int]
) -> None:
    """The patches of a large one are, and those of few rows."""
    x, w = jnp.zeros((2, 8, 8, c_in)), jnp.zeros((3, 3, c_in, c_out))
    gradient = jax.grad(lambda w: fnn.conv_im2col(x, w).sum())
    text = jax.jit(gradient).lower(w).as_text()
    found = re.findall(r"contracting_dims = \[(\d)\] x .*-> tensor<(\d+)x(\d+)xf32>", text)
    assert found == [tuple(map(str, (axis, *shape)))]


@pytest.mark.parametrize(("c_in", "shape"), [(16, (144, 64)), (32, (64, 288))])
def test_with_a_stride_the_window_gradient_transposes_the_outputs(
    c_in: int, shape: tuple[int, int]
) -> None:
    """They are fewer than the inputs. With few channels, it transposes those all the same."""
    x, w = jnp.zeros((2, 8, 8, c_in)), jnp.zeros((3, 3, c_in, 64))
    gradient = jax.grad(lambda w, x: fnn.conv_im2col(x, w, stride=2).sum())
    lowered = jax.jit(gradient).lower(w, x)
    products = re.findall(r"dot_general.*-> tensor<(\d+)x(\d+)xf32>", lowered.as_text())
    assert products == [tuple(map(str, shape))]
    text, few = lowered.compile().as_text(), c_in == 16
    assert (f"f32[{c_in},2," in text, "f32[64,32]{1,0}" in text) == (few, not few)


@pytest.mark.parametrize(("groups", "rows"), [(4, "1"), (2, "48")])
def test_window_gradients_of_few_channels_are_no_products(groups: int, rows: str) -> None:
    """But with ones, which add up what the elementwise products leave."""
    x, w = jnp.zeros((2, 8, 8, 32)), jnp.zeros((3, 3, 32 // groups, 32))
    gradient = jax.grad(lambda w: fnn.conv(x, w, groups=groups).sum())
    text = jax.jit(gradient).lower(w).as_text()
    products = re.findall(r"dot_general.*-> tensor<(\d+)x\d+xf32>", text)
    assert set(products) == {rows}


@pytest.mark.parametrize(("c_in", "products"), [(3, False), (5, True)])
def test_sums_of_few_products_are_formed_elementwise(c_in: int, products: bool) -> None:
    """From one block of channels too, if there are so few that the products stay in registers."""
    x, w = jnp.zeros((2, 8, 8, c_in)), jnp.zeros((3, 3, c_in, 32))
    assert ("dot_general" in jax.jit(fnn.conv).lower(x, w).as_text()) == products


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_sum_is_merged_with_writing_a_block(dtype: Any) -> None:
    """It would be formed, and rounded, on one core."""
    x, w = (jax.ShapeDtypeStruct(s, dtype) for s in ((14, 74, 74, 16), (3, 3, 16, 16)))
    text = jax.jit(fnn.conv_im2col).lower(x, w).compile().as_text()
    written = [part for part in text.split("\n\n") if " dynamic-update-slice(" in part]
    assert written
    assert not [part for part in written if re.search(r"f32\[.* add\(|bf16\[\d.* conv", part)]


@pytest.mark.parametrize(("n", "side", "c"), [(2, 14, 512), (8, 14, 320)])
def test_deep_planes_use_memory_that_is_kept(n: int, side: int, c: int) -> None:
    """The three maps need less than 32 MB; the C library gives more back after every call."""
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, side, side, c), (3, 3, c, c)))

    def gradients(x: jax.Array, w: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
        value, transpose = jax.vjp(fnn.conv, x, w)
        return value, transpose(y)

    program = jax.jit(gradients).lower(x, w, x).compile()
    assert program.memory_analysis().temp_size_in_bytes < 32 * 2**20


@pytest.mark.parametrize(("n", "c"), [(8, 256), (16, 256), (15, 128)])
def test_gradients_are_in_memory_one_after_the_other(n: int, c: int) -> None:
    """In one block, in two that the window gradient sums over, in three for the input.

    XLA would take their operations by turns, and keep what both have in memory.
    """
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, 14, 14, c), (3, 3, c, c)))

    def temporary(*gradients: int) -> int:
        def pulled(x: jax.Array, w: jax.Array, y: jax.Array) -> list[jax.Array]:
            both = jax.vjp(fnn.conv_winograd, x, w)[1](y)
            return [both[which] for which in gradients]

        program = jax.jit(pulled).lower(x, w, x).compile()
        return int(program.memory_analysis().temp_size_in_bytes)

    assert temporary(0, 1) < 1.1 * max(temporary(0), temporary(1))


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="its XLA keeps loops on all cores")
@pytest.mark.parametrize(("window", "groups"), [(3, 16), (3, 64), (7, 64)])
def test_no_loop_is_one_kernel(window: int, groups: int) -> None:
    """Which would run on one core: over blocks, examples or taps, in all three maps."""
    x, w = jnp.zeros((16, 48, 48, 64)), jnp.zeros((window, window, 64 // groups, 64))
    conv = functools.partial(fnn.conv_taps, groups=groups)
    text = jax.jit(lambda x, w: jax.vjp(conv, x, w)[1](x)).lower(x, w).compile().as_text()
    assert "while(" in text
    assert "xla_cpu_small_call" not in text


def test_a_loop_runs_without_jit() -> None:
    """Where the number of its turn is one of Python's."""
    x, w = jnp.ones((2, 5, 6, 4)), jnp.ones((3, 3, 2, 6))
    want = fnn.conv_winograd(x, w, groups=2)
    with jax.disable_jit():
        got = fnn.conv_winograd(x, w, groups=2)
    assert jnp.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(("c", "groups"), [(64, 1), (256, 16)])
def test_blocks_of_bfloat16_are_moved_as_integers(c: int, groups: int) -> None:
    """Else every block that is written, and the cotangent that is read, costs the whole array."""
    sizes = (32, 28, 28, c), (3, 3, c // groups, c)
    x, w = (jax.ShapeDtypeStruct(size, jnp.bfloat16) for size in sizes)

    def maps(x: jax.Array, w: jax.Array, y: jax.Array) -> Any:
        value, transpose = jax.vjp(functools.partial(fnn.conv, groups=groups), x, w)
        return value, transpose(y)

    text = jax.jit(maps).lower(x, w, x).compile().as_text()
    written = re.findall(r"(ROOT )?%\S+ = (\w+)\[\S+ dynamic-update-slice\(", text)
    assert {kind for _, kind in written} >= {"u16"}
    assert all(root for root, _ in written)  # nothing is done to the whole array
    assert f"f32[32,28,28,{c}]" not in text[text.index("ENTRY") :]


@pytest.mark.parametrize(("c", "groups"), [(16, 1), (64, 4)])
def test_the_window_gradient_of_bfloat16_transposes_its_patches(c: int, groups: int) -> None:
    """However small its sum is: such products across are slower than a copy."""
    x, w = jnp.zeros((2, 8, 8, c), jnp.bfloat16), jnp.zeros((3, 3, c // groups, c), jnp.bfloat16)
    gradient = jax.grad(lambda w: fnn.conv_im2col(x, w, groups=groups).sum())
    text = jax.jit(gradient).lower(w).as_text()
    assert re.findall(r"contracting_dims = \[(\d)\] x .*-> tensor<(\d+)x(\d+)xf32>", text) == [
        ("1", "48", "48")
    ]
