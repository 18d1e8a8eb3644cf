"""Runs a command straight, and in processes that are killed at random moments until the last comes to its end.

    python killed_runs.py KILLS WRITES WATCHED OUTPUT ARGUMENT...

runs `octvideo ARGUMENT... --output OUTPUT/straight`, then the same with OUTPUT/killed, and kills it (SIGKILL) KILLS
times: after the file WATCHED in that folder was written a random number of times, WRITES at most, and a random part of
a second more. It prints both exit codes. The processes are forked from this one, which has imported everything.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from octvideo.cli import main


def start(arguments):
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        code = main(arguments)
    finally:
        os._exit(code)


def wait_for_writes(path, number):
    """Return when the file has been written so often."""
    seen = set()
    while len(seen) <= number:
        try:  # the file makes way for the next one between two looks
            seen.add(path.stat().st_mtime_ns)
        except FileNotFoundError:
            seen |= set() if seen else {0}
        time.sleep(0.0005)


def run(kills, writes, watched, output, arguments):
    given = [*arguments, "--output", str(output)]
    draw = random.Random(kills)
    for _ in range(kills):
        process = start(given)
        wait_for_writes(output / watched, draw.randint(0, writes))
        time.sleep(draw.uniform(0, 0.1) if draw.random() < 0.8 else draw.uniform(0, 0.6))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"ended before it was killed, with code {os.waitstatus_to_exitcode(status)}")
    return os.waitstatus_to_exitcode(os.waitpid(start(given), 0)[1])


if __name__ == "__main__":
    import octvideo.cli.evaluate
    import octvideo.cli.train  # noqa: F401 - before the fork

    os.fsync = lambda handle: None  # takes seconds on a busy disk, and only a power cut would show the difference
    kills, writes, watched, output, *arguments = sys.argv[1:]
    straight = run(0, 0, watched, Path(output) / "straight", arguments)
    print(straight, run(int(kills), int(writes), watched, Path(output) / "killed", arguments))
