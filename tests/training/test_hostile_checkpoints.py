"""Checkpoints from strangers: each gives one error that names the file, and nothing else happens."""

import copy
import io
import os
import pickle
import struct
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from octvideo.data import VideoDataModule
from octvideo.models import BUILDERS, build_model, load_weights
from octvideo.models.files import read_weights
from octvideo.training import VideoClassifier, build_trainer, fit, last_checkpoint, load_classifier, read_checkpoint
from octvideo.training.checkpoints import read_resumed

QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def build(folder, **options):
    data = VideoDataModule(
        train=str(folder / "train.txt"), val=str(folder / "test.txt"), num_frames=4, frame_stride=2,
        short_side=(32, 40), test_short_side=32, crop_size=32, batch_size=4, num_workers=0, cache_short_side=40,
    )  # fmt: skip
    return VideoClassifier(
        "resnet3d_tiny", alpha=0.25, class_names=data.class_names, preprocessing=data.preprocessing(), **options
    ), data


def train(folder, output, max_epochs=1, resume=None):
    classifier, data = build(folder)
    trainer = build_trainer(
        output, seed=3, ema_decay=0, progress=False, has_validation=True, max_epochs=max_epochs, accelerator="cpu",
        devices=1,
    )  # fmt: skip
    fit(classifier, data, trainer, resume)


@pytest.fixture(scope="module")
def good(two_classes, tmp_path_factory):
    """A real checkpoint, as bytes."""
    folder = tmp_path_factory.mktemp("good")
    train(two_classes, folder)
    return last_checkpoint(folder).read_bytes()


@pytest.fixture(scope="module")
def content(good):
    return torch.load(io.BytesIO(good), weights_only=True)


@pytest.fixture
def save(tmp_path, content):
    """Write a checkpoint that differs from the good one."""

    def write(name="bad.ckpt", **changes):
        new = dict(content)
        for key, value in changes.items():
            *way, last = key.split("__")
            inner = new
            for step in way:
                inner[step] = dict(inner[step])
                inner = inner[step]
            inner[last] = value
        torch.save(new, tmp_path / name)
        return tmp_path / name

    return write


def repacked(data, change, compression=zipfile.ZIP_STORED):
    """The archive with parts changed and right check sums."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for part in old.infolist():
            new.writestr(part.filename, change(part.filename, old.read(part.filename)))
    return out.getvalue()


def refusal(path, load=load_classifier):
    """The error of a file that has to be refused."""
    found = attempt(path, load)
    assert isinstance(found, ValueError)
    return str(found)


def attempt(path, load):
    """What a file gives, or its error: that names the file, on one line of bounded length."""
    try:
        return load(path)
    except ValueError as caught:
        error = caught
    assert str(path) in str(error)
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 1000
    return error


def test_preprocessing_that_is_not_the_checkpoints_own_is_refused(save):
    for name, value in (("crop_size", 32), ("short_side", 32), ("flip", 0.5)):
        assert f"preprocessing hold '{name}', which octvideo does not have" in refusal(
            save(**{f"hyper_parameters__preprocessing__{name}": value})
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(save, content, value):
    weights = dict(content["state_dict"])
    name = next(iter(weights))
    weights[name] = torch.full_like(weights[name], value)
    message = refusal(save(state_dict=weights))
    assert f"its {name} is not finite, so its training has diverged. Give an earlier checkpoint" in message


class Hostile:
    """Its pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


MARKER = "marker of code that ran"
CALLS = [
    (os.system, f"touch '{MARKER}'"),
    (os.mkdir, MARKER),
    (open, MARKER, "w"),
    (eval, f"__import__('os').mkdir({MARKER!r})"),
    (exec, f"import os; os.mkdir({MARKER!r})"),
    (__import__, "antigravity"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_pickle_does_not_run(call, form, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    new = content | {"hyper_parameters": Hostile(*call)}
    path = tmp_path / "code.ckpt"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"hyper_parameters": Hostile(*call), "state_dict": {}}))
    else:
        torch.save(new, path, _use_new_zipfile_serialization=form == "zip")
    for load in (load_classifier, read_weights, read_resumed):
        assert "holds code" in refusal(path, load)
    assert not (tmp_path / MARKER).exists()


HUGE = "x" * 100_000


def short(value):
    return str(value)[:40]


WRONG = {
    "hyper_parameters": [None, [], "x", {1: 2}, {}, {"model": 1}, {"class_names": ["a"]}, {HUGE: 1}],
    "hyper_parameters__model": [None, 3, "", "os:system", "resnet3d_small", "resnet50", HUGE, "../x", ["a"]],
    "hyper_parameters__alpha": ["x", None, [0.1], 7, -1, float("nan"), float("inf"), 10**400, torch.zeros(2), True],
    "hyper_parameters__octave": ["spacial", 1, HUGE],
    "hyper_parameters__dropout": ["x", 2.0, {}],
    "hyper_parameters__lr": ["x", -1.0],
    "hyper_parameters__lr_steps": [[3, 2], "ab", [None], 4],
    "hyper_parameters__class_names": [
        [], None, "ab", [1, 2], ["a", "a"], ["a", None], ["a", "b", "c"], ["a", HUGE], ["\x1b[2J", "b"], ["a\nb", "c"],
        {"a": 1}, [f"class {i}" for i in range(20_000)],
    ],
    "hyper_parameters__preprocessing": [None, {}, [], "x", {"num_frames": 4}, {"mode": "train"}],
    "hyper_parameters__preprocessing__num_frames": ["4", 0, -1, 10**9, 10**12, 2.5, True, None],
    "hyper_parameters__preprocessing__test_crop_size": ["32", 0, [32], [32, 32, 32], [10**6, 10**6], {}, None, []],
    "hyper_parameters__preprocessing__num_clips": ["x", 0, 10**9],
    "hyper_parameters__preprocessing__mean": [[0.1], "abc", 1.0, [float("nan")] * 3],
    "hyper_parameters__preprocessing__cache_short_side": ["x", 10**9, -5],
    "hyper_parameters__preprocessing__frame_stride": ["x", [1]],
    "hyper_parameters__preprocessing__cache": [{"a": 1}],
    "hyper_parameters__unknown": [1],
    "state_dict": [None, [], {}, {"a": 1}, {1: torch.zeros(2)}, "x", {HUGE: torch.zeros(2)}],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in WRONG.items() for v in values], ids=short)
def test_wrong_values(key, value, save):
    refusal(save(**{key: value}))


def test_weights_of_other_kinds(save, tmp_path):
    name = "state_dict__network.blocks.0.norm.weight"
    weight = torch.zeros(8)
    for odd in (weight.to_sparse(), torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), weight[:3], None, 4.0):
        refusal(save(**{name: odd}))
    torch.save({("a", 1): torch.zeros(2)}, tmp_path / "keys.pt")
    assert "holds no weights" in refusal(tmp_path / "keys.pt", read_weights)


def nested(depth, width):
    """A list that stands for width ** depth elements, in a few bytes."""
    value = ["x"] * width
    for _ in range(depth):
        value = [value] * width
    return value


@pytest.mark.parametrize("key", ["hyper_parameters__class_names", "hyper_parameters__alpha", "hyper_parameters", "x"])
def test_a_small_file_that_stands_for_a_huge_value(key, save):
    path = save(**{key: nested(30, 10)})
    if key == "x":
        load_classifier(path)
    else:
        refusal(path)


def test_archives_that_unpack_to_more_than_their_size(good, tmp_path):
    bomb = repacked(good, lambda name, part: bytes(50_000_000) if name.endswith("/0") else part, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 5_000_000
    (tmp_path / "bomb.ckpt").write_bytes(bomb)
    assert "BadZipFile" in refusal(tmp_path / "bomb.ckpt")
    # The directory says that many parts lie at the same place.
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data/0", bytes(100_000))
        first = archive.infolist()[0]
        for number in range(1, 100):
            again = copy.copy(first)
            again.filename = f"a/data/{number}"
            archive.filelist.append(again)
    (tmp_path / "overlap.ckpt").write_bytes(out.getvalue())
    assert "BadZipFile" in refusal(tmp_path / "overlap.ckpt")


def test_a_storage_that_claims_more_than_its_part_holds(tmp_path):
    saved = io.BytesIO()
    torch.save({"state_dict": {"a": torch.arange(4.0)}, "hyper_parameters": {}}, saved)

    def grown(name, part):
        at = part.find(b"K\x04") if name.endswith("data.pkl") else -1
        return part if at < 0 else part[:at] + b"J" + struct.pack("<i", 10**8) + part[at + 2 :]

    (tmp_path / "grown.ckpt").write_bytes(repacked(saved.getvalue(), grown))
    refusal(tmp_path / "grown.ckpt")


@QUICK
@given(place=st.integers(0, 2**20), new=st.binary(min_size=1, max_size=8))
@example(place=0, new=b"\x80")
@example(place=30, new=b"\x00\x00")
def test_changed_bytes_are_found(place, new, good, tmp_path):
    place %= len(good)
    changed = good[:place] + new + good[place + len(new) :]
    (tmp_path / "changed.ckpt").write_bytes(changed)
    loaded = attempt(tmp_path / "changed.ckpt", load_classifier)
    if not isinstance(loaded, ValueError):  # in a date or padding: what is read is what was written
        for name, value in torch.load(io.BytesIO(good), weights_only=True)["state_dict"].items():
            assert torch.equal(loaded.state_dict()[name], value)


@QUICK
@given(length=st.integers(0, 2**20))
@example(length=0)
@example(length=1)
def test_cut_files_are_found(length, good, tmp_path):
    (tmp_path / "cut.ckpt").write_bytes(good[: length % len(good)])
    refusal(tmp_path / "cut.ckpt")


@QUICK
@given(place=st.integers(0, 2**20), new=st.binary(min_size=1, max_size=6), drop=st.integers(0, 6))
@example(place=0, new=b"cos\nsystem\n(S'true'\ntR.", drop=6)
@example(place=2, new=b"\x8a\xff", drop=0)  # a number of very many digits
@example(place=2, new=b"B\xff\xff\xff\x7f", drop=0)  # a string of 2 GB
def test_changed_pickles_with_right_check_sums(place, new, drop, good, tmp_path, monkeypatch):
    """A stranger computes the sums again: what then comes out is a classifier or an error that names the file."""
    monkeypatch.chdir(tmp_path)

    def changed(name, part):
        if not name.endswith("data.pkl"):
            return part
        at = place % len(part)
        return part[:at] + new + part[at + drop :]

    (tmp_path / "pickle.ckpt").write_bytes(repacked(good, changed))
    for load in (load_classifier, read_weights, read_resumed):
        attempt(tmp_path / "pickle.ckpt", load)
    assert {path.name for path in tmp_path.iterdir()} == {"pickle.ckpt"}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@QUICK
@given(key=st.sampled_from([*WRONG, "epoch", "callbacks", "loops", "global_step"]), value=PLAIN)
@example(key="hyper_parameters", value={"": None})
@example(key="hyper_parameters__class_names", value=[""])
def test_any_values(key, value, save):
    path = save(**{key: value})
    for load in (load_classifier, read_resumed):
        attempt(path, load)


@QUICK
@given(data=st.binary(max_size=200))
@example(data=b"PK\x05\x06" + bytes(18))
@example(data=struct.pack("<Q", 2**63) + b"{}")
def test_any_bytes(data, tmp_path):
    for name in ("any.ckpt", "any.safetensors"):
        (tmp_path / name).write_bytes(data)
        refusal(tmp_path / name)
        refusal(tmp_path / name, lambda path: load_weights(build_model("resnet3d_tiny", num_classes=2), path))


QUICK_TO_BUILD = {"resnet3d_tiny", "energy_resnet3d", "i3d_r50_nln", "slowfast_r50_4x16", "x3d_xs", "s3d", "mc3_18"}


@pytest.mark.parametrize(
    "name", [n if n in QUICK_TO_BUILD else pytest.param(n, marks=pytest.mark.slow) for n in BUILDERS]
)
def test_every_network_can_be_checked_before_it_takes_memory(name):
    with torch.device("meta"):
        classifier = VideoClassifier(name, alpha=0.25, class_names=["a", "b"])
    assert {value.device.type for value in classifier.state_dict().values()} == {"meta"}


OUTSIDE = ["../victim.ckpt", "../../victim.ckpt", "..", "/etc/passwd", "s3://somewhere/x.ckpt", "victim.txt", 3, ["a"]]


@pytest.mark.parametrize("key", ["kth_best_model_path", "last_model_path", "best_model_path", "best_k_models"])
@pytest.mark.parametrize("target", OUTSIDE, ids=str)
def test_a_resumed_run_deletes_nothing_that_its_checkpoint_names(key, target, save, content, two_classes, tmp_path):
    """The trainer removes what it takes for the former best checkpoint."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "victim.ckpt").write_text("precious")
    callbacks = copy.deepcopy(content["callbacks"])
    [best] = [name for name in callbacks if "val_top1_percent" in name]
    path = f"{folder}/{target}" if isinstance(target, str) and target.startswith("..") else target
    value = {path if isinstance(path, str) else 3: torch.tensor(1.0)} if key == "best_k_models" else path
    callbacks[best] |= {"dirpath": str(folder), key: value}
    save("run/checkpoints/last.ckpt", callbacks=callbacks)
    with pytest.raises(
        ValueError, match="last.ckpt cannot be resumed: it names files outside of its run's checkpoints"
    ):
        train(two_classes, tmp_path / "run", 3, resume=folder / "last.ckpt")
    assert (tmp_path / "run" / "victim.ckpt").read_text() == "precious"


def test_a_run_that_was_moved_goes_on(two_classes, tmp_path):
    train(two_classes, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    train(two_classes, tmp_path / "there", 2, resume=tmp_path / "there" / "checkpoints" / "last.ckpt")
    assert read_checkpoint(tmp_path / "there" / "checkpoints" / "last.ckpt")["epoch"] == 1


STATES = {
    "epoch": ["x", -1, None, 10**30],
    "global_step": [None, "x"],
    "loops": [None, {}, {"fit_loop": 3}, {"fit_loop": {}}, []],
    "callbacks": [None, [1]],
    "optimizer_states": [None, {}, [], [3], [{}], [{"state": 3, "param_groups": 4}]],
    "lr_schedulers": [None, [], [3], [{"step": 4}]],
    "state_dict": [{}, {"network.x": torch.zeros(2)}],
    "pytorch-lightning_version": ["x", None, 3, HUGE],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in STATES.items() for v in values], ids=short)
def test_states_that_cannot_be_resumed(key, value, save, two_classes, tmp_path):
    refusal(save(**{key: value}), lambda path: train(two_classes, tmp_path / "run", 1, resume=path))
