"""Networks of dense layers and of a convolution, their derivatives written out in NumPy."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from tests.check import close
from tests.layers.test_conv import normal
from tests.oracles import backprop as oracle
from tests.oracles import conv as conv_oracle

SIZES = (4, 5, 3, 6)
ACTS = ("tanh", "sigmoid", "relu", "softplus", "piecewise_linear", "identity")
LABELS = np.array([2, 0, 1, 2, 1])


def draw(depth: int) -> list[Any]:
    """W_d and b_d of a network of this many layers."""
    shapes = list(itertools.pairwise(SIZES[: depth + 1]))
    arrays = normal(*shapes, *((n,) for _, n in shapes))
    return list(zip(arrays[:depth], arrays[depth:], strict=True))


def mlp(layers: Any, x: Any, act: str) -> Any:
    """h_d = act(W_d h_(d-1) + b_d), with rows for examples."""
    for w, b in layers:
        x = getattr(fnn, act)(fnn.dense(x, w, b))
    return x


def mean_loss(layers: Any, x: Any, y: Any, act: str) -> Any:
    return fnn.squared_error(mlp(layers, x, act), y).sum(-1).mean()


DEPTHS = (1, 2, 3)
NETWORKS = list(itertools.product(DEPTHS, ACTS))


def test_C1_C3_networks_of_any_depth_and_activation() -> None:
    """The mean loss over samples, and its gradients by the recursion over the layers."""
    x, *targets = normal((5, 4), *((5, SIZES[depth]) for depth in DEPTHS))
    networks = {depth: draw(depth) for depth in DEPTHS}

    @jax.jit
    def run(x: Any, networks: Any, targets: Any) -> Any:
        step = jax.value_and_grad(mean_loss)
        return [step(networks[d], x, targets[d - 1], act) for d, act in NETWORKS]

    results = run(x, networks, targets)
    for (depth, act), (loss, grads) in zip(NETWORKS, results, strict=True):
        layers, y = networks[depth], targets[depth - 1].astype(np.float64)
        hidden, slopes = oracle.forward(layers, x, [act] * depth)
        each = ((hidden[-1] - y) ** 2).sum(1)
        close(loss, each.mean(), length=30)
        to_output = 2 * (hidden[-1] - y) / len(x)
        by_hand = oracle.backward(layers, hidden, slopes, to_output)
        for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(by_hand), strict=True):
            close(got, want, length=30)


def test_C3_the_rules_of_derivatives() -> None:
    """d(Ax)/dx = A; d(Xa)/dX = rho(a, m) with rho_ijk = a_j 1(i = k), of X_kj."""
    x, a = normal((4,), (3, 4))
    close(jax.jacobian(lambda x: fnn.dense(x, a.T))(x), a)
    got = jax.jacobian(lambda matrix: fnn.dense(x, matrix.T))(jnp.asarray(a))  # (i, k, j)
    rho = np.zeros((3, 4, 3))
    for i, j, k in np.ndindex(rho.shape):
        rho[i, j, k] = x[j] * (i == k)
    close(jnp.swapaxes(got, 1, 2), rho)


def test_C3_products_of_matrices() -> None:
    """Numerator layout: dh_D/dh_(d-1) is a product of diag(act'(z)) W, the last layer first."""
    layers, (x,) = draw(3), normal((1, 4))
    hidden, slopes = oracle.forward(layers, x, ["tanh"] * 3)
    jacobian = np.eye(SIZES[3])  # of h_D, to h_d
    to_weights: list[Any] = []
    for d in (2, 1, 0):
        w = layers[d][0].T  # of the text: (outputs, inputs)
        jacobian = jacobian @ np.diag(slopes[d][0])  # to z_d
        rho = np.einsum("j,ik->ijk", hidden[d][0], np.eye(len(w)))
        to_weights.insert(0, np.einsum("oi,ijk->ojk", jacobian, rho))
        jacobian = jacobian @ w
    call = lambda layers, x: mlp(layers, x[None], "tanh")[0]
    by_layers, by_input = jax.jit(jax.jacobian(call, (0, 1)))(layers, x[0])
    close(by_input, jacobian, length=60)
    for (got, _), want in zip(by_layers, to_weights, strict=True):
        close(got, want, length=60)


def test_D5_a_convolution_and_softmax() -> None:
    """dK = X * (act'(Z) . delta) with delta = U^T (f - e(Y)): a convolution of the image."""
    x, k, u, b = normal((5, 6, 5, 2), (3, 2, 2, 3), (4 * 4 * 3, 3), (3,))

    def loss(k: Any, u: Any, b: Any) -> Any:
        h = fnn.sigmoid(fnn.conv(x, k, padding="VALID"))
        return fnn.cross_entropy(fnn.dense(fnn.flatten(h), u, b), LABELS).mean()

    wide = [a.astype(np.float64) for a in (x, k, u, b)]
    z = conv_oracle.conv(*wide[:2], padding="VALID")
    h = 1 / (1 + np.exp(-z))
    f = oracle.softmax(h.reshape(5, -1) @ wide[2] + wide[3])
    error = -(np.eye(3)[LABELS] - f) / 5
    delta = h * (1 - h) * (error @ wide[2].T).reshape(z.shape)
    dk = np.zeros(k.shape)
    for i, j in np.ndindex(3, 2):
        dk[i, j] = np.einsum("npqc,npqo->co", wide[0][:, i : i + 4, j : j + 4], delta)
    grads = jax.jit(jax.grad(loss, (0, 1, 2)))(k, u, b)
    for got, want in zip(grads, (dk, h.reshape(5, -1).T @ error, error.sum(0)), strict=True):
        close(got, want, length=80)
