"""octvideo: video action recognition on octave convolutions."""

__version__ = "0.1.0"
__all__ = ["__version__"]
