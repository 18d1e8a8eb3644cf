"""Data sets looked through before training: every file decoded once, and what it holds kept in a manifest."""

from octvideo.data.scan.manifest import BAD, STATUSES, Manifest, ManifestEntry
from octvideo.data.scan.scan import scan_file, scan_videos

__all__ = ["BAD", "STATUSES", "Manifest", "ManifestEntry", "scan_file", "scan_videos"]
