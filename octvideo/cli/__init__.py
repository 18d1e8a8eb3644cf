"""The `octvideo` command."""

from octvideo.cli.main import main

__all__ = ["main"]
