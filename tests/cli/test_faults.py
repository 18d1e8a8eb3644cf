"""What the commands say when the system takes something away, and that they go on from there."""

import csv
import multiprocessing
import os

import pytest
import torch

from octvideo.cli import main
from octvideo.evaluation import ScoreLog
from octvideo.report import read_result
from octvideo.training import VideoClassifier, read_checkpoint
from octvideo.training.resume import StepSeed

SMALL = {
    "model.model": "resnet3d_tiny", "model.optimizer": "adamw", "model.lr": 0.003, "data.num_frames": 4,
    "data.frame_stride": 2, "data.short_side": 36, "data.test_short_side": 32, "data.crop_size": 32,
    "data.num_clips": 2, "data.num_crops": 3, "data.batch_size": 2, "trainer.max_epochs": 2, "data.num_workers": 0,
    "trainer.accelerator": "cpu", "threads": 1, "data.cache_short_side": 40, "measure_latency": "false",
}  # fmt: skip


def arguments(folder, output, **changes):
    lists = {"data.train": folder / "train.txt", "data.val": folder / "test.txt", "data.test": folder / "test.txt"}
    values = SMALL | lists | {"output": output, "checkpoint_every_n_steps": 1} | changes
    return ["train", *(text for name, value in values.items() for text in (f"--{name}", str(value)))]


def run(capsys, *given):
    code = main(list(map(str, given)))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def trained(two_classes, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    assert main(arguments(two_classes, output)) == 0
    return output


def check_same_weights(*outputs):
    ours, theirs = (read_checkpoint(output / "checkpoints" / "last.ckpt")["state_dict"] for output in outputs)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_loader_process_is_one_line_and_the_run_goes_on(
    two_classes, trained, tmp_path, capsys, monkeypatch, reaped
):
    seed_step = StepSeed.on_train_batch_start

    def kill_worker(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 2):
            for process in multiprocessing.active_children():
                process.kill()
                if reaped:  # before torch hears of it: the loader then says it in other words
                    process.join()
        seed_step(self, trainer, pl_module, batch, batch_idx)

    monkeypatch.setattr(StepSeed, "on_train_batch_start", kill_worker)
    given = arguments(two_classes, tmp_path / "run", **{"data.num_workers": 1})
    code, _, err = run(capsys, *given)
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "octvideo: error: a process that loads videos died" in err
    assert "give fewer num_workers or a smaller batch_size" in err
    monkeypatch.undo()
    fewer = arguments(two_classes, tmp_path / "run", **{"data.num_workers": 0})
    assert run(capsys, *fewer, "--resume")[0] == 0
    check_same_weights(tmp_path / "run", trained)


def test_a_truncated_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(
    two_classes, trained, tmp_path, capsys, monkeypatch
):
    def stop(*_):
        raise MemoryError("no memory")

    monkeypatch.setattr(VideoClassifier, "on_validation_epoch_end", stop)
    given = arguments(two_classes, tmp_path / "run", **{"trainer.num_sanity_val_steps": 0})
    with pytest.raises(MemoryError):
        main(given)
    monkeypatch.undo()
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    os.truncate(last, last.stat().st_size // 2)
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged: the run goes on from .*last-previous.ckpt"):
        assert run(capsys, *given, "--resume")[0] == 0
    check_same_weights(tmp_path / "run", trained)


def test_runs_whose_checkpoints_are_all_damaged_say_what_to_do(two_classes, tmp_path, capsys):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_bytes(b"PK")
    code, _, err = run(capsys, *arguments(two_classes, tmp_path / "run"), "--resume")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "last.ckpt cannot be read as a checkpoint" in err
    assert "or delete last.ckpt to start anew" in err


def evaluate(two_classes, trained, output, *changes):
    return (
        "evaluate", "--checkpoint", trained / "checkpoints" / "last.ckpt", "--data", two_classes / "test.txt",
        "--output", output, "--num_workers", 0, "--batch_size", 4, "--accelerator", "cpu", *changes,
    )  # fmt: skip


def scores(output):
    with open(output / "videos.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def evaluated(two_classes, trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated")
    assert main(list(map(str, evaluate(two_classes, trained, output)))) == 0
    return output


def test_an_evaluation_goes_on_where_it_was(two_classes, trained, evaluated, tmp_path, capsys, monkeypatch):
    seen, add = [], ScoreLog.add

    def add_until_interrupted(self, probs, label, video, view):
        if not seen and self.done:
            seen.append(set(self.done))
            raise KeyboardInterrupt
        if seen:
            seen.append(set(video.tolist()))
        add(self, probs, label, video, view)

    monkeypatch.setattr(ScoreLog, "add", add_until_interrupted)
    given = evaluate(two_classes, trained, tmp_path)
    code, _, err = run(capsys, *given)
    assert (code, "interrupted" in err) == (130, True)
    assert not (tmp_path / "result.json").exists()
    code, out, _ = run(capsys, *given)
    assert code == 0
    done, *batches = seen
    assert f"holds the scores of {len(done)} of 4 videos" in out
    assert all(batch - done for batch in batches)  # no batch of videos that were all scored
    assert set().union(*batches) >= {0, 1, 2, 3} - done
    assert scores(tmp_path) == scores(evaluated)
    assert read_result(tmp_path / "result.json").top1_percent == read_result(evaluated / "result.json").top1_percent


def test_an_evaluation_of_something_else_is_refused(two_classes, trained, evaluated, tmp_path, capsys):
    (tmp_path / "scores.0.jsonl").write_bytes((evaluated / "scores.0.jsonl").read_bytes())
    code, _, err = run(capsys, *evaluate(two_classes, trained, tmp_path, "--num_clips", 1))
    assert code == 1
    assert "scores.0.jsonl holds scores of another evaluation: num_clips was 2 and is 1 now. Give what it was" in err
    other = ("--checkpoint", trained / "checkpoints" / "last-previous.ckpt")
    code, _, err = run(capsys, *evaluate(two_classes, trained, tmp_path, *other))
    assert (code, "checkpoint's sha256 was" in err) == (1, True)
    code, _, err = run(capsys, *evaluate(two_classes, trained, tmp_path, "--data", two_classes / "train.txt"))
    assert (code, "videos' sha256 was" in err) == (1, True)


@pytest.mark.parametrize("devices", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_share_an_evaluation_and_count_each_video_once(two_classes, trained, tmp_path, warm_python, devices):
    """7 videos of 2 x 3 views; equal to one process to the last bit."""
    listed = (two_classes / "test.txt").read_text() + "".join(
        f"{path} {label}\n" for path, label in (("train 1.mp4", 1), ("train 2.mp4", 0), ("train 3.mp4", 1))
    )
    (tmp_path / "list.txt").write_text(listed)
    changes = ("--data", tmp_path / "list.txt", "--root", two_classes)
    given = {n: evaluate(two_classes, trained, tmp_path / str(n), *changes, "--devices", n) for n in (1, devices)}
    assert main(list(map(str, given[1]))) == 0
    printed = warm_python.run_ranks(["-m", "octvideo", *given[devices]], ranks=devices)
    assert printed.out.count("top-1 ") == 1
    assert scores(tmp_path / str(devices)) == scores(tmp_path / "1")
    files = sorted((tmp_path / str(devices)).glob("scores.*.jsonl"))
    lines = [line for path in files for line in path.read_text().splitlines()[1:]]
    assert len(files) == devices
    assert sorted(lines) == sorted((tmp_path / "1" / "scores.0.jsonl").read_text().splitlines()[1:])
