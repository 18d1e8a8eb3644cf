"""A Python that has imported octvideo and forks off what it is asked to run: a cold start takes seconds.

Each line of its standard input is a JSON list of processes that run side by side, {"command": the arguments of Python
(a script's path, -m and a module, or -c and a text), "environment": all variables, "out" and "err": files for what it
writes, "seconds": its time limit}. It answers with a line: the JSON list of their exit codes.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time

PRELOADED = ("octvideo.cli.train", "octvideo.cli.evaluate", "torch.distributed.tensor", "pytest")


def serve(requests, answers):
    """Answer requests until there are no more; in a forked process return its command instead."""
    for line in requests:
        processes, pids = json.loads(line), []
        for process in processes:
            pids.append(os.fork())
            if not pids[-1]:
                return become(process)
        answers.write(json.dumps(wait(pids, [process["seconds"] for process in processes])) + "\n")
        answers.flush()
    return None


def become(process):
    os.setsid()  # as the head of a group, which is killed as a whole
    for name, number in (("out", 1), ("err", 2)):
        handle = os.open(process[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.clear()
    os.environ.update(process["environment"])
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    rank_zero_only.rank = int(os.environ.get("LOCAL_RANK", 0))  # as Lightning sets it when it is imported
    return process["command"]


def wait(pids, seconds):
    """Exit codes of processes that have so many seconds each; whatever happens, none of them is left behind."""
    codes, start = {}, time.monotonic()
    try:
        while len(codes) < len(pids):
            for pid, limit in zip(pids, seconds, strict=True):
                ended, status = (0, 0) if pid in codes else os.waitpid(pid, os.WNOHANG)
                if ended:
                    codes[pid] = os.waitstatus_to_exitcode(status)
                elif pid not in codes and time.monotonic() - start > limit:
                    os.killpg(pid, signal.SIGKILL)
            time.sleep(0.01)
    finally:
        for pid in set(pids) - codes.keys():
            os.killpg(pid, signal.SIGKILL)
    return [codes[pid] for pid in pids]


def run(command):
    """As Python would."""
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    elif command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(command[1], {"__name__": "__main__"})
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    for module in PRELOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # or each process would look through all of it, and so copy its memory, when it ends
    # Nothing that an import or a forked process prints is to come between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        given = serve(sys.stdin, answers)
    if given:
        run(given)
