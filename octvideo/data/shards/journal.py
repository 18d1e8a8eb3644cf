"""The list of the shards that are done while others are still to come."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octvideo.data.shards.index import Shard
from octvideo.files import replace_file

__all__ = ["Journal", "Part", "check_settings"]

JOURNAL_FILE = "packing.jsonl"


@dataclass(frozen=True)
class Part:
    """What one shard took of the list.

    Args:
        shard: what it holds; None where no video of this part could be read.
        num_videos: videos of the list, those that could not be read included.
        unreadable: path and reason of each of these.
    """

    shard: Shard | None
    num_videos: int
    unreadable: list[tuple[str, str]]


class Journal:
    """The parts that are done, kept in a file until all of them are.

    Args:
        folder: of the shards.
        made: settings and list that they are made with.

    Raises:
        FileExistsError: the folder holds shards of another list or other settings.
    """

    def __init__(self, folder: Path, made: dict[str, Any]) -> None:
        self.path = folder / JOURNAL_FILE
        self.parts: list[Part] = []
        if self.path.is_file():
            self._read(made)
        elif any(folder.glob("*.tar")):
            raise FileExistsError(f"{folder} holds .tar files that this command did not write: give another folder")
        with replace_file(self.path) as file:
            file.write(b"".join(map(_line, [made, *map(asdict, self.parts)])))

    @property
    def shards(self) -> list[Shard]:
        """Shards that are done."""
        return [part.shard for part in self.parts if part.shard is not None]

    @property
    def num_done(self) -> int:
        """Videos of the list that need no more work."""
        return sum(part.num_videos for part in self.parts)

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """Path and reason of each video that could not be read."""
        return [pair for part in self.parts for pair in part.unreadable]

    def add(self, part: Part) -> None:
        """Take down a part whose shard lies in its place."""
        self.parts.append(part)
        with open(self.path, "ab") as file:
            file.write(_line(asdict(part)))
            file.flush()
            os.fsync(file.fileno())

    def _read(self, made: dict[str, Any]) -> None:
        # A call that was killed may leave half a line.
        first, *lines = [json.loads(line) for line in self.path.read_bytes().splitlines(True) if line.endswith(b"\n")]
        check_settings(self.path.parent, first, made)
        for values in lines:
            shard = None if values["shard"] is None else Shard(**values["shard"])
            if shard and not _is_whole(self.path.parent / shard.name, shard):
                return
            self.parts.append(Part(shard, values["num_videos"], [(path, why) for path, why in values["unreadable"]]))


def check_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to mix shards of two lists or settings.

    Raises:
        FileExistsError: names the first setting that differs.
    """
    for name, value in now.items():
        if before.get(name) != value:
            what = "other videos or classes" if name == "videos" else f"{name} {before.get(name)}, not {value}"
            raise FileExistsError(f"{folder} holds shards made with {what}: give another folder, or delete it")


def _is_whole(path: Path, shard: Shard) -> bool:
    return path.is_file() and path.stat().st_size == shard.num_bytes


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"
