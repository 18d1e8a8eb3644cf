"""Many requests to several processes: each with its own answer, whatever the others do and however long they take."""

import gc
import os
import signal
import time
from multiprocessing import get_context

import psutil
import pytest

from octvideo.data.timed_pool import AHEAD, answer_each
from octvideo.data.watchdog import ProcessDiedError, TimedOutError, TimedProcess

SERVER = get_context("forkserver")
# Once, not by each process; packing, whose tests may run here as well, has the same server.
SERVER.set_forkserver_preload([__name__, "octvideo.data.shards.workers"])


def answer(request):
    """What a process does with a request."""
    actions = {
        "sleep": lambda: time.sleep(60),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "fail": lambda: int("no number"),
        "pid": os.getpid,
    }
    if isinstance(request, float):
        time.sleep(request)
    return actions[request]() if request in actions else request


def children() -> set[int]:
    gc.collect()
    below = psutil.Process().children()
    return {child.pid for child in below if child.status() != psutil.STATUS_ZOMBIE}


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_each_request_has_its_own_answer(in_order, num_workers, pause):
    requests = [0, "kill", 2, 0.1, 4, "fail", 6, "sleep", *range(8, 30), "kill"]
    errors = {"kill": ProcessDiedError, "fail": ValueError, "sleep": TimedOutError}
    before, found = children(), []
    for request, given in answer_each(requests, answer, num_workers, 1.5, in_order=in_order):
        found.append(request)
        assert isinstance(given, errors[request]) if request in errors else given == request
        time.sleep(pause)
    assert found == requests if in_order else sorted(map(str, found)) == sorted(map(str, requests))
    assert children() == before


def test_answers_come_as_they_are_made_unless_an_order_is_asked_for():
    requests = [0.4, 1, 2]
    assert [request for request, _ in answer_each(requests, answer, 2, 10)] == [1, 2, 0.4]
    assert [request for request, _ in answer_each(requests, answer, 2, 10, in_order=True)] == requests
    assert list(answer_each([], answer, 2, 10)) == []


@pytest.mark.parametrize("num_workers", [1, 3])
def test_processes_work_on_while_an_answer_is_used_but_not_far_ahead(tmp_path, num_workers):
    def note(number):
        (tmp_path / str(number)).touch()

    answers = answer_each(range(60), note, num_workers, 10, in_order=True)
    for number in range(10):
        assert next(answers) == (number, None)
        time.sleep(0.1)
        begun = len(list(tmp_path.iterdir()))
        assert number + 1 < begun <= number + num_workers * AHEAD


def test_processes_end_with_the_iterator():
    before = children()
    answers = answer_each(range(40), answer, 3, 10)
    next(answers)
    assert children() > before
    answers.close()
    assert children() == before


def test_a_server_starts_processes_whose_start_takes_none_of_a_requests_time():
    """The first one waits for the server's imports, which take longer than the time limit."""
    process = TimedProcess(answer, 0.5, SERVER)
    first = process.ask("pid")
    assert first not in {os.getpid(), *children()}
    assert process.ask("pid") == first
    with pytest.raises(TimedOutError, match=r"took more than 0.5 s and was stopped"):
        process.ask("sleep")
    assert not psutil.pid_exists(first)
    with pytest.raises(ProcessDiedError, match="was killed by SIGKILL"):
        process.ask("kill")
    with pytest.raises(ValueError, match="invalid literal for int"):
        process.ask("fail")
    process.stop()


class Deadly:
    """An answering function that ends the process that it comes to."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_process_that_cannot_be_started_is_an_error():
    with pytest.raises(ProcessDiedError, match="a process that should answer requests ended as it started"):
        list(answer_each([1, 2], Deadly(), 1, 10, context=SERVER))
