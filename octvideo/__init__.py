"""octvideo: video action recognition on octave convolutions."""

from octvideo.convert import octavize
from octvideo.layers import OctConv2d, OctConv3d, OctPair

__version__ = "0.1.0"
__all__ = ["OctConv2d", "OctConv3d", "OctPair", "__version__", "octavize"]
