"""fnn: functional neural networks on JAX."""

from fnn import data as data
from fnn import initializers as initializers
from fnn.activations import relu as relu
from fnn.checkpoint import load as load
from fnn.checkpoint import save as save
from fnn.conv import conv as conv
from fnn.conv import conv_lax as conv_lax
from fnn.conv import conv_matrix as conv_matrix
from fnn.conv import conv_transpose as conv_transpose
from fnn.conv import convolve as convolve
from fnn.dropout import dropout as dropout
from fnn.initializers import init_conv as init_conv
from fnn.linear import dense as dense
from fnn.linear import embed as embed
from fnn.linear import flatten as flatten
from fnn.linear import init_dense as init_dense
from fnn.linear import init_embed as init_embed
from fnn.losses import cross_entropy as cross_entropy
from fnn.metrics import accuracy as accuracy
from fnn.normalization import batch_norm as batch_norm
from fnn.normalization import group_norm as group_norm
from fnn.normalization import init_norm as init_norm
from fnn.normalization import instance_norm as instance_norm
from fnn.normalization import layer_norm as layer_norm
from fnn.normalization import rms_norm as rms_norm
from fnn.normalization import spectral_norm as spectral_norm
from fnn.optimizers import Optimizer as Optimizer
from fnn.optimizers import adam as adam
from fnn.optimizers import sgd as sgd
from fnn.pooling import avg_pool as avg_pool
from fnn.pooling import max_pool as max_pool
from fnn.statistics import BatchStats as BatchStats
from fnn.statistics import batch_stats as batch_stats
from fnn.statistics import fit_standardize as fit_standardize
from fnn.statistics import running_stats as running_stats
from fnn.statistics import standardize as standardize
from fnn.training import Report as Report
from fnn.training import make_step as make_step
from fnn.training import train as train
from fnn.windows import output_size as output_size
from fnn.windows import receptive_field as receptive_field
from fnn.windows import transposed_size as transposed_size

__all__ = [
    "BatchStats",
    "Optimizer",
    "Report",
    "accuracy",
    "adam",
    "avg_pool",
    "batch_norm",
    "batch_stats",
    "conv",
    "conv_lax",
    "conv_matrix",
    "conv_transpose",
    "convolve",
    "cross_entropy",
    "data",
    "dense",
    "dropout",
    "embed",
    "fit_standardize",
    "flatten",
    "group_norm",
    "init_conv",
    "init_dense",
    "init_embed",
    "init_norm",
    "initializers",
    "instance_norm",
    "layer_norm",
    "load",
    "make_step",
    "max_pool",
    "output_size",
    "receptive_field",
    "relu",
    "rms_norm",
    "running_stats",
    "save",
    "sgd",
    "spectral_norm",
    "standardize",
    "train",
    "transposed_size",
]
