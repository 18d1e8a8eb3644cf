"""`octvideo train`: one run in one folder, from a config to a result row."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from octvideo.cli.configs import check_output, config_text, read_config
from octvideo.cli.options import training_parser
from octvideo.cli.results import RunFacts, score, scoring_trainer, show, write_artifacts
from octvideo.data import UnreadableLog, VideoDataModule
from octvideo.models import load_weights
from octvideo.training import (
    UNREADABLE,
    VideoClassifier,
    best_checkpoint,
    build_trainer,
    fit,
    last_checkpoint,
    load_classifier,
    resumable_checkpoint,
)
from octvideo.training.checkpoint_files import write_whole
from octvideo.training.sharding import FSDP, ShardedClassifier

RESULT = "result.json"
CONFIG = "config.yaml"
# Options that do not change what a run learns.
NOT_THE_RUNS = {
    "output", "resume", "threads", "measure_latency", "checkpoint_every_n_steps", "data.num_workers",
    "data.unreadable", "data.timeout_seconds",
}  # fmt: skip
SPLITS = ("train", "val", "test")


def run(arguments: Sequence[str]) -> int:
    """Train from command-line arguments."""
    parser = training_parser()
    options = parser.parse_args(list(arguments))
    values = options.as_dict()
    if values["base"] is not None:
        raise ValueError(f"--base {values['base']} is read in a config only: give --config for it")
    check_output(values["output"], arguments)
    output = Path(values["output"])
    check_folder(output, values["resume"])
    output.mkdir(parents=True, exist_ok=True)
    if (output / RESULT).is_file():
        check_same_options(values, output)
        print(f"{output} is finished: {RESULT} is there")
        return 0
    if not values["trainer"].get("fast_dev_run"):
        check_same_options(values, output)
        store_options(values, output)
    train(values, output)
    return 0


def check_folder(output: Path, resume: bool) -> None:
    """Refuse to overwrite a run.

    Raises:
        FileExistsError: the folder holds a run that is not to be resumed.
    """
    if not resume and (last_checkpoint(output) or (output / RESULT).is_file()):
        raise FileExistsError(f"{output} holds a run: --resume goes on with it, another --output starts a new one")


@rank_zero_only
def store_options(values: dict[str, Any], output: Path) -> None:
    """Write every option, nulls too, which override defaults, as a config that repeats the run."""
    write_whole(config_text(values).encode(), output / CONFIG)


def check_same_options(values: dict[str, Any], output: Path) -> None:
    """Refuse to go on with a run under other options than it was started with.

    Raises:
        ValueError: names the first option that differs.
    """
    has_begun = last_checkpoint(output) or (output / RESULT).is_file()
    if not has_begun or not (output / CONFIG).is_file():
        return
    before = flatten(read_config(output / CONFIG))
    for name, value in flatten(yaml.safe_load(config_text(values))).items():
        if name not in NOT_THE_RUNS and before.get(name) != value:
            raise ValueError(
                f"{output} was started with {name} {before.get(name)}, not {value}: give the same options, "
                "or another --output for a new run"
            )


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def train(values: dict[str, Any], output: Path) -> None:
    """Train, test and write the result of one run.

    Args:
        values: the options of `octvideo train` as nested plain values.
        output: the run's folder.
    """
    if values["threads"]:
        torch.set_num_threads(values["threads"])
    check_builder(values["model"]["model"], values["own_builders"])
    data = build_data(values["data"], values["fold"], values["seed"])
    torch.manual_seed(values["seed"])
    kind = ShardedClassifier if values["trainer"]["strategy"] == FSDP else VideoClassifier
    classifier = kind(**values["model"], class_names=list(data.class_names), preprocessing=data.preprocessing())
    if isinstance(classifier, ShardedClassifier):
        classifier.sync_batchnorm = values["trainer"]["sync_batchnorm"]
    trainer = make_trainer(values, output, has_validation=data.has_validation)
    resume = resumable_checkpoint(output) if values["resume"] else None
    if values["init"] and resume is None:
        load_weights(classifier.network, values["init"])
    if trainer.is_global_zero:
        list_left_out(data, output)
    seconds = _fit_timed(classifier, data, trainer, resume)
    if values["trainer"].get("fast_dev_run"):
        return
    split = "test" if values["data"]["test"] else "val" if data.has_validation else None
    if trainer.is_global_zero:
        show_left_out(output)
    if split:
        report_run(values, output, data, split, None if resume else seconds)
    elif trainer.is_global_zero:
        print(f"{output}: no result, since neither data.test nor data.val is given")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_builder(model: str, own_builders: bool) -> None:
    """Refuse to import a module that an option names, which may come from a stranger's config.

    Raises:
        ValueError: says how to allow it.
    """
    if ":" in model and not own_builders:
        raise ValueError(f"model {model!r} is not octvideo's, and importing it runs its code: add --own_builders")


def list_left_out(data: VideoDataModule, output: Path) -> None:
    """List the training and validation videos that a manifest leaves out, before any clip is read."""
    unreadable = UnreadableLog(output / UNREADABLE)
    for split in ("train", "val") if data.has_validation else ("train",):
        data.annotations(split)  # what is left out is known when a list is read
        unreadable.add(split, None, data.left_out[split].items())


def show_left_out(output: Path) -> None:
    """Say how much of the training and validation videos could not be read."""
    unreadable = UnreadableLog(output / UNREADABLE)
    for split in ("train", "val"):
        if videos := unreadable.videos(split):
            print(f"{split}: {len(videos):,} videos were left out at least once as unreadable: {unreadable.path}")


def report_run(values: dict[str, Any], output: Path, data: VideoDataModule, split: str, seconds: float | None) -> None:
    """Score the run's checkpoint on its test (or validation) videos and write the result beside it."""
    checkpoint = last_checkpoint(output) if values["test_checkpoint"] == "last" else best_checkpoint(output)
    if checkpoint is None:
        raise FileNotFoundError(f"{output} holds no checkpoint: was training stopped in its first epoch?")
    classifier = load_classifier(checkpoint, own_builders=values["own_builders"])
    facts = RunFacts(
        name=values["name"],
        dataset=values["dataset"],
        split=split,
        seed=values["seed"],
        fold=values["fold"],
        epochs=values["trainer"]["max_epochs"],
        train_seconds=seconds,
    )
    processes = {name: values["trainer"][name] for name in ("accelerator", "devices", "num_nodes")}
    trainer = scoring_trainer(**processes)
    row, results = score(
        classifier, data, split, facts, trainer,
        folder=output, checkpoint=checkpoint, with_latency=values["measure_latency"],
    )  # fmt: skip
    if trainer.is_global_zero:
        write_artifacts(output, row, results, classifier.hparams["class_names"], data.annotations(split))
        show(row, output)


def build_data(options: dict[str, Any], fold: str | None, seed: int) -> VideoDataModule:
    """Make the data module; "{fold}" in the lists' paths becomes the fold's name.

    Raises:
        ValueError: a list's path holds "{fold}" and no fold is given, or no training list is given.
    """
    options = dict(options)
    if fold is not None and not any("{fold}" in (options[split] or "") for split in SPLITS):
        raise ValueError(f"fold {fold!r} is given, but no path of data.train, .val or .test holds {{fold}}")
    for split in SPLITS:
        path = options[split]
        if path and "{fold}" in path:
            if fold is None:
                raise ValueError(f"data.{split} is {path!r}: give --fold, the part that replaces {{fold}}")
            options[split] = path.replace("{fold}", fold)
    if not options["train"]:
        raise ValueError("data.train is not given: a list of 'path label' lines, a CSV file, or a folder per class")
    return VideoDataModule(**options, seed=seed)


def make_trainer(values: dict[str, Any], output: Path, *, has_validation: bool) -> pl.Trainer:
    """Make the run's trainer from the options.

    Raises:
        ValueError: synchronised batch norms are asked for while unreadable clips are skipped.
    """
    if values["trainer"]["sync_batchnorm"] and values["data"]["unreadable"] == "skip":
        raise ValueError(
            "trainer.sync_batchnorm is true and data.unreadable is 'skip': a process none of whose clips could be read "
            "would keep the others waiting. Leave bad files out by data.manifest, and set data.unreadable 'error'"
        )
    trainer_options = {k: v for k, v in values["trainer"].items() if k != "enable_progress_bar"}
    if values["data"]["multigrid"]:
        trainer_options["reload_dataloaders_every_n_epochs"] = 1
    return build_trainer(
        output,
        seed=values["seed"],
        ema_decay=values["ema_decay"],
        precise_bn=values["precise_bn"],
        progress=sys.stdout.isatty() or bool(values["trainer"].get("enable_progress_bar")),
        has_validation=has_validation,
        checkpoint_every_n_steps=values["checkpoint_every_n_steps"],
        **trainer_options,
    )


def _fit_timed(classifier: VideoClassifier, data: VideoDataModule, trainer: pl.Trainer, resume: Path | None) -> float:
    start = time.monotonic()
    fit(classifier, data, trainer, resume)
    return round(time.monotonic() - start, 1)
