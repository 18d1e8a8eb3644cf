"""Training on several processes (gloo, on this machine) against one process at the same batch in all."""

import contextlib
import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from octvideo.cli import main
from octvideo.training import last_checkpoint, read_checkpoint
from octvideo.training.resume import position

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
SETTINGS = {
    "model.model": "resnet3d_tiny", "model.alpha": 0.25, "model.lr": 0.02, "model.dropout": 0, "data.num_frames": 4,
    "data.frame_stride": 2, "data.short_side": 36, "data.test_short_side": 32, "data.crop_size": 32,
    "data.num_clips": 2, "data.num_crops": 1, "data.num_workers": 0, "data.cache_short_side": 40,
    "trainer.accelerator": "cpu", "trainer.max_epochs": 3, "trainer.precision": "64-true", "threads": 1,
    "measure_latency": "false",
}  # fmt: skip


def arguments(folder, output, **changes):
    """Training on 8 videos, validation and test on 7."""
    odd = folder / "seven.txt"
    if not odd.exists():
        more = "".join(f"train {number}.mp4 {number % 2}\n" for number in range(3))
        odd.write_text((folder / "test.txt").read_text() + more)
    lists = {"data.train": folder / "train.txt", "data.val": odd, "data.test": odd}
    values = SETTINGS | lists | {"output": output} | changes
    return ["train", *(text for name, value in values.items() for text in (f"--{name}", str(value)))]


TWO = {"trainer.devices": 2, "data.batch_size": 2, "trainer.sync_batchnorm": "true"}


def launch(*command, **variables):
    return subprocess.Popen(
        list(map(str, command)), env=ENVIRONMENT | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(*processes, code=0):
    """What processes that belong together printed."""
    done = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), done
    return "".join(out for out, _ in done)


def metrics(output):
    with open(output / "metrics.csv", newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def weights(output):
    return read_checkpoint(last_checkpoint(output))["state_dict"]


@pytest.fixture(scope="module")
def alone(two_classes, tmp_path_factory):
    output = tmp_path_factory.mktemp("alone") / "run"
    assert main(arguments(two_classes, output, **{"data.batch_size": 4})) == 0
    return output


def check_same(output, alone, tolerance=1e-8):
    """In float64, so that all that is left is the order in which sums over processes are rounded."""
    for ours, theirs in zip(metrics(output), metrics(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance)
    ours, theirs = weights(output), weights(alone)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=tolerance, atol=tolerance, msg=name)
    lines = [(folder / "videos.csv").read_text().splitlines() for folder in (output, alone)]
    assert [line.split(",")[:5] for line in lines[0]] == [line.split(",")[:5] for line in lines[1]]
    assert len(lines[0]) == 8


@pytest.fixture(scope="module")
def together(two_classes, tmp_path_factory, warm_python):
    output = tmp_path_factory.mktemp("together") / "run"
    printed = warm_python.run_ranks(["-m", "octvideo", *arguments(two_classes, output, **TWO)]).out
    assert printed.count("epoch 3/3") == printed.count("top-1 ") == 1
    return output


def test_two_processes_learn_what_one_learns(together, alone):
    """An octave network with synchronised batch norms: without them each process has statistics of its own."""
    check_same(together, alone)


@pytest.mark.slow
def test_shards_learn_what_whole_copies_learn(two_classes, tmp_path):
    """Shards of an octave network, whose blocks hand on pairs, and a run of it that goes on within an epoch."""
    changes = {**TWO, "trainer.precision": "32-true", "trainer.gradient_clip_val": 1, "checkpoint_every_n_steps": 1}
    sharded = {**changes, "trainer.strategy": "fsdp"}
    for name, given in (("whole", changes), ("shards", sharded)):
        finish(launch(sys.executable, "-m", "octvideo", *arguments(two_classes, tmp_path / name, **given)))
    break_off(two_classes, tmp_path / "broken", sharded)
    finish(
        launch(sys.executable, "-m", "octvideo", *arguments(two_classes, tmp_path / "broken", **sharded), "--resume")
    )
    check_same(tmp_path / "shards", tmp_path / "whole", tolerance=1e-5)
    check_same(tmp_path / "broken", tmp_path / "shards", tolerance=0)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun(two_classes, alone, tmp_path, nodes):
    """One machine with two processes, and two agents with one each that stand for two machines."""
    port = free_port()
    changes = {**TWO, "trainer.devices": 2 // nodes, "trainer.num_nodes": nodes}
    given = ["-m", "octvideo", *arguments(two_classes, tmp_path / "run", **changes)]
    options = ["--nproc-per-node", 2 // nodes, "--nnodes", nodes, "--master-addr", "127.0.0.1", "--master-port", port]
    finish(*[launch(*TORCHRUN, *options, "--node-rank", node, *given) for node in range(nodes)])
    check_same(tmp_path / "run", alone)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_slurm(two_classes, alone, tmp_path, nodes):
    """The variables that srun sets for two tasks, on one machine or on two."""
    changes = {**TWO, "trainer.devices": 2 // nodes, "trainer.num_nodes": nodes}
    given = [sys.executable, "-m", "octvideo", *arguments(two_classes, tmp_path / "run", **changes)]
    common = {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NNODES": str(nodes),
        "SLURM_NTASKS_PER_NODE": str(2 // nodes), "SLURM_NODELIST": "localhost", "MASTER_PORT": str(free_port()),
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip
    tasks = []
    for task in range(2):
        node, local = divmod(task, 2 // nodes)
        place = {"SLURM_PROCID": str(task), "SLURM_NODEID": str(node), "SLURM_LOCALID": str(local)}
        tasks.append(launch(*given, **common, **place))
    finish(*tasks)
    check_same(tmp_path / "run", alone)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def position_of(checkpoint):
    try:
        return position(read_checkpoint(checkpoint))
    except FileNotFoundError:  # not yet there, or between two renames
        return 0, 0


def break_off(folder, output, changes):
    """Kill the first process of a run in the middle of its second epoch; return those that it had started.

    They are the other process, and the one that decodes for the first.
    """
    process = launch(sys.executable, "-m", "octvideo", *arguments(folder, output, **changes))
    while position_of(output / "checkpoints" / "last.ckpt") < (1, 1):
        assert process.poll() is None
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True)
    assert sum(child.environ().get("LOCAL_RANK") == "1" for child in children) >= 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return children


def wait_for_end(process):
    """Of a process by its id; one whose parent is gone may stay in the list, without its command line."""
    path = Path("/proc") / process / "cmdline"
    deadline = time.monotonic() + 60
    while path.exists() and path.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not path.exists() or not path.read_bytes()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the system does not list its processes")
@pytest.mark.parametrize(
    "seconds", [0, pytest.param(3, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)]
)
def test_the_others_end_when_the_first_is_killed_before_they_have_met(two_classes, tmp_path, seconds):
    process = launch(sys.executable, "-m", "octvideo", *arguments(two_classes, tmp_path / "run", **TWO))
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    while not (child := Path(children).read_text().split()):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    try:
        wait_for_end(child[0])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child[0]), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_run_goes_on_exactly(two_classes, together, tmp_path):
    changes = {**TWO, "checkpoint_every_n_steps": 1}
    _, alive = psutil.wait_procs(break_off(two_classes, tmp_path / "run", changes), timeout=60)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    finish(launch(sys.executable, "-m", "octvideo", *arguments(two_classes, tmp_path / "run", **changes), "--resume"))
    check_same(tmp_path / "run", together, tolerance=0)


@pytest.mark.slow
def test_an_error_in_the_first_process_ends_the_others(two_classes, tmp_path):
    """Here its checkpoint cannot be written: one line says so, and nobody waits for it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    process = launch(sys.executable, "-m", "octvideo", *arguments(two_classes, tmp_path / "run", **TWO))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.count("octvideo: error: ") == 1, err
