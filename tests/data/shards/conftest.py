"""Packed painted videos, and shards that somebody else wrote."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from octvideo.data.shards import Shard, ShardIndex, pack_videos
from octvideo.data.shards.index import INDEX_FILE

pytest.importorskip("webdataset")


@pytest.fixture(scope="session")
def packed_set(painted_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight videos of painted_set in shards of 3, 3 and 2."""
    folder = tmp_path_factory.mktemp("packed") / "shards"
    pack_videos(painted_set / "list.txt", folder, shard_size=3, num_workers=0, gop=8)
    return folder


Member = tuple[str | tarfile.TarInfo, bytes]


def plain(name: str, content: bytes) -> tarfile.TarInfo:
    """Header of an ordinary member."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header


def write_shard(folder: Path, members: Iterable[Member], keys: list[str], label: int = 0) -> Path:
    """A folder with one shard of these members, and an index that lists the keys."""
    folder.mkdir(exist_ok=True)
    path = folder / "evil-000000.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for header, content in members:
            archive.addfile(plain(header, content) if isinstance(header, str) else header, io.BytesIO(content))
    shard = Shard(path.name, path.stat().st_size, keys, [label] * len(keys), keys)
    (folder / INDEX_FILE).write_text(ShardIndex(("a", "b"), (shard,)).to_json())
    return folder


@pytest.fixture(scope="session")
def shard_writer() -> Callable[..., Path]:
    """write_shard."""
    return write_shard


def video_members(key: str, content: bytes, label: int = 0) -> list[Member]:
    """The members of a good video."""
    facts = json.dumps({"num_frames": 20}).encode()
    return [(f"{key}.cls", b"%d" % label), (f"{key}.json", facts), (f"{key}.mp4", content)]


@pytest.fixture(scope="session")
def member_maker() -> Callable[..., list[Member]]:
    """video_members."""
    return video_members
