"""The non-local block (Wang et al. 2018) over octave pairs."""

from __future__ import annotations

import torch
from pytorchvideo.layers.nonlocal_net import NonLocal
from torch import Tensor

from octvideo.layers.pair import OctPair, like, merge


class OctNonLocal(NonLocal):
    """PyTorchVideo's `NonLocal` block, which also takes octave pairs.

    On a pair, the four 1x1x1 convolutions are octave convolutions from pair to pair. The attention runs on the merged
    queries, keys and values, so that every position sees every other in all channels, as in the dense block; its
    result is split as the queries were. Neither paper says where the block meets a pair; this choice keeps the dense
    weights' meaning (on input that is constant in space the block equals the dense one).

    Shape:
        as its input, tensor or pair.
    """

    def forward(self, x: OctPair | Tensor) -> OctPair | Tensor:
        if isinstance(x, Tensor):
            return super().forward(x)
        pooled = x if self.pool is None else self.pool(x)
        theta, phi, g = self.conv_theta(x), self.conv_phi(pooled), self.conv_g(pooled)
        weights = self._weights(merge(theta).flatten(2), merge(phi).flatten(2))  # (N, queries, keys)
        y = torch.einsum("nqk,nck->ncq", weights, merge(g).flatten(2)).unflatten(2, x.high.shape[2:])
        p = self.conv_out(like(y, theta))
        return x + (p if self.norm is None else self.norm(p))

    def _weights(self, queries: Tensor, keys: Tensor) -> Tensor:
        affinity = torch.einsum("ncq,nck->nqk", queries, keys)
        if self.instantiation == "softmax":
            return (affinity * queries.shape[1] ** -0.5).softmax(2)
        return affinity / keys.shape[2]
