"""The conformance cases of ONNX's operators, each run through fnn's public functions.

Two collections of the `onnx` package: the cases of every operator, generated in memory, and the
models recorded from PyTorch, on its disk. Every case with an operator of `OPERATORS` is run. What
fnn cannot say is in `NOT_SUPPORTED`, by name and reason: the list is exact, so a case that is
missing from it, or listed though it passes, fails. All the others are covered.

``python -m tests.test_onnx_conformance`` prints covered, passed and not supported.

Left out are the ``_expanded`` cases, which repeat a case's data on the operator's own definition in
terms of simpler ones, and operators of ONNX that fnn does not have: DeformConv,
CausalConvWithState, integer and quantised operators, LRN, LpNormalization, Hardmax,
ThresholdedRelu, SwiGLU, attention, and everything that is an array function of jax.numpy.
"""

import functools
import pathlib
import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from onnx.backend.test.loader import load_model_tests

from tests.onnx_operators import OPERATORS, PLUMBING, Node, NotSupported

REFUSALS = {
    "the expected values are those of NumPy's random numbers": """
        test_training_dropout test_training_dropout_default test_training_dropout_default_mask
        test_training_dropout_mask""",
    "flatten keeps the first axis and no other": """
        test_flatten_axis0 test_flatten_axis2 test_flatten_axis3 test_flatten_negative_axis1
        test_flatten_negative_axis2 test_flatten_negative_axis4""",
    "embed gives NaN for a negative id instead of counting from the end":
        "test_gather_negative_indices",
    "dense adds one bias per output, not one per entry": "test_gemm_default_matrix_bias",
    "a sequence of arrays is no array": "test_identity_opt test_identity_sequence",
}  # fmt: skip
NOT_SUPPORTED = {name: why for why, names in REFUSALS.items() for name in names.split()}


class Case(NamedTuple):
    name: str
    model: Any
    data: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


def recorded(folder: pathlib.Path) -> list[tuple[list[Any], list[Any]]]:
    """The inputs and outputs stored with a model."""

    def arrays(data: pathlib.Path, kind: str) -> list[Any]:
        count = len(list(data.glob(f"{kind}_*.pb")))
        return [
            onnx.numpy_helper.to_array(onnx.load_tensor(data / f"{kind}_{i}.pb"))
            for i in range(count)
        ]

    return [(arrays(d, "input"), arrays(d, "output")) for d in folder.glob("test_data_set_*")]


@functools.cache
def cases() -> dict[str, list[Case]]:
    """Every covered case, by its operator."""
    with warnings.catch_warnings():
        # onnx computes the expected values as it loads, some at log(0) or beyond the range of int8
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="onnx")
        # and sets the shape of an array, which NumPy 2.5 deprecates
        warnings.filterwarnings("ignore", "Setting the shape", DeprecationWarning, module="onnx")
        tests = load_model_tests(kind="node") + load_model_tests(kind="pytorch-converted")
    found: dict[str, list[Case]] = {operator: [] for operator in OPERATORS}
    for test in tests:
        model = test.model or onnx.load(pathlib.Path(test.model_dir, "model.onnx"))
        names = [node.op_type for node in model.graph.node]
        covered = [name for name in names if name in OPERATORS]
        if "_expanded" in test.name or not covered:
            continue
        data = test.data_sets or recorded(pathlib.Path(test.model_dir))
        found[covered[0]].append(Case(test.name, model, data, test.rtol, test.atol))
    return found


def outputs(case: Case, inputs: list[Any]) -> list[Any]:
    """Run the nodes of a case's model one after the other."""
    graph = case.model.graph
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    values.update(zip([i.name for i in graph.input if i.name not in values], inputs, strict=True))
    for proto in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        node = Node(attributes, len(proto.output), case.model.opset_import[0].version)
        function = {**OPERATORS, **PLUMBING}[proto.op_type]
        got = function(node, *[values[name] if name else None for name in proto.input])
        got = got if isinstance(got, tuple | list) else (got,)
        values.update(zip(proto.output, map(np.asarray, got), strict=False))  # optional ones last
    return [values[o.name] for o in graph.output]


def reason(case: Case) -> str:
    """Run a case: nothing when it passes, why when fnn does not support it, else it raises."""
    assert case.data, case.name
    for inputs, wanted in case.data:
        try:
            got = outputs(case, inputs)
        except NotSupported as refusal:
            return str(refusal)
        for y, want in zip(got, wanted, strict=True):
            assert (y.shape, y.dtype) == (want.shape, want.dtype), case.name
            rtol = max(case.rtol, 2.0**-6) if want.dtype == jnp.bfloat16 else case.rtol  # as onnx
            wide = np.float64 if jnp.issubdtype(want.dtype, jnp.floating) else want.dtype
            np.testing.assert_allclose(
                y.astype(wide), want.astype(wide), rtol, case.atol, err_msg=case.name
            )
    return ""


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_case_passes_or_is_listed(operator: str) -> None:
    assert cases()[operator], "an operator without a case"
    names = {case.name for case in cases()[operator]}
    reasons = {case.name: reason(case) for case in cases()[operator]}
    refused = {name: why for name, why in reasons.items() if why}
    assert refused == {name: why for name, why in NOT_SUPPORTED.items() if name in names}


def test_every_listed_case_exists() -> None:
    names = {case.name for found in cases().values() for case in found}
    assert set(NOT_SUPPORTED) <= names


def main() -> None:
    covered = [case for found in cases().values() for case in found]
    supported = [case for case in covered if case.name not in NOT_SUPPORTED]
    passed = sum(not reason(case) for case in supported)
    print(f"covered {len(supported)} / passed {passed} / not supported {len(NOT_SUPPORTED)}")
    assert passed == len(supported)


if __name__ == "__main__":
    main()
