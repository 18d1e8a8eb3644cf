"""Mixed clips and labels against a loop over the batch."""

import pytest
import torch

from octvideo.data import CutMix, MixUp


@pytest.fixture
def batch():
    """Four constant clips, clip i of value i, and their labels."""
    clips = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 2, 10, 12).contiguous()
    return clips, torch.tensor([0, 1, 2, 1])


def test_mixup_blends_clips_and_labels_alike(batch):
    clips, labels = batch
    mixed, soft = MixUp(1.0, 3)(clips, labels)
    assert mixed.shape == clips.shape
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(4))
    # Each mixed clip is constant: weight * i + (1 - weight) * j for one weight and a permutation j.
    values = mixed[:, 0, 0, 0, 0]
    torch.testing.assert_close(mixed, values.view(4, 1, 1, 1, 1).expand_as(mixed))
    torch.testing.assert_close(values.mean(), torch.tensor(1.5))
    torch.manual_seed(0)
    weight = torch.distributions.Beta(torch.tensor(1.0), torch.tensor(1.0)).sample().item()
    partner = torch.randperm(4).tolist()
    for i, j in enumerate(partner):
        expected = [0.0, 0.0, 0.0]
        expected[labels[i]] += weight
        expected[labels[j]] += 1 - weight
        assert soft[i].tolist() == pytest.approx(expected, abs=1e-6)
        assert values[i].item() == pytest.approx(weight * i + (1 - weight) * j, abs=1e-5)


def test_cutmix_labels_follow_the_area(batch):
    clips, labels = batch
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, soft = CutMix(1.0, 3)(clips, labels)
        for i in range(4):
            kept = mixed[i] == i
            assert bool((kept == kept[:1, :1]).all())  # the same rectangle in every channel and frame
            expected = torch.zeros(3)
            for value in mixed[i, 0, 0].flatten().tolist():
                expected[labels[int(value)]] += 1 / 120
            torch.testing.assert_close(soft[i], expected)


@pytest.mark.parametrize("mix", [MixUp, CutMix])
def test_given_tensors_stay(batch, mix):
    clips, labels = batch
    before = clips.clone()
    mix(0.4, 3)(clips, labels)
    assert torch.equal(clips, before)


@pytest.mark.parametrize("mix", [MixUp, CutMix])
def test_errors(mix):
    with pytest.raises(ValueError, match="alpha should be positive, but it is 0"):
        mix(0, 3)
    with pytest.raises(ValueError, match="num_classes should be at least 1, but it is 0"):
        mix(0.2, 0)
