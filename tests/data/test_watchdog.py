"""Processes that can be killed: stuck in Python, stuck in C with Python's lock, crashed, orphaned."""

import ctypes
import os
import signal
import subprocess
import sys
import time

import psutil
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


def has_ended(pid: int) -> bool:
    """Whether a process runs no longer, even if nobody has asked for its status."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for_end(pid: int) -> None:
    last = time.monotonic() + 10
    while not has_ended(pid):
        assert time.monotonic() < last
        time.sleep(0.01)


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


def test_a_stuck_request_is_said_to_be_so_however_late_its_answer_is_asked_for(process, monkeypatch):
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.1)
    pid = process.ask("pid")
    process.send("spin")
    wait_for_end(pid)
    with pytest.raises(TimedOutError, match=r"took more than 0.5 s and was stopped"):
        process.receive()


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
    wait_for_end(pid)
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
    wait_for_end(int(os.read(reader, 20)))


def test_a_servers_process_ends_with_its_owner_in_the_middle_of_a_request():
    script = """if True:
        import os, signal
        from multiprocessing import get_context
        from octvideo.data.watchdog import TimedProcess

        process = TimedProcess(eval, 60, get_context("forkserver"))
        print(process.ask("__import__('os').getpid()"), flush=True)
        process.send("__import__('time').sleep(60)")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        pid = int(owner.stdout.readline())
        assert owner.wait() == -signal.SIGKILL
        wait_for_end(pid)


def test_a_fork_of_the_owner_leaves_the_child_alone(process):
    pid = process.ask("pid")
    fork = os.fork()
    if fork == 0:
        process.stop()
        os._exit(0)
    os.waitpid(fork, 0)
    assert process.ask("pid") == pid


def test_a_child_that_cannot_be_killed_does_not_hold_up_its_owner(process, monkeypatch):
    left_behind = process.ask("pid")
    monkeypatch.setattr(watchdog, "BURIAL_SECONDS", 0.1)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)  # as one that waits for a dead disk
    with pytest.raises(TimedOutError):
        process.ask("sleep")
    monkeypatch.undo()
    assert process.ask("echo") == ("echo",)
    os.kill(left_behind, signal.SIGKILL)
    os.waitpid(left_behind, 0)
