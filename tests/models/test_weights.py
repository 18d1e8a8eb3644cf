"""Files of weights of every kind start a network at any alpha; files of other kinds are refused, and nothing runs."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
import torchvision
from pytorchvideo.models import hub
from torch import nn

from octvideo import octavize
from octvideo.models import build_model, load_weights, save_weights

CLASSES = 5


def tiny(alpha=0.0, num_classes=CLASSES, octave="spatial"):
    return build_model("resnet3d_tiny", num_classes=num_classes, alpha=alpha, octave=octave)


def prefixed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


def assert_same_weights(network, weights):
    own = network.state_dict()
    assert own.keys() == weights.keys()
    assert [name for name in own if not torch.equal(own[name], weights[name])] == []


WRITERS = {
    "octvideo.ckpt": lambda net, path: torch.save(
        {"state_dict": prefixed(net.state_dict(), "network."), "hyper_parameters": {"alpha": 0}, "epoch": 3}, path
    ),
    "pytorchvideo.pyth": lambda net, path: torch.save({"model_state": net.state_dict()}, path),
    "parallel.pyth": lambda net, path: torch.save({"model_state": prefixed(net.state_dict(), "module.")}, path),
    "wrapped.pyth": lambda net, path: torch.save({"model_state": prefixed(net.state_dict(), "model.")}, path),
    "compiled.pt": lambda net, path: save_weights(torch.compile(net), path),
    "plain.pth": lambda net, path: torch.save(net.state_dict(), path),
    "saved.pt": save_weights,
    "saved.safetensors": save_weights,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_dense_weights_of_every_kind_start_a_network_at_any_alpha(kind, tmp_path):
    dense = tiny()
    WRITERS[kind](dense, tmp_path / kind)
    for alpha, octave in ((0, "spatial"), (0.1, "temporal"), (0.25, "spatial"), (1, "spatiotemporal")):
        ours = tiny(alpha, octave=octave)
        load_weights(ours, tmp_path / kind)
        assert_same_weights(ours, dense.state_dict())


def test_an_octave_networks_weights_start_a_dense_one(tmp_path):
    octave = tiny(0.5)
    save_weights(octave, tmp_path / "octave.safetensors")
    dense = tiny()
    load_weights(dense, tmp_path / "octave.safetensors")
    assert_same_weights(dense, octave.state_dict())


def test_pytorchvideos_published_form(tmp_path):
    peer = hub.slow_r50()
    torch.save({"model_state": peer.state_dict()}, tmp_path / "SLOW_8x8_R50.pyth")
    ours = build_model("slow_r50", num_classes=400, alpha=0.1)
    load_weights(ours, tmp_path / "SLOW_8x8_R50.pyth")
    assert_same_weights(ours, peer.state_dict())


HUB = {
    "c2d_r50": hub.c2d_r50,
    "i3d_r50": hub.i3d_r50,
    "slowfast_r50_8x8": hub.slowfast_r50,
    "slowfast_r101_8x8": hub.slowfast_r101,
}


@pytest.mark.parametrize("name", HUB)
def test_pytorchvideos_published_networks_have_our_names(name):
    with torch.device("meta"):
        peer, ours = HUB[name]().state_dict(), build_model(name, num_classes=400).state_dict()
    assert {k: v.shape for k, v in peer.items()} == {k: v.shape for k, v in ours.items()}


def test_torchvisions_video_networks(tmp_path):
    peer = torchvision.models.video.r3d_18(num_classes=CLASSES)
    torch.save(peer.state_dict(), tmp_path / "r3d_18.pth")
    ours = octavize(torchvision.models.video.r3d_18(num_classes=CLASSES), 0.25)
    load_weights(ours, tmp_path / "r3d_18.pth")
    assert_same_weights(ours, peer.state_dict())


def test_a_head_of_other_classes_starts_anew_with_a_notice(tmp_path):
    save_weights(tiny(num_classes=9), tmp_path / "nine.pt")
    ours = tiny()
    head = ours.blocks[4].proj.weight.clone()
    with pytest.warns(UserWarning, match=r"nine.pt: the last layer has other classes .*blocks.4.proj.weight, blocks"):
        load_weights(ours, tmp_path / "nine.pt")
    assert torch.equal(ours.blocks[4].proj.weight, head)
    assert torch.equal(ours.blocks[0].conv.weight, torch.load(tmp_path / "nine.pt")["blocks.0.conv.weight"])


def test_a_head_that_is_a_convolution_starts_anew_too(tmp_path):
    save_weights(torchvision.models.video.s3d(num_classes=9), tmp_path / "s3d.pt")
    ours = torchvision.models.video.s3d(num_classes=CLASSES)
    with pytest.warns(UserWarning, match=r"other classes and starts anew \(classifier.1.weight, classifier.1.bias\)"):
        load_weights(ours, tmp_path / "s3d.pt")


def test_non_local_blocks_start_anew_where_the_file_has_none(tmp_path):
    plain = build_model("c2d_r50", num_classes=CLASSES)
    torch.save(plain.state_dict(), tmp_path / "c2d.pth")
    ours = build_model("c2d_r50_nln", num_classes=CLASSES, alpha=0.1)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.warns(UserWarning, match="c2d.pth: it has no non-local blocks, the network's start anew"):
        load_weights(ours, tmp_path / "c2d.pth")
    given = plain.state_dict()
    assert len(before) > len(given)
    assert [n for n, v in ours.state_dict().items() if not torch.equal(v, given.get(n, before[n]))] == []
    torch.save(ours.state_dict(), tmp_path / "nln.pth")
    with pytest.raises(ValueError, match=r"\d+ unexpected: blocks.3.non_local"):
        load_weights(plain, tmp_path / "nln.pth")


def test_old_files_have_no_num_batches_tracked(tmp_path):
    dense = tiny()
    weights = {k: v for k, v in dense.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "old.pth")
    ours = tiny(0.25)
    load_weights(ours, tmp_path / "old.pth")
    assert_same_weights(ours, dense.state_dict())


def without(name):
    return lambda weights: weights.pop(name)


def with_shapes(**shapes):
    return lambda weights: weights.update({k.replace("__", "."): torch.ones(shape) for k, shape in shapes.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("blocks.0.conv.weight"), "1 missing: blocks.0.conv.weight$"),
        (without("blocks.4.proj.bias"), "1 missing: blocks.4.proj.bias$"),
        (with_shapes(extra=2), "1 unexpected: extra$"),
        (
            with_shapes(blocks__4__proj__weight=(9, 7), blocks__4__proj__bias=9),
            "2 of another shape: blocks.4.proj.bias 9, the network's 5, blocks.4.proj.weight 9x7, the network's 5x192$",
        ),
        (
            with_shapes(blocks__0__norm__bias=2, **{f"x{i}": 1 for i in range(9)}),
            "9 unexpected: x0, x1, .*, x7, and 1 more; 1 of another shape: blocks.0.norm.bias 2, the network's 24$",
        ),
    ],
)
def test_what_does_not_fit_is_listed_and_changes_nothing(change, message, tmp_path):
    weights = tiny().state_dict()
    change(weights)
    torch.save(weights, tmp_path / "other.pth")
    ours = tiny()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(ValueError, match=f"other.pth does not fit the network: {message}"):
        load_weights(ours, tmp_path / "other.pth")
    assert_same_weights(ours, before)


class Code:
    """A pickle of it makes a folder when it is read without care."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return type(self.folder).mkdir, (self.folder,)


def test_files_that_hold_no_weights(tmp_path):
    whole = tmp_path / "whole.pt"
    save_weights(tiny(), whole)
    files = {
        "empty.pt": b"",
        "text.pth": b"hello",
        "cut.pt": whole.read_bytes()[:5000],
        "cut.safetensors": b"\x10\x00",
        "caffe2.pkl": pickle.dumps({"blobs": {"conv1_w": np.zeros(3)}}, protocol=2),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.pt").mkdir()
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    torch.save({"state_dict": {}}, tmp_path / "nothing.pt")
    for name, message in {
        "empty.pt": "empty.pt is an empty file: give a file of weights",
        "folder.pt": "folder.pt is a folder: give a file of weights",
        "text.pth": "text.pth cannot be read as a checkpoint",
        "cut.pt": "cut.pt cannot be read as a checkpoint",
        "cut.safetensors": "cut.safetensors cannot be read as a checkpoint",
        "caffe2.pkl": "caffe2.pkl is a Caffe2 file .a pickle of 'blobs'.*save it as .pyth",
        "numbers.pt": "numbers.pt holds no weights: expected a dict of tensors",
        "list.pt": "list.pt holds no weights",
        "nothing.pt": "nothing.pt holds no weights",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_weights(nn.Linear(1, 1), tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"missing.pth not found: give a file of weights \(.ckpt, .pth"):
        load_weights(nn.Linear(1, 1), tmp_path / "missing.pth")


def test_no_file_runs_code(tmp_path):
    torch.save({"model_state": tiny().state_dict(), "cfg": Code(tmp_path / "ran")}, tmp_path / "code.pyth")
    (tmp_path / "code.pkl").write_bytes(pickle.dumps({"blobs": Code(tmp_path / "ran")}, protocol=2))
    for name, message in (("code.pyth", "holds code"), ("code.pkl", "Caffe2")):
        with pytest.raises(ValueError, match=f"{name} .*{message}"):
            load_weights(tiny(), tmp_path / name)
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "code.pkl").read_bytes())
    assert (tmp_path / "ran").exists()  # so the file was one that runs code


class Tied(nn.Module):
    """Two names of one weight, which is not contiguous either."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(4, 4, 3).to(memory_format=torch.channels_last_3d)
        self.second = nn.Conv3d(4, 4, 3)
        self.second.weight = self.first.weight


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_shared_weights_are_written(ending, tmp_path):
    net, other = Tied(), Tied()
    save_weights(net, tmp_path / "new folder" / f"tied{ending}")
    load_weights(other, tmp_path / "new folder" / f"tied{ending}")
    assert_same_weights(other, net.state_dict())
    assert other.second.weight is other.first.weight


def test_safetensors_files_name_their_format(tmp_path):
    net = tiny()
    save_weights(net, tmp_path / "net.safetensors")
    with safetensors.safe_open(tmp_path / "net.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(net.state_dict())
        np.testing.assert_array_equal(file.get_tensor("blocks.4.proj.bias"), net.blocks[4].proj.bias.detach())


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    save_weights(tiny(), path)
    before = path.read_bytes()

    def stop(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save_weights(tiny(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]
    with pytest.raises(ValueError, match="weights are written as .safetensors or .pt; got .*net.pth"):
        save_weights(tiny(), tmp_path / "net.pth")


def test_the_readmes_table_names_published_files():
    """Every file that PyTorchVideo and torchvision publish under the name in the table."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in readme.split("## Weights")[1].splitlines() if line.startswith("| ")]
    published = {"PyTorchVideo": set(), "torchvision": set()}
    for module in (hub.resnet, hub.slowfast, hub.x3d):
        published["PyTorchVideo"] |= {url.rpartition("/")[2] for url in module.checkpoint_paths.values()}
    for name in ("resnet50", "resnet101", "r3d_18", "mc3_18"):
        weights = torchvision.models.get_model_weights(name)
        published["torchvision"] |= {entry.url.rpartition("/")[2] for entry in weights}
    owner, checked = "", 0
    for source, files, _ in rows:
        owner = source.split()[0] if source.strip() else owner
        if owner in published:
            assert set(files.strip().split(", ")) <= published[owner]
            checked += 1
    assert checked == 9
