"""Networks made fast, and networks outside octvideo: files that ONNX Runtime and torch.export read."""

from octvideo.runtime.export import ExportReport, export_onnx, export_program
from octvideo.runtime.memory import keep_freed_memory
from octvideo.runtime.optimize import FastNetwork, optimize

__all__ = ["ExportReport", "FastNetwork", "export_onnx", "export_program", "keep_freed_memory", "optimize"]
