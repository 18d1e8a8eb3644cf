"""Precise batch norm against statistics of the whole set, computed by hand."""

import copy
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

from octvideo.data import VideoDataModule
from octvideo.layers import OctPair, convert_sync_batchnorm
from octvideo.layers.norm import OctBatchNorm3d
from octvideo.models import build_model
from octvideo.training import (
    VideoClassifier,
    build_trainer,
    checkpoint_activations,
    fit,
    last_checkpoint,
    load_classifier,
    read_checkpoint,
    update_statistics,
)


def norms(network):
    return {name: m for name, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def network_and_clips():
    torch.manual_seed(0)
    network = build_model("resnet3d_tiny", num_classes=3, alpha=0.25, dropout=0.5)
    return network.train(), [torch.randn(4, 3, 4, 20, 22) * (1 + k) + k for k in range(3)]


def test_the_first_norm_has_the_statistics_of_the_whole_set():
    """Of batches whose means differ widely: the variance of the set is not the mean of the batches' variances."""
    network, clips = network_and_clips()
    before = copy.deepcopy(network.state_dict())
    update_statistics(network, clips)
    inputs = network.blocks[0].conv(torch.cat(clips)).double()
    norm = network.blocks[0].norm
    torch.testing.assert_close(norm.running_mean, inputs.mean((0, 2, 3, 4)).float())
    torch.testing.assert_close(norm.running_var, inputs.var((0, 2, 3, 4)).float())
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{name}.{kind}" for name in norms(network) for kind in ("running_mean", "running_var")}
    assert all(module.training for module in network.modules())


def test_every_norm_of_one_batch_has_that_batchs_statistics():
    """One batch: what training with momentum 1 leaves behind, in parts of pairs and in dense layers alike."""
    network, clips = network_and_clips()
    plain = copy.deepcopy(network)
    for norm in norms(plain).values():
        norm.momentum = 1.0
    plain.eval()
    for norm in norms(plain).values():
        norm.train()
    with torch.no_grad():
        plain(clips[0])
    update_statistics(checkpoint_activations(network), clips[:1])
    for name, norm in norms(network).items():
        torch.testing.assert_close(norm.running_mean, norms(plain)[name].running_mean, msg=name)
        torch.testing.assert_close(norm.running_var, norms(plain)[name].running_var, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("segments", [((5, 3),), ((2, 1), (3, 2)), ((8, 0),), ((0, 8),)])
def test_pairs_in_the_dense_order(segments):
    norm = OctBatchNorm3d(8)
    high, low = (sum(s[part] for s in segments) for part in (0, 1))
    pairs = [OctPair(torch.randn(2, high, 4, 6, 6) + 3, torch.randn(2, low, 4, 3, 3) * 2, segments) for _ in range(3)]
    update_statistics(norm, pairs)
    place = 0
    done = [0, 0]
    for segment in segments:
        for part, size in enumerate(segment):
            for _ in range(size):
                values = torch.cat([pair.parts[part][:, done[part]] for pair in pairs]).double()
                assert norm.running_mean[place] == pytest.approx(values.mean().item(), rel=1e-5)
                assert norm.running_var[place] == pytest.approx(values.var().item(), rel=1e-5)
                place, done[part] = place + 1, done[part] + 1


def test_no_batches():
    with pytest.raises(ValueError, match="precise batch norm needs at least one batch"):
        update_statistics(nn.BatchNorm1d(2), [])


def run(folder, output, max_epochs, *, resume=False, precise_bn=2, **options):
    data = VideoDataModule(
        train=str(folder / "train.txt"), val=str(folder / "test.txt"), num_frames=4, frame_stride=2,
        short_side=(32, 40), test_short_side=32, crop_size=32, batch_size=4, num_workers=0, cache_short_side=40,
        **options,
    )  # fmt: skip
    torch.manual_seed(1)
    classifier = VideoClassifier(
        "resnet3d_tiny", alpha=0.25, optimizer="adamw", lr=3e-3, class_names=data.class_names,
        preprocessing=data.preprocessing(),
    )  # fmt: skip
    trainer = build_trainer(
        output, seed=3, ema_decay=0, progress=False, has_validation=True, precise_bn=precise_bn, max_epochs=max_epochs,
        accelerator="cpu", devices=1, check_val_every_n_epoch=2, num_sanity_val_steps=0,
    )  # fmt: skip
    fit(classifier, data, trainer, last_checkpoint(output) if resume else None)
    return classifier, data


def test_a_runs_checkpoints_hold_precise_statistics_and_the_training_is_the_same(two_classes, tmp_path):
    precise, data = run(two_classes, tmp_path / "precise", 3)
    plain, _ = run(two_classes, tmp_path / "plain", 3, precise_bn=0)
    for (name, ours), theirs in zip(precise.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    clips = torch.cat([batch["clip"] for batch in data.precise_loader(2)])
    assert len(clips) == 8
    for checkpoint in ("last", "best"):  # an epoch without validation, the last; and one with
        loaded = load_classifier(tmp_path / "precise" / "checkpoints" / f"{checkpoint}.ckpt")
        inputs = loaded.network.blocks[0].conv(clips)
        torch.testing.assert_close(loaded.network.blocks[0].norm.running_mean, inputs.mean((0, 2, 3, 4)))
    epochs = [read_checkpoint(tmp_path / "precise" / "checkpoints" / f"{n}.ckpt")["epoch"] for n in ("last", "best")]
    assert epochs == [2, 1]


def test_average_and_precise_statistics_exclude_each_other(tmp_path):
    for given in ({"ema_decay": 0.9, "precise_bn": 1}, {"ema_decay": 0, "precise_bn": -1}):
        with pytest.raises(ValueError, match="precise_bn must be 0 or more, and 0 beside ema_decay"):
            build_trainer(tmp_path, seed=0, progress=False, has_validation=False, **given)


def statistics_on_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    network, clips = network_and_clips()
    network = convert_sync_batchnorm(network)
    update_statistics(network, [clip[rank::2] for clip in clips])
    torch.save(network.state_dict(), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_statistics_of_one(tmp_path, warm_python):
    """With synchronised norms, which normalise as one process does."""
    warm_python.run(*[[__file__, rank, tmp_path] for rank in (0, 1)])
    network, clips = network_and_clips()
    update_statistics(network, clips)
    for rank in (0, 1):
        for name, value in torch.load(tmp_path / f"rank{rank}.pt").items():
            torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


if __name__ == "__main__":
    statistics_on_rank(int(sys.argv[1]), sys.argv[2])
