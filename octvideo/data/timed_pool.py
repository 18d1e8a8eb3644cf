"""Many requests to several processes that can be killed: one that hangs or crashes costs only its own request."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from octvideo.data.watchdog import TimedProcess

__all__ = ["answer_each"]

AHEAD = 4  # requests for each process that are begun before the answer to the first of them is taken, where in order

Request = TypeVar("Request")


def answer_each(
    requests: Sequence[Request],
    answer: Callable[[Request], Any],
    num_workers: int,
    seconds: float,
    *,
    in_order: bool = False,
    context: BaseContext | None = None,
) -> Iterator[tuple[Request, Any]]:
    """Each request with its answer, or with the error that :meth:`TimedProcess.receive` raises for it.

    The processes work on while whoever asks is busy with an answer, with what is begun. They end with the iterator.

    Args:
        requests: what is asked.
        answer: called in a process with each request.
        num_workers: processes, 1 or more.
        seconds: time limit of a request.
        in_order: answers come in the order of the requests, not as they are made.
        context: as in :class:`TimedProcess`.

    Example:
        >>> list(answer_each([1, 2], lambda number: -number, num_workers=2, seconds=60, in_order=True))
        [(1, -1), (2, -2)]
    """
    idle = [TimedProcess(answer, seconds, context) for _ in range(min(num_workers, len(requests)))]
    busy: dict[TimedProcess, int] = {}
    answers: dict[int, Any] = {}
    num_begun = num_given = 0
    ahead = (AHEAD if in_order else 1) * num_workers  # no more than is in work: a kill loses what is not handed out

    def begin() -> None:
        nonlocal num_begun
        while idle and num_begun < min(len(requests), num_given + ahead):
            worker = idle.pop()
            worker.send(requests[num_begun])
            busy[worker] = num_begun
            num_begun += 1

    try:
        while num_given < len(requests):
            begin()
            next_one = next((number for number in answers if number == num_given or not in_order), None)
            for worker in _finished(busy, at_once=next_one is not None):
                answers[busy.pop(worker)] = _outcome(worker)
                idle.append(worker)
            begin()  # before whoever asks goes on with an answer
            if next_one is not None:
                yield requests[next_one], answers.pop(next_one)
                num_given += 1
    finally:
        for worker in (*idle, *busy):
            worker.stop()


def _finished(busy: Collection[TimedProcess], at_once: bool) -> list[TimedProcess]:
    """Those that have answered, died or run out of time; waits for one unless it should tell at once."""
    if not busy:
        return []
    seconds = 0 if at_once else max(min(worker.deadline for worker in busy) - time.monotonic(), 0)
    ready = wait([worker.connection for worker in busy], timeout=seconds)
    now = time.monotonic()
    return [worker for worker in busy if worker.connection in ready or worker.deadline <= now]


def _outcome(worker: TimedProcess) -> Any:
    try:
        return worker.receive()
    except Exception as error:  # whatever a library raises for one request, the others are answered
        return error
