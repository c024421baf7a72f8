"""Networks as ONNX files: `compressnet.export.export("zoo:rof", "rof.onnx")`."""

from compressnet.export.onnx_file import DEFAULT_OPSET, OPSETS, Exported, export

__all__ = ["DEFAULT_OPSET", "OPSETS", "Exported", "export"]
