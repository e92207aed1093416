"""Reverse mode from scratch: a tape over NumPy trains a network and equals jax.grad.

Systems   B2 B3
Command   python examples/autodiff.py
Time      5 s on 2 cores
Expected
    The tape's gradients equal those of jax.grad.
    No linear model gets more than three of XOR's four points right.
    A two-layer perceptron, trained by the tape alone, gets all four.
"""

import jax
import jax.numpy as jnp
import numpy as np
from plots import figure, label, save
from story import arguments, confirm, table

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([0.0, 1.0, 1.0, 0.0])


class Node:
    """A value, and for each parent the function from its own gradient to the parent's share."""

    def __init__(self, value, parents=()):
        self.value, self.parents, self.grad = np.asarray(value, float), parents, 0.0

    def __add__(self, other):
        other = wrap(other)
        return Node(
            self.value + other.value,
            [(self, lambda g: unbroadcast(g, self)), (other, lambda g: unbroadcast(g, other))],
        )

    def __mul__(self, other):
        other = wrap(other)
        return Node(
            self.value * other.value,
            [
                (self, lambda g: unbroadcast(g * other.value, self)),
                (other, lambda g: unbroadcast(g * self.value, other)),
            ],
        )

    def __matmul__(self, other):
        return Node(
            self.value @ other.value,
            [(self, lambda g: g @ other.value.T), (other, lambda g: self.value.T @ g)],
        )

    def tanh(self):
        y = np.tanh(self.value)
        return Node(y, [(self, lambda g: g * (1 - y**2))])

    def mean(self):
        return Node(
            self.value.mean(),
            [(self, lambda g: np.full_like(self.value, g / self.value.size))],
        )


def wrap(value):
    return value if isinstance(value, Node) else Node(value)


def unbroadcast(g, node):
    """Sum over the axes along which a value was repeated."""
    g = g.sum(tuple(range(g.ndim - node.value.ndim)))
    repeated = [axis for axis, size in enumerate(node.value.shape) if size == 1 < g.shape[axis]]
    return g.sum(tuple(repeated), keepdims=True)


def backward(loss):
    """Visit every node after all that use it, and hand its gradient on to its parents."""
    order, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for parent, _ in node.parents:
                visit(parent)
            order.append(node)

    visit(loss)
    loss.grad = np.ones(())
    for node in reversed(order):
        for parent, share in node.parents:
            parent.grad = parent.grad + share(node.grad)


def network(params, x):
    """The same code runs on the tape, on NumPy and on JAX; tanh alone has three names."""
    h = x @ params["w1"] + params["b1"]
    h = h.tanh() if isinstance(h, Node) else (np if isinstance(h, np.ndarray) else jnp).tanh(h)
    return h @ params["w2"] + params["b2"]


def linear(params, x):
    return x @ params["w"] + params["b"]


def error(model, params, x, y):
    gap = model(params, x) + y * -1.0
    return (gap * gap).mean()


def gradients(model, params):
    nodes = {key: Node(value) for key, value in params.items()}
    loss = error(model, nodes, Node(X), Node(Y[:, None]))
    backward(loss)
    return float(loss.value), {key: node.grad for key, node in nodes.items()}


def train(model, params, rate, steps):
    for _ in range(steps):
        _, grads = gradients(model, params)
        params = {key: params[key] - rate * grads[key] for key in params}
    return params


def right(model, params):
    return int((((model(params, X)[:, 0]) > 0.5) == (Y > 0.5)).sum())


def main(argv=None):
    args = arguments(__doc__, argv)

    rng = np.random.default_rng(1)
    start = {
        "w1": rng.standard_normal((2, 3)), "b1": np.zeros((1, 3)),
        "w2": rng.standard_normal((3, 1)), "b2": np.zeros((1, 1)),
    }  # fmt: skip
    _, taped = gradients(network, start)
    with jax.enable_x64(True):
        exact = jax.grad(lambda p: error(network, p, jnp.asarray(X), jnp.asarray(Y[:, None])))(
            start
        )
    gap = max(float(np.abs(taped[k] - np.asarray(exact[k])).max()) for k in start)

    straight = train(linear, {"w": rng.standard_normal((2, 1)), "b": np.zeros((1, 1))}, 0.3, 500)
    angles, offsets = np.linspace(0, 2 * np.pi, 73), np.linspace(-2, 2, 81)
    best = max(
        right(linear, {"w": np.array([[np.cos(a)], [np.sin(a)]]), "b": np.array([[0.5 + b]])})
        for a in angles
        for b in offsets
    )
    bent = train(network, start, 0.3, 2000)
    table(
        ["model", "loss", "right of 4"],
        [(n, gradients(m, p)[0], right(m, p))
         for n, m, p in (("linear", linear, straight), ("two layers", network, bent))],
    )  # fmt: skip

    made, axes = figure(1, 2, width=3.4, height=3.2)
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 1.5, 101), np.linspace(-0.5, 1.5, 101)), -1)
    for at, model, params, name in (
        (axes[0], linear, straight, "linear: cannot"), (axes[1], network, bent, "two layers: XOR"),
    ):  # fmt: skip
        level = model(params, grid.reshape(-1, 2)).reshape(101, 101)
        at.contourf(grid[..., 0], grid[..., 1], level, [-9, 0.5, 9], colors=["0.95", "0.8"])
        for value, marker in ((0, "o"), (1, "s")):
            at.plot(*X[value == Y].T, marker, color="#0b3d91", label=f"XOR = {value}")
        at.grid(visible=False)
        label(at, name, "x1", "x2")
    axes[1].legend(fontsize=8, loc="center")
    save(made, args.out, "autodiff")

    confirm(__doc__, gap < 1e-12, best == 3, right(network, bent) == 4)


if __name__ == "__main__":
    main()
