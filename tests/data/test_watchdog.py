"""Processes that can be killed: stuck in Python, stuck in C with Python's lock, crashed, orphaned."""

import ctypes
import os
import signal
import time

import pytest

from octvideo.data import watchdog
from octvideo.data.watchdog import ProcessDiedError, TimedOutError, TimedProcess


def answer(request):
    """What the child does with a request."""
    name, *rest = request if isinstance(request, tuple) else (request,)
    actions = {
        "sleep": lambda: time.sleep(60),
        "spin": lambda: ctypes.PyDLL(None).sleep(60),  # keeps Python's lock: no other thread of the child runs
        "crash": lambda: ctypes.string_at(0),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "exit": lambda: os._exit(3),
        "fail": lambda: int("no number"),
        "pid": os.getpid,
        "big": lambda: bytes(3_000_000),
    }
    return actions[name]() if name in actions else (name, *rest)


@pytest.fixture
def process():
    """A child with half a second for a request."""
    one = TimedProcess(answer, seconds=0.5)
    yield one
    one.stop()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_child_answers_many_requests(process):
    first = process.ask("pid")
    assert first != os.getpid()
    assert process.ask(("echo", 1, [2])) == ("echo", 1, [2])
    assert len(process.ask("big")) == 3_000_000
    assert process.ask("pid") == first


@pytest.mark.parametrize("how", ["sleep", "spin"])
def test_a_stuck_request_is_ended_in_time_and_the_next_one_answered(process, how):
    stuck = process.ask("pid")
    start = time.monotonic()
    with pytest.raises(TimedOutError, match=r"took more than 0.5 s and was stopped"):
        process.ask(how)
    assert 0.4 < time.monotonic() - start < 5
    assert not is_alive(stuck)
    assert process.ask("pid") != stuck


@pytest.mark.parametrize(
    ("how", "message"),
    [("crash", "was killed by SIGSEGV"), ("kill", "was killed by SIGKILL"), ("exit", "ended with exit code 3")],
)
def test_a_crash_is_named_and_the_next_request_answered(process, how, message):
    with pytest.raises(ProcessDiedError, match=message):
        process.ask(how)
    assert process.ask("echo") == ("echo",)


def test_an_error_comes_with_the_childs_traceback(process):
    with pytest.raises(ValueError, match="invalid literal for int") as caught:
        process.ask("fail")
    assert 'int("no number")' in str(caught.value.__cause__)
    assert process.ask("echo") == ("echo",)


def test_a_child_that_died_between_requests_is_replaced(process):
    pid = process.ask("pid")
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert process.ask("pid") != pid


def test_a_child_goes_with_its_owner_object():
    process = TimedProcess(answer, seconds=5)
    pid = process.ask("pid")
    del process
    assert not is_alive(pid)


@pytest.mark.parametrize("request_", ["echo", "spin"])
def test_a_child_does_not_outlive_a_killed_owner(request_, monkeypatch):
    """At rest it notices at once, in the middle of a stuck request by its own alarm."""
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.5)
    reader, writer = os.pipe()
    owner = os.fork()
    if owner == 0:
        process = TimedProcess(answer, seconds=0.5)
        os.write(writer, str(process.ask("pid")).encode())
        process.send(request_)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(owner, 0)
    pid, last = int(os.read(reader, 20)), time.monotonic() + 10
    while is_alive(pid) and not is_zombie(pid) and time.monotonic() < last:
        time.sleep(0.05)
    assert not is_alive(pid) or is_zombie(pid)


def is_zombie(pid: int) -> bool:
    """Ended, but nobody has asked for its status: in a container the first process may not do so."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def test_a_fork_of_the_owner_leaves_the_child_alone(process):
    pid = process.ask("pid")
    fork = os.fork()
    if fork == 0:
        process.stop()
        os._exit(0)
    os.waitpid(fork, 0)
    assert process.ask("pid") == pid


def test_a_child_that_cannot_be_killed_does_not_hold_up_its_owner(process, monkeypatch):
    process.ask("echo")
    monkeypatch.setattr(watchdog, "BURIAL_SECONDS", 0.1)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)  # as one that waits for a dead disk
    with pytest.raises(TimedOutError):
        process.ask("sleep")
    monkeypatch.undo()
    assert process.ask("echo") == ("echo",)
