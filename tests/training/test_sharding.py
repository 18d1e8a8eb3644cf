"""Networks in shards over two processes: their gradients are those of a whole network on all clips."""

import sys

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from octvideo.models import build_model
from octvideo.training import VideoClassifier
from octvideo.training.recompute import checkpoint_activations
from octvideo.training.sharding import ShardedClassifier


def network(name):
    """In float64 and with fixed statistics, so that only the gradients' sums are rounded in another order."""
    torch.manual_seed(0)
    net = build_model(name, num_classes=3, alpha=0.25, dropout=0).double()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return net


def clips(name):
    size = (32, 224, 224) if "slowfast" in name else (4, 32, 32)  # its head pools windows of fixed size
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def gradients(net, x):
    net(x.double()).square().mean().backward()
    return {key: p.grad for key, p in net.named_parameters()}


def sharded_gradients(rank, folder, name, recompute):
    """What one of two processes runs; its findings go to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    classifier = ShardedClassifier(model="resnet3d_tiny", class_names=["a", "b", "c"])
    classifier.network = network(name)
    if recompute:
        checkpoint_activations(classifier.network)
    classifier._device_mesh = dist.device_mesh.init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "x"))
    classifier.configure_model()
    parameters = list(classifier.network.parameters())
    kept = sum(p.to_local().numel() for p in parameters) / sum(p.numel() for p in parameters)
    found = gradients(classifier.network, clips(name)[rank : rank + 1])
    assert all(isinstance(grad, DTensor) for grad in found.values())
    torch.save((kept, {key: grad.full_tensor() for key, grad in found.items()}), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("name", "recompute"),
    [("resnet3d_tiny", False), pytest.param("slowfast_r50_4x16", True, marks=pytest.mark.slow)],
)
def test_gradients_of_shards(tmp_path, warm_python, name, recompute):
    warm_python.run(*[[__file__, rank, tmp_path, name, int(recompute)] for rank in (0, 1)])
    expected = gradients(network(name), clips(name))
    for rank in (0, 1):
        kept, found = torch.load(tmp_path / f"rank{rank}.pt")
        assert found.keys() == expected.keys()
        assert 0.45 < kept < 0.55  # of all weights
        for key, grad in expected.items():
            torch.testing.assert_close(found[key], grad, rtol=1e-8, atol=1e-12, msg=key)


def test_a_sharded_classifiers_state_is_a_plain_ones():
    settings = {"model": "resnet3d_tiny", "class_names": ["a", "b"]}
    sharded, plain = ShardedClassifier(**settings), VideoClassifier(**settings)
    assert sharded.state_dict().keys() == plain.state_dict().keys()
    assert dict(sharded.hparams) == dict(plain.hparams)


if __name__ == "__main__":
    sharded_gradients(int(sys.argv[1]), sys.argv[2], sys.argv[3], bool(int(sys.argv[4])))
