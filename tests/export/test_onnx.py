"""ONNX graphs: widths, and what ONNX Runtime cannot quantize. Traces take half a minute each."""

from __future__ import annotations

import pytest
from preset_students import samples, student

from gradatim.errors import UserError
from gradatim.export.write import export_model

pytestmark = pytest.mark.slow
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def table():
    return samples(8)


@pytest.mark.parametrize(("bits", "mean"), [(8, 0.02), (4, 0.3)])
def test_weights_alone_are_quantized(bits, mean, table, tmp_path):
    export = export_model(student(tmp_path / "model", "tiny", table), tmp_path / "out", "onnx", bits=bits, data=table)
    assert export.mean_difference < mean
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "out" / "model.onnx")).graph.node]
    assert "MatMulNBits" in kinds
    assert not {"DynamicQuantizeLinear", "MatMulInteger"} & set(kinds)


def test_matrices_that_cannot_be_quantized_are_told_or_refused(table, tmp_path):
    source = student(tmp_path / "model", "small", table)
    try:
        export = export_model(source, tmp_path / "out", "onnx", bits=8, data=table)
        said = " ".join(export.notes)
    except UserError as error:
        said = str(error)
    assert "quantizes" in said
