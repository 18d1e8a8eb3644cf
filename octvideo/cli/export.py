"""`octvideo export`: a network as a file that other programs run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

import octvideo
from octvideo.cli.options import OneLineParser, new_parser
from octvideo.cli.results import view_shape
from octvideo.cli.terminal import status
from octvideo.models import build_model
from octvideo.models.build import chosen_size, default_num_classes
from octvideo.runtime import ExportReport, export_onnx, export_program
from octvideo.training import load_classifier

EXPORTERS = {"onnx": export_onnx, "torch": export_program}
OF_A_MODEL: dict[str, Any] = {"alpha": 0.0, "octave": "spatial", "num_classes": None, "num_frames": None, "crop": []}


def run(arguments: Sequence[str]) -> int:
    """Export from command-line arguments."""
    options = build_parser().parse_args(list(arguments))
    given = {name: options[name] for name in OF_A_MODEL if options[name] is not None}
    network, shape, metadata = _read(options.checkpoint, options.model, given, options.own_builders)
    what = f"{metadata['model']} alpha {metadata['alpha']:g} {metadata['octave']}"
    _quiet_exporters()
    with status(f"exporting {what} to {options.output}"):
        export = EXPORTERS[options.format]
        report = export(network, torch.zeros(shape), options.output, metadata=metadata, check=options.check)
    _show(report, what, shape)
    return 0


def build_parser() -> OneLineParser:
    """The options of `octvideo export`."""
    parser = new_parser("export", "Write a network as an ONNX file or a torch.export program, and check the file.")
    parser.add_argument("--checkpoint", type=str | None, default=None, help=".ckpt file that octvideo train wrote")
    parser.add_argument(
        "--model", type=str | None, default=None, help="a builder's name, or package.module:function: initial weights"
    )
    parser.add_argument("--alpha", type=float | None, default=None, help="of --model; 0 where not given")
    parser.add_argument("--octave", type=str | None, default=None, help="of --model; spatial where not given")
    parser.add_argument("--num_classes", type=int | None, default=None, help="of --model; 400, or 1000 on images")
    parser.add_argument("--num_frames", type=int | None, default=None, help="of --model; its own where not given")
    parser.add_argument("--crop", type=int, nargs="+", default=None, help="of --model; one number, or height and width")
    parser.add_argument("--format", type=Literal["onnx", "torch"], default="onnx", help="torch is torch.export's")
    parser.add_argument("--output", type=str, required=True, help="file to write, .onnx or .pt2")
    parser.add_argument("--check", type=bool, default=True, help="compare the file's logits with the network's")
    parser.add_argument("--own_builders", action="store_true", help="import a builder that the checkpoint names")
    return parser


def _read(
    checkpoint: str | None, model: str | None, given: dict[str, Any], own_builders: bool
) -> tuple[nn.Module, tuple[int, ...], dict[str, Any]]:
    """Network, shape of one view, and metadata, of a checkpoint or of a builder."""
    if (checkpoint is None) == (model is None):
        raise ValueError("give either --checkpoint, a .ckpt file, or --model, a builder's name")
    metadata: dict[str, Any] = {"octvideo": octvideo.__version__}
    if checkpoint is not None:
        if given:
            raise ValueError(f"the checkpoint says what its network is: leave out --{', --'.join(given)}")
        classifier = load_classifier(checkpoint, own_builders=own_builders)
        hparams = classifier.hparams
        metadata |= {name: hparams[name] for name in ("model", "alpha", "octave", "class_names", "preprocessing")}
        return classifier.network, view_shape(hparams["preprocessing"]), metadata
    values = OF_A_MODEL | given
    shape = (1, 3, *chosen_size(str(model), values.pop("num_frames"), values.pop("crop")))
    values["num_classes"] = values["num_classes"] or default_num_classes(str(model))
    return build_model(str(model), **values), shape, metadata | {"model": model} | values


def _quiet_exporters() -> None:
    """Keep notices of torch's exporters, which a user can do nothing about, out of the output."""
    for name in ("torch", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised, too
    for module in (r"torch\.", "onnxscript", "onnx_ir", "copyreg"):
        warnings.filterwarnings("ignore", module=module)


def _show(report: ExportReport, what: str, shape: Sequence[int]) -> None:
    sizes = " x ".join(map(str, shape[1:]))
    print(f"{report.path}: {what}, batch x {sizes}")
    print(f"  {report.size_bytes / 1e6:.1f} MB, {report.version}, {report.seconds:.1f} s")
    if report.max_difference is None:
        print("  not checked")
    else:
        print(f"  logits differ from the network's by {report.max_difference:.1e} (largest: {report.max_logit:.3g})")
