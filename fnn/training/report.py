"""Of a training run: what it carries, `Run`, what it shows, `Report`, and `NonFiniteError`."""

from typing import Any, NamedTuple

from jaxtyping import Array

from fnn.trees import count, or_fields


class Run(NamedTuple):
    """All that a run carries from one step to the next: with it `fnn.train` goes on.

    Attributes:
        params: the parameters.
        state: the optimizer's state.
        stats: the running statistics, None where the loss has none.
        epoch: whole passes over the data.
        batch: batches of the pass after them.
        step: batches in all, each one call of the optimizer's update.
        key: the source of the run's randomness.

    >>> Run(jnp.zeros(3), None, None, 2, 0, 46, jax.random.key(0))
    Run(3 parameters, epoch 2, batch 0, step 46)
    """

    params: Any
    state: Any
    stats: Any
    epoch: int
    batch: int
    step: int
    key: Array

    @or_fields
    def __repr__(self) -> str:
        """Return how much and where, without the arrays."""
        place = f"epoch {self.epoch}, batch {self.batch}, step {self.step}"
        return f"Run({count(self.params):,} parameters, {place})"


class NonFiniteError(FloatingPointError):
    """A training run met a loss or a parameter that is NaN or infinite.

    Attributes:
        loss: the loss that the first such step saw.
        gradient: the path of the first gradient of this step that is not finite, or None;
            "params" where params are one array.
        parameter: likewise of the first parameter that is not finite after it.
        run: the `Run` before this step, which is number ``run.step + 1``.
    """

    def __init__(self, loss: float, gradient: str | None, parameter: str | None, run: Run) -> None:
        """Say what is wrong, where it began, and what is still good."""
        self.loss, self.gradient, self.parameter, self.run = loss, gradient, parameter, run
        where = f"first gradient not finite: {gradient!r}, first parameter: {parameter!r}"
        if gradient is None and parameter is None:
            where = "and finite gradients and parameters, as by a label outside of the classes"
        super().__init__(
            f"fnn.train: step {run.step + 1}: got a loss of {loss:g}, {where}; needed finite"
            f" numbers; this error's `run` is the run before that step"
        )

    def __reduce__(self) -> Any:
        """Return how to make it again, as in another process: of what it was made, not its text."""
        return type(self), (self.loss, self.gradient, self.parameter, self.run)


class Report(NamedTuple):
    """Where a run stands: what `fnn.train` yields after every chunk of steps.

    Attributes:
        epoch: the epoch that the chunk belongs to, from 1.
        step: batches since the start of the run; `fnn.accumulate` moves the parameters at every
            k-th of them.
        loss: mean over the chunk's examples, each as its own step saw it.
        examples_per_second: speed of the chunk; compilation is not counted.
        run: the `Run` after the chunk; it stays valid as the run goes on.
        aux: what the loss returns beside its value, averaged as the loss is.
        observed: the chunk's observations, stacked along a new first axis.
        stopped: the `NonFiniteError` for which the run stopped, with ``on_nonfinite="stop"``.
    """

    epoch: int
    step: int
    loss: float
    examples_per_second: float
    run: Run
    aux: Any = None
    observed: Any = None
    stopped: NonFiniteError | None = None

    @property
    def params(self) -> Any:
        """The parameters after the chunk."""
        return self.run.params

    @property
    def state(self) -> Any:
        """The optimizer's state after the chunk."""
        return self.run.state

    @or_fields
    def __str__(self) -> str:
        """Return the report on one line, without the arrays."""
        return (
            f"epoch {self.epoch:3d}  step {self.step:6d}  loss {self.loss:<9.4g}"
            f"  {self.examples_per_second:,.0f} examples/s"
        )

    def __repr__(self) -> str:
        """Return the same: a session that shows a report shows a line, not its arrays."""
        return str(self)
