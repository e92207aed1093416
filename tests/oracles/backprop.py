"""Fully connected networks and their gradients, written out in float64 NumPy.

``h_0 = x`` and ``h_d = act_d(z_d)`` with ``z_d = h_(d-1) W_d + b_d``, one row for each example.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.oracles.activations import ORACLES

Layers = Sequence[tuple[np.ndarray, np.ndarray]]  # W_d (d_in, d_out) and b_d (d_out,)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def forward(
    layers: Layers, x: np.ndarray, acts: Sequence[str]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """All h_d, the input first, and all act_d'(z_d)."""
    hidden, slopes = [np.asarray(x, np.float64)], []
    for (w, b), act in zip(layers, acts, strict=True):
        value, slope, _ = ORACLES[act](hidden[-1] @ w + b)
        hidden.append(value)
        slopes.append(slope)
    return hidden, slopes


def backward(
    layers: Layers, hidden: Sequence[np.ndarray], slopes: Sequence[np.ndarray], to_output: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gradients to all W_d and b_d from the gradient to h_D.

    ``delta_d = (delta_(d+1) W_(d+1)^T) * act_d'(z_d)``, ``dW_d = h_(d-1)^T delta_d``, and db_d is
    the sum of delta_d over the examples.
    """
    grads, delta = [], to_output * slopes[-1]
    for d in reversed(range(len(layers))):
        grads.append((hidden[d].T @ delta, delta.sum(0)))
        if d:
            delta = (delta @ layers[d][0].T) * slopes[d - 1]
    return grads[::-1]


def softmax_network(
    layers: Layers, x: np.ndarray, labels: np.ndarray, act: str
) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """Mean cross-entropy of a network whose last layer is linear, and its gradients.

    ``d loss / d z_D = -(e(Y) - f(x)) / n`` for the unit vectors e(Y) and the probabilities f.
    """
    hidden, slopes = forward(layers, x, [act] * (len(layers) - 1) + ["identity"])
    f, rows = softmax(hidden[-1]), np.arange(len(labels))
    loss = -np.log(f[rows, labels]).mean()
    error = -(np.eye(f.shape[1])[labels] - f) / len(labels)
    return float(loss), backward(layers, hidden, slopes, error)
