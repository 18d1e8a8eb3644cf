"""octvideo: video action recognition on octave convolutions."""

from octvideo.convert import deoctavize, octavize
from octvideo.layers import OctConv1d, OctConv2d, OctConv3d, OctPair, merge

__version__ = "0.1.0"
__all__ = ["OctConv1d", "OctConv2d", "OctConv3d", "OctPair", "__version__", "deoctavize", "merge", "octavize"]
