"""Every public array function once, with a call that is valid for it.

`test_table.py` crosses these rows with the properties that all of them have; `test_coverage` there
fails for a public function that has neither a row nor a reason in `EXEMPT`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn

Arrays = Callable[[np.random.Generator], tuple[Any, ...]]


class Row(NamedTuple):
    """A valid call ``fn(*args(rng), **config)`` returning one array or a pytree of arrays.

    Attributes:
        fn: the public function.
        args: builds the positional array arguments, float32 or integer.
        config: keyword arguments.
        smooth: how often it is differentiable at these arguments in its float arguments: 2, 1, 0.
        half: whether it takes float16 and bfloat16 and returns them.
        data: how many of the arguments, the first ones, have an axis of examples in front; the
            others are parameters, shared by all examples.
        needs: the axes, as the annotation names them, that must not alone be of size 0.
    """

    fn: Callable[..., Any]
    args: Arrays
    config: dict[str, Any] = {}  # noqa: RUF012  (never mutated; NamedTuple allows no factory)
    smooth: int = 2
    half: bool = True
    data: int = 1
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.fn.__name__


KEY = jax.random.key(0)


def normal(*shapes: tuple[int, ...]) -> Arrays:
    """Standard normal float32 arrays of these shapes."""
    return lambda rng: tuple(rng.standard_normal(s).astype(np.float32) for s in shapes)


def classes(rng: np.random.Generator) -> tuple[Any, ...]:
    """Scores of four examples over three classes, and their labels."""
    return *normal((4, 3))(rng), rng.integers(0, 3, 4)


CONV: list[Row] = [
    Row(fnn.conv, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"stride": 2, "groups": 2}),
    Row(fnn.conv_fft, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"stride": 2, "groups": 2}),
    Row(fnn.conv_im2col, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"stride": 2, "groups": 2}),
    Row(fnn.conv_lax, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"stride": 2, "groups": 2}),
    Row(
        fnn.conv_matrix,
        normal((3, 2, 3)),
        {"spatial": (5,), "stride": 2},
        needs=("*window0",),
    ),
    Row(fnn.conv_taps, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"stride": 2, "groups": 2}),
    Row(fnn.conv_transpose, normal((2, 3, 4, 6), (3, 3, 2, 6), (4,)), {"stride": 2, "groups": 2}),
    Row(fnn.conv_winograd, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"groups": 2}),
    Row(fnn.conv_winograd2, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"groups": 2}),
    Row(fnn.convolve, normal((2, 7, 2), (2, 2, 3), (7, 3)), {"dilation": 2}),
]

IMAGES = normal((2, 7, 6, 3))
PLACES = {"window": (3, 2), "stride": 2, "padding": 1}
CORNERS = np.arange(24).reshape(4, 6)[::2, ::2]  # of 2 x 2 blocks
POOLING: list[Row] = [
    *(
        Row(pool, IMAGES, PLACES)
        for pool in (
            *(fnn.avg_pool, fnn.avg_pool_lax, fnn.avg_pool_slices),
            *(fnn.max_pool, fnn.max_pool_lax, fnn.max_pool_slices),
            *(fnn.min_pool, fnn.min_pool_lax, fnn.min_pool_slices),
            *(fnn.sum_pool, fnn.sum_pool_lax, fnn.sum_pool_slices),
        )
    ),
    *(
        Row(pool, IMAGES, {**PLACES, "p": 2})
        for pool in (fnn.lp_pool, fnn.lp_pool_lax, fnn.lp_pool_slices)
    ),
    *(
        Row(pool, IMAGES)
        for pool in (fnn.global_avg_pool, fnn.global_max_pool, fnn.global_min_pool)
    ),
    *(
        Row(pool, IMAGES, {"out": (3, 4)})
        for pool in (fnn.adaptive_avg_pool, fnn.adaptive_max_pool)
    ),
    Row(fnn.max_pool_indices, IMAGES, PLACES, smooth=0, half=False),
    Row(
        fnn.max_unpool,
        lambda rng: (*normal((2, 2, 3, 3))(rng), np.tile(CORNERS[:, :, None], (2, 1, 1, 3))),
        {"spatial": (4, 6)},
        data=2,
    ),
    Row(fnn.partition_pool, IMAGES, {"blocks": ((6, 0), (1, 2, 5, 4), (3,))}),
]

ACTIVATIONS: list[Row] = [
    *(
        Row(fn, normal((2, 4)))
        for fn in (
            *(fnn.identity, fnn.sign, fnn.unit_step, fnn.relu, fnn.relu6, fnn.hard_tanh),
            *(fnn.piecewise_linear, fnn.hard_sigmoid, fnn.hard_swish, fnn.sigmoid, fnn.tanh),
            *(fnn.softplus, fnn.log_sigmoid, fnn.silu, fnn.mish, fnn.gelu, fnn.softsign, fnn.glu),
            *(fnn.leaky_relu, fnn.elu, fnn.celu, fnn.selu, fnn.squareplus),
            *(fnn.softmax, fnn.log_softmax, fnn.logsumexp),
        )
    ),
    Row(fnn.prelu, normal((2, 4), (4,)), needs=("*shape1",)),
]

LOSSES: list[Row] = [
    Row(fnn.squared_error, normal((4, 3), (4, 3)), data=2),
    Row(fnn.absolute_error, normal((4, 3), (4, 3)), data=2),
    Row(fnn.huber, normal((4, 3), (4, 3)), {"delta": 0.5}, smooth=1, data=2),
    Row(fnn.cosine_distance, normal((4, 3), (4, 3)), data=2),
    Row(
        fnn.binary_cross_entropy,
        lambda rng: (*normal((4, 3))(rng), rng.integers(0, 2, (4, 3))),
        {"pos_weight": jnp.array([0.5, 1.0, 2.0])},
        data=2,
        needs=("*shape1",),
    ),
    Row(fnn.hinge, lambda rng: (*normal((4, 3))(rng), 2 * rng.integers(0, 2, (4, 3)) - 1), data=2),
    Row(fnn.cross_entropy, classes, {"label_smoothing": 0.1}, data=2),
    Row(fnn.nll, classes, data=2),
    Row(
        fnn.kl_divergence,
        lambda rng: (*normal((4, 3))(rng), rng.random((4, 3), np.float32)),
        data=2,
    ),
    Row(fnn.l1_penalty, normal((4, 3)), half=False),  # sums are returned as float32
    Row(fnn.l2_penalty, normal((4, 3)), half=False),
    Row(fnn.accuracy, classes, smooth=0, data=2, needs=("classes",)),
    Row(fnn.top_k_accuracy, classes, {"k": 2}, smooth=0, data=2, needs=("classes",)),
    Row(fnn.confusion_matrix, classes, smooth=0, half=False, data=2),  # so are counts
    Row(fnn.perplexity, classes, data=2),
]

LAYERS: list[Row] = [  # linear, normalization, dropout
    Row(fnn.dense, normal((3, 5), (5, 2), (2,))),
    Row(fnn.embed, lambda rng: (rng.integers(0, 7, (3, 4)), *normal((7, 5))(rng))),
    Row(fnn.flatten, normal((3, 2, 2, 4))),
    Row(fnn.dropout, normal((5, 7)), {"rate": 0.4, "key": KEY}),
    Row(
        fnn.batch_norm,
        lambda rng: (*normal((4, 3, 3, 2), (2,), (2,), (2,))(rng), np.float32([1, 2])),
    ),
    Row(fnn.batch_stats, normal((4, 3, 3, 2)), half=False, needs=("n", "*spatial0", "*spatial1")),
    Row(fnn.layer_norm, normal((4, 3, 5), (5,), (5,)), needs=("*n2",)),
    Row(fnn.rms_norm, normal((4, 3, 5), (5,)), needs=("*n2",)),
    Row(fnn.group_norm, normal((3, 2, 3, 6), (6,), (6,)), {"groups": 2}),
    Row(fnn.instance_norm, normal((3, 2, 3, 2), (2,), (2,))),
    # The vectors of spectral_norm count as constants.
    Row(fnn.spectral_norm, normal((3, 4, 5), (5,)), smooth=0, data=2),
    Row(fnn.standardize, lambda rng: (*normal((4, 3, 2), (2,))(rng), np.float32([0.5, 2]))),
    Row(fnn.fit_standardize, normal((4, 3, 2)), half=False, needs=("n", "*spatial0")),
]

RECURRENT: list[Row] = [  # second derivatives: kernels/recurrent/test_written.py
    Row(fnn.rnn, normal((2, 3, 2), (2, 4), (4, 4), (4,))),
    Row(fnn.lstm, normal((2, 3, 2), (2, 12), (3, 12), (12,)), smooth=1),
    Row(fnn.gru, normal((2, 3, 2), (2, 9), (3, 9), (9,), (3,)), smooth=1),
    Row(fnn.rnn_scan, normal((2, 3, 2), (2, 4), (4, 4), (4,)), smooth=1),
    Row(fnn.lstm_scan, normal((2, 3, 2), (2, 12), (3, 12), (12,)), smooth=1),
    Row(fnn.gru_scan, normal((2, 3, 2), (2, 9), (3, 9), (9,), (3,)), smooth=1),
    Row(fnn.rnn_cell, normal((2, 2), (2, 4), (4, 4), (4,)), smooth=1),
    Row(fnn.lstm_cell, normal((2, 2), (2, 12), (3, 12), (12,)), smooth=1),
    Row(fnn.gru_cell, normal((2, 2), (2, 9), (3, 9), (9,), (3,)), smooth=1),
    Row(fnn.linear_recurrence, normal((2, 3, 2), (2, 3, 2)), data=2),
]

ROWS = [*CONV, *POOLING, *ACTIVATIONS, *LOSSES, *LAYERS, *RECURRENT]

LOSS = {"loss": lambda x: (x**4).sum(), "params": np.float32([0.3, -0.7, 1.1])}
# What takes a random key, and the other arguments of a call.
KEYED: dict[str, dict[str, Any]] = {
    "dropout": {"x": np.ones((4, 3), np.float32), "rate": 0.5},
    "init_conv": {"window": (3,), "c_in": 2, "c_out": 4},
    "init_conv_transpose": {"window": (3,), "c_in": 2, "c_out": 4},
    "init_dense": {"d_in": 2, "d_out": 4},
    "init_embed": {"vocabulary": 3, "d": 4},
    "init_gru": {"d_in": 2, "units": 3},
    "init_lstm": {"d_in": 2, "units": 3},
    "init_rnn": {"d_in": 2, "units": 3},
    "hutchinson_diagonal": {**LOSS, "samples": 4},
    **dict.fromkeys(("critical_point", "extreme_eigenvalues", "max_stable_step"), LOSS),
    **dict.fromkeys(
        ("analysis.assert_gradients", "analysis.check_gradients"), LOSS | {"entries": 2}
    ),
    "analysis.spectral_density": {**LOSS, "iterations": 2, "samples": 2},
    "analysis.rate_range": {
        "loss": lambda x, batch: ((x - batch) ** 2).mean(),
        "params": np.float32(1),
        "optimizer": fnn.sgd,
        "data": np.float32([1, 2, 4]),
        "batch_size": 1,
        "steps": 8,
    },
}

# Public names that are no array functions: why, and the file that tests them instead.
REASONS = {
    "an optimizer: optimizers/test_optimizers.py": """
        adadelta adagrad adam adamax adamw amsgrad lion momentum muon nadam nesterov radam rmsprop
        sgd""",
    "returns functions: optimizers/test_newton.py": "diagonal_newton newton",
    "a transform: optimizers/test_transforms.py": """
        accumulate add_weight_decay average chain clip_by_global_norm clip_by_value l2 lookahead
        with_master_weights""",
    "a transform of the loss: training/test_precision.py": "with_loss_scale",
    "a transform: optimizers/test_parts.py": "freeze partition",
    "a transform: optimizers/test_flat.py": "flat",
    "takes the state of an optimizer: optimizers/test_optimizer_state.py": """
        averaged learning_rate with_learning_rate""",
    "takes a loss: analysis/test_curvature.py": """
        critical_point extreme_eigenvalues hessian_diagonal hutchinson_diagonal hvp
        max_stable_step""",
    "takes a loss: analysis/test_gradcheck.py": """
        analysis.assert_gradients analysis.check_gradients""",
    "takes a loss: analysis/test_rates.py": "analysis.rate_range",
    "takes a loss: analysis/test_spectrum.py": """
        analysis.gradient_noise_scale analysis.spectral_density""",
    "takes a loss: analysis/test_time.py": "analysis.gradient_by_time",
    "takes values and trees: analysis/test_measures.py": """
        analysis.activity analysis.first_nonfinite analysis.norms""",
    "takes a model: analysis/test_sizes.py": "analysis.summary",
    "takes a model: analysis/test_watching.py": """
        analysis.gradients_at analysis.watch analysis.watched""",
    "returns a schedule: optimizers/test_schedules.py": """
        schedules.constant schedules.cosine schedules.delay schedules.exponential schedules.linear
        schedules.one_cycle schedules.piecewise schedules.power schedules.warmup_cosine""",
    "takes a mesh: training/test_sharding.py": "sharding.place",
    "takes arrays on a mesh: training/on_devices.py": "sharding.gather",
    "takes functions: training/test_step.py": "make_step",
    "takes functions: training/test_run.py": "train",
    "takes functions: training/test_trajectory.py": "trajectory",
    "takes functions: training/test_evaluate.py": "augmented evaluate predict",
    "a key and sizes: layers/test_initializers.py": """
        init_conv init_conv_transpose init_dense init_embed""",
    "a key and sizes: layers/test_recurrent_init.py": "init_gru init_lstm init_rnn",
    "sizes only: layers/test_normalization.py": "init_norm",
    "takes pairs of arrays: layers/test_normalization.py": "running_stats",
    "takes a layer: layers/test_recurrent.py": "bidirectional",
    "on a GPU only: kernels/recurrent/test_written.py": "lstm_cudnn",
    "takes any pytree: test_trees.py": """
        count paths trees.cast trees.global_norm trees.select""",
    "reads files: data/test_images.py": "data.cifar10 data.digits data.idx data.mnist",
    "takes any pytree: data/test_shuffle.py": "data.batches",
    "reads or writes a file: weights/test_checkpoint.py": "load save weights.latest",
    "takes any pytree: weights/test_torch.py": "weights.from_torch weights.to_torch",
    "integers only: test_windows.py": "output_size receptive_field transposed_size",
    "measures and writes a file: kernels/conv/test_rule.py": "tune",
    "sets the process up: test_memory.py": "keep_memory",
}
EXEMPT = {name: reason for reason, names in REASONS.items() for name in names.split()}
