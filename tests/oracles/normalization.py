"""Normalization, entry by entry: every entry against the set of entries it is normalised over.

The mean is taken of ``x - x[0]``, so that float64 loses nothing to a large mean.
"""

from typing import Any

import numpy as np


def moments(values: Any) -> tuple[Any, Any]:
    """Mean and biased variance of all the values."""
    first = values.flat[0]
    mean = first + (values - first).sum() / values.size
    return mean, ((values - mean) ** 2).sum() / values.size


def batch_stats(x: Any) -> Any:
    """Rows mean and variance, one column per channel."""
    return np.array([moments(x[..., c]) for c in range(x.shape[-1])]).T


def mean_and_std(x: Any) -> Any:
    """Rows mean and standard deviation; 1 for a constant channel."""
    mean, var = batch_stats(x)
    constant = [np.ptp(x[..., c]) == 0 for c in range(x.shape[-1])]
    return np.stack([mean, np.where(constant, 1.0, np.sqrt(var))])


def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, eps: float = 1e-5) -> Any:
    y = np.zeros(x.shape)
    for c in range(x.shape[-1]):
        y[..., c] = (x[..., c] - mean[c]) / np.sqrt(var[c] + eps) * scale[c] + bias[c]
    return y


def trained_batch_norm(x: Any, scale: Any, bias: Any, *, eps: float = 1e-5) -> Any:
    """With the statistics of x itself."""
    return batch_norm(x, scale, bias, *batch_stats(x), eps=eps)


def layer_norm(x: Any, scale: Any, bias: Any = None, *, eps: float = 1e-5) -> Any:
    """Every position of the leading axes over the trailing axes of scale."""
    y = np.zeros(x.shape)
    for place in np.ndindex(x.shape[: x.ndim - scale.ndim]):
        mean, var = moments(x[place])
        y[place] = (x[place] - mean) / np.sqrt(var + eps) * scale
        if bias is not None:
            y[place] += bias
    return y


def rms_norm(x: Any, scale: Any, *, eps: float = 1e-5) -> Any:
    y = np.zeros(x.shape)
    for place in np.ndindex(x.shape[: x.ndim - scale.ndim]):
        square = (x[place] ** 2).sum() / x[place].size
        y[place] = x[place] / np.sqrt(square + eps) * scale
    return y


def group_norm(x: Any, scale: Any, bias: Any = None, *, groups: int, eps: float = 1e-5) -> Any:
    """Every example and every block of c / groups channels, over its positions."""
    y = np.zeros(x.shape)
    block = x.shape[-1] // groups
    for n in range(x.shape[0]):
        for c in range(x.shape[-1]):
            first = c // block * block
            mean, var = moments(x[n, ..., first : first + block])
            y[n, ..., c] = (x[n, ..., c] - mean) / np.sqrt(var + eps) * scale[c]
            if bias is not None:
                y[n, ..., c] += bias[c]
    return y


def instance_norm(x: Any, scale: Any, bias: Any = None, *, eps: float = 1e-5) -> Any:
    return group_norm(x, scale, bias, groups=x.shape[-1], eps=eps)
