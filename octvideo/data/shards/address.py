"""Where shards lie: a folder, a path or an address with braces; opened by webdataset, which is let run no command."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

from octvideo.data.shards.index import INDEX_FILE, Shard, ShardError, ShardIndex, parse_index
from octvideo.data.shards.transfer import Transfer

__all__ = ["ShardSet", "are_shards", "open_address", "open_shards", "require_webdataset"]

MAX_SHARDS = 100_000
MAX_INDEX_BYTES = 2**30
BLOCK_BYTES = 2**20
TIMEOUT_SECONDS = 300.0
RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")
TAR_NAME = re.compile(r"[A-Za-z0-9_.-]+\.tar")


@dataclass(frozen=True)
class ShardSet:
    """Shards that a source names.

    Args:
        index: of these shards.
        urls: where each lies.
    """

    index: ShardIndex
    urls: tuple[str, ...]


def are_shards(source: str | os.PathLike[str]) -> bool:
    """Whether a source of data names shards: a .tar file or several, an address, or a folder that holds them."""
    text = os.fspath(source)
    return text.endswith(".tar") or _scheme(text) != "" or (os.path.isdir(text) and any(Path(text).glob("*.tar")))


def open_shards(source: str | os.PathLike[str], timeout_seconds: float = TIMEOUT_SECONDS) -> ShardSet:
    """Read the index of shards.

    Args:
        source: folder, or path or address of one or more of the shards that braces spell out, as in
            ``shards/train-{000000..000009}.tar``.
        timeout_seconds: limit for waiting for the next bytes of an address; 0 sets none.

    Raises:
        ImportError: webdataset is not installed.
        FileNotFoundError: a shard of the index is not there.
        ShardError: no index, one that does not come, a shard that it does not know, or one of another size.
    """
    text = os.fspath(source)
    if os.path.isdir(text):
        index = _read_index(os.path.join(text, INDEX_FILE), timeout_seconds)
        urls = [os.path.join(text, shard.name) for shard in index.shards]
    else:
        urls = _expand(text)
        index = _choose(_read_index(_replace_name(urls[0], INDEX_FILE), timeout_seconds), urls)
    for url, shard in zip(urls, index.shards, strict=True):
        _check_file(url, shard)
    return ShardSet(index, tuple(urls))


@contextmanager
def open_address(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[IO[bytes]]:
    """A file or an address, open for reading from its start to its end.

    Args:
        url: path or address.
        timeout_seconds: limit of a read from an address; 0 sets none.

    Raises:
        ShardError: it cannot be opened, the transfer fails or stalls, or it would run a command.
    """
    gopen = require_webdataset()
    _check_scheme(url)
    try:
        stream = gopen(url)
    except FileNotFoundError as error:
        raise ShardError(f"{url}: cannot be opened (no such file: {error.filename}). Check the address.") from error
    except (OSError, ValueError, ImportError) as error:
        raise ShardError(f"{url}: cannot be opened ({error}). Check the address.") from error
    if hasattr(stream, "proc"):
        stream = Transfer(url, stream, timeout_seconds)
    try:
        yield stream
    finally:
        stream.close()


def require_webdataset() -> Callable[..., Any]:
    """Webdataset's opener of addresses.

    Raises:
        ImportError: webdataset is not installed.
    """
    try:
        from webdataset.gopen import gopen
    except ImportError as error:
        raise ImportError("shards need webdataset: pip install 'octvideo[streaming]'") from error
    return gopen


def _scheme(text: str) -> str:
    scheme = urlparse(text).scheme
    return scheme if len(scheme) > 1 else ""  # one letter is a drive


def _check_scheme(url: str) -> None:
    from webdataset.gopen import gopen_schemes

    known = ["", "file", *sorted(set(gopen_schemes) - {"__default__", "pipe"})]
    scheme = _scheme(url)
    if scheme == "pipe":
        raise ShardError(f"{url}: would run a command, which no address may. Give a path, or the address itself.")
    if scheme not in known:
        raise ShardError(f"{url}: addresses should be paths or begin with {', '.join(known[1:])}; got {scheme!r}.")


def _expand(pattern: str) -> list[str]:
    """The addresses that braces spell out."""
    require_webdataset()
    import braceexpand

    try:
        # Braceexpand holds each range in memory, however long it is.
        longest = max((abs(int(end) - int(start)) for start, end in RANGE.findall(pattern)), default=0)
        urls = list(islice(braceexpand.braceexpand(pattern), MAX_SHARDS + 1)) if longest < MAX_SHARDS else []
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{pattern}: braces should be of the form {{000000..000009}} ({error}).") from error
    if not 0 < len(urls) <= MAX_SHARDS:
        raise ShardError(f"{pattern}: spells out more than {MAX_SHARDS} shards. Check the braces.")
    return urls


def _name(url: str) -> tuple[int, int]:
    found = list(TAR_NAME.finditer(url))
    if not found:
        raise ShardError(f"{url}: should name a shard, NAME.tar, or a folder of shards.")
    return found[-1].span()


def _replace_name(url: str, name: str) -> str:
    start, end = _name(url)
    return url[:start] + name + url[end:]


def _read_index(url: str, timeout_seconds: float) -> ShardIndex:
    if _scheme(url) == "" and not os.path.isfile(url):
        raise ShardError(f"{url}: no such index. octvideo data pack writes it beside the shards; copy it with them.")
    text = bytearray()
    with open_address(url, timeout_seconds) as stream:
        # A single read of the limit would take that much memory at once.
        while block := stream.read(BLOCK_BYTES):
            text += block
            if len(text) > MAX_INDEX_BYTES:
                raise ShardError(f"{url}: is larger than {MAX_INDEX_BYTES} bytes. Check the address.")
    return parse_index(bytes(text), url)


def _choose(index: ShardIndex, urls: list[str]) -> ShardIndex:
    """The index of these shards only."""
    by_name = {shard.name: shard for shard in index.shards}
    names = [url[slice(*_name(url))] for url in urls]
    unknown = [url for url, name in zip(urls, names, strict=True) if name not in by_name]
    if unknown or len(set(names)) < len(names):
        raise ShardError(
            f"{unknown[0] if unknown else urls[0]}: should be one of the {len(index.shards)} shards of {INDEX_FILE} "
            f"beside it, each once ({index.shards[0].name} to {index.shards[-1].name}). Check the braces."
        )
    return ShardIndex(index.class_names, tuple(by_name[name] for name in names), index.packed_with)


def _check_file(url: str, shard: Shard) -> None:
    if _scheme(url) != "":
        return
    if not os.path.isfile(url):
        raise FileNotFoundError(f"{url}: no such shard, but {INDEX_FILE} beside it lists it. Copy or download it.")
    size = os.path.getsize(url)
    if size != shard.num_bytes:
        raise ShardError(
            f"{url}: is {size} bytes, but {INDEX_FILE} says {shard.num_bytes}. It breaks off or is another file: copy "
            "or download it again."
        )
