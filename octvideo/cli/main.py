"""Sub-commands, one module each, and what they have in common: one line per error."""

from __future__ import annotations

import importlib
import logging
import sys
import textwrap
import traceback
import warnings
from collections.abc import Sequence

from pytorch_lightning.utilities.exceptions import MisconfigurationException

import octvideo
from octvideo.runtime import keep_freed_memory

COMMANDS = {
    "quickstart": "make the built-in videos, train dense and octave networks on them, report accuracy against FLOPs",
    "train": "train a network from a config",
    "evaluate": "score a checkpoint on a list of videos",
    "predict": "name the action in videos",
    "benchmark": "time networks over alphas, as they are and on the fast path, and what surrounds them",
    "export": "write a network as an ONNX file or a torch.export program",
    "analyze": "print what a network costs at several alphas",
    "sweep": "train and evaluate a config over alphas, folds and seeds",
    "report": "make tables and a plot of accuracy against GMACs from result files",
    "data": "look through a data set (scan), pack it into shards (pack), make the built-in one (synthesize)",
}

RUN_NETWORKS = ("train", "evaluate", "predict")
USER_ERRORS = (ValueError, OSError, ImportError, MisconfigurationException)
MAX_MESSAGE = 2000  # characters: a strange file can make a library quote all of it
INNER_ERRORS = (TypeError, RuntimeError)  # sometimes a user's mistake that a library reports, sometimes ours


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 well, 1 failed, 2 wrong arguments, 130 interrupted).

    Args:
        arguments: without the program's name; None takes the process's.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--traceback" in given
    given = [a for a in given if a != "--traceback"]
    if not given or given[0] in ("-h", "--help"):
        print(_usage())
        return 0 if given else 2
    if given[0] == "--version":
        print(octvideo.__version__)
        return 0
    if given[0] not in COMMANDS:
        return _fail(f"unknown command {given[0]!r}: known are {', '.join(COMMANDS)}", 2)
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")  # PyTorchVideo's imports
    try:
        command = importlib.import_module(f"octvideo.cli.{given[0]}")
        _quiet_libraries()
        if given[0] in RUN_NETWORKS:
            keep_freed_memory()
        return command.run(given[1:]) or 0
    except KeyboardInterrupt:
        going_on = "train goes on with --resume, evaluate, sweep, quickstart and data scan when called again"
        return _fail(f"interrupted: {going_on}", 130)
    except SystemExit as stop:  # Lightning exits so after an interrupt, argument parsers after --help
        return stop.code if isinstance(stop.code, int) else 1
    except USER_ERRORS as error:
        if show_traceback:
            traceback.print_exc()
        return _fail(one_line(error), 1)
    except INNER_ERRORS as error:
        if show_traceback:
            traceback.print_exc()
        return _fail(f"{one_line(error)} (--traceback shows where)", 1)


def one_line(error: BaseException) -> str:
    """An error's message on one line; of an error in a loader's worker only the error itself."""
    text = str(error)
    if text.startswith("Caught ") and "DataLoader worker" in text:
        text = text.strip().rpartition("\n")[2].partition(": ")[2]
    return textwrap.shorten(" ".join(text.split()), MAX_MESSAGE, placeholder=" ...") or type(error).__name__


def _fail(message: str, code: int) -> int:
    print(f"octvideo: error: {message}", file=sys.stderr)
    return code


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: octvideo COMMAND ... (octvideo COMMAND --help for its options)",
            "",
            *lines,
            "",
            "  --traceback  with any command: show where an error came from",
            "  --version",
        ]
    )


def _quiet_libraries() -> None:
    """Keep libraries' notices, which a user can do nothing about, out of the output."""
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
