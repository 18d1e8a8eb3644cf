"""Exported files against the network in eager mode, run here by ONNX Runtime and by torch.export.load."""

import importlib.util
import json
import math
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octvideo import octavize
from octvideo.cli import main
from octvideo.models import BUILDERS, resnet3d_tiny
from octvideo.runtime import export as export_module
from octvideo.runtime import export_onnx, export_program
from octvideo.runtime.trace import adaptive_avg_pool
from octvideo.training import VideoClassifier

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
PREPROCESSING = {"num_frames": 3, "frame_stride": 2, "test_crop_size": [33, 18], "mean": [0.45] * 3, "std": [0.225] * 3}


class SmallNet(nn.Module):
    """A stem, a residual block, strides, both poolings; the head averages over a grid, or over everything."""

    def __init__(self, axes, grid=(1, 1, 1)):
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d)
        pools = (nn.MaxPool2d, nn.AvgPool2d) if axes == 2 else (nn.MaxPool3d, nn.AvgPool3d)
        self.stem = nn.Sequential(conv(3, 8, 3, 2, 1), norm(8), nn.ReLU())
        self.conv1, self.norm1 = conv(8, 12, 3, 1, 1), norm(12)
        self.max_pool, self.avg_pool = pools[0](3, 2, 1), pools[1](2, ceil_mode=True)
        self.conv2, self.norm2 = conv(12, 12, 3, 1, 1), norm(12)
        self.last = nn.Sequential(conv(12, 8, 3, 2, 1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(grid[1:]) if axes == 2 else nn.AdaptiveAvgPool3d(grid)
        self.fc = nn.Linear(8 * math.prod(grid), 4)

    def forward(self, x):
        x = self.max_pool(F.relu(self.norm1(self.conv1(self.stem(x)))))
        x = self.avg_pool(F.relu(x + self.norm2(self.conv2(x))))
        return self.fc(self.pool(self.last(x)).flatten(1))


def small_net(axes, alpha, octave="spatial", grid=(1, 1, 1)):
    """The network with weights and statistics that keep the signal, so that logits differ from clip to clip."""
    net = SmallNet(axes, grid)
    nn.init.normal_(net.fc.weight, std=4)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return octavize(net, alpha, octave).eval()


CASES = {
    "spatial": (3, 0.25, "spatial", (5, 45, 38), (1, 1, 1)),
    "temporal, a grid of averages": (3, 0.25, "temporal", (11, 30, 31), (1, 2, 3)),
    "spatiotemporal": (3, 0.5, "spatiotemporal", (9, 37, 45), (1, 1, 1)),
    "no high channels": (3, 1, "spatial", (5, 37, 31), (1, 1, 1)),
    "image": (2, 0.25, "spatial", (53, 38), (1, 2, 3)),
}


def run_onnx(path):
    session = onnxruntime.InferenceSession(str(path))
    assert [o.name for o in session.get_outputs()] == ["logits"]
    [entry] = session.get_inputs()
    assert entry.shape[0] == "batch"
    assert entry.name == ("image" if len(entry.shape) == 4 else "clip")
    return lambda x: torch.from_numpy(session.run(None, {entry.name: x.numpy()})[0])


def assert_same(model, run, shape):
    for size in (1, 2, 5):
        batch = torch.randn(size, 3, *shape)
        expected = model(batch)
        torch.testing.assert_close(run(batch), expected, rtol=0, atol=1e-4)
    assert expected.std(0).min() > 0.05  # else the logits say nothing of the clips


@pytest.mark.parametrize("case", CASES)
def test_files_compute_what_the_network_computes(case, tmp_path):
    axes, alpha, octave, shape, grid = CASES[case]
    model, example = small_net(axes, alpha, octave, grid), torch.zeros(1, 3, *shape)
    with torch.no_grad():
        report = export_onnx(model, example, tmp_path / "net.onnx")
        assert_same(model, run_onnx(tmp_path / "net.onnx"), shape)
        assert report.max_difference < 1e-4 < 0.05 < report.max_logit
        assert report.size_bytes == (tmp_path / "net.onnx").stat().st_size
        report = export_program(model, example, tmp_path / "net.pt2")
        assert_same(model, torch.export.load(tmp_path / "net.pt2").module(), shape)
        assert report.max_difference < 1e-5
        assert report.version == f"torch {torch.__version__}"


def test_a_part_without_channels_and_the_merged_input_of_a_group_norm(tmp_path):
    net = nn.Sequential(
        nn.Conv3d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv3d(8, 8, 3, 1, 1), nn.Conv3d(8, 6, 1), nn.GroupNorm(2, 6),
        nn.Conv3d(6, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    octavize(net, 0.15)  # 1 of 8 channels, none of 6
    assert (net[2].out_segments, net[3].out_segments) == (((7, 1),), ((6, 0),))
    report = export_program(net, torch.zeros(1, 3, 4, 9, 11), tmp_path / "net.pt2")
    assert report.max_difference < 1e-5
    report = export_onnx(net, torch.zeros(1, 3, 4, 9, 11), tmp_path / "net.onnx")
    assert report.max_difference < 1e-5


@pytest.mark.parametrize("cells", [(1, 1, 1), (2, 3, 4), (5, 7, 9)])
def test_adaptive_pooling_is_torchs(cells):
    x = torch.randn(2, 3, 5, 7, 11, dtype=torch.float64)
    torch.testing.assert_close(adaptive_avg_pool(x, cells), F.adaptive_avg_pool3d(x, cells))


def test_metadata_travels_but_no_example_and_no_path_of_this_machine(tmp_path):
    metadata = {"class_names": ["naïve", "b"], "preprocessing": PREPROCESSING}
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    example = torch.zeros(4, 3, 200, 200)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, example, tmp_path / "net.onnx", metadata=metadata)
    export_program(model, example, tmp_path / "net.pt2", metadata=metadata)
    stored = onnxruntime.InferenceSession(str(tmp_path / "net.onnx")).get_modelmeta().custom_metadata_map
    assert json.loads(stored["octvideo.json"]) == metadata
    extra = {"octvideo.json": ""}
    torch.export.load(tmp_path / "net.pt2", extra_files=extra)
    assert json.loads(extra["octvideo.json"]) == metadata
    assert all(b"test_export.py" not in path.read_bytes() for path in tmp_path.iterdir())
    assert all(path.stat().st_size < example[0].nbytes / 4 for path in tmp_path.iterdir())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_that_fails_the_check_does_not_appear(tmp_path, monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 4, 9), nn.Flatten())
    example = torch.zeros(1, 3, 9, 9)
    (tmp_path / "net.pt2").write_text("an earlier file")
    monkeypatch.setattr(export_module, "open_program", lambda path: lambda batch: model(batch) * 1.001)
    with pytest.raises(RuntimeError, match=r"net.pt2 was not written: its logits differ .* more than 0.0001 of"):
        export_program(model, example, tmp_path / "net.pt2")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("net.pt2", "an earlier file")]
    export_program(model, example, tmp_path / "net.pt2", tolerance=0.01)
    monkeypatch.setattr(export_module, "open_program", lambda path: lambda batch: model(batch)[:1])
    with pytest.raises(RuntimeError, match=r"the file gives logits \(1, 4\); expected \(3, 4\)"):
        export_program(model, example, tmp_path / "net.pt2")
    assert export_program(model, example, tmp_path / "net.pt2", check=False).max_difference is None


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x, x + 1


class Unsupported(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    ("model", "shape", "name", "message"),
    [
        (nn.Flatten(), (2, 3, 8, 8), "net.pt2", r"net.pt2 must end in .onnx for an ONNX file \(--format onnx\)"),
        (nn.Flatten(), (2, 3, 8), "net.onnx", r"example must be float32 clips .*; got float32 \(2, 3, 8\)"),
        (TwoOutputs(), (2, 3, 8, 8), "net.onnx", "TwoOutputs must return one tensor of logits"),
        (resnet3d_tiny(), (2, 4, 4, 8, 8), "net.onnx", r"Net cannot be traced on inputs of \(4, 4, 8, 8\): "),
        (nn.Linear(30000, 30000, device="meta"), (2, 3, 8, 8), "net.onnx", "Linear has 3.6 GB of weights, more than"),
        (Unsupported(), (2, 3, 8, 8), "net.onnx", "no ONNX form of this network: .*bessel_j0"),
    ],
)
def test_wrong_arguments(model, shape, name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_onnx(model, torch.zeros(shape), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_and_missing_packages(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere of output .*net.pt2 not found: make it first"):
        export_program(nn.Flatten(), torch.zeros(1, 3, 8, 8), tmp_path / "nowhere" / "net.pt2")
    with pytest.raises(ValueError, match="got float64"):
        export_program(nn.Flatten(), torch.zeros(1, 3, 8, 8, dtype=torch.float64), tmp_path / "net.pt2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"needs onnx and onnxscript and onnxruntime: pip install 'octvideo\[export\]'"
    ):
        export_onnx(nn.Flatten(), torch.zeros(1, 3, 8, 8), tmp_path / "net.onnx")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    classifier = VideoClassifier(
        "resnet3d_tiny", alpha=0.25, class_names=["dark", "bright"], preprocessing=PREPROCESSING
    )
    path = tmp_path_factory.mktemp("checkpoints") / "best.ckpt"
    torch.save({"state_dict": classifier.state_dict(), "hyper_parameters": dict(classifier.hparams)}, path)
    return path, classifier.eval()


def test_the_command_exports_a_checkpoint_and_the_readme_reads_the_file(checkpoint, tmp_path, capfd, monkeypatch):
    path, classifier = checkpoint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert main(["export", "--checkpoint", str(path), "--output", "runs/mine.onnx"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert re.search(r"runs/mine.onnx: resnet3d_tiny alpha 0.25 spatial, batch x 3 x 3 x 33 x 18\n", out)
    assert re.search(r"\d MB, ONNX opset \d+, .* s\n  logits differ from the network's by \d\.\de-\d\d", out)
    batch = torch.randn(3, 3, 3, 33, 18)
    with torch.no_grad():
        torch.testing.assert_close(run_onnx(tmp_path / "runs/mine.onnx")(batch), classifier(batch), rtol=0, atol=1e-5)
    [block] = [b for b in re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE) if "onnxruntime" in b]
    names: dict = {}
    exec("\n".join(line[4:] for line in block.splitlines()), names)
    assert (names["about"]["class_names"], names["about"]["preprocessing"]) == (["dark", "bright"], PREPROCESSING)
    with torch.no_grad():
        expected = classifier(torch.zeros(2, 3, 3, 33, 18))
    torch.testing.assert_close(torch.from_numpy(names["logits"]), expected, rtol=0, atol=1e-5)


def test_the_command_exports_a_builders_image_network(tmp_path, capsys):
    given = ["--model", "resnet18", "--alpha", "0.25", "--crop", "33", "41", "--check", "false"]
    assert main(["export", *given, "--format", "torch", "--output", str(tmp_path / "net.pt2")]) == 0
    out = capsys.readouterr().out
    assert "resnet18 alpha 0.25 spatial, batch x 3 x 33 x 41\n" in out
    assert "not checked" in out
    program = torch.export.load(tmp_path / "net.pt2").module()
    assert program(torch.zeros(5, 3, 33, 41)).shape == (5, 1000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give either --checkpoint, a .ckpt file, or --model"),
        (["--model", "resnet3d_tiny", "--checkpoint", "x.ckpt"], "give either --checkpoint"),
        (["--checkpoint", "nowhere.ckpt"], "checkpoint nowhere.ckpt not found"),
        (["--checkpoint", "x.ckpt", "--alpha", "0.5", "--crop", "8"], "leave out --alpha, --crop"),
        (["--model", "resnet3d_tiny", "--format", "tflite"], 'key "format".*tflite'),
        (["--model", "resnet3d_tiny", "--format", "torch"], r"net.onnx must end in .pt2 for a torch.export program"),
        (["--model", "resnet3d_tiny", "--crop", "8", "9", "7"], r"crop must be one number or height and width; got"),
        (["--model", "large_window", "--crop", "8"], r"traced on inputs of \(3, 8, 8, 8\): .*smaller than kernel size"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(given, message, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(BUILDERS, "large_window", lambda **_: nn.Sequential(nn.Conv3d(3, 4, 1), nn.AvgPool3d(9)))
    assert main(["export", *given, "--output", str(tmp_path / "net.onnx")]) == 1
    err = capfd.readouterr().err  # what torch's loggers write, too
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err), err
