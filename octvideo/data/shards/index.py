"""What shards hold: an index beside them says which videos and classes, so that nothing has to be read to know it."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from octvideo.data.annotations import Annotations, VideoRecord

__all__ = ["INDEX_FILE", "Shard", "ShardError", "ShardIndex", "parse_index"]

INDEX_FILE = "index.json"
FORMAT = "octvideo shards 1"
# Names become parts of addresses, and an index may be a stranger's: no folders, no commands, no options.
SHA256 = re.compile("[0-9a-f]{64}")
SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.tar")


class ShardError(ValueError):
    """A shard or an index that is not what it should be; the message names it, the member, and the way out."""


@dataclass(frozen=True)
class Shard:
    """One tar file of videos.

    Args:
        name: of the file.
        num_bytes: its size.
        keys: names of its videos, without ending, in their order.
        labels: class of each.
        paths: what each was called where it was packed.
        sha256: of the file, as sha256sum prints it; None where it is not known.
    """

    name: str
    num_bytes: int
    keys: Sequence[str]
    labels: Sequence[int]
    paths: Sequence[str]
    sha256: str | None = None

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.keys)


@dataclass(frozen=True)
class ShardIndex:
    """A packed data set.

    Args:
        class_names: name of class ``i`` at position ``i``.
        shards: in order; a video's number counts on from shard to shard.
        packed_with: how it was made, for the reader of the file.
    """

    class_names: Sequence[str]
    shards: Sequence[Shard]
    packed_with: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of videos."""
        return sum(map(len, self.shards))

    @property
    def starts(self) -> list[int]:
        """Number of each shard's first video."""
        return [0, *accumulate(map(len, self.shards))][:-1]

    @cached_property
    def sha256(self) -> str:
        """What tells these shards from others, wherever they lie."""
        content = [list(self.class_names), [asdict(shard) for shard in self.shards]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def annotations(self, class_names: Sequence[str] | None = None) -> Annotations:
        """The videos in order, labelled by the given classes where they are not the index's own.

        Raises:
            ShardError: a class of the index is not one of them.
        """
        names = tuple(self.class_names if class_names is None else class_names)
        missing = [name for name in self.class_names if name not in set(names)]
        if missing:
            raise ShardError(
                f"the shards' class {missing[0]!r} is not one of the {len(names)} given ones. Give class_names that "
                "include it, or pack the videos with the same class_names."
            )
        label_of = [names.index(name) for name in self.class_names]
        pairs = ((path, label) for shard in self.shards for path, label in zip(shard.paths, shard.labels, strict=True))
        return Annotations(tuple(VideoRecord(path, label_of[label]) for path, label in pairs), names)

    def to_json(self) -> str:
        """Text of the index file."""
        shards = [{"num_videos": len(shard), **asdict(shard)} for shard in self.shards]
        head = {"format": FORMAT, "num_videos": len(self), "packed_with": self.packed_with}
        return json.dumps(head | {"class_names": list(self.class_names), "shards": shards}, indent=1) + "\n"


def parse_index(text: str | bytes, where: str) -> ShardIndex:
    """Read the text of an index, which may be a stranger's.

    Args:
        text: JSON.
        where: what errors call it.

    Raises:
        ShardError: it is not an index.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{where}: is no JSON ({error}). Write it anew with octvideo data pack.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ShardError(f"{where}: is no index of shards; its format should be {FORMAT!r}. Check the address.")
    names = _texts(content, "class_names", where)
    shards = content.get("shards")
    if not isinstance(shards, list) or not shards:
        raise _wrong(where, "shards", "a list")
    parsed = tuple(_parse_shard(shard, len(names), f"{where}, shard {n}") for n, shard in enumerate(shards))
    if len({shard.name for shard in parsed}) < len(parsed):
        raise _wrong(where, "shards", "a list of distinct names")
    made = content.get("packed_with")
    return ShardIndex(names, parsed, made if isinstance(made, dict) else {})


def _parse_shard(content: object, num_classes: int, where: str) -> Shard:
    if not isinstance(content, dict):
        raise _wrong(where, "it", "an object")
    name, num_bytes, labels, sha256 = (content.get(key) for key in ("name", "num_bytes", "labels", "sha256"))
    if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
        raise _wrong(where, "name", "a plain file name, NAME.tar")
    if not isinstance(num_bytes, int) or not _is_whole(num_bytes):
        raise _wrong(where, "num_bytes", "a number of bytes")
    if sha256 is not None and not (isinstance(sha256, str) and SHA256.fullmatch(sha256)):
        raise _wrong(where, "sha256", "64 hexadecimal digits")
    if not isinstance(labels, list) or not all(_is_whole(label) and label < num_classes for label in labels):
        raise _wrong(where, "labels", f"a list of classes, 0 to {num_classes - 1}")
    keys, paths = _texts(content, "keys", where), _texts(content, "paths", where, distinct=False)
    if not len(keys) == len(labels) == len(paths):
        raise _wrong(where, "the number of keys, labels and paths", "the same")
    return Shard(name, num_bytes, keys, tuple(labels), paths, sha256)


def _texts(content: dict[str, Any], name: str, where: str, *, distinct: bool = True) -> tuple[str, ...]:
    texts = content.get(name)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise _wrong(where, name, "a list of names")
    if distinct and len(set(texts)) < len(texts):
        raise _wrong(where, name, "a list of distinct names")
    return tuple(texts)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _wrong(where: str, name: str, expected: str) -> ShardError:
    return ShardError(f"{where}: {name} should be {expected}. Write the index anew with octvideo data pack.")
