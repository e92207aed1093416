"""Every public array function once, with a call that is valid for it.

`test_table.py` crosses these rows with the properties that every layer has; `test_coverage`
there fails for a public function that has neither a row nor a reason in `EXEMPT`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
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
        half: whether it takes float16 and bfloat16.
    """

    fn: Callable[..., Any]
    args: Arrays
    config: dict[str, Any] = {}  # noqa: RUF012  (never mutated; NamedTuple allows no factory)
    smooth: int = 2
    half: bool = True

    @property
    def name(self) -> str:
        return self.fn.__name__


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
    Row(fnn.conv_matrix, normal((3, 2, 3)), {"spatial": (5,), "stride": 2}),
    Row(fnn.conv_taps, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"stride": 2, "groups": 2}),
    Row(fnn.conv_transpose, normal((2, 3, 4, 6), (3, 3, 2, 6), (4,)), {"stride": 2, "groups": 2}),
    Row(fnn.conv_winograd, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"groups": 2}),
    Row(fnn.conv_winograd2, normal((2, 5, 6, 4), (3, 3, 2, 6), (6,)), {"groups": 2}),
    Row(fnn.convolve, normal((2, 7, 2), (2, 2, 3), (7, 3)), {"dilation": 2}),
]

IMAGES = normal((2, 7, 6, 3))
PLACES = {"window": (3, 2), "stride": 2, "padding": 1}


def pooled(rng: np.random.Generator) -> tuple[Any, ...]:
    """Maxima of a plane of 4 by 3, and where in it they were."""
    places = np.asarray([0, 5, 7, 11], np.int32).reshape(1, 2, 2, 1)
    return *normal((2, 2, 2, 3))(rng), np.broadcast_to(places, (2, 2, 2, 3))


POOLING: list[Row] = [
    Row(fnn.max_pool_indices, IMAGES, PLACES, smooth=0, half=False),  # gives integers
    Row(fnn.max_unpool, pooled, {"spatial": (4, 3)}),
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
    Row(fnn.prelu, normal((2, 4), (4,))),
]

LOSSES: list[Row] = [
    Row(fnn.squared_error, normal((4, 3), (4, 3))),
    Row(fnn.absolute_error, normal((4, 3), (4, 3))),
    Row(fnn.huber, normal((4, 3), (4, 3)), {"delta": 0.5}, smooth=1),
    Row(fnn.cosine_distance, normal((4, 3), (4, 3))),
    Row(fnn.binary_cross_entropy, lambda rng: (*normal((4, 3))(rng), rng.integers(0, 2, (4, 3)))),
    Row(fnn.hinge, lambda rng: (*normal((4, 3))(rng), 2 * rng.integers(0, 2, (4, 3)) - 1)),
    Row(fnn.cross_entropy, classes, {"label_smoothing": 0.1}),
    Row(fnn.nll, classes),
    Row(fnn.kl_divergence, lambda rng: (*normal((4, 3))(rng), rng.random((4, 3), np.float32))),
    Row(fnn.l1_penalty, normal((4, 3)), half=False),
    Row(fnn.l2_penalty, normal((4, 3)), half=False),
    Row(fnn.accuracy, classes, smooth=0),
    Row(fnn.top_k_accuracy, classes, {"k": 2}, smooth=0),
    Row(fnn.confusion_matrix, classes, smooth=0, half=False),
    Row(fnn.perplexity, classes),
]

LAYERS: list[Row] = [  # linear, normalization, dropout
    Row(fnn.dense, normal((3, 5), (5, 2), (2,))),
    Row(fnn.embed, lambda rng: (rng.integers(0, 7, (3, 4)), *normal((7, 5))(rng))),
    Row(fnn.flatten, normal((3, 2, 2, 4))),
    Row(fnn.dropout, normal((5, 7)), {"rate": 0.4, "key": jax.random.key(0)}),
    Row(
        fnn.batch_norm,
        lambda rng: (*normal((4, 3, 3, 2), (2,), (2,), (2,))(rng), np.float32([1, 2])),
    ),
    Row(fnn.batch_stats, normal((4, 3, 3, 2)), half=False),  # gives float32 for them
    Row(fnn.layer_norm, normal((4, 3, 5), (5,), (5,))),
    Row(fnn.rms_norm, normal((4, 3, 5), (5,))),
    Row(fnn.group_norm, normal((3, 2, 3, 6), (6,), (6,)), {"groups": 2}),
    Row(fnn.instance_norm, normal((3, 2, 3, 2), (2,), (2,))),
    Row(fnn.spectral_norm, normal((3, 4, 5), (5,)), smooth=0),  # its vectors count as constants
    Row(fnn.standardize, lambda rng: (*normal((4, 3, 2), (2,))(rng), np.float32([0.5, 2]))),
    Row(fnn.fit_standardize, normal((4, 3, 2)), half=False),  # gives float32 for them
]

ENDS = {"lengths": jax.numpy.array([3, 1])}
RECURRENT: list[Row] = [
    Row(fnn.rnn, normal((2, 3, 2), (2, 4), (4, 4), (4,)), ENDS),
    # The second derivatives of lstm and gru: kernels/recurrent/test_written.py.
    Row(fnn.lstm, normal((2, 3, 2), (2, 12), (3, 12), (12,)), ENDS, smooth=1),
    Row(fnn.gru, normal((2, 3, 2), (2, 9), (3, 9), (9,), (3,)), ENDS, smooth=1),
    Row(fnn.rnn_scan, normal((2, 3, 2), (2, 4), (4, 4), (4,)), ENDS, smooth=1),
    Row(fnn.lstm_scan, normal((2, 3, 2), (2, 12), (3, 12), (12,)), ENDS, smooth=1),
    Row(fnn.gru_scan, normal((2, 3, 2), (2, 9), (3, 9), (9,), (3,)), ENDS, smooth=1),
    Row(fnn.rnn_cell, normal((2, 2), (2, 4), (4, 4), (4,)), smooth=1),
    Row(fnn.lstm_cell, normal((2, 2), (2, 12), (3, 12), (12,)), smooth=1),
    Row(fnn.gru_cell, normal((2, 2), (2, 9), (3, 9), (9,), (3,)), smooth=1),
    Row(fnn.linear_recurrence, normal((2, 3, 2), (2, 3, 2))),
]

ROWS = [*CONV, *POOLING, *ACTIVATIONS, *LOSSES, *LAYERS, *RECURRENT]

# Public names that are no array functions, each with its reason and where it is tested instead.
EXEMPT: dict[str, str] = {
    "accumulate": "a transform, no array function: test_transforms.py",
    "adadelta": "an optimizer, no array function: test_optimizers.py",
    "adagrad": "an optimizer, no array function: test_optimizers.py",
    "adamax": "an optimizer, no array function: test_optimizers.py",
    "adamw": "an optimizer, no array function: test_optimizers.py",
    "add_weight_decay": "a transform, no array function: test_transforms.py",
    "amsgrad": "an optimizer, no array function: test_optimizers.py",
    "average": "a transform, no array function: test_transforms.py",
    "chain": "a transform, no array function: test_transforms.py",
    "clip_by_global_norm": "a transform, no array function: test_transforms.py",
    "clip_by_value": "a transform, no array function: test_transforms.py",
    "count": "takes any pytree: test_trees.py",
    "flat": "a transform, no array function: test_flat.py",
    "freeze": "a transform, no array function: test_parts.py",
    "partition": "a transform, no array function: test_parts.py",
    "l2": "a transform, no array function: test_transforms.py",
    "learning_rate": "takes the state of an optimizer: test_optimizers.py",
    "lion": "an optimizer, no array function: test_optimizers.py",
    "lookahead": "a transform, no array function: test_transforms.py",
    "momentum": "an optimizer, no array function: test_optimizers.py",
    "muon": "an optimizer, no array function: test_optimizers.py",
    "nadam": "an optimizer, no array function: test_optimizers.py",
    "nesterov": "an optimizer, no array function: test_optimizers.py",
    "paths": "takes any pytree: test_trees.py",
    "radam": "an optimizer, no array function: test_optimizers.py",
    "rmsprop": "an optimizer, no array function: test_optimizers.py",
    "with_learning_rate": "takes the state of an optimizer: test_optimizers.py",
    "with_master_weights": "a transform, no array function: test_transforms.py",
    "critical_point": "takes a loss: test_curvature.py",
    "extreme_eigenvalues": "takes a loss: test_curvature.py",
    "hessian_diagonal": "takes a loss: test_curvature.py",
    "hutchinson_diagonal": "takes a loss: test_curvature.py",
    "hvp": "takes a loss: test_curvature.py",
    "max_stable_step": "takes a loss: test_curvature.py",
    "diagonal_newton": "returns functions: test_newton.py",
    "newton": "returns functions: test_newton.py",
    "adam": "an optimizer, no array function: test_optimizers.py",
    "augmented": "takes a loss: tests/training",
    "evaluate": "takes functions and data: tests/training",
    "predict": "takes functions and data: tests/training",
    "trajectory": "takes a loss and an optimizer: tests/training",
    "make_step": "takes functions: test_training.py",
    "sgd": "an optimizer, no array function: test_optimizers.py",
    "train": "takes functions: test_training.py",
    "init_conv": "a key and sizes, no array to differentiate: test_initializers.py",
    "init_dense": "a key and sizes: test_initializers.py",
    "init_embed": "a key and sizes: test_initializers.py",
    "init_norm": "sizes only: test_normalization.py",
    "bidirectional": "takes a function: test_recurrent.py",
    "init_gru": "a key and sizes: test_recurrent_init.py",
    "init_lstm": "a key and sizes: test_recurrent_init.py",
    "init_rnn": "a key and sizes: test_recurrent_init.py",
    "lstm_cudnn": "on a GPU only: kernels/recurrent/test_written.py",
    "running_stats": "takes pairs of arrays: test_normalization.py",
    "load": "reads a file: test_checkpoint.py",
    "save": "writes a file: test_checkpoint.py",
    "output_size": "integers only: test_windows.py",
    "receptive_field": "integers only: test_windows.py",
    "transposed_size": "integers only: test_windows.py",
    "tune": "measures and writes a file: test_rules.py",
}
