"""Image weights for video networks: a 2-D kernel becomes a 3-D one."""

from __future__ import annotations

from torch import Tensor, nn

from octvideo.models.names import Weights, to_network_names

RULES = ("average", "centre")


def inflate(image_weights: Weights, network: nn.Module, inflation: str = "average") -> dict[str, Tensor]:
    """Turn an image network's weights into a video network's, so that a video that stands still gives its output.

    A kernel (kh, kw) that meets (kt, kh, kw) is repeated kt times and divided by kt ("average": Carreira and Zisserman
    2017, section 2.2), or put at the centre frame, with zeros around it ("centre"). Where time is padded with zeros, as
    it is in I3D, a kernel of 3 frames loses 1/3 of its sum at the first and last frame with "average", and later layers
    carry that inwards; it is exact where time is padded by repetition. "centre" is exact either way.

    Args:
        image_weights: state dict, with the network's names or those of torchvision's ResNets.
        network: the video network, at any alpha; it is not changed.
        inflation: "average" or "centre".

    Shape:
        (O, I, kh, kw) -> (O, I, kt, kh, kw); other weights keep theirs.

    Returns:
        State dict under the network's names.

    Raises:
        ValueError: for an unknown inflation.
    """
    if inflation not in RULES:
        raise ValueError(f"inflation must be 'average' or 'centre'; got {inflation!r}")
    own = network.state_dict()
    return {
        name: _inflated(value, own[name], inflation) if name in own else value
        for name, value in to_network_names(image_weights, own).items()
    }


def _inflated(kernel: Tensor, own: Tensor, inflation: str) -> Tensor:
    if kernel.ndim != 4 or own.ndim != 5 or kernel.shape != own[:, :, 0].shape:
        return kernel
    frames = own.shape[2]
    kernel = kernel.unsqueeze(2)  # (O, I, 1, kh, kw)
    if inflation == "average":
        return (kernel / frames).repeat(1, 1, frames, 1, 1)
    video_kernel = kernel.new_zeros(own.shape)
    video_kernel[:, :, frames // 2] = kernel[:, :, 0]
    return video_kernel
