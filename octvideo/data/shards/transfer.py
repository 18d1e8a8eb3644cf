"""What a command such as curl transfers, piece by piece: one that stalls is ended, and so is one that nobody needs."""

from __future__ import annotations

from threading import Timer
from typing import Any

from octvideo.data.shards.index import ShardError

__all__ = ["Transfer"]


class Transfer:
    """A stream that a command fills.

    Args:
        url: what errors call it.
        stream: webdataset's, with its process.
        seconds: limit of a read; 0 sets none.
    """

    def __init__(self, url: str, stream: Any, seconds: float) -> None:
        self.url, self.stream, self.seconds = url, stream, seconds
        self._is_at_end = self._is_late = False

    def read(self, size: int) -> bytes:
        """What comes next, so many bytes at most; none at the end.

        Raises:
            ShardError: nothing comes in time.
        """
        timer = Timer(self.seconds, self._give_up)
        timer.daemon = True
        if self.seconds:
            timer.start()
        try:
            block = self.stream.stream.read1(size)
        finally:
            timer.cancel()
        if self._is_late:
            raise self._failed()
        self._is_at_end = not block
        return block

    def close(self) -> None:
        """End the transfer.

        Raises:
            ShardError: it had come to its end by an error.
        """
        # A process that was forked meanwhile holds the pipe, too: without a reader the command would wait for ever.
        was_ended = not self._is_at_end and self.stream.proc.poll() is None
        if was_ended:
            self.stream.proc.kill()
        try:
            self.stream.close()
        except OSError as error:
            if not was_ended and not self._is_late:
                raise self._failed() from error

    def _give_up(self) -> None:
        self._is_late = True
        self.stream.proc.kill()

    def _failed(self) -> ShardError:
        if self._is_late:
            what = f"gave nothing for {self.seconds:g} s, and was stopped. Check the address, or give it more time"
            return ShardError(f"{self.url}: {what} (timeout_seconds).")
        status = self.stream.status
        return ShardError(
            f"{self.url}: cannot be read; the transfer ended with status {status}. Check the address, and try again."
        )
