"""`octvideo predict`: the five likeliest classes of each video."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from octvideo.cli.options import OneLineParser, add_fast_option, add_reading_options, new_parser
from octvideo.cli.results import speed_up
from octvideo.data import Annotations, GuardedDataset, VideoDataset, VideoDecodeError, VideoRecord
from octvideo.data.decode import check_decoder
from octvideo.runtime.device import check_device
from octvideo.training import VideoClassifier, load_classifier


def run(arguments: Sequence[str]) -> int:
    """Predict from command-line arguments; the exit code is 1 where a video could not be read and is not skipped."""
    options = build_parser().parse_args(list(arguments))
    check_decoder(options.decoder)
    check_device(options.device)
    classifier = load_classifier(options.checkpoint, own_builders=options.own_builders).to(options.device)
    views = {k: options[k] for k in ("num_clips", "num_crops") if options[k] is not None}
    if options.fast:
        speed_up(classifier, options.fast)
    failed = 0
    for path in options.videos:
        try:
            start = time.monotonic()
            probs = predict_video(classifier, path, options.timeout_seconds, options.decoder, **views)
        except (VideoDecodeError, FileNotFoundError, ValueError) as error:
            failed += 1
            print(f"octvideo: error: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        print(f"{path} ({time.monotonic() - start:.2f} s)")
        for prob, index in zip(*(t.tolist() for t in probs.topk(min(5, len(probs)))), strict=True):
            print(f"  {100 * prob:5.1f} %  {classifier.hparams['class_names'][index]}")
    if failed:
        print(f"{failed:,} of {len(options.videos):,} videos could not be read", file=sys.stderr)
    return 1 if failed and options.unreadable == "error" else 0


def build_parser() -> OneLineParser:
    """The options of `octvideo predict`."""
    parser = new_parser("predict", "Name the action in videos.")
    parser.add_argument("videos", type=str, nargs="+", help="video files")
    parser.add_argument("--checkpoint", type=str, required=True, help=".ckpt file that octvideo train wrote")
    parser.add_argument("--num_clips", type=int | None, default=None, help="clips per video; None as in training")
    parser.add_argument("--num_crops", type=int | None, default=None, help="crops per clip; None as in training")
    parser.add_argument("--device", type=str, default="cuda" if torch.cuda.is_available() else "cpu")
    add_reading_options(parser)
    add_fast_option(parser)
    parser.add_argument("--own_builders", action="store_true", help="import a builder that the checkpoint names")
    return parser


@torch.inference_mode()
def predict_video(
    classifier: VideoClassifier,
    path: str | Path,
    timeout_seconds: float = 300.0,
    decoder: str = "auto",
    **views: int,
) -> Tensor:
    """Class probabilities of one video, its softmax averaged over the checkpoint's test views.

    Args:
        classifier: trained, in evaluation mode.
        path: video file.
        timeout_seconds: limit for making a clip; 0 sets none.
        decoder: as in :class:`VideoDataset`.
        views: num_clips, num_crops in place of the checkpoint's.

    Shape:
        (K,), sum 1.

    Raises:
        FileNotFoundError: the file is missing.
        VideoDecodeError: it cannot be read, or not in time.
        ValueError: the decoder is unknown, or not there.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"video {path} not found")
    hparams = classifier.hparams
    annotations = Annotations((VideoRecord(str(path), None),), tuple(hparams["class_names"]))
    dataset = VideoDataset(annotations, mode="test", decoder=decoder, **(hparams["preprocessing"] | views))
    items = GuardedDataset(dataset, timeout_seconds=timeout_seconds)
    probs = [
        classifier(items[view]["clip"][None].to(classifier.device)).float().softmax(-1)[0] for view in range(len(items))
    ]
    return torch.stack(probs).mean(0).cpu()
