"""One scan at a time for a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, where nothing keeps two scans apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["only_scan"]


@contextmanager
def only_scan(manifest: Path) -> Iterator[None]:
    """Hold a manifest for this process; its death lets go of it, and processes forked from it have no part in it.

    Raises:
        ValueError: another process holds it.
    """
    path = manifest.with_name(f".{manifest.name}.lock")
    with open(path, "ab") as file:
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ValueError(
                f"{manifest}: another scan is writing it. Wait for its end, or give this one another output folder."
            ) from None
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
