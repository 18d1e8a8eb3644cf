"""Videos out of a tar file, in memory. The file may be a stranger's: nothing is written, and nothing odd is read."""

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import IO, Any, NamedTuple

from octvideo.data.annotations import VIDEO_EXTENSIONS
from octvideo.data.probe import VideoBytes
from octvideo.data.shards.address import open_address
from octvideo.data.shards.index import Shard, ShardError

__all__ = ["MAX_VIDEO_BYTES", "parse_video", "read_members"]

MAX_VIDEO_BYTES = 2**31
MAX_TEXT_BYTES = 2**16
TEXT_ENDINGS = ("cls", "json")
VIDEO_ENDINGS = tuple(ending.removeprefix(".") for ending in VIDEO_EXTENSIONS)
BUFFER_BYTES = 2**18
LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Member(NamedTuple):
    key: str
    ending: str
    read: Callable[[], bytes]


class _Header(tarfile.TarInfo):
    """A member's header, which is refused before anything of the size that it declares is read."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in LONG_HEADERS and self.size > MAX_TEXT_BYTES):
            raise tarfile.HeaderError(f"a header declares {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def read_members(
    url: str, shard: Shard, wanted: Sequence[int], timeout_seconds: float = 300.0
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """What a shard holds of some of its videos: (number in the shard, content by ending).

    Args:
        url: where the shard lies.
        shard: what it should hold.
        wanted: numbers of the videos, in increasing order.
        timeout_seconds: as in :func:`open_address`.

    Raises:
        ShardError: it cannot be read, breaks off, holds other videos, or a member that no shard should hold.
    """
    missing = set(wanted)
    with open_address(url, timeout_seconds) as stream:
        number = 0
        try:
            for key, members in groupby(_members(url, stream), lambda member: member.key):
                if number == len(shard) or key != shard.keys[number]:
                    raise ShardError(
                        f"{url}: its video {number} is {key!r}, but not in the index. Fetch shard and index again."
                    )
                if number in missing:
                    missing.remove(number)
                    yield number, _contents(url, key, members)
                number += 1
                if not missing and number < len(shard):
                    return
        except ShardError:
            raise
        except Exception as error:  # tarfile ends in errors of many types where a file is odd
            reason = str(error) or type(error).__name__
            raise ShardError(
                f"{url}: breaks off or is no tar file after {number} of {len(shard)} videos ({reason}). Fetch it again."
            ) from error
        if missing:
            raise ShardError(f"{url}: breaks off after {number} of {len(shard)} videos. Fetch it again.")


def _members(url: str, stream: IO[bytes]) -> Iterator[_Member]:
    from webdataset.tariterators import base_plus_ext

    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header, bufsize=BUFFER_BYTES) as archive:
        while (header := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep every header
            if header.isdir():
                continue
            _check_header(url, header)
            key, ending = base_plus_ext(header.name)
            if key is None:
                raise ShardError(f"{url}, member {header.name!r}: should be named KEY.ENDING. {_WAY_OUT}")

            def read(header: tarfile.TarInfo = header) -> bytes:
                file = archive.extractfile(header)
                return file.read() if file else b""

            yield _Member(key, ending.lower(), read)


_WAY_OUT = "Take it out, or pack the videos again."


def _check_header(url: str, header: tarfile.TarInfo) -> None:
    """Refuse what no shard should hold."""
    where = f"{url}, member {header.name!r}"
    if not header.isreg() or header.issparse():
        raise ShardError(f"{where}: is a link, a device or the like, and no plain file. {_WAY_OUT}")
    parts = header.name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":") or "\0" in header.name:
        raise ShardError(f"{where}: names a place outside of the shard. {_WAY_OUT}")
    limit = MAX_TEXT_BYTES if header.name.lower().endswith(TEXT_ENDINGS) else MAX_VIDEO_BYTES
    if header.size > limit:
        raise ShardError(f"{where}: declares {header.size} bytes; {limit} is the most. {_WAY_OUT}")


def _contents(url: str, key: str, members: Iterator[_Member]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for member in members:
        if member.ending in contents:
            raise ShardError(f"{url}, member {key}.{member.ending}: comes twice. {_WAY_OUT}")
        if member.ending in VIDEO_ENDINGS and not contents.keys().isdisjoint(VIDEO_ENDINGS):
            raise ShardError(f"{url}, member {key}: should have one video, but has more. {_WAY_OUT}")
        if member.ending in TEXT_ENDINGS or member.ending in VIDEO_ENDINGS:
            contents[member.ending] = member.read()
    return contents


def parse_video(url: str, shard: Shard, number: int, contents: Mapping[str, bytes]) -> VideoBytes:
    """A video of a shard from its members, checked against the index.

    Args:
        url: where the shard lies.
        shard: what it should hold.
        number: of the video in the shard.
        contents: its members by their endings: the video, ``cls`` with its class, and maybe ``json``.

    Raises:
        ShardError: a member is missing or not what it should be.
    """
    where = f"{url}, member {shard.keys[number]}"
    videos = [ending for ending in contents if ending in VIDEO_ENDINGS]
    if len(videos) != 1:
        raise ShardError(f"{where}: should have one video, but has {len(videos) or 'none'}. {_WAY_OUT}")
    label = contents.get("cls", b"")
    if label.strip() != b"%d" % shard.labels[number]:
        raise ShardError(
            f"{where}.cls: should be class {shard.labels[number]}, as the index says, but is {label[:20]!r}. {_WAY_OUT}"
        )
    facts = _facts(f"{where}.json", contents.get("json", b"{}"))
    counted = facts.get("num_frames") if facts.get("rotation_degrees") == 0 else None
    if counted is not None and (not isinstance(counted, int) or isinstance(counted, bool) or counted < 1):
        raise ShardError(f"{where}.json: num_frames should be 1 or more, but it is {counted!r}. {_WAY_OUT}")
    return VideoBytes(f"{where}.{videos[0]}", contents[videos[0]], counted)


def _facts(where: str, text: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{where}: is no JSON ({error}). {_WAY_OUT}") from error
    if not isinstance(facts, dict):
        raise ShardError(f"{where}: should be an object, but is a {type(facts).__name__}. {_WAY_OUT}")
    return facts
