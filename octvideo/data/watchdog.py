"""Work that may hang or crash, such as decoding a broken file, in a process of its own that can be ended.

A decoder that spins in C while it holds Python's lock cannot be interrupted from within: no signal handler, thread or
exception gets its turn. Another process can still be killed.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from multiprocessing import Pipe, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

import torch

__all__ = ["ProcessDiedError", "TimedOutError", "TimedProcess"]

# A process whose owner was killed ends itself so many seconds after its time limit.
GRACE_SECONDS = 5.0
BY_ITS_ALARM = "was killed by SIGALRM"
# A process that waits for a dead disk or server cannot even be killed, and is left behind after so many seconds.
BURIAL_SECONDS = 2.0
# Python and torch set handlers for these; in the child they should simply end it.
FATAL_SIGNALS = ("SIGALRM", "SIGTERM", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")


class TimedOutError(RuntimeError):
    """A request that took longer than its time limit; its process was killed."""


class ProcessDiedError(RuntimeError):
    """A request whose process ended, such as killed by the system for want of memory."""


class TimedProcess:
    """A process that answers requests one at a time, and is killed when one takes too long.

    It is started by the first request, and again by the first one after its death. It belongs to the process that made
    it: after a fork or a pickling make a new one.

    Args:
        answer: called in the child with each request; gives the answer or raises the error that :meth:`receive` gives
            or raises here. Requests, answers and errors are pickled.
        seconds: time limit of a request.
        context: of multiprocessing, by which it starts the process; the answering function is pickled, too. None forks.

    Example:
        >>> TimedProcess(lambda number: number + 1, seconds=60).ask(1)
        2
    """

    def __init__(self, answer: Callable[[Any], Any], seconds: float, context: BaseContext | None = None) -> None:
        self.answer, self.seconds, self.context = answer, seconds, context
        self.deadline = 0.0
        self._child: tuple[BaseProcess | _Fork, Connection] | None = None
        self._end: Callable[[], Any] = lambda: None

    def ask(self, request: Any) -> Any:
        """Send a request and wait for its answer; see :meth:`receive`."""
        self.send(request)
        return self.receive()

    def send(self, request: Any) -> None:
        """Begin with a request, whose time starts now."""
        try:
            self.connection.send(request)
        except OSError:  # the child died between two requests
            self.stop()
            self.connection.send(request)
        self.deadline = time.monotonic() + self.seconds

    def receive(self) -> Any:
        """Wait for the answer to the last request.

        Raises:
            TimedOutError: it did not come in time. (Where this is called later than that, an answer or a crash of the
                time since is still one; the child's own alarm ends it some seconds after the limit.)
            ProcessDiedError: the child ended; the message says by which signal.
            Exception: whatever the answering function raised.
        """
        connection = self.connection
        timed_out = TimedOutError(f"took more than {self.seconds:g} s and was stopped")
        if not connection.poll(max(self.deadline - time.monotonic(), 0)):
            self.stop()
            raise timed_out
        try:
            is_well, answer = connection.recv()
        except (EOFError, OSError):
            ending = self.stop()
            raise timed_out if ending == BY_ITS_ALARM else ProcessDiedError(ending) from None
        if is_well:
            return answer
        raise answer

    @property
    def connection(self) -> Connection:
        """What the answer comes through, for `multiprocessing.connection.wait`; starts the child if there is none."""
        if self._child is None:
            self._child = _start(self.answer, self.seconds, self.context)
            self._end = weakref.finalize(self, _end, os.getpid(), *self._child)
        return self._child[1]

    def stop(self) -> str:
        """End the child, if there is one; says how it ended."""
        self._child = None
        return self._end() or "ended"


class _Fork:
    """A forked child, like multiprocessing's processes, of which a loader's worker may have none."""

    exitcode: int | None = None

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def join(self, seconds: float) -> None:
        last = time.monotonic() + seconds
        while self.exitcode is None and time.monotonic() < last:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.exitcode = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.001)


def _start(
    answer: Callable[[Any], Any], seconds: float, context: BaseContext | None
) -> tuple[BaseProcess | _Fork, Connection]:
    """A new child and the pipe to it."""
    here, there = Pipe()
    if context is None:
        return _fork(here, there, answer, seconds), here
    process = context.Process(target=_greet, args=(there, answer, seconds), daemon=True)  # type: ignore[attr-defined]
    process.start()
    there.close()
    try:
        here.recv()  # what it imports is not part of a request's time
    except (EOFError, OSError):
        raise ProcessDiedError("a process that should answer requests ended as it started") from None
    return process, here


def _fork(here: Connection, there: Connection, answer: Callable[[Any], Any], seconds: float) -> _Fork:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forks beside threads. The child runs none of their code.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        here.close()
        _serve(there, answer, seconds)
    there.close()
    return _Fork(pid)


def _greet(connection: Connection, answer: Callable[[Any], Any], seconds: float) -> None:
    Thread(target=_end_with_owner, daemon=True).start()
    connection.send(None)
    _serve(connection, answer, seconds)


def _end_with_owner() -> None:
    """End this process when its owner is gone, also in the middle of a request that lets other threads run."""
    owner = parent_process()
    if owner is not None:
        owner.join()
        os._exit(0)


def _serve(connection: Connection, answer: Callable[[Any], Any], seconds: float) -> None:
    """Answer until the owner is gone; does not return."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the owner's
        for name in filter(partial(hasattr, signal), FATAL_SIGNALS):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        torch.set_num_threads(1)  # threads do not survive a fork, and waiting for them would last for ever
        while True:
            request = connection.recv()
            _set_alarm(seconds + GRACE_SECONDS)
            reply = _reply(answer, request)
            _set_alarm(0)
            connection.send(reply)
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


def _reply(answer: Callable[[Any], Any], request: Any) -> tuple[bool, Any]:
    try:
        return True, answer(request)
    except Exception as error:
        return False, ExceptionWithTraceback(error, error.__traceback__)


def _set_alarm(seconds: float) -> None:
    """The alarm's default action is the kernel's: it ends the process whatever that is doing."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _end(owner: int, child: BaseProcess | _Fork, connection: Connection) -> str:
    """Kill and bury a child; says how it ended."""
    connection.close()
    if os.getpid() != owner:  # a fork of the owner has a copy of the object, but no child
        return ""
    child.kill()  # a child that is ending by itself keeps its own status
    try:
        child.join(BURIAL_SECONDS)
    except ChildProcessError:  # somebody else has asked for its status
        return ""
    code = child.exitcode
    if code is None:
        return "cannot be ended"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
