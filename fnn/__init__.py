"""fnn: functional neural networks on JAX.

A layer is a pure function of arrays, a model a function of a parameter pytree, an optimizer a pair
of functions, and a training run one compiled program. Everything composes with `jax.jit`,
`jax.grad`, `jax.vmap` and optax. The rooms, in reading order:

- `fnn.layers`, what stands inside a model: conv and its algorithms, conv_transpose, convolve,
  conv_matrix; max_pool, avg_pool and kin; dense, embed, flatten; relu, gelu, softmax and kin;
  batch_norm, layer_norm and kin; dropout; rnn, lstm, gru and their cells, bidirectional,
  linear_recurrence; ``init_<layer>`` for dense, embed, conv, conv_transpose, norm, rnn, lstm and
  gru, and `fnn.initializers`.
- `fnn.losses`: cross_entropy, squared_error and kin; l1_penalty, l2_penalty; accuracy and kin.
- `fnn.analysis`, what a network does: hvp, extreme_eigenvalues, critical_point, max_stable_step;
  checks of gradients, values inside a model, sizes, ranges of rates.
- `fnn.optimizers`: sgd, adam and kin, newton; chain, clipping, decay, freezing, averaging, loss
  scaling; and `fnn.schedules`.
- `fnn.training`: make_step, one compiled step; train, a whole run, its Report and its Run;
  augmented; evaluate, predict; trajectory; `fnn.sharding`.
- `fnn.data`: the packaged digits, readers of image files, batches of large arrays.
- `fnn.weights`: save, load, the latest file, PyTorch's weights in and out.
- tools: output_size, receptive_field; count, paths, `fnn.trees`; tune, for convolutions;
  keep_memory, for large arrays on a CPU.

What a model, a loss or a training script needs has a flat name, such as `fnn.conv`; other names are
grouped, such as `fnn.schedules.cosine`. ``help(fnn.conv)`` shows one function.
"""

# isort: off
from fnn.kernels.conv.tuning import tune as tune
from fnn.windows import (
    ReceptiveField as ReceptiveField,
    output_size as output_size,
    receptive_field as receptive_field,
    transposed_size as transposed_size,
)
from fnn.memory import keep_memory as keep_memory
from fnn import trees as trees
from fnn.trees import count as count, paths as paths

from fnn.layers import initializers as initializers
from fnn.layers.linear import (
    dense as dense,
    init_dense as init_dense,
    embed as embed,
    init_embed as init_embed,
    flatten as flatten,
)
from fnn.layers.initializers import (
    init_conv as init_conv,
    init_conv_transpose as init_conv_transpose,
)
from fnn.layers.conv import (
    conv as conv,
    conv_lax as conv_lax,
    conv_im2col as conv_im2col,
    conv_taps as conv_taps,
    conv_winograd as conv_winograd,
    conv_winograd2 as conv_winograd2,
    conv_fft as conv_fft,
    conv_transpose as conv_transpose,
    convolve as convolve,
    conv_matrix as conv_matrix,
)
from fnn.layers.pooling import (
    max_pool as max_pool,
    max_pool_slices as max_pool_slices,
    max_pool_lax as max_pool_lax,
    max_pool_indices as max_pool_indices,
    max_unpool as max_unpool,
    min_pool as min_pool,
    min_pool_slices as min_pool_slices,
    min_pool_lax as min_pool_lax,
    sum_pool as sum_pool,
    sum_pool_slices as sum_pool_slices,
    sum_pool_lax as sum_pool_lax,
    avg_pool as avg_pool,
    avg_pool_slices as avg_pool_slices,
    avg_pool_lax as avg_pool_lax,
    lp_pool as lp_pool,
    lp_pool_slices as lp_pool_slices,
    lp_pool_lax as lp_pool_lax,
)
from fnn.layers.regions import (
    global_max_pool as global_max_pool,
    global_min_pool as global_min_pool,
    global_avg_pool as global_avg_pool,
    adaptive_max_pool as adaptive_max_pool,
    adaptive_avg_pool as adaptive_avg_pool,
    partition_pool as partition_pool,
)
from fnn.layers.activations import (
    identity as identity,
    sign as sign,
    unit_step as unit_step,
    relu as relu,
    leaky_relu as leaky_relu,
    prelu as prelu,
    relu6 as relu6,
    hard_tanh as hard_tanh,
    piecewise_linear as piecewise_linear,
    hard_sigmoid as hard_sigmoid,
    hard_swish as hard_swish,
    softsign as softsign,
    sigmoid as sigmoid,
    tanh as tanh,
    softplus as softplus,
    log_sigmoid as log_sigmoid,
    squareplus as squareplus,
    elu as elu,
    celu as celu,
    selu as selu,
    silu as silu,
    gelu as gelu,
    mish as mish,
    glu as glu,
)
from fnn.layers.softmax import (
    softmax as softmax,
    log_softmax as log_softmax,
    logsumexp as logsumexp,
)
from fnn.layers.statistics import (
    BatchStats as BatchStats,
    batch_stats as batch_stats,
    running_stats as running_stats,
    fit_standardize as fit_standardize,
    standardize as standardize,
)
from fnn.layers.normalization import (
    batch_norm as batch_norm,
    layer_norm as layer_norm,
    rms_norm as rms_norm,
    group_norm as group_norm,
    instance_norm as instance_norm,
    init_norm as init_norm,
    spectral_norm as spectral_norm,
)
from fnn.layers.dropout import dropout as dropout
from fnn.layers.recurrent import (
    rnn as rnn,
    rnn_scan as rnn_scan,
    rnn_cell as rnn_cell,
    lstm as lstm,
    lstm_scan as lstm_scan,
    lstm_cudnn as lstm_cudnn,
    lstm_cell as lstm_cell,
    gru as gru,
    gru_scan as gru_scan,
    gru_cell as gru_cell,
    bidirectional as bidirectional,
)
from fnn.layers.recurrent_init import (
    init_rnn as init_rnn,
    init_lstm as init_lstm,
    init_gru as init_gru,
)
from fnn.layers.linear_recurrence import linear_recurrence as linear_recurrence

from fnn.losses.regression import (
    squared_error as squared_error,
    absolute_error as absolute_error,
    huber as huber,
    cosine_distance as cosine_distance,
)
from fnn.losses.classification import (
    cross_entropy as cross_entropy,
    nll as nll,
    kl_divergence as kl_divergence,
    binary_cross_entropy as binary_cross_entropy,
    hinge as hinge,
)
from fnn.losses.penalties import l1_penalty as l1_penalty, l2_penalty as l2_penalty
from fnn.losses.metrics import (
    accuracy as accuracy,
    top_k_accuracy as top_k_accuracy,
    confusion_matrix as confusion_matrix,
    perplexity as perplexity,
)

from fnn import analysis as analysis
from fnn.analysis.curvature import (
    hvp as hvp,
    hessian_diagonal as hessian_diagonal,
    hutchinson_diagonal as hutchinson_diagonal,
    Spectrum as Spectrum,
    extreme_eigenvalues as extreme_eigenvalues,
    max_stable_step as max_stable_step,
    CriticalPoint as CriticalPoint,
    critical_point as critical_point,
)

from fnn.optimizers import schedules as schedules
from fnn.optimizers.base import (
    Optimizer as Optimizer,
    learning_rate as learning_rate,
    with_learning_rate as with_learning_rate,
)
from fnn.optimizers.descent import sgd as sgd, momentum as momentum, nesterov as nesterov
from fnn.optimizers.adaptive import adagrad as adagrad, rmsprop as rmsprop, adadelta as adadelta
from fnn.optimizers.adam import (
    adam as adam,
    adamw as adamw,
    amsgrad as amsgrad,
    adamax as adamax,
    nadam as nadam,
    radam as radam,
    lion as lion,
)
from fnn.optimizers.muon import muon as muon
from fnn.optimizers.newton import newton as newton, diagonal_newton as diagonal_newton
from fnn.optimizers.transforms import (
    chain as chain,
    clip_by_global_norm as clip_by_global_norm,
    clip_by_value as clip_by_value,
    l2 as l2,
    add_weight_decay as add_weight_decay,
)
from fnn.optimizers.parts import freeze as freeze, partition as partition
from fnn.optimizers.wrappers import (
    accumulate as accumulate,
    average as average,
    averaged as averaged,
    lookahead as lookahead,
    with_loss_scale as with_loss_scale,
    with_master_weights as with_master_weights,
)
from fnn.optimizers.flat import flat as flat

from fnn.training.step import make_step as make_step
from fnn.training.trajectory import Trajectory as Trajectory, trajectory as trajectory
from fnn.training.run import train as train
from fnn.training.report import (
    Report as Report,
    Run as Run,
    NonFiniteError as NonFiniteError,
)
from fnn.training.augment import augmented as augmented
from fnn.training.evaluate import evaluate as evaluate, predict as predict

from fnn.training import sharding as sharding

from fnn import data as data, weights as weights
from fnn.weights.checkpoint import save as save, load as load

__version__ = "0.2.0"

# What help() and a star import show: the names above, in their order, without the rooms' own.
_GROUPS = ("trees", "initializers", "analysis", "schedules", "sharding", "data", "weights")
__all__ = [
    name
    for name, value in list(globals().items())
    if not name.startswith("_") and (name in _GROUPS or not isinstance(value, type(data)))
]
