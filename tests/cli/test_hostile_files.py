"""Configs and checkpoints from strangers, through the command: one line of error, no code, no file elsewhere."""

import os
import pickle
import re
import sys
import types
import typing
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from octvideo.cli import main
from octvideo.cli.configs import MAX_BYTES, config_text, read_config
from octvideo.cli.options import training_parser
from octvideo.cli.sweep import Run, fill_latency
from octvideo.training import read_checkpoint

MARKER = "marker of code that ran"
SMALL = {
    "model.model": "resnet3d_tiny", "data.num_frames": 4, "data.frame_stride": 2, "data.short_side": "[32, 36]",
    "data.test_short_side": 32, "data.crop_size": 32, "data.num_clips": 1, "data.num_crops": 1, "data.batch_size": 4,
    "data.num_workers": 0, "trainer.max_epochs": 1, "trainer.accelerator": "cpu", "data.cache_short_side": 40,
    "measure_latency": "false",
}  # fmt: skip
QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Hostile:
    def __reduce__(self):
        return os.mkdir, (MARKER,)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder, with a module in it that leaves a mark when it is imported."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "strangers.py").write_text(
        f"import os\nos.mkdir({MARKER!r})\nfrom octvideo.models import resnet3d_tiny as build\nclass Thing: pass\n"
    )
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("strangers", None)


def given_by(options):
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def training(two_classes, **changes):
    lists = {"data.train": two_classes / "train.txt", "data.test": two_classes / "test.txt"}
    return ["train", *given_by(SMALL | lists | changes)]


def fails(capsys, *arguments):
    """The command's error: one line, no traceback."""
    assert main(list(map(str, arguments))) == 1
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
    assert len(err) < 2200
    assert err.startswith("octvideo: error: ")
    return err


@pytest.fixture(scope="module")
def finished(two_classes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(training(two_classes, output=folder)) == 0
    return folder


def hostile_files(content, folder):
    """Ways to ruin a checkpoint, by name."""
    torch.save(content | {"hyper_parameters": Hostile()}, folder / "code.ckpt")
    (folder / "pickle.ckpt").write_bytes(pickle.dumps(Hostile()))
    torch.save(content | {"state_dict": {3: Hostile()}}, folder / "weights.ckpt")
    hparams = content["hyper_parameters"]
    for name, change in {"builder": {"model": "strangers:build"}, "alpha": {"alpha": "x"}}.items():
        torch.save(content | {"hyper_parameters": hparams | change}, folder / f"{name}.ckpt")
    torch.save(content | {"hyper_parameters": hparams | {"preprocessing": {}}}, folder / "clips.ckpt")
    (folder / "cut.ckpt").write_bytes((folder / "alpha.ckpt").read_bytes()[:-500])
    return sorted(folder.glob("*.ckpt"))


@pytest.mark.parametrize("name", ["alpha", "builder", "clips", "code", "cut", "pickle", "weights"])
def test_every_command_refuses_a_hostile_checkpoint(name, finished, elsewhere, two_classes, tmp_path, capsys):
    files = hostile_files(read_checkpoint(finished / "checkpoints" / "last.ckpt"), tmp_path)
    assert {path.stem for path in files} == {"alpha", "builder", "clips", "code", "cut", "pickle", "weights"}
    path = tmp_path / f"{name}.ckpt"
    for command in (
        ["evaluate", "--checkpoint", path, "--data", two_classes / "test.txt", "--output", elsewhere / "out"],
        ["predict", two_classes / "test 1.mp4", "--checkpoint", path],
        ["export", "--checkpoint", path, "--output", elsewhere / "out.onnx"],
    ):
        assert str(path) in fails(capsys, *command)
    if name in ("code", "cut", "pickle", "weights"):  # the others hold good weights
        assert str(path) in fails(capsys, *training(two_classes, init=path, output=elsewhere / "run"))
        target = elsewhere / "resumed" / "checkpoints" / "last.ckpt"
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
        error = fails(capsys, *training(two_classes, output=elsewhere / "resumed"), "--resume")
        assert str(target) in error
    assert not (elsewhere / MARKER).exists()
    assert "strangers" not in sys.modules
    assert not list(elsewhere.glob("out*"))


def test_a_resumed_runs_best_checkpoint_imports_nothing(finished, elsewhere, two_classes, capsys):
    """A stranger's run folder: its best checkpoint, which is tested in the end, names a builder of its own."""
    given = training(two_classes, output=elsewhere / "run", **{"trainer.max_epochs": 2})
    folder = elsewhere / "run" / "checkpoints"
    folder.mkdir(parents=True)
    content = read_checkpoint(finished / "checkpoints" / "last.ckpt")
    torch.save(content, folder / "last.ckpt")
    content["hyper_parameters"]["model"] = "strangers:build"
    torch.save(content, folder / "best.ckpt")
    error = fails(capsys, *given, "--resume")
    assert "best.ckpt holds the model 'strangers:build', which octvideo does not have" in error
    (elsewhere / "run" / "result.json").write_bytes((finished / "result.json").read_bytes())
    with pytest.raises(ValueError, match=r"best.ckpt holds the model 'strangers:build'"):
        fill_latency([Run(elsewhere / "run", ())])
    assert not (elsewhere / MARKER).exists()


CONFIGS = {
    "model: {model: 'strangers:build'}": "model 'strangers:build' is not octvideo's.*add --own_builders",
    "own_builders: true\nmodel: {model: 'strangers:build'}": "c.yaml: own_builders is read on the command line only",
    "config: other.yaml": "c.yaml: config is read on the command line only",
    "trainer: {strategy: {class_path: strangers.Thing}}": "c.yaml: .*trainer.strategy.*Expected a text",
    "trainer: {accelerator: {class_path: strangers.Thing}}": "c.yaml: .*trainer.accelerator",
    "trainer: {strategy: strangers.Thing}": "invalid strategy name",
    "trainer: {callbacks: [{class_path: strangers.Thing}]}": "c.yaml: 'trainer.callbacks' is no option",
    "trainer: {logger: {class_path: strangers.Thing}}": "c.yaml: 'trainer.logger' is no option",
    "trainer: {plugins: [{class_path: strangers.Thing}]}": "c.yaml: 'trainer.plugins' is no option",
    "trainer: {profiler: {class_path: strangers.Thing}}": "c.yaml: 'trainer.profiler' is no option",
    "trainer: {default_root_dir: /tmp}": "c.yaml: 'trainer.default_root_dir' is no option",
    "model: {class_path: strangers.Thing}": "c.yaml: 'model.class_path' is no option",
    "model: strangers.Thing": "c.yaml: model should hold options of its own; got str",
    "data: {class_names: {class_path: strangers.Thing}}": "c.yaml: .*data.class_names",
    "data: /etc/passwd": "c.yaml: data should hold options of its own; got str",
    "!!python/object/apply:os.mkdir ['marker of code that ran']": "c.yaml cannot be read as a config: could not det",
    "seed: !!python/name:os.system ''": "c.yaml cannot be read as a config",
    "model: {model: !!python/module:strangers ''}": "c.yaml cannot be read as a config",
    "output: ../outside": "the config's output '../outside' lies outside of .*: give --output",
    "output: /tmp": "the config's output '/tmp' lies outside of",
    "base: ../../../../../../etc/passwd": "passwd (is no config|cannot be read as a config|not found)|no config",
    "base: c.yaml": "c.yaml has more than 10 bases one on the other: does one name itself",
    "base: [c.yaml]": "c.yaml: base should be the path of a config; got list",
    "a: &a [x]\nb: *a": "c.yaml cannot be read as a config: anchors and references",
    "model: {alpha: x}": "c.yaml: .*model.alpha.*finite number",
    "model: {alpha: .nan}": "alpha is the low-frequency share",
    "[" * 5000: "c.yaml cannot be read as a config",
    "x" * (MAX_BYTES + 1): "c.yaml is no config: it is larger than 64 KiB",
    "{? [1] : 2}": "c.yaml cannot be read as a config",
    "1: 2": "c.yaml: '1' is no option",
    "- 1": "c.yaml is no config: it should hold names of options",
    "": "c.yaml is no config",
    "seed: 2020-13-45": "c.yaml cannot be read as a config",
    "seed: !!binary x": "c.yaml cannot be read as a config",
    "name: {a: 1}": "c.yaml: .*name",
}


@pytest.mark.parametrize(("text", "message"), CONFIGS.items(), ids=[text[:40] for text in CONFIGS])
def test_hostile_configs(text, message, elsewhere, two_classes, capsys):
    (elsewhere / "c.yaml").write_text(text)
    given = training(two_classes)
    if "model" in text:
        del given[1:3]  # --model.model would be the last word
    error = fails(capsys, given[0], *given[1:], "--config", "c.yaml")
    assert re.search(message, error), error
    assert not (elsewhere / MARKER).exists()
    assert "strangers" not in sys.modules
    assert {path.name for path in elsewhere.iterdir()} <= {"c.yaml", "strangers.py", "__pycache__", "runs"}


def test_a_builder_of_ones_own(elsewhere, two_classes, capsys):
    """It takes the word of the command line, in training and afterwards."""
    given = training(two_classes, output="runs/own", **{"model.model": "strangers:build"})
    assert "add --own_builders" in fails(capsys, *given)
    assert main([*given, "--own_builders"]) == 0
    assert (elsewhere / MARKER).exists()
    assert "own_builders" not in (elsewhere / "runs" / "own" / "config.yaml").read_text()
    checkpoint = elsewhere / "runs" / "own" / "checkpoints" / "last.ckpt"
    predict = ["predict", str(two_classes / "test 1.mp4"), "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert "own_builders" in fails(capsys, *predict)
    assert main([*predict, "--own_builders"]) == 0
    capsys.readouterr()


def test_the_stored_config_of_a_run_is_no_way_in(finished, elsewhere, two_classes, capsys):
    folder = elsewhere / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes((finished / "checkpoints" / "last.ckpt").read_bytes())
    for text, message in (
        ("- 1\n", "config.yaml is no config"),
        ("!!python/object/apply:os.mkdir ['marker of code that ran']", "config.yaml cannot be read as a config"),
        (f"seed: [{'x' * 50_000}]", "was started with"),
    ):
        (folder / "config.yaml").write_text(text)
        assert message in fails(capsys, *training(two_classes, output=folder), "--resume")
    assert not (elsewhere / MARKER).exists()


def plain_types(hint):
    """The types that an option's annotation is made of."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return {type(value) for value in inner}
    return set().union(*map(plain_types, inner)) if inner else {hint}


def test_no_option_takes_an_object():
    """An option that is annotated with a class lets a config name, and so import, any class."""
    found = {}
    for action in training_parser()._actions:
        hint = getattr(action, "_typehint", action.type)
        for kind in plain_types(hint) if hint else ():
            found.setdefault(kind, action.dest)
    plain = {bool, int, float, str, types.NoneType, timedelta}
    assert {kind: dest for kind, dest in found.items() if kind not in plain} == {}
    assert {bool, int, float, str} <= found.keys()


TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.dates()
NAMES = st.sampled_from(
    ["model", "data", "trainer", "seed", "output", "model.alpha", "base", "alpha", "multigrid", "name"]
)
PARSER = training_parser()
VALUES = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXT, inner, max_size=3), max_leaves=8
)


def parsed(path):
    """The options of a file, or its error, which names it."""
    try:
        return PARSER.parse_args(["--config", str(path)])
    except (ValueError, FileNotFoundError) as caught:
        error = caught
    assert path.name in str(error) or "not found" in str(error)
    assert len(str(error).splitlines()) == 1
    return None


@QUICK
@given(data=st.binary(max_size=60) | TEXT.map(str.encode))
@example(data=b"\xff\xfe")
@example(data=b"\x00")
@example(data=b"a: 1\n\tb: 2")
@example(data=b"? ? ?")
@example(data=b"<<: {seed: 1}")
@example(data=b"%YAML 9.9\n---\n1")
@example(data=b"--- 1\n--- 2\n")
@example(data=b"seed: !!int ''")
def test_any_bytes(data, tmp_path):
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    parsed(path)
    assert {p.name for p in tmp_path.iterdir()} == {"any.yaml"}


@QUICK
@given(content=st.dictionaries(NAMES | TEXT, VALUES, max_size=4))
@example(content={"model": {"": 1}})
@example(content={"model.": 1})
@example(content={"data": {"multigrid": [[1]]}})
@example(content={"trainer": {"max_time": {"days": 1}}})
def test_any_values(content, tmp_path):
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    parsed(path)
    assert {p.name for p in tmp_path.iterdir()} == {"any.yaml"}


def test_what_is_written_can_be_read(tmp_path):
    shared = [1, 2]
    (tmp_path / "c.yaml").write_text(config_text({"a": shared, "b": {"c": shared}, "config": 1, "own_builders": True}))
    assert read_config(tmp_path / "c.yaml") == {"a": [1, 2], "b": {"c": [1, 2]}}


def test_what_is_read_is_plain(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 3\nmodel: {alpha: 0.5}\n")
    assert read_config(tmp_path / "c.yaml") == {"seed": 3, "model": {"alpha": 0.5}}
    with pytest.raises(FileNotFoundError, match=r"config .*gone.yaml not found"):
        read_config(tmp_path / "gone.yaml")
    with pytest.raises(FileNotFoundError, match="not found"):
        read_config(Path(tmp_path))
