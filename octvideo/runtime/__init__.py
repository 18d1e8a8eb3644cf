"""Networks outside octvideo: files that ONNX Runtime and torch.export read."""

from octvideo.runtime.export import ExportReport, export_onnx, export_program

__all__ = ["ExportReport", "export_onnx", "export_program"]
