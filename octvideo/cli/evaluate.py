"""`octvideo evaluate`: a checkpoint's accuracy beside its cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from octvideo.cli.options import OneLineParser, add_fast_option, add_reading_options, new_parser
from octvideo.cli.results import RunFacts, score, scoring_trainer, show, write_artifacts
from octvideo.data import VideoDataModule
from octvideo.training import load_classifier


def run(arguments: Sequence[str]) -> int:
    """Evaluate from command-line arguments."""
    options = build_parser().parse_args(list(arguments))
    folder = Path(options.output)
    if (folder / "result.json").exists():
        raise FileExistsError(f"{folder} holds a result: give another --output, or delete it")
    if options.threads:
        torch.set_num_threads(options.threads)
    classifier = load_classifier(options.checkpoint, own_builders=options.own_builders)
    views = {k: options[k] for k in ("num_clips", "num_crops") if options[k] is not None}
    data = test_data(
        classifier.hparams["preprocessing"] | views,
        test=options.data,
        root=options.root,
        missing=options.missing,
        class_names=classifier.hparams["class_names"],
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        manifest=options.manifest,
        decoder=options.decoder,
        unreadable=options.unreadable,
        timeout_seconds=options.timeout_seconds,
    )
    facts = RunFacts(options.name, options.dataset, "test", options.seed, options.fold)
    trainer = scoring_trainer(options.accelerator, options.devices)
    row, results = score(
        classifier, data, "test", facts, trainer, folder=folder, checkpoint=Path(options.checkpoint), fast=options.fast
    )
    if not trainer.is_global_zero:
        return 0
    write_artifacts(folder, row, results, classifier.hparams["class_names"], data.annotations("test"))
    show(row, folder)
    print(f"  result, confusion matrix and every video's scores: {folder}")
    return 0


def build_parser() -> OneLineParser:
    """The options of `octvideo evaluate`."""
    parser = new_parser(
        "evaluate", "Score a checkpoint on labelled videos, views averaged; called again it goes on where it was."
    )
    parser.add_argument("--checkpoint", type=str, required=True, help=".ckpt file that octvideo train wrote")
    parser.add_argument("--data", type=str, required=True, help="list, CSV file, or folder per class")
    parser.add_argument("--root", type=str | None, default=None, help="folder that relative paths start from")
    parser.add_argument("--missing", type=Literal["error", "skip"], default="error", help="listed videos not there")
    parser.add_argument("--num_clips", type=int | None, default=None, help="clips per video; None as in training")
    parser.add_argument("--num_crops", type=int | None, default=None, help="crops per clip; None as in training")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--accelerator", type=str, default="auto")
    parser.add_argument("--devices", type=int, default=1, help="processes that share the videos, one per GPU")
    add_reading_options(parser)
    parser.add_argument("--manifest", type=str | None, default=None, help="file that octvideo data scan wrote")
    add_fast_option(parser)
    parser.add_argument("--threads", type=int | None, default=None, help="CPU threads; None is torch's choice")
    parser.add_argument("--name", type=str, default="run", help="experiment's name in reports")
    parser.add_argument("--dataset", type=str, default="videos", help="data set's name in reports")
    parser.add_argument("--seed", type=int, default=0, help="the training run's, for reports")
    parser.add_argument("--fold", type=str | None, default=None, help="the training run's, for reports")
    parser.add_argument("--output", type=str, default="runs/evaluate", help="folder for the result")
    parser.add_argument("--own_builders", action="store_true", help="import a builder that the checkpoint names")
    return parser


def test_data(preprocessing: dict, **options) -> VideoDataModule:
    """The data module that makes a checkpoint's test clips."""
    preprocessing = dict(preprocessing)
    crop = preprocessing.pop("test_crop_size")
    return VideoDataModule(**preprocessing, crop_size=crop, test_crop_size=crop, **options)
