"""fnn: functional neural networks on JAX."""

from fnn import data as data
from fnn.analysis.curvature import CriticalPoint as CriticalPoint
from fnn.analysis.curvature import Spectrum as Spectrum
from fnn.analysis.curvature import critical_point as critical_point
from fnn.analysis.curvature import extreme_eigenvalues as extreme_eigenvalues
from fnn.analysis.curvature import hessian_diagonal as hessian_diagonal
from fnn.analysis.curvature import hutchinson_diagonal as hutchinson_diagonal
from fnn.analysis.curvature import hvp as hvp
from fnn.analysis.curvature import max_stable_step as max_stable_step
from fnn.kernels.conv.tuning import tune as tune
from fnn.layers import initializers as initializers
from fnn.layers.activations import gelu as gelu
from fnn.layers.activations import glu as glu
from fnn.layers.activations import hard_sigmoid as hard_sigmoid
from fnn.layers.activations import hard_swish as hard_swish
from fnn.layers.activations import hard_tanh as hard_tanh
from fnn.layers.activations import identity as identity
from fnn.layers.activations import log_sigmoid as log_sigmoid
from fnn.layers.activations import mish as mish
from fnn.layers.activations import piecewise_linear as piecewise_linear
from fnn.layers.activations import sigmoid as sigmoid
from fnn.layers.activations import sign as sign
from fnn.layers.activations import silu as silu
from fnn.layers.activations import softplus as softplus
from fnn.layers.activations import softsign as softsign
from fnn.layers.activations import tanh as tanh
from fnn.layers.activations import unit_step as unit_step
from fnn.layers.conv import conv as conv
from fnn.layers.conv import conv_fft as conv_fft
from fnn.layers.conv import conv_im2col as conv_im2col
from fnn.layers.conv import conv_lax as conv_lax
from fnn.layers.conv import conv_matrix as conv_matrix
from fnn.layers.conv import conv_taps as conv_taps
from fnn.layers.conv import conv_transpose as conv_transpose
from fnn.layers.conv import conv_winograd as conv_winograd
from fnn.layers.conv import conv_winograd2 as conv_winograd2
from fnn.layers.conv import convolve as convolve
from fnn.layers.dropout import dropout as dropout
from fnn.layers.initializers import init_conv as init_conv
from fnn.layers.linear import dense as dense
from fnn.layers.linear import embed as embed
from fnn.layers.linear import flatten as flatten
from fnn.layers.linear import init_dense as init_dense
from fnn.layers.linear import init_embed as init_embed
from fnn.layers.normalization import batch_norm as batch_norm
from fnn.layers.normalization import group_norm as group_norm
from fnn.layers.normalization import init_norm as init_norm
from fnn.layers.normalization import instance_norm as instance_norm
from fnn.layers.normalization import layer_norm as layer_norm
from fnn.layers.normalization import rms_norm as rms_norm
from fnn.layers.normalization import spectral_norm as spectral_norm
from fnn.layers.pooling import avg_pool as avg_pool
from fnn.layers.pooling import lp_pool as lp_pool
from fnn.layers.pooling import max_pool as max_pool
from fnn.layers.pooling import min_pool as min_pool
from fnn.layers.pooling import sum_pool as sum_pool
from fnn.layers.pooling_forms import avg_pool_lax as avg_pool_lax
from fnn.layers.pooling_forms import avg_pool_slices as avg_pool_slices
from fnn.layers.pooling_forms import lp_pool_lax as lp_pool_lax
from fnn.layers.pooling_forms import lp_pool_slices as lp_pool_slices
from fnn.layers.pooling_forms import max_pool_lax as max_pool_lax
from fnn.layers.pooling_forms import max_pool_slices as max_pool_slices
from fnn.layers.pooling_forms import min_pool_lax as min_pool_lax
from fnn.layers.pooling_forms import min_pool_slices as min_pool_slices
from fnn.layers.pooling_forms import sum_pool_lax as sum_pool_lax
from fnn.layers.pooling_forms import sum_pool_slices as sum_pool_slices
from fnn.layers.rectifiers import celu as celu
from fnn.layers.rectifiers import elu as elu
from fnn.layers.rectifiers import leaky_relu as leaky_relu
from fnn.layers.rectifiers import prelu as prelu
from fnn.layers.rectifiers import relu as relu
from fnn.layers.rectifiers import relu6 as relu6
from fnn.layers.rectifiers import selu as selu
from fnn.layers.rectifiers import squareplus as squareplus
from fnn.layers.regions import adaptive_avg_pool as adaptive_avg_pool
from fnn.layers.regions import adaptive_max_pool as adaptive_max_pool
from fnn.layers.regions import global_avg_pool as global_avg_pool
from fnn.layers.regions import global_max_pool as global_max_pool
from fnn.layers.regions import global_min_pool as global_min_pool
from fnn.layers.regions import partition_pool as partition_pool
from fnn.layers.softmax import log_softmax as log_softmax
from fnn.layers.softmax import logsumexp as logsumexp
from fnn.layers.softmax import softmax as softmax
from fnn.layers.statistics import BatchStats as BatchStats
from fnn.layers.statistics import batch_stats as batch_stats
from fnn.layers.statistics import fit_standardize as fit_standardize
from fnn.layers.statistics import running_stats as running_stats
from fnn.layers.statistics import standardize as standardize
from fnn.losses.classification import cross_entropy as cross_entropy
from fnn.losses.classification import kl_divergence as kl_divergence
from fnn.losses.classification import nll as nll
from fnn.losses.metrics import accuracy as accuracy
from fnn.losses.metrics import confusion_matrix as confusion_matrix
from fnn.losses.metrics import perplexity as perplexity
from fnn.losses.metrics import top_k_accuracy as top_k_accuracy
from fnn.losses.penalties import l1_penalty as l1_penalty
from fnn.losses.penalties import l2_penalty as l2_penalty
from fnn.losses.regression import absolute_error as absolute_error
from fnn.losses.regression import binary_cross_entropy as binary_cross_entropy
from fnn.losses.regression import cosine_distance as cosine_distance
from fnn.losses.regression import hinge as hinge
from fnn.losses.regression import huber as huber
from fnn.losses.regression import squared_error as squared_error
from fnn.optimizers import schedules as schedules
from fnn.optimizers.adam import adamax as adamax
from fnn.optimizers.adam import adamw as adamw
from fnn.optimizers.adam import amsgrad as amsgrad
from fnn.optimizers.adam import lion as lion
from fnn.optimizers.adam import nadam as nadam
from fnn.optimizers.adam import radam as radam
from fnn.optimizers.adaptive import adadelta as adadelta
from fnn.optimizers.adaptive import adagrad as adagrad
from fnn.optimizers.adaptive import rmsprop as rmsprop
from fnn.optimizers.descent import Optimizer as Optimizer
from fnn.optimizers.descent import adam as adam
from fnn.optimizers.descent import learning_rate as learning_rate
from fnn.optimizers.descent import momentum as momentum
from fnn.optimizers.descent import nesterov as nesterov
from fnn.optimizers.descent import sgd as sgd
from fnn.optimizers.descent import with_learning_rate as with_learning_rate
from fnn.optimizers.flat import flat as flat
from fnn.optimizers.muon import muon as muon
from fnn.optimizers.newton import diagonal_newton as diagonal_newton
from fnn.optimizers.newton import newton as newton
from fnn.optimizers.transforms import add_weight_decay as add_weight_decay
from fnn.optimizers.transforms import chain as chain
from fnn.optimizers.transforms import clip_by_global_norm as clip_by_global_norm
from fnn.optimizers.transforms import clip_by_value as clip_by_value
from fnn.optimizers.transforms import freeze as freeze
from fnn.optimizers.transforms import l2 as l2
from fnn.optimizers.wrappers import accumulate as accumulate
from fnn.optimizers.wrappers import average as average
from fnn.optimizers.wrappers import lookahead as lookahead
from fnn.optimizers.wrappers import with_master_weights as with_master_weights
from fnn.training.run import Report as Report
from fnn.training.run import make_step as make_step
from fnn.training.run import train as train
from fnn.trees import count as count
from fnn.trees import paths as paths
from fnn.weights.checkpoint import load as load
from fnn.weights.checkpoint import save as save
from fnn.windows import output_size as output_size
from fnn.windows import receptive_field as receptive_field
from fnn.windows import transposed_size as transposed_size

__all__ = [
    "BatchStats",
    "CriticalPoint",
    "Optimizer",
    "Report",
    "Spectrum",
    "absolute_error",
    "accumulate",
    "accuracy",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add_weight_decay",
    "amsgrad",
    "average",
    "avg_pool",
    "avg_pool_lax",
    "avg_pool_slices",
    "batch_norm",
    "batch_stats",
    "binary_cross_entropy",
    "celu",
    "chain",
    "clip_by_global_norm",
    "clip_by_value",
    "confusion_matrix",
    "conv",
    "conv_fft",
    "conv_im2col",
    "conv_lax",
    "conv_matrix",
    "conv_taps",
    "conv_transpose",
    "conv_winograd",
    "conv_winograd2",
    "convolve",
    "cosine_distance",
    "count",
    "critical_point",
    "cross_entropy",
    "data",
    "dense",
    "diagonal_newton",
    "dropout",
    "elu",
    "embed",
    "extreme_eigenvalues",
    "fit_standardize",
    "flat",
    "flatten",
    "freeze",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "global_min_pool",
    "glu",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "hessian_diagonal",
    "hinge",
    "huber",
    "hutchinson_diagonal",
    "hvp",
    "identity",
    "init_conv",
    "init_dense",
    "init_embed",
    "init_norm",
    "initializers",
    "instance_norm",
    "kl_divergence",
    "l1_penalty",
    "l2",
    "l2_penalty",
    "layer_norm",
    "leaky_relu",
    "learning_rate",
    "lion",
    "load",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "lookahead",
    "lp_pool",
    "lp_pool_lax",
    "lp_pool_slices",
    "make_step",
    "max_pool",
    "max_pool_lax",
    "max_pool_slices",
    "max_stable_step",
    "min_pool",
    "min_pool_lax",
    "min_pool_slices",
    "mish",
    "momentum",
    "muon",
    "nadam",
    "nesterov",
    "newton",
    "nll",
    "output_size",
    "partition_pool",
    "paths",
    "perplexity",
    "piecewise_linear",
    "prelu",
    "radam",
    "receptive_field",
    "relu",
    "relu6",
    "rms_norm",
    "rmsprop",
    "running_stats",
    "save",
    "schedules",
    "selu",
    "sgd",
    "sigmoid",
    "sign",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "spectral_norm",
    "squared_error",
    "squareplus",
    "standardize",
    "sum_pool",
    "sum_pool_lax",
    "sum_pool_slices",
    "tanh",
    "top_k_accuracy",
    "train",
    "transposed_size",
    "tune",
    "unit_step",
    "with_learning_rate",
    "with_master_weights",
]
