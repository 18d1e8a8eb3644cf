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
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from typing import Any

import torch

__all__ = ["ProcessDiedError", "TimedOutError", "TimedProcess"]

# A process whose owner was killed ends itself so many seconds after its time limit.
GRACE_SECONDS = 5.0
# A process that waits for a dead disk or server cannot even be killed, and is left behind after so many seconds.
BURIAL_SECONDS = 2.0
# Python and torch set handlers for these; in the child they should simply end it.
FATAL_SIGNALS = ("SIGALRM", "SIGTERM", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")


class TimedOutError(RuntimeError):
    """A request that took longer than its time limit; its process was killed."""


class ProcessDiedError(RuntimeError):
    """A request whose process ended, such as killed by the system for want of memory."""


class TimedProcess:
    """A forked process that answers requests one at a time, and is killed when one takes too long.

    It is started by the first request, and again by the first one after its death. It belongs to the process that made
    it: after a fork or a pickling make a new one.

    Args:
        answer: called in the child with each request; gives the answer or raises the error that :meth:`receive` gives
            or raises here. Requests, answers and errors are pickled.
        seconds: time limit of a request.

    Example:
        >>> TimedProcess(lambda number: number + 1, seconds=60).ask(1)
        2
    """

    def __init__(self, answer: Callable[[Any], Any], seconds: float) -> None:
        self.answer, self.seconds = answer, seconds
        self.deadline = 0.0
        self._child: tuple[int, Connection] | None = None
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
            TimedOutError: it did not come in time.
            ProcessDiedError: the child ended; the message says by which signal.
            Exception: whatever the answering function raised.
        """
        connection = self.connection
        if not connection.poll(max(self.deadline - time.monotonic(), 0)):
            self.stop()
            raise TimedOutError(f"took more than {self.seconds:g} s and was stopped")
        try:
            is_well, answer = connection.recv()
        except (EOFError, OSError):
            raise ProcessDiedError(self.stop()) from None
        if is_well:
            return answer
        raise answer

    @property
    def connection(self) -> Connection:
        """What the answer comes through, for `multiprocessing.connection.wait`; starts the child if there is none."""
        if self._child is None:
            self._child = _fork(self.answer, self.seconds)
            self._end = weakref.finalize(self, _end, os.getpid(), *self._child)
        return self._child[1]

    def stop(self) -> str:
        """End the child, if there is one; says how it ended."""
        self._child = None
        return self._end() or "ended"


def _fork(answer: Callable[[Any], Any], seconds: float) -> tuple[int, Connection]:
    """Process id and pipe of a new child. (multiprocessing lets no loader's worker have children.)"""
    here, there = Pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forks beside threads. The child runs none of their code.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        here.close()
        _serve(there, answer, seconds)
    there.close()
    return pid, here


def _serve(connection: Connection, answer: Callable[[Any], Any], seconds: float) -> None:
    """Answer until the owner is gone; does not return."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the owner's
        for name in FATAL_SIGNALS:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        torch.set_num_threads(1)  # threads do not survive a fork, and waiting for them would last for ever
        while True:
            request = connection.recv()
            # The alarm's default action is the kernel's: it ends the process whatever that is doing.
            signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS)
            reply = _reply(answer, request)
            signal.setitimer(signal.ITIMER_REAL, 0)
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


def _end(owner: int, pid: int, connection: Connection) -> str:
    """Kill and bury a child; says how it ended."""
    connection.close()
    if os.getpid() != owner:  # a fork of the owner has a copy of the object, but no child
        return ""
    os.kill(pid, signal.SIGKILL)  # a child that is ending by itself keeps its own status
    last = time.monotonic() + BURIAL_SECONDS
    while time.monotonic() < last:
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has asked for its status
            return ""
        if done:
            code = os.waitstatus_to_exitcode(status)
            return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        time.sleep(0.001)
    return "cannot be ended"
