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
from fnn.initializers import init_conv as init_conv
from fnn.linear import dense as dense
from fnn.linear import embed as embed
from fnn.linear import flatten as flatten
from fnn.linear import init_dense as init_dense
from fnn.linear import init_embed as init_embed
from fnn.losses import cross_entropy as cross_entropy
from fnn.metrics import accuracy as accuracy
from fnn.optimizers import Optimizer as Optimizer
from fnn.optimizers import adam as adam
from fnn.optimizers import sgd as sgd
from fnn.pooling import avg_pool as avg_pool
from fnn.pooling import max_pool as max_pool
from fnn.training import Report as Report
from fnn.training import make_step as make_step
from fnn.training import train as train
from fnn.windows import output_size as output_size
from fnn.windows import receptive_field as receptive_field
from fnn.windows import transposed_size as transposed_size

__all__ = [
    "Optimizer",
    "Report",
    "accuracy",
    "adam",
    "avg_pool",
    "conv",
    "conv_lax",
    "conv_matrix",
    "conv_transpose",
    "convolve",
    "cross_entropy",
    "data",
    "dense",
    "embed",
    "flatten",
    "init_conv",
    "init_dense",
    "init_embed",
    "initializers",
    "load",
    "make_step",
    "max_pool",
    "output_size",
    "receptive_field",
    "relu",
    "save",
    "sgd",
    "train",
    "transposed_size",
]
