"""Every YAML under configs/: its command, its base, no copies, and a run of it on a small Kinetics."""

import csv
import functools
import itertools
import re
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from octvideo.analysis.paper import published_figures
from octvideo.cli import main
from octvideo.cli.configs import config_chain
from octvideo.cli.options import training_parser
from octvideo.cli.train import flatten
from octvideo.data import plan_long_cycle

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
KINETICS = [path for path in CONFIGS if path.parent.name.startswith("kinetics")]
IDS = [str(path.relative_to(ROOT / "configs")).removesuffix(".yaml") for path in CONFIGS]
KINETICS_IDS = [i for i in IDS if "/" in i]


@functools.cache
def options_of(path):
    return training_parser().parse_args(["--config", str(path)])


@pytest.mark.parametrize("path", CONFIGS, ids=IDS)
def test_every_config_opens_with_its_command_and_parses(path):
    command = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
    assert command[0] == "octvideo"
    assert command[command.index("--config") + 1] == str(path.relative_to(ROOT))
    options = options_of(path)
    assert options.model.model
    assert options.data.train


@pytest.mark.parametrize("path", CONFIGS, ids=IDS)
def test_a_config_repeats_nothing_of_its_base(path):
    *bases, (_, own) = config_chain(path)
    inherited = {}
    for _, content in bases:
        inherited |= flatten(content)
    assert [name for name, value in flatten(own).items() if name != "base" and inherited.get(name, ...) == value] == []


def test_no_two_configs_are_copies():
    """Two files may share a few values; more of them belong into a base."""
    contents = {path.name: {f"{k}={v}" for k, v in flatten(config_chain(path)[-1][1]).items()} for path in CONFIGS}
    for (one, mine), (other, theirs) in itertools.combinations(contents.items(), 2):
        assert len(mine & theirs) <= 8, (one, other, mine & theirs)


def recipe(path):
    options = options_of(path)
    return options.model.model, options.model.alpha, options.dataset, options.init is not None


def test_every_row_of_the_papers_kinetics_table_has_a_config():
    rows = set()
    for row in published_figures()["networks"]:
        if row["source"] == "table 8":
            dataset = "Kinetics-600" if "K600" in row["network"] else "Kinetics-400"
            rows.add((row["model"], row["alpha"], dataset, "ImageNet" in row["network"]))
    assert len(rows) == 15
    assert rows <= {recipe(path) for path in KINETICS}


def test_the_table_of_recipes_lists_every_config():
    table = (ROOT / "configs" / "README.md").read_text()
    assert set(re.findall(r"^\| \[([\w/.]+)\]\(\1\.yaml\)", table, flags=re.MULTILINE)) == set(KINETICS_IDS)


def test_the_multigrid_recipe_is_the_long_cycle_of_its_base():
    base, multigrid = (
        options_of(ROOT / "configs/kinetics400" / f"slowfast_r50_8x8_{name}.yaml") for name in ("stepwise", "multigrid")
    )
    plan = plan_long_cycle(
        base.data.num_frames, base.data.crop_size, base.model.lr_steps, base.trainer.max_epochs, epoch_factor=1.5
    )
    assert [tuple(row) for row in multigrid.data.multigrid] == [
        (s.until_epoch, s.batch_factor, s.num_frames, s.crop_size) for s in plan.stages
    ]
    assert tuple(multigrid.model.lr_steps) == plan.lr_steps
    assert multigrid.trainer.max_epochs == plan.max_epochs


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory, video_writer):
    """A folder as the recipes expect it: data/kinetics400 and 600 with videos of three classes, and weights/."""
    folder = tmp_path_factory.mktemp("kinetics")
    noise = np.random.default_rng(0)
    names = ["abseiling", "air drumming", "answering questions"]
    for dataset, split in itertools.product(("kinetics400", "kinetics600"), ("train", "val")):
        place = folder / "data" / dataset
        place.mkdir(parents=True, exist_ok=True)
        with open(place / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("path", "label"))
            for number, name in enumerate(names * (2 if split == "train" else 1)):
                path = f"{split}/{name}/{number:011d}_{number:06d}_{number + 10:06d}.mp4"
                video_writer(place / path, noise.integers(0, 256, (14, 40, 52, 3), dtype=np.uint8))
                rows.writerow((path, name))
        (place / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "weights").mkdir()
    torch.save(torchvision.models.resnet50().state_dict(), folder / "weights" / "resnet50-0676ba61.pth")
    return folder


SMALL = {
    "data.num_frames": 8, "data.frame_stride": 1, "data.short_side": "[32, 36]", "data.crop_size": 32,
    "data.test_short_side": 36, "data.test_crop_size": 36, "data.batch_size": 2, "data.num_workers": 0,
    "trainer.accelerator": "cpu", "trainer.precision": "32-true", "trainer.fast_dev_run": "true",
}  # fmt: skip


# One of each kind; the rest differ from these in alpha, depth or size.
QUICK = (
    "i3d_r50_alpha0.1", "c2d_r50_imagenet", "i3d_r50_nln_imagenet_alpha0.1", "slow_r50_4x16", "x3d_s",
    "slowfast_r50_8x8_multigrid", "slowfast_r50_4x16",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*anew")  # the notice of weights that an image network has not
@pytest.mark.parametrize(
    "path", [p if p.stem in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in KINETICS], ids=KINETICS_IDS
)
def test_kinetics_recipes_run(path, kinetics, monkeypatch, capsys):
    """The recipe's own network, schedule and lists; only clips and batches are small, and one step is made."""
    monkeypatch.chdir(kinetics)
    changes = SMALL | ({"data.multigrid": "[[1, 2, 4, 24]]"} if "multigrid" in path.stem else {})
    changes |= {"trainer.strategy": "auto"} if "shards" in path.stem else {}  # which needs several processes
    given = [text for name, value in changes.items() for text in (f"--{name}", str(value))]
    start = time.monotonic()
    assert main(["train", "--config", str(path), *given]) == 0
    assert capsys.readouterr().err == ""
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("name", [i for i in IDS if "/" not in i])
def test_the_other_recipes_run(name, two_classes, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    lists = {"train": "train", "val": "test", "test": "test"}
    given = [text for split, file in lists.items() for text in (f"--data.{split}", str(two_classes / f"{file}.txt"))]
    given += ["--data.root", str(two_classes), "--data.class_names", str(two_classes / "classes.txt")]
    code = main(["train", "--config", str(ROOT / "configs" / f"{name}.yaml"), *given, "--trainer.fast_dev_run", "true"])
    assert (code, capsys.readouterr().err) == (0, "")


def test_a_config_over_its_base(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "base.yaml").write_text("model: {alpha: 0.5, lr: 0.3}\ndata: {short_side: [40, 50]}\nseed: 4\n")
    (tmp_path / "middle.yaml").write_text("data: {crop_size: 32}\nbase: far/base.yaml\nmodel: {alpha: 0.25}\n")
    (tmp_path / "own.yaml").write_text("base: middle.yaml\ndata: {short_side: 36}\n")
    options = training_parser().parse_args(["--config", str(tmp_path / "own.yaml"), "--model.lr", "0.2"])
    assert (options.model.alpha, options.model.lr, options.seed) == (0.25, 0.2, 4)
    assert (options.data.short_side, options.data.crop_size, options.base) == (36, 32, None)
