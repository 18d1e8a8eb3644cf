"""Parsers: options read from the signatures of what they configure."""

from __future__ import annotations

import re
from argparse import SUPPRESS
from typing import Literal, NoReturn

import pytorch_lightning as pl
from jsonargparse import ArgumentParser

from octvideo.cli.configs import ConfigAction
from octvideo.data import VideoDataModule
from octvideo.training import VideoClassifier

FROM_DATA = {"class_names", "preprocessing"}
RUN_OWNS = {
    "callbacks", "logger", "default_root_dir", "plugins", "profiler", "enable_model_summary", "model_registry",
    "use_distributed_sampler",
}  # fmt: skip
TYPES_IN_WORDS = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "a text"}
# Lightning takes objects, too, and a config that names their class would have it imported.
ONLY_NAMES = ("accelerator", "strategy")


class OneLineParser(ArgumentParser):
    """An argument parser whose errors are ValueErrors of one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ValueError(_in_words(" ".join(message.split()))) from ex


def _in_words(message: str) -> str:
    """A parser's message with Python's types in words."""
    for kind, words in TYPES_IN_WORDS.items():
        message = message.replace(f"a <class '{kind}'>", words)
    return re.sub(r"a typing\.Literal\[(.*?)\]", r"one of \1", message)


def new_parser(command: str, description: str) -> OneLineParser:
    """A parser for `octvideo COMMAND`."""
    return OneLineParser(prog=f"octvideo {command}", description=description)


def add_fast_option(parser: OneLineParser) -> None:
    """`--fast`: the network that `octvideo.runtime.optimize` makes, in float32 or in another type."""
    text = "run the fast path: the same outputs in less time; with bfloat16 in half the bits, rounded"
    parser.add_argument("--fast", type=Literal["float32", "bfloat16"], nargs="?", const="float32", help=text)


def add_reading_options(parser: OneLineParser) -> None:
    """`--decoder`, `--unreadable` and `--timeout_seconds`, as `--data.decoder` and so on of training."""
    text = "what decodes the files in which its seeks are exact (PyAV the rest); auto is the fastest for each file"
    parser.add_argument("--decoder", type=Literal["auto", "pyav", "torchcodec", "decord"], default="auto", help=text)
    text = "videos that cannot be read: an error, or left out of the score, counted and listed"
    parser.add_argument("--unreadable", type=Literal["error", "skip"], default="error", help=text)
    text = "limit for making a clip, after which its video counts as unreadable; 0 sets none"
    parser.add_argument("--timeout_seconds", type=float, default=300.0, help=text)


def training_parser() -> OneLineParser:
    """The options of `octvideo train`: model.*, data.*, trainer.* and the run's own."""
    parser = new_parser("train", "Train a network; every field of the config can be set on the command line.")
    text = "YAML file with any of the options below; its `base: FILE` is a config that it builds on"
    parser.add_argument("--config", action=ConfigAction, help=text)
    parser.add_argument("--base", type=str | None, default=None, help=SUPPRESS)
    parser.add_class_arguments(VideoClassifier, "model", skip=FROM_DATA)
    parser.add_class_arguments(VideoDataModule, "data", skip={"seed"})
    parser.add_class_arguments(pl.Trainer, "trainer", skip=RUN_OWNS | set(ONLY_NAMES))
    for name in ONLY_NAMES:
        parser.add_argument(f"--trainer.{name}", type=str, default="auto", help="by Lightning's name for it")
    parser.set_defaults({"trainer.max_epochs": 10})
    parser.add_argument("--output", type=str, default="runs/train", help="folder of the run")
    parser.add_argument("--name", type=str, default="run", help="experiment's name in reports")
    parser.add_argument("--dataset", type=str, default="videos", help="data set's name in reports")
    parser.add_argument("--fold", type=str | None, default=None, help="replaces {fold} in data.train, .val and .test")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, data order, augmentation")
    parser.add_argument("--ema_decay", type=float, default=0.0, help="moving average of the weights; 0 is off")
    parser.add_argument(
        "--precise_bn", type=int, default=0, help="batches for the final statistics of batch norms; 0 off"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint, if any")
    text = "write a checkpoint within epochs, too, after so many optimizer steps; 0 writes one at each epoch's end"
    parser.add_argument("--checkpoint_every_n_steps", type=int, default=0, help=text)
    parser.add_argument(
        "--init", type=str | None, default=None, help="file of weights to start from (see octvideo.models.load_weights)"
    )
    parser.add_argument("--test_checkpoint", type=Literal["best", "last"], default="best", help="which one is tested")
    parser.add_argument("--measure_latency", type=bool, default=True, help="false where other work runs beside")
    parser.add_argument("--threads", type=int | None, default=None, help="CPU threads; None is torch's choice")
    parser.add_argument("--own_builders", action="store_true", help="import a builder of yours, module:function")
    return parser
