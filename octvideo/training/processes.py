"""The processes of a run on one machine: none of them outlives the first, however that one ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl

__all__ = ["ended_together"]

STARTED_BY = "OCTVIDEO_STARTED_BY"
SECONDS_PER_LOOK = 1.0


@contextmanager
def ended_together(trainer: pl.Trainer) -> Iterator[None]:
    """End the processes that a trainer starts where this one fails or is killed: they would wait for it, some for ever.

    Raises:
        ChildProcessError: in place of what a loader says when one of its processes dies.
        KeyboardInterrupt: in place of the exit that Lightning makes of an interrupt.
    """
    _end_with_first(os.environ.pop(STARTED_BY, ""))
    try:
        os.environ[STARTED_BY] = str(os.getpid())  # for those that the trainer starts now
        yield
    except BaseException as error:
        children = getattr(trainer.strategy.launcher, "procs", [])
        doomed = list(children)
        children.clear()  # Lightning watches them, and would kill this process before it can say what is wrong
        for child in doomed:
            child.kill()
        if isinstance(error, SystemExit) and trainer.interrupted:
            raise KeyboardInterrupt from None
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"):
            raise ChildProcessError(
                "a process that loads videos died; most often the system kills it for want of memory: free some, or "
                "give fewer num_workers or a smaller batch_size. What was written is whole: the run can go on from it"
            ) from error
        raise
    finally:
        os.environ.pop(STARTED_BY, None)


def _end_with_first(first: str) -> None:
    """In a process that a run's first one, of this id, has started: end as soon as that one is gone.

    A killed process tells nobody, and the others would wait for it in a collective operation, half an hour and more.
    """
    if first.isdigit() and os.name == "posix":  # elsewhere a process keeps its parent's id when that is gone
        threading.Thread(target=_watch, args=(int(first),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_PER_LOOK)
    os._exit(1)
