"""Losses in plain float64 NumPy: by entry, with two derivatives in x, or by example."""

import math
from typing import Any

import numpy as np

from tests.oracles.activations import Three, log_softmax, softplus


def times(weight: Any, value: np.ndarray) -> np.ndarray:
    """The product, where no weight times infinity is 0."""
    return np.where(weight == 0, np.where(np.isnan(value), value, 0), weight * value)


def squared_error(x: np.ndarray, y: float) -> Three:
    return (x - y) ** 2, 2 * (x - y), np.full_like(x, 2)


def absolute_error(x: np.ndarray, y: float) -> Three:
    return np.abs(x - y), np.sign(x - y), np.zeros_like(x)


def huber(x: np.ndarray, y: float, delta: float = 1.0) -> Three:
    d = x - y
    value = np.where(np.abs(d) <= delta, d**2 / 2, delta * (np.abs(d) - delta / 2))
    return value, np.clip(d, -delta, delta), (np.abs(d) < delta).astype(float)


def binary_cross_entropy(x: np.ndarray, y: float, pos_weight: float = 1.0) -> Three:
    (a, da, dda), (b, db, ddb) = softplus(x), softplus(-x)
    u, v = 1 - y, pos_weight * y
    return times(u, a) + times(v, b), u * da - v * db, u * dda + v * ddb


def hinge(x: np.ndarray, y: float) -> Three:
    return np.maximum(0, 1 - y * x), np.where(y * x < 1, -y, 0.0), np.zeros_like(x)


def unit(v: np.ndarray) -> np.ndarray:
    """The vector of length 1 in this direction; infinite entries outweigh all others, equally."""
    if np.isinf(v).any():
        v = np.where(np.isinf(v), np.sign(v), 0)
    v = v / max(np.abs(v).max(), np.finfo(v.dtype).tiny)
    return v / max(math.sqrt(v @ v), np.finfo(v.dtype).tiny)


def cosine_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    out = np.zeros(x.shape[:-1])
    for n in np.ndindex(out.shape):
        out[n] = ((unit(x[n]) - unit(y[n])) ** 2).sum() / 2 if x[n].any() and y[n].any() else 1
    return out


def cross_entropy(
    logits: np.ndarray,
    labels: np.ndarray,
    label_smoothing: float = 0.0,
    weights: np.ndarray | None = None,
    ignore: int | None = None,
    where: np.ndarray | None = None,
) -> np.ndarray:
    """``-sum_k w_k q_k log p_k`` over the classes that an example has; 0 if it has none."""
    log_p = log_softmax(logits, where)
    out = np.zeros(log_p.shape[:-1])
    for n in np.ndindex(out.shape):
        here = np.isfinite(log_p[n])
        if not here.any() or (ignore is not None and labels[n] == ignore):
            continue
        if labels.dtype.kind in "iu" and not 0 <= labels[n] < log_p.shape[-1]:
            out[n] = np.nan
            continue
        for k in range(log_p.shape[-1]):
            q = labels[n][k] if labels.dtype.kind == "f" else float(labels[n] == k)
            q = (1 - label_smoothing) * q + label_smoothing * here[k] / here.sum()
            if q:
                out[n] -= q * log_p[n][k] * (1 if weights is None else weights[k])
    return out


def nll(log_p: np.ndarray, labels: np.ndarray, **config: Any) -> np.ndarray:
    """``-w log p`` at the label."""
    weights = config.get("weights")
    out = np.zeros(labels.shape)
    for n in np.ndindex(labels.shape):
        if labels[n] != config.get("ignore"):
            out[n] = -log_p[n][labels[n]] * (1 if weights is None else weights[labels[n]])
    return out


def kl_divergence(logits: np.ndarray, q: np.ndarray) -> np.ndarray:
    log_p = log_softmax(logits)
    out = np.zeros(log_p.shape[:-1])
    for n in np.ndindex(log_p.shape):
        if q[n]:
            out[n[:-1]] += q[n] * (math.log(q[n]) - log_p[n])
    return out
