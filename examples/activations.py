"""Every activation with its derivative, and where it saturates.

Systems   C4 D3
Command   python examples/activations.py
Time      8 s on 2 cores
Expected
    unit_step is 1/2 at 0; piecewise_linear is 0 below -1/2, z + 1/2 between, 1 above 1/2.
    sigmoid' = s (1 - s), at most 1/4, and goes to 0 on either side.
    tanh' = 1 - t^2; softplus' = sigmoid; ReLU' is 0 or 1, and 0 at 0.
    sigmoid and tanh saturate on both sides, ReLU on one, softplus on one, the identity nowhere.
"""

import jax
import numpy as np
from plots import figure, label, save
from story import arguments, confirm, table

import fnn

NAMES = (
    *("unit_step", "sign", "identity", "piecewise_linear", "sigmoid", "tanh", "relu", "softplus"),
    *("hard_tanh", "hard_sigmoid", "leaky_relu", "elu", "selu", "gelu", "silu", "mish"),
)
FLAT = 0.05  # a derivative below this counts as saturated


@jax.jit
def curves(z):
    """The values and the derivatives of the activations, each by name."""
    found = {name: jax.vmap(jax.value_and_grad(getattr(fnn, name)))(z) for name in NAMES}
    return [{name: pair[i] for name, pair in found.items()} for i in (0, 1)]


def main(argv=None):
    args = arguments(__doc__, argv)

    z = np.arange(-120, 121, dtype=np.float32) / 20
    values, slopes = jax.device_get(curves(z))
    flat = {name: np.abs(slopes[name]) < FLAT for name in NAMES}
    table(
        ["activation", "at -6", "at 0", "at 6", "largest slope", "saturated"],
        [
            (name, *(float(values[name][i]) for i in (0, 120, 240)), float(slopes[name].max()),
             f"{flat[name].mean():.0%}")
            for name in NAMES
        ],
    )  # fmt: skip

    made, axes = figure(4, 4, width=2.6, height=2.1)
    for at, name in zip(axes, NAMES, strict=True):
        at.plot(z, values[name], color="#0b3d91", label="value")
        at.plot(z, slopes[name], color="#d1495b", linestyle="--", label="derivative")
        at.fill_between(z, 0, 1, where=flat[name], color="0.9", transform=at.get_xaxis_transform())
        at.set_ylim(-1.5, 2.5)
        label(at, name, "z", "")
    axes[0].legend(frameon=False, fontsize=7)
    made.supxlabel("grey: saturated, |derivative| < 0.05", fontsize=9)
    save(made, args.out, "activations")

    at = dict(zip(np.round(z, 2).tolist(), range(len(z)), strict=True))
    s, t, piece = values["sigmoid"], values["tanh"], values["piecewise_linear"]
    sides = {name: (bool(flat[name][0]), bool(flat[name][-1])) for name in NAMES}
    confirm(
        __doc__,
        values["unit_step"][at[0.0]] == 0.5
        and [float(piece[at[v]]) for v in (-2.0, 0.25, 2.0)] == [0, 0.75, 1],
        np.abs(slopes["sigmoid"] - s * (1 - s)).max() < 1e-6
        and slopes["sigmoid"].max() <= 0.25
        and slopes["sigmoid"][[0, -1]].max() < 0.003,
        np.abs(slopes["tanh"] - (1 - t**2)).max() < 1e-6
        and np.abs(slopes["softplus"] - s).max() < 1e-6
        and slopes["relu"][at[0.0]] == 0
        and set(slopes["relu"].tolist()) == {0.0, 1.0},
        (sides["sigmoid"], sides["tanh"]) == ((True, True),) * 2
        and (sides["relu"], sides["softplus"]) == ((True, False),) * 2
        and sides["identity"] == (False, False),
    )


if __name__ == "__main__":
    main()
