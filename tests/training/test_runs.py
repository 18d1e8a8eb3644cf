"""Whole runs on small videos: learning, resumption, checkpoints."""

import copy

import pytest
import pytorch_lightning as pl
import torch

from octvideo.data import VideoDataModule
from octvideo.models import load_weights
from octvideo.training import (
    VideoClassifier,
    best_checkpoint,
    build_trainer,
    fit,
    last_checkpoint,
    load_classifier,
    read_checkpoint,
)


class StoppedError(Exception):
    """Stands for a run that dies."""


class StopAtEpoch(pl.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            raise StoppedError


def build(folder, **changes):
    data = VideoDataModule(
        train=str(folder / "train.txt"), val=str(folder / "test.txt"), num_frames=4, frame_stride=2,
        short_side=(32, 40), test_short_side=32, crop_size=32, num_clips=2, num_crops=1, batch_size=4,
        cache_short_side=40, num_workers=changes.pop("num_workers", 0),
    )  # fmt: skip
    torch.manual_seed(1)
    settings = {"model": "resnet3d_tiny", "alpha": 0.25, "optimizer": "adamw", "lr": 3e-3, "mixup": 0.2, **changes}
    return VideoClassifier(**settings, class_names=data.class_names, preprocessing=data.preprocessing()), data


def trainer_for(output, max_epochs, *callbacks, **options):
    trainer = build_trainer(
        output, seed=3, ema_decay=0.8, progress=False, has_validation=True, max_epochs=max_epochs,
        accelerator="cpu", devices=1, **options,
    )  # fmt: skip
    trainer.callbacks.extend(callbacks)
    return trainer


@pytest.mark.parametrize(
    ("num_workers", "options"),
    [(0, {}), (2, {"checkpoint_activations": True}), (0, {"channels_last": False})],
)
def test_a_resumed_run_equals_the_straight_one_bit_for_bit(two_classes, tmp_path, num_workers, options):
    straight, data = build(two_classes, **options)
    fit(straight, data, trainer_for(tmp_path / "straight", 3), None)
    broken, data = build(two_classes, num_workers=num_workers, **options)
    with pytest.raises(StoppedError):
        fit(broken, data, trainer_for(tmp_path / "broken", 3, StopAtEpoch(2)), None)
    resumed, data = build(two_classes, num_workers=num_workers, **options)
    fit(resumed, data, trainer_for(tmp_path / "broken", 3), last_checkpoint(tmp_path / "broken"))
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    lines = (tmp_path / "straight" / "metrics.csv").read_text().splitlines()
    assert {"train_loss", "val_loss", "val_top1_percent"} <= set(lines[0].split(","))


def test_a_run_learns_and_its_checkpoint_rebuilds_everything(two_classes, tmp_path):
    classifier, data = build(two_classes, mixup=0.0, label_smoothing=0.1)
    trainer = trainer_for(tmp_path, 8, accumulate_grad_batches=2, gradient_clip_val=1.0)
    fit(classifier, data, trainer, None)
    assert trainer.callback_metrics["val_top1_percent"] == 100
    loaded = load_classifier(best_checkpoint(tmp_path))
    assert list(loaded.hparams["class_names"]) == ["dark", "bright"]
    assert loaded.hparams["preprocessing"] == data.preprocessing()
    assert not loaded.training
    last = load_classifier(last_checkpoint(tmp_path))
    clip = torch.randn(1, 3, 4, 32, 32)
    torch.testing.assert_close(last(clip), classifier.eval()(clip))
    last.setup("test")  # channels-last, as the trained one is
    assert torch.equal(last(clip), classifier(clip))


def test_memory_layout_and_recomputation_change_no_result(two_classes):
    results = []
    plain = {"channels_last": False}
    for options in (plain, {}, {**plain, "checkpoint_activations": True}, {**plain, "recompute_pooled": True}):
        classifier, _ = build(two_classes, dropout=0.5, **options)
        classifier.setup("fit")
        torch.manual_seed(0)
        logits = classifier.double().train()(torch.randn(2, 3, 4, 24, 20).double())
        logits.square().sum().backward()
        state = {name: value.clone() for name, value in classifier.state_dict().items()}
        results.append((logits, {name: p.grad for name, p in classifier.named_parameters()}, state))
    torch.testing.assert_close(results[1], results[0])
    for result in results[2:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0)


def test_bfloat16_trains_on_the_cpu(two_classes, tmp_path):
    classifier, data = build(two_classes, cutmix=1.0)
    before = copy.deepcopy(classifier.network.blocks[1].res_blocks[0].branch2.conv_b.weight)
    trainer = trainer_for(tmp_path, 1, precision="bf16-mixed")
    fit(classifier, data, trainer, None)
    assert torch.isfinite(trainer.callback_metrics["train_loss"])
    assert not torch.equal(classifier.network.blocks[1].res_blocks[0].branch2.conv_b.weight, before)


@pytest.fixture(scope="module")
def checkpoint(two_classes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    classifier, data = build(two_classes)
    fit(classifier, data, trainer_for(folder, 1), None)
    return last_checkpoint(folder)


def test_weights_start_a_network_of_another_alpha_and_other_classes(checkpoint):
    classifier = VideoClassifier("resnet3d_tiny", alpha=0.5, octave="temporal", class_names=["a", "b", "c"])
    head = classifier.network.state_dict()["blocks.4.proj.weight"].clone()
    with pytest.warns(UserWarning, match="the last layer has other classes"):
        load_weights(classifier.network, checkpoint)
    saved = read_checkpoint(checkpoint)["state_dict"]
    own = classifier.network.state_dict()
    assert torch.equal(own["blocks.4.proj.weight"], head)
    assert all(torch.equal(own[k], saved[f"network.{k}"]) for k in own if not k.startswith("blocks.4.proj"))


def test_weights_of_another_network_are_listed(checkpoint):
    other = VideoClassifier("resnet3d_small", class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"last.ckpt does not fit the network: \d+ missing: .*; \d+ of another shape"):
        load_weights(other.network, checkpoint)


def test_files_that_are_no_checkpoints(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match="missing.ckpt not found: give a .ckpt file that octvideo train wrote"):
        load_classifier(tmp_path / "missing.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match="text.ckpt cannot be read as a checkpoint"):
        load_classifier(tmp_path / "text.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.ckpt cannot be read as a checkpoint"):
        load_classifier(tmp_path / "cut.ckpt")
    torch.save({"model_state": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="other.ckpt is a checkpoint of something else"):
        load_classifier(tmp_path / "other.ckpt")


def test_a_checkpoint_cannot_run_code(tmp_path, checkpoint):
    """Neither a pickled object nor the name of a module in it is followed."""
    torch.save({"state_dict": {}, "hyper_parameters": {"x": pl.Trainer}}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match="holds code"):
        load_classifier(tmp_path / "code.ckpt")
    content = read_checkpoint(checkpoint)
    content["hyper_parameters"]["model"] = "octvideo.models.small:resnet3d_tiny"
    torch.save(content, tmp_path / "own.ckpt")
    with pytest.raises(ValueError, match="which octvideo does not have.*own_builders"):
        load_classifier(tmp_path / "own.ckpt")
    assert load_classifier(tmp_path / "own.ckpt", own_builders=True).hparams["alpha"] == 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": []}, "class_names is empty"),
        ({"lr": -1}, "lr must be 0 or more; got -1"),
        ({"dropout": 1.5}, r"dropout must lie in \[0, 1\]; got 1.5"),
        ({"alpha": 1.2}, "alpha is the low-frequency share.*got 1.2"),
        ({"model": "i3d"}, "unknown model 'i3d'"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
    ],
)
def test_wrong_values(change, message):
    with pytest.raises(ValueError, match=message):
        VideoClassifier(**{"model": "resnet3d_tiny", "class_names": ["a", "b"], **change})


def test_wrong_moving_average(tmp_path):
    with pytest.raises(ValueError, match="ema_decay must be at least 0 and below 1; got 1"):
        build_trainer(tmp_path, seed=0, ema_decay=1, progress=False, has_validation=False)


def test_shards_have_no_moving_average(tmp_path):
    with pytest.raises(ValueError, match="ema_decay is 0.9, but shards have no moving average: set it 0"):
        build_trainer(tmp_path, seed=0, ema_decay=0.9, progress=False, has_validation=False, strategy="fsdp")
