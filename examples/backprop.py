"""Back-propagation by hand: the recursions of the texts train on digits and equal jax.grad.

Systems   A4 C3 D1 D5
Command   python examples/backprop.py
Time      15 s on 2 cores
Expected
    The recursion by hand gives jax.grad's gradients, for 1 to 4 layers and three activations.
    The Jacobian is the product of the diag(act') and W, as jax.jacobian has it.
    d(X a)/dX is rho_ijk = a_j where i = k, and 0 elsewhere.
    The whole algorithm of stochastic gradient descent, by hand, gets over 95 % of new digits right.
    A convolution's kernel gradient is the input slid under act'(Z) * delta; by it, over 90 %.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, figure, label, save
from story import arguments, confirm, table

import fnn

# Each activation and its derivative, by hand.
ACTIVATIONS = {
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
}
JAX = {"sigmoid": fnn.sigmoid, "tanh": fnn.tanh, "relu": fnn.relu}


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def start(sizes, rng):
    """Xavier's normal weights, zero biases."""
    pairs = list(itertools.pairwise(sizes))
    weights = [rng.standard_normal((n, m)) * np.sqrt(2 / (n + m)) for n, m in pairs]
    return weights, [np.zeros(m) for _, m in pairs]


def forward(weights, biases, x, act):
    """Every Z_l = H_(l-1) W_l + b_l and every H_l = act(Z_l); the last layer has no activation."""
    hidden, sums = [x], []
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        sums.append(hidden[-1] @ w + b)
        hidden.append(act(sums[-1]) if i < len(weights) - 1 else sums[-1])
    return hidden, sums


def backward(weights, hidden, sums, labels, slope):
    """delta_L = softmax - e(label); delta_l = (delta_(l+1) W_(l+1)^T) * act'(Z_l)."""
    n = len(labels)
    delta = (softmax(sums[-1]) - np.eye(weights[-1].shape[1])[labels]) / n
    grads = []
    for i in reversed(range(len(weights))):
        grads.append((hidden[i].T @ delta, delta.sum(0)))
        if i:
            delta = (delta @ weights[i].T) * slope(sums[i - 1])
    return grads[::-1]


def descend(sizes, x, y, rng, *, rate, decay, momentum, batch, steps, name="tanh"):
    """The algorithm of the text: a fresh random subset at every step, lambda in the cost."""
    act, slope = ACTIVATIONS[name]
    weights, biases = start(sizes, rng)
    velocity = [(np.zeros_like(w), np.zeros_like(b)) for w, b in zip(weights, biases, strict=True)]
    costs = []
    for _ in range(steps):
        chosen = rng.choice(len(x), batch, replace=False)
        hidden, sums = forward(weights, biases, x[chosen], act)
        likely = softmax(sums[-1])[np.arange(batch), y[chosen]]
        penalty = decay / 2 * sum((w**2).sum() for w in weights)
        costs.append(float(-np.log(likely).mean() + penalty))
        grads = backward(weights, hidden, sums, y[chosen], slope)
        for i, (dw, db) in enumerate(grads):
            vw, vb = velocity[i]
            velocity[i] = (
                momentum * vw - rate * (dw + decay * weights[i]),
                momentum * vb - rate * db,
            )
            weights[i], biases[i] = weights[i] + velocity[i][0], biases[i] + velocity[i][1]
    return weights, biases, costs


def by_jax(weights, biases, x, labels, name):
    def loss(params):
        h = x
        for i, (w, b) in enumerate(params):
            h = h @ w + b
            h = JAX[name](h) if i < len(params) - 1 else h
        return fnn.cross_entropy(h, labels).mean()

    return jax.jit(jax.grad(loss))(list(zip(weights, biases, strict=True)))


def layer_jacobian(weights, biases, x, name):
    """d h_D / d x in numerator layout: diag(act'(z_D)) W_D^T ... diag(act'(z_1)) W_1^T."""
    act, slope = ACTIVATIONS[name]
    jacobian, h = np.eye(len(x)), x
    for w, b in zip(weights, biases, strict=True):
        z = h @ w + b
        jacobian = np.diag(slope(z)) @ w.T @ jacobian
        h = act(z)
    return jacobian


def convolve(x, k):
    """Every 3x3 window of x (n, 8, 8) with every kernel k (3, 3, c): (n, 6, 6, c)."""
    return sum(x[:, i : i + 6, j : j + 6, None] * k[i, j] for i in range(3) for j in range(3))


def kernel_gradient(x, delta):
    """dK_ij = sum over n and places of x[n, p + i, q + j] delta[n, p, q]."""
    return np.stack(
        [[np.einsum("npq,npqc->c", x[:, i : i + 6, j : j + 6], delta) for j in range(3)]
         for i in range(3)]
    )  # fmt: skip


def convolution_network(x, y, rng, steps):
    """rho = cross-entropy(U . tanh(X * K) + b), every gradient written out."""
    k, u = 0.3 * rng.standard_normal((3, 3, 4)), 0.05 * rng.standard_normal((6, 6, 4, 10))
    b, gap, costs = np.zeros(10), 0.0, []
    for step in range(steps):
        chosen = rng.choice(len(x), 64, replace=False)
        z = convolve(x[chosen], k)
        h = np.tanh(z)
        p = softmax(np.einsum("npqc,pqco->no", h, u) + b)
        costs.append(float(-np.log(p[np.arange(64), y[chosen]]).mean()))
        error = (p - np.eye(10)[y[chosen]]) / 64  # -(e(Y) - f)
        delta = np.einsum("no,pqco->npqc", error, u)
        dk = kernel_gradient(x[chosen], (1 - h**2) * delta)
        if step == 0:
            gap = _gap_to_jax(x[chosen], y[chosen], k, u, b, dk)
        k, u = k - 0.5 * dk, u - 0.5 * np.einsum("npqc,no->pqco", h, error)
        b = b - 0.5 * error.sum(0)
    return (k, u, b), gap, costs


def _gap_to_jax(x, y, k, u, b, dk):
    with jax.enable_x64(True):

        def loss(k):
            z = fnn.conv(jnp.asarray(x[..., None]), k[:, :, None], padding="VALID")
            h = fnn.tanh(z).reshape(len(x), -1)
            return fnn.cross_entropy(h @ u.reshape(-1, 10) + b, jnp.asarray(y)).mean()

        return float(np.abs(np.asarray(jax.jit(jax.grad(loss))(k)) - dk).max())


def main(argv=None):
    args = arguments(__doc__, argv)
    train, test = fnn.data.digits()
    x, y = train.x.reshape(len(train.y), -1).astype(float), train.y
    new, truth = test.x.reshape(len(test.y), -1).astype(float), test.y
    rng = np.random.default_rng(0)

    gaps, sizes = [], {}
    with jax.enable_x64(True):
        for name, (act, slope) in ACTIVATIONS.items():
            for depth in (1, 2, 3, 4):
                weights, biases = start([64, *[12] * (depth - 1), 10], rng)
                hidden, sums = forward(weights, biases, x[:32], act)
                mine = backward(weights, hidden, sums, y[:32], slope)
                theirs = by_jax(weights, biases, jnp.asarray(x[:32]), jnp.asarray(y[:32]), name)
                pairs = zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True)
                gaps.append(max(float(np.abs(a - np.asarray(b)).max()) for a, b in pairs))
            sizes[name] = [float(np.linalg.norm(dw)) for dw, _ in mine]
        weights, biases = start([6, 5, 4, 3], rng)
        point = rng.standard_normal(6)

        def network(x):
            for w, b in zip(weights, biases, strict=True):
                x = fnn.tanh(x @ w + b)
            return x

        jacobian = np.asarray(jax.jit(jax.jacobian(network))(point))
        a = rng.standard_normal(4)
        rho = np.asarray(jax.jit(jax.jacobian(lambda m: m @ a))(np.ones((3, 4))))  # (i, k, j)
    product = layer_jacobian(weights, biases, point, "tanh")
    rule = np.einsum("ik,j->ikj", np.eye(3), a)

    steps = 300 if args.quick else 1500
    weights, biases, costs = descend(
        [64, 32, 10], x, y, rng, rate=0.1, decay=1e-4, momentum=0.9, batch=64, steps=steps
    )
    guess = forward(weights, biases, new, np.tanh)[0][-1].argmax(1)
    dense = float((guess == truth).mean())
    images, held = x.reshape(-1, 8, 8), new.reshape(-1, 8, 8)
    (k, u, b), conv_gap, conv_costs = convolution_network(images, y, rng, steps // 2)
    scores = np.einsum("npqc,pqco->no", np.tanh(convolve(held, k)), u) + b
    conv = float((scores.argmax(1) == truth).mean())
    table(
        ["by hand", "from jax.grad", "new digits right"],
        [("dense, 1 to 4 layers", max(gaps), f"{dense:.1%}"),
         ("one convolution", conv_gap, f"{conv:.1%}")],
    )  # fmt: skip

    made, axes = figure(1, 3)
    axes[0].semilogy(costs, color="#0b3d91", linewidth=0.7, label="dense 64-32-10")
    axes[0].semilogy(conv_costs, color="#d1495b", linewidth=0.7, label="one convolution")
    label(axes[0], "cost of each mini-batch", "step", "cost", legend=True)
    for line, (name, norms) in zip(LINES, sizes.items(), strict=False):
        axes[1].semilogy(range(1, len(norms) + 1), norms, **line, label=name)
    label(axes[1], "gradient of the weights at the start", "layer", "norm", legend=True)
    axes[2].imshow(np.concatenate(list(np.moveaxis(k, -1, 0)), 1), cmap="gray")
    axes[2].set(xticks=[], yticks=[])
    axes[2].grid(visible=False)
    label(axes[2], "the four learned kernels", "", "")
    save(made, args.out, "backprop")

    confirm(
        __doc__,
        max(gaps) < 1e-12,
        np.abs(jacobian - product).max() < 1e-12,
        np.array_equal(rho, rule),
        dense > 0.95,
        conv_gap < 1e-10 and conv > 0.9,
    )


if __name__ == "__main__":
    main()
