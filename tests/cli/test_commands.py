"""The `octvideo` command: what it does, and what it says when something is wrong."""

import csv
import functools
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import octvideo
from octvideo.cli import main
from octvideo.cli.main import COMMANDS
from octvideo.cli.options import training_parser
from octvideo.cli.sweep import parse_variant, plan_runs, run_all
from octvideo.data import VideoDataset
from octvideo.models import build_model, save_weights
from octvideo.report import read_result
from octvideo.training import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "model.model": "resnet3d_tiny", "model.optimizer": "adamw", "model.lr": 0.003, "data.num_frames": 4,
    "data.frame_stride": 2, "data.short_side": "[32, 36]", "data.test_short_side": 32, "data.crop_size": 32,
    "data.num_clips": 2, "data.num_crops": 1, "data.batch_size": 4, "data.num_workers": 0, "trainer.max_epochs": 2,
    "trainer.accelerator": "cpu", "threads": 1, "data.cache_short_side": 40,
}  # fmt: skip


def arguments(folder, output, **changes):
    values = {
        **SMALL,
        "data.train": folder / "train.txt",
        "data.test": folder / "test.txt",
        "output": output,
        **changes,
    }
    return ["train", *(text for name, value in values.items() for text in (f"--{name}", str(value)))]


def run(capsys, *given):
    code = main(list(map(str, given)))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def trained(two_classes, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    assert main(arguments(two_classes, output, **{"model.alpha": 0.25, "ema_decay": 0.5})) == 0
    return output


@pytest.fixture(scope="module")
def trained_in_little_memory(two_classes, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "little memory"
    changes = {"model.checkpoint_activations": "true", "model.recompute_pooled": "true", "model.alpha": 0.25}
    assert main(arguments(two_classes, output, **changes, **{"trainer.max_epochs": 1})) == 0
    return output


def test_training_writes_a_result_that_says_what_it_is(trained):
    values = json.loads((trained / "result.json").read_text())
    assert values["alpha"] == 0.25
    assert values["num_videos"] == 4
    assert (values["crop"], values["num_frames"], values["frame_stride"]) == ("32x32", 4, 2)
    assert values["gmacs_per_video"] == pytest.approx(2 * values["gmacs_per_view"])
    assert values["macs_unit"] == "multiply-adds"
    assert set(values["per_class_percent"]) == {"dark", "bright"}
    assert values["metadata"]["torch_version"]
    names = {p.name for p in trained.iterdir()}
    assert {"config.yaml", "metrics.csv", "confusion.csv", "confusion.png", "videos.csv", "tensorboard"} <= names


def test_a_run_is_not_overwritten_but_resumed(two_classes, trained, capsys):
    code, _, err = run(capsys, *arguments(two_classes, trained))
    assert code == 1
    assert "holds a run: --resume goes on with it" in err
    code, out, _ = run(capsys, *arguments(two_classes, trained, **{"model.alpha": 0.25, "ema_decay": 0.5}), "--resume")
    assert code == 0
    assert "is finished" in out


def test_training_starts_from_a_file_of_weights(two_classes, tmp_path, capsys):
    """At learning rate 0, so that the weights of the run's checkpoint are those that it started from."""
    dense = build_model("resnet3d_tiny", num_classes=2)
    save_weights(dense, tmp_path / "dense.safetensors")
    changes = {"model.alpha": 0.25, "model.lr": 0, "trainer.max_epochs": 1, "init": tmp_path / "dense.safetensors"}
    assert run(capsys, *arguments(two_classes, tmp_path / "run", **changes))[0] == 0
    trained = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    assert [
        name for name, value in dense.named_parameters() if not torch.equal(trained[f"network.{name}"], value)
    ] == []
    changes["init"] = tmp_path / "missing.pyth"
    code, _, err = run(capsys, *arguments(two_classes, tmp_path / "other", **changes))
    assert code == 1
    assert "missing.pyth not found: give a file of weights" in err


def test_evaluate_agrees_with_the_result_of_training(two_classes, trained, tmp_path, capsys):
    code, out, _ = run(
        capsys, "evaluate", "--checkpoint", trained / "checkpoints" / "last.ckpt", "--data", two_classes / "test.txt",
        "--output", tmp_path, "--num_workers", 0, "--batch_size", 3, "--accelerator", "cpu",
    )  # fmt: skip
    assert code == 0
    assert "multiply-adds" in out
    ours, first = read_result(tmp_path / "result.json"), read_result(trained / "result.json")
    assert (ours.top1_percent, ours.gmacs_per_view) == (first.top1_percent, first.gmacs_per_view)
    assert ours.num_clips == 2
    given = ("--data", two_classes / "test.txt", "--output", tmp_path)
    code, _, err = run(capsys, "evaluate", "--checkpoint", trained / "checkpoints" / "last.ckpt", *given)
    assert code == 1
    assert "holds a result: give another --output" in err


@pytest.fixture
def kinetics(two_classes, tmp_path):
    """Kinetics' train.csv and test.csv over the twelve videos, and one more row in each whose video is gone."""
    for split in ("train", "test"):
        rows = ["label,youtube_id,time_start,time_end,split", f"zumba,gone_{split},0,10,{split}"]
        for number, path in enumerate(sorted(two_classes.glob(f"{split} *.mp4"))):
            name = ("abseiling", "air drumming")[number % 2]
            (tmp_path / "videos" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "videos" / name / f"{split}{number}_000000_000010.mp4").symlink_to(path)
            rows.append(f'"{name}",{split}{number},0,10,{split}')
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    return tmp_path


def test_official_lists_with_missing_videos(kinetics, capsys):
    changes = {
        "data.train": kinetics / "train.csv", "data.test": kinetics / "test.csv", "data.root": kinetics / "videos",
        "data.class_names": "kinetics400", "trainer.max_epochs": 1, "trainer.enable_progress_bar": "false",
    }  # fmt: skip
    code, _, err = run(capsys, *arguments(kinetics, kinetics / "strict", **changes))
    assert code == 1
    assert re.search(r"train.csv: 1 of 9 listed videos are not below .*videos: gone_train_000000_000010\. ", err)
    with pytest.warns(
        UserWarning, match=r"(train|test).csv: 1 of [95] listed videos do not exist and are left out: gone"
    ):
        code, *_ = run(capsys, *arguments(kinetics, kinetics / "run", **changes, **{"data.missing": "skip"}))
    assert code == 0
    result = read_result(kinetics / "run" / "result.json")
    assert (result.num_videos, result.unreadable_videos) == (4, 1)
    assert "missing: there is no such file" in (kinetics / "run" / "unreadable.csv").read_text()
    assert len(result.per_class_percent) == 400
    with pytest.warns(UserWarning, match=r"test.csv: 1 of 5 listed videos"):
        code, *_ = run(
            capsys, "evaluate", "--checkpoint", kinetics / "run/checkpoints/last.ckpt", "--data", kinetics / "test.csv",
            "--root", kinetics / "videos", "--missing", "skip", "--num_workers", 0, "--output", kinetics / "again",
        )  # fmt: skip
    assert code == 0
    assert read_result(kinetics / "again" / "result.json").num_videos == 4


@pytest.mark.parametrize(
    ("run_of", "fast", "tolerance"),
    [
        ("trained", (), 1e-4),
        ("trained", ("float32",), 1e-4),
        ("trained", ("bfloat16",), 0.05),
        ("trained_in_little_memory", (), 1e-4),
    ],
)
def test_the_fast_path_scores_the_same(request, two_classes, tmp_path, capsys, run_of, fast, tolerance):
    checkpoint = request.getfixturevalue(run_of) / "checkpoints" / "last.ckpt"
    clips = two_classes / "test.txt"
    scores = []
    for name, options in (("plain", ()), ("fast", ("--fast", *fast))):
        code, out, _ = run(
            capsys, "evaluate", "--checkpoint", checkpoint, "--data", clips, "--output", tmp_path / name,
            "--num_workers", 0, "--batch_size", 3, "--accelerator", "cpu", *options,
        )  # fmt: skip
        assert code == 0
        with open(tmp_path / name / "videos.csv", newline="", encoding="utf-8") as file:
            scores.append([float(row["true_prob"]) for row in csv.DictReader(file)])
    plain, quick = (read_result(tmp_path / name / "result.json") for name in ("plain", "fast"))
    assert scores[1] == pytest.approx(scores[0], abs=tolerance)
    assert (quick.gmacs_per_view, quick.params_m, plain.fast_path) == (plain.gmacs_per_view, plain.params_m, None)
    assert quick.fast_path == (fast or ("float32",))[0]
    assert f"fast path in {quick.fast_path}" in out


def test_predict_on_the_fast_path(two_classes, trained, capsys):
    given = ("predict", two_classes / "test 1.mp4", "--checkpoint", trained / "checkpoints" / "last.ckpt")
    plain, quick = (run(capsys, *given, "--device", "cpu", *fast)[1].splitlines()[1:] for fast in ((), ("--fast",)))
    assert plain == quick


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_the_decoder_can_be_chosen(decoder, two_classes, trained, tmp_path, capsys, monkeypatch):
    asked, make = [], VideoDataset.__init__

    @functools.wraps(make)
    def remember(self, *args, **settings):
        asked.append(settings["decoder"])
        make(self, *args, **settings)

    monkeypatch.setattr(VideoDataset, "__init__", remember)
    checkpoint = trained / "checkpoints" / "last.ckpt"
    given = ("--checkpoint", checkpoint, "--decoder", decoder)
    code, out, _ = run(capsys, "predict", two_classes / "test 1.mp4", *given, "--device", "cpu")
    assert code == 0
    assert set(asked) == {decoder}
    plain = run(capsys, "predict", two_classes / "test 1.mp4", "--checkpoint", checkpoint, "--device", "cpu")[1]
    assert out.splitlines()[1:] == plain.splitlines()[1:]
    asked.clear()
    data = ("--data", two_classes / "test.txt", "--output", tmp_path, "--num_workers", 0, "--accelerator", "cpu")
    assert run(capsys, "evaluate", *given, *data)[0] == 0
    assert set(asked) == {decoder}


def test_a_decoder_that_is_unknown_or_not_there_is_named(two_classes, trained, capsys, monkeypatch):
    given = ("predict", two_classes / "test 1.mp4", "--checkpoint", trained / "checkpoints" / "last.ckpt", "--decoder")
    code, _, err = run(capsys, *given, "vlc")
    assert code == 1
    assert "\"decoder\": Expected one of 'auto', 'pyav', 'torchcodec', 'decord'. Got value: vlc" in err
    monkeypatch.setattr("octvideo.data.decode._torchcodec_problem", lambda: "it is not installed")
    code, _, err = run(capsys, *given, "torchcodec")
    assert code == 1
    assert err == "octvideo: error: decoder is 'torchcodec', but it is not installed; or set decoder to 'auto'.\n"


def test_a_mistake_leaves_nothing_in_the_way_of_the_right_command(two_classes, tmp_path, capsys):
    wrong = arguments(two_classes, tmp_path / "run", **{"data.train": "nowhere.txt", "trainer.max_epochs": 1})
    assert run(capsys, *wrong)[0] == 1
    right = arguments(two_classes, tmp_path / "run", **{"trainer.max_epochs": 1})
    assert run(capsys, *right)[0] == 0


def test_predict_names_classes_and_reports_what_it_cannot_read(two_classes, trained, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    code, out, err = run(
        capsys, "predict", two_classes / "test 1.mp4", tmp_path / "broken.mp4", tmp_path / "missing.mp4",
        "--checkpoint", trained / "checkpoints" / "last.ckpt", "--device", "cpu",
    )  # fmt: skip
    assert code == 1
    assert {"dark", "bright"} == {line.split()[-1] for line in out.splitlines()[1:]}
    assert sum(float(line.split()[0]) for line in out.splitlines()[1:]) == pytest.approx(100, abs=0.2)
    assert len(err.splitlines()) == 3
    assert "broken.mp4" in err
    assert "missing.mp4 not found" in err
    assert err.splitlines()[-1] == "2 of 3 videos could not be read"


def test_analyze_prints_the_published_costs(capsys):
    code, out, _ = run(capsys, "analyze", "--model", "i3d_r50", "--alpha", 0, 0.25)
    assert code == 0
    assert "28.408" in out
    assert "22.102" in out
    assert "8 frames, crop 224x224" in out


@pytest.mark.parametrize(
    ("given", "title", "gmacs"),
    [
        (["resnet50"], "resnet50, spatial octave, one image, crop 224x224", "4.089"),
        (["resnet18", "--crop", "128", "160"], "one image, crop 128x160", "0.741"),
        (["x3d_xs"], "one view of 4 frames, crop 160x160", "0.605"),
        (["x3d_s", "--crop", "182"], "one view of 13 frames, crop 182x182", "2.727"),
        (["resnet3d_tiny", "--num_frames", "8"], "one view of 8 frames, crop 48x48", "0.144"),
    ],
)
def test_analyze_takes_the_size_that_a_network_is_made_for(capsys, given, title, gmacs):
    code, out, _ = run(capsys, "analyze", "--alpha", 0, "--model", *given)
    assert code == 0
    assert title in out
    assert gmacs in out


def test_analyze_prints_the_papers_costs_and_writes_them(capsys, tmp_path, monkeypatch):
    committed = ROOT / "results" / "paper_audit" / "audit.json"
    found = json.loads(committed.read_text(encoding="utf-8"))
    del found["metadata"]
    monkeypatch.setattr("octvideo.cli.analyze.audit_paper", lambda: found)  # counting takes most of a minute
    code, out, _ = run(capsys, "analyze", "--paper", "--output", tmp_path / "audit")
    assert code == 0
    assert re.search(r"table 8 .*I3D, K400 .*28.1 G .*28.41 G .*\+1.1 .*first pooling without padding", out)
    assert re.search(r"table 1 .*one layer, memory .*0.875 .*35 % .*34.4 %", out)
    assert {p.name for p in (tmp_path / "audit").iterdir()} == {"audit.json", "report.md", "report.png"}


def test_sweep_runs_every_variant_and_reports(two_classes, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    nested: dict = {"data": {}, "model": {}, "trainer": {}}
    for name, value in SMALL.items():
        group, _, field = name.partition(".")
        if field:
            nested[group][field] = yaml.safe_load(str(value))
    nested["data"] |= {"train": str(two_classes / "{fold}.txt"), "test": str(two_classes / "test.txt")}
    config.write_text(yaml.safe_dump(nested))
    given = ("sweep", "--config", config, "--variants", "0", "0.5:temporal", "--folds", "train", "test")
    runs = plan_runs(
        tmp_path / "sweep", config, ["0", "0.5:temporal"], ["train", "test"], [0], ["--trainer.max_epochs", "1"]
    )
    for finished in runs[1:3]:
        assert main(["train", *finished.arguments(), "--measure_latency", "false"]) == 0
    code, out, _ = run(capsys, *given, "--output", tmp_path / "sweep", "--jobs", 2, "--", "--trainer.max_epochs", 1)
    assert code == 0
    assert [(one.folder / "log.txt").exists() for one in runs] == [True, False, False, True]  # two were finished
    assert "0.5" in out
    assert "alpha0-spatial/foldtrain-seed0: epoch 1/1" in out  # no terminal: a line an epoch
    assert {p.name for p in (tmp_path / "sweep").iterdir()} >= {"report.md", "report.csv", "report.png", "report.svg"}
    rows = [read_result(p) for p in sorted((tmp_path / "sweep").rglob("result.json"))]
    assert len({r.latency_ms for r in rows}) == 2  # measured once per variant, after the runs
    assert all(r.latency_ms for r in rows)
    assert {(r.alpha, r.octave, r.fold) for r in rows} == {
        (alpha, octave, fold) for alpha, octave in ((0, "spatial"), (0.5, "temporal")) for fold in ("train", "test")
    }
    code, out, _ = run(capsys, "report", tmp_path / "sweep", "--output", tmp_path / "report")
    assert code == 0
    assert (tmp_path / "report" / "report.csv").read_text() == (tmp_path / "sweep" / "report.csv").read_text()


def test_an_interrupted_run_goes_on(two_classes, tmp_path):
    """Ctrl-C, as the terminal sends it, after the second epoch of 12."""
    given = arguments(two_classes, tmp_path / "run", **{"trainer.max_epochs": 12})
    command = [sys.executable, "-m", "octvideo", *map(str, given)]
    heed_ctrl_c = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs ignore it
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
                break
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: train goes on with --resume" in err
    assert "Traceback" not in err
    epoch = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"]
    assert 0 <= epoch < 11
    assert not (tmp_path / "run" / "result.json").exists()
    assert main([*given, "--resume"]) == 0
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"] == 11
    assert read_result(tmp_path / "run" / "result.json").train_seconds is None  # two sessions, one of them not timed


def test_two_ranks_write_one_result_over_every_video(two_classes, tmp_path, warm_python):
    """Data-parallel training on two processes; the first scores all videos alone, and both end."""
    given = arguments(two_classes, tmp_path / "run", **{"trainer.devices": 2, "data.val": two_classes / "test.txt"})
    printed = warm_python.run(["-m", "octvideo", *given], seconds=120)
    assert printed.out.count("top-1 ") == 1
    assert read_result(tmp_path / "run" / "result.json").num_videos == 4


def test_what_a_sweep_passes_on_overrides_what_it_sets(tmp_path, monkeypatch):
    started = []

    class Stopped(subprocess.Popen):
        def __init__(self, command, **_):
            started.append(training_parser().parse_args(command[4:]))
            super().__init__([sys.executable, "-c", ""])

    monkeypatch.setattr(subprocess, "Popen", Stopped)
    (tmp_path / "config.yaml").write_text("threads: 7\nmeasure_latency: true\n")
    for passed_on in ((), ("--threads", "3", "--measure_latency", "true")):
        runs = plan_runs(tmp_path / "sweep", tmp_path / "config.yaml", ["0"], [None], [0], passed_on)
        with pytest.raises(RuntimeError, match="1 of 1 runs failed"):
            run_all(runs, jobs=10_000)
    assert [(options.threads, options.measure_latency) for options in started] == [(1, False), (3, True)]


def test_a_failed_run_of_a_sweep_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_text("data:\n  train: nowhere.txt\n")
    runs = plan_runs(tmp_path / "out", tmp_path / "bad.yaml", ["0"], [None], [0])
    with pytest.raises(RuntimeError, match=r"1 of 1 runs failed: .*log.txt: octvideo: error: .*nowhere.txt"):
        run_all(runs, jobs=1)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    given = [command, "synthesize"] if command == "data" else [command]
    code, out, _ = run(capsys, *given, "--help")
    assert code == 0
    assert f"octvideo {command}" in out


def test_usage_and_version(capsys):
    assert run(capsys)[0] == 2
    assert all(name in run(capsys, "--help")[1] for name in COMMANDS)
    assert run(capsys, "--version")[1].count(".") == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["trian"], "unknown command 'trian': known are"),
        (["train"], "data.train is not given"),
        (["train", "--model.alpah", "0.25"], "--model.alpah"),
        (["train", "--model.alpha", "much"], 'key "model.alpha".*finite number.*much'),
        (["train", "--data.batch_size", "1.5"], 'key "data.batch_size".*whole number.*1.5'),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--data.train", "nowhere.txt"], "nowhere.txt"),
        (["evaluate", "--checkpoint", "nowhere.ckpt", "--data", "x"], "checkpoint nowhere.ckpt not found"),
        (["evaluate"], "checkpoint"),
        (["analyze", "--model", "i3d_r5"], "unknown model 'i3d_r5': did you mean 'i3d_r50'"),
        (["analyze", "--alpha", "1.2"], "alpha.*got 1.2"),
        (["analyze", "--octave", "x"], "octave must be one of"),
        (["analyze", "--model", "resnet50", "--num_frames", "8"], "num_frames is 8, but resnet50 is a network on im"),
        (["analyze", "--crop", "1", "2", "3"], "crop must be one number or height and width; got .1, 2, 3"),
        (["analyze", "--output", "x"], "output is 'x', but one network's table is only printed: add --paper"),
        (["report", "nowhere.json"], "nowhere.json not found"),
        (["sweep", "--config", "nowhere.yaml"], "config nowhere.yaml not found"),
        (["data"], "takes one of the actions synthesize, scan, pack; got ''"),
    ],
)
def test_mistakes_are_one_line_and_no_traceback(given, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *given)
    assert code != 0
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("model", "alpha", "message"),
    [
        ("resnet3d_tiny", 1.2, "got 1.2"),
        ("i3d_50", 0, "did you mean 'i3d_r50'"),
        ("resnet50", 0, "model 'resnet50' takes images: clips of video need one of"),
    ],
)
def test_mistakes_in_the_model_are_named(two_classes, tmp_path, capsys, model, alpha, message):
    given = arguments(two_classes, tmp_path / "x", **{"model.model": model, "model.alpha": alpha})
    code, _, err = run(capsys, *given)
    assert code == 1
    assert message in err


def test_the_traceback_is_there_when_asked_for(capsys):
    assert "Traceback" in run(capsys, "analyze", "--model", "x", "--traceback")[2]


@pytest.mark.parametrize(("text", "expected"), [("0", (0, "spatial")), ("0.25:temporal", (0.25, "temporal"))])
def test_variants(text, expected):
    assert parse_variant(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [("x", "must be ALPHA or ALPHA:OCTAVE"), ("1.2", "got 1.2"), ("0.1:time", "octave must be one of")],
)
def test_wrong_variants(text, message):
    with pytest.raises(ValueError, match=message):
        parse_variant(text)


def test_the_command_is_a_module_too(warm_python):
    assert warm_python.run(["-m", "octvideo", "--version"]).out.strip() == octvideo.__version__


def test_a_broken_video_in_a_worker_is_one_line(two_classes, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("broken.mp4 0\n")
    given = arguments(two_classes, tmp_path / "run", **{"data.train": tmp_path / "list.txt", "data.num_workers": 1})
    code, _, err = run(capsys, *given, "--data.test", "null")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert err.startswith(f"octvideo: error: {tmp_path / 'broken.mp4'}: cannot be opened as a video")
    assert "Traceback" not in err


def test_a_resumed_run_keeps_its_options(two_classes, trained, capsys):
    code, _, err = run(capsys, *arguments(two_classes, trained, **{"model.alpha": 0.5, "ema_decay": 0.5}), "--resume")
    assert code == 1
    assert "was started with model.alpha 0.25, not 0.5" in err


def test_a_stored_config_repeats_the_run_nulls_included(two_classes, tmp_path, capsys):
    given = arguments(two_classes, tmp_path / "run", **{"data.frame_stride": "null", "trainer.max_epochs": 1})
    assert run(capsys, *given)[0] == 0
    stored = training_parser().parse_path(tmp_path / "run" / "config.yaml")
    assert stored.data.frame_stride is None
    code, out, _ = run(capsys, *given, "--resume")
    assert (code, "is finished" in out) == (0, True)


def test_a_fold_needs_its_place_in_a_path(two_classes, tmp_path, capsys):
    code, _, err = run(capsys, *arguments(two_classes, tmp_path / "run"), "--fold", "3")
    assert code == 1
    assert "fold '3' is given, but no path" in err
