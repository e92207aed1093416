"""Momentum is a ball with friction, and its velocity a weighted sum of past gradients.

Systems   A2 E4 B9
Command   python examples/momentum.py
Time      5 s on 2 cores
Expected
    A ball with friction and the momentum optimizer go the same way: they differ by rounding.
    Where friction times time step is 1 nothing is remembered: the ball is gradient descent.
    On 0.1 x^2 + 2 y^2 the rate 0.4 converges, 0.6 diverges; with momentum 0.5, 0.6 converges.
    Under a constant gradient the step ends at -rate / (1 - momentum) times the gradient.
    The step after t steps is -rate times the velocity, the sum of momentum^(t - i) gradient i.
"""

import jax
import jax.numpy as jnp
import numpy as np
from plots import LINES, contours, figure, label, save
from story import arguments, confirm, table

import fnn

START = jnp.array([-5.0, -2.0])


def valley(x):  # E4: a narrow valley
    return 0.1 * x[..., 0] ** 2 + 2 * x[..., 1] ** 2


def ball(x, friction, time_step, steps):
    """dv/dt = -friction v - grad, dx/dt = v, by semi-implicit Euler; every place it comes to."""

    def move(carry, _):
        x, v = carry
        v = v - time_step * (friction * v + jax.grad(valley)(x))
        x = x + time_step * v
        return (x, v), x

    _, places = jax.lax.scan(move, (x, jnp.zeros_like(x)), length=steps)
    return jnp.concatenate([x[None], places])


def path(rate, momentum, steps=20):
    return fnn.trajectory(valley, START, fnn.momentum(rate, momentum), steps).params


def main(argv=None):
    args = arguments(__doc__, argv)

    time_step, friction = 0.5, 1.0  # a = 1 - friction time_step = 0.5; the rate is time_step^2
    rolled = ball(START, friction, time_step, 20)
    same = jnp.abs(rolled - path(time_step**2, 1 - friction * time_step)).max()
    still = jnp.abs(ball(START, 1 / time_step, time_step, 20) - path(time_step**2, 0.0)).max()

    runs = {(r, m): path(r, m) for r in (0.4, 0.6) for m in (0.0, 0.5)}
    ends = {key: float(valley(p[-1])) for key, p in runs.items()}
    table(
        ["rate", "momentum", "loss after 20 steps"], [(*key, value) for key, value in ends.items()]
    )

    slope, mu, rate = jnp.array([1.0, -2.0]), 0.9, 0.1
    line = fnn.trajectory(lambda x: slope @ x, jnp.zeros(2), fnn.momentum(rate, mu), 200).params
    terminal = jnp.abs((line[-1] - line[-2]) + rate / (1 - mu) * slope).max()

    points = runs[0.4, 0.5]
    gradients = jax.vmap(jax.grad(valley))(points[:-1])
    weights = 0.5 ** np.arange(len(gradients))[::-1]
    velocity = (points[-2] - points[-1]) / 0.4  # the last update is -rate v
    summed = jnp.abs(velocity - jnp.asarray(weights, jnp.float32) @ gradients).max()

    made, axes = figure(1, 3)
    for at, rate_shown in zip(axes, (0.4, 0.6), strict=False):
        contours(at, valley, (-6, 3), (-3, 3))
        for line_style, mu_shown in zip(LINES, (0.0, 0.5), strict=False):
            at.plot(*runs[rate_shown, mu_shown].T, **line_style, label=f"momentum {mu_shown}")
        at.set(xlim=(-6, 3), ylim=(-3, 3))
        label(at, f"0.1 x² + 2 y², rate {rate_shown}", "x", "y", legend=True)
    for line_style, mu_shown in zip(LINES, (0.95, 0.9, 0.6, 0.0), strict=False):
        axes[2].plot(mu_shown ** np.arange(40), **line_style, label=f"momentum {mu_shown}")
    label(axes[2], "weight of a past gradient in the velocity", "steps ago", "weight", legend=True)
    save(made, args.out, "momentum")

    confirm(
        __doc__,
        same < 1e-5,
        still < 1e-5,
        ends[0.4, 0.0] < 0.2 and ends[0.6, 0.0] > 1e3 and ends[0.6, 0.5] < 0.2,
        terminal < 1e-4,
        summed < 1e-4,
    )


if __name__ == "__main__":
    main()
