"""Configs: YAML files of options, read as plain values whoever wrote them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile

BASE = "base"
COMMAND_LINE_ONLY = ("config", "own_builders")
MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
MAX_BASES = 10


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of options: a mapping of names to plain values, and nothing that could be more.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is no such file; the message says why, on one line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config {path} not found: give a YAML file of options")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is no config: it is larger than {MAX_BYTES // 1024} KiB")
    try:
        text = path.read_text(encoding="utf-8")
        _check_structure(text)
        content = yaml.safe_load(text)
    except Exception as error:  # a strange file can make the reader fail in any way
        raise ValueError(f"{path} cannot be read as a config: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no config: it should hold names of options and their values")
    return content


def _check_structure(text: str) -> None:
    """Raise a ValueError for references, by which a short file stands for a huge one, and for endless nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("anchors and references (&, *) are not read: write the values out, or name a base")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"values lie more than {MAX_DEPTH} deep in each other")


def config_chain(path: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """A config and those that it builds on by `base: FILE`, from its own folder; the base of all comes first.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: one of them cannot be read, or names itself as its base.
    """
    chain = [(Path(path), read_config(path))]
    while (base := chain[0][1].get(BASE)) is not None:
        last = chain[0][0]
        if not isinstance(base, str):
            raise ValueError(f"{last}: base should be the path of a config; got {type(base).__name__}")
        if len(chain) > MAX_BASES:
            raise ValueError(f"{path} has more than {MAX_BASES} bases one on the other: does one name itself?")
        chain.insert(0, (last.parent / base, read_config(last.parent / base)))
    return chain


def check_names(content: Mapping[str, Any], known: Collection[str], path: Path, group: str = "") -> None:
    """Refuse names that are no options, and options that a config, which may be a stranger's, must not decide.

    Raises:
        ValueError: names the option.
    """
    for name, value in content.items():
        option = f"{group}{name}"
        if option in COMMAND_LINE_ONLY:
            raise ValueError(f"{path}: {option} is read on the command line only")
        if any(other.startswith(f"{option}.") for other in known):
            if not isinstance(value, dict):
                raise ValueError(f"{path}: {option} should hold options of its own; got {type(value).__name__}")
            check_names(value, known, path, f"{option}.")
        elif option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise ValueError(f"{path}: {option[:100]!r} is no option{hint}")


def check_output(output: str, arguments: Sequence[str]) -> None:
    """Refuse to write outside of the current folder, unless the command line says so.

    Raises:
        ValueError: the output of a config lies outside.
    """
    here = Path.cwd().resolve()
    is_given = any(text.partition("=")[0] == "--output" for text in arguments)
    if not is_given and not (here / output).resolve().is_relative_to(here):
        raise ValueError(f"the config's output {output!r} lies outside of {here}: give --output on the command line")


class ConfigAction(ActionConfigFile):
    """`--config FILE`: the options of a file over those of its base; errors name the file."""

    @staticmethod
    def apply_config(parser: Any, cfg: Any, dest: str, value: str) -> None:
        """Enter the options of a config and its bases."""
        known = {action.dest for action in parser._actions}
        for path, content in config_chain(value):
            check_names(content, known, path)
            try:
                ActionConfigFile.apply_config(parser, cfg, dest, str(path))
            except Exception as error:
                raise TypeError(f"{path}: {' '.join(str(error).split())}") from error
        cfg[BASE] = None


class _PlainDumper(yaml.SafeDumper):
    """Writes a value that stands in two places twice, as configs are read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def config_text(options: Mapping[str, Any]) -> str:
    """Options as the text of a config that repeats them, without those that only the command line may say."""
    kept = {name: value for name, value in options.items() if name not in (BASE, *COMMAND_LINE_ONLY)}
    return yaml.dump(kept, Dumper=_PlainDumper, sort_keys=False)
