"""Kernels in the cache are loaded only as they were compiled."""

import ctypes
import subprocess

import pytest
import torch

from octvideo.kernels import library

DAMAGES = {
    "cut off": lambda content: content[:5000],
    "without its end": lambda content: content[:-1],
    "empty": lambda content: b"",
    "one bit flipped": lambda content: content[:4000] + bytes([content[4000] ^ 1]) + content[4001:],
    "another file": lambda content: b"no library" * 1000,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        # What is compiled here is looked at, not timed.
        patch.setattr(library, "FLAGS", ("-O0", *library.FLAGS[1:]))
        try:
            library.compiled(torch.float32)
        except FileNotFoundError:
            pytest.skip("no C compiler")
        yield folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_library_is_compiled_again(damage, cache):
    path = library.compiled(torch.float32)
    whole = path.read_bytes()
    path.unlink()  # this process may have loaded it
    path.write_bytes(damage(whole))
    assert library.compiled(torch.float32) == path
    # The loader that would end the process on a library that is cut off takes this one, the seal behind its end.
    assert path.stat().st_size == len(whole)
    assert ctypes.CDLL(str(path)).convolve
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_compiled_once_for_each_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = library.compiled(torch.float32)
    monkeypatch.setattr(subprocess, "run", None)
    assert library.compiled(torch.float32) == path
    monkeypatch.setattr(library, "_processor", lambda: "another")
    with pytest.raises(TypeError):  # would be compiled again
        library.compiled(torch.float32)
