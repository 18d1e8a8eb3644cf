"""Files of weights, read and written: nothing in them is executed, only tensors and plain values are read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from octvideo.files import replace_file

WEIGHTS = "a file of weights (.ckpt, .pth, .pyth, .pt or .safetensors)"


def read_file(path: str | Path, wanted: str = WEIGHTS) -> Any:
    """Read a .safetensors file, or a file of `torch.save` with any other ending (`weights_only=True`).

    Args:
        path: the file.
        wanted: what to give instead, for the error's message.

    Returns:
        What the file holds, on the CPU: tensors and plain values.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is a folder, empty, damaged, another kind of file, or holds code.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path} not found: give {wanted}")
    if path.is_dir() or not path.stat().st_size:
        kind = "a folder" if path.is_dir() else "an empty file"
        raise ValueError(f"{path} is {kind}: give {wanted}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(content, path.stat().st_size)
        return content
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise ValueError(f"{path} {_why_unreadable(path)} ({type(error).__name__}): give {wanted}") from error


def _check_archive(path: Path) -> None:
    """Raise a BadZipFile for a file that unpacks to more than its size, or whose bytes have changed since.

    torch itself never packs, and looks for neither.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            is_packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
            if is_packed or sum(part.file_size for part in parts) > path.stat().st_size:
                raise zipfile.BadZipFile("it unpacks to more than its size")
            broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"the check sum of {broken} is wrong")


def _check_tensors(content: Any, size_bytes: int) -> None:
    """Raise a ValueError for tensors that are not plain ones, or that take more memory than the file has bytes."""
    waiting, seen, storages = [content], set(), {}
    while waiting:
        value = waiting.pop()
        if id(value) in seen:  # a part that is held twice is looked at once: it can be held by ever so many
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
                raise ValueError("it holds tensors that are not dense")
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
    if sum(storages.values()) > size_bytes:
        raise ValueError("its tensors are larger than the file")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a file's state dict: octvideo's or Lightning's (state_dict), PySlowFast's (model_state), or a plain one.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file cannot be read, or holds no state dict.
    """
    content = read_file(path)
    if isinstance(content, dict):
        weights = content.get("state_dict", content.get("model_state", content))
        if isinstance(weights, dict) and weights and all(_is_named_tensor(*item) for item in weights.items()):
            return dict(weights)
    raise ValueError(
        f"{path} holds no weights: expected a dict of tensors, alone or as its state_dict (octvideo) or "
        "model_state (PySlowFast, PyTorchVideo)"
    )


def _is_named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write a network's state dict, whole or not at all; its names and shapes are the dense network's at any alpha.

    Args:
        network: the network.
        path: file to write, .safetensors or .pt (`torch.save` of the state dict); its folder is made when missing.

    Raises:
        ValueError: the file's name has another ending.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt"):
        raise ValueError(f"weights are written as .safetensors or .pt; got {path}")
    weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    if path.suffix == ".pt":
        buffer = io.BytesIO()  # torch.save into a file hides what the system says of a full disk
        torch.save(weights, buffer)
        content: bytes | memoryview = buffer.getbuffer()
    else:  # every name gets memory of its own: the format has no shared tensors
        copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
        content = save(copies, metadata={"format": "pt"})
    with replace_file(path) as file:
        file.write(content)


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if b"blobs" in start:
        return (
            "is a Caffe2 file (a pickle of 'blobs'), and reading it could run code: load it in PySlowFast with "
            "CHECKPOINT_TYPE caffe2 and save it as .pyth, or take PyTorchVideo's file of the same network"
        )
    return (
        "cannot be read as a checkpoint of tensors and plain values: it is damaged, another kind of file, or holds code"
    )
