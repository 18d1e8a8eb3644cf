"""What a video file's packets say of its frames before any is decoded."""

from collections.abc import Sequence
from typing import NamedTuple

import av

__all__ = ["Packet", "are_closed", "are_timed", "seeks_land", "unit_length_size"]


class Packet(NamedTuple):
    """What the index needs to know of a packet."""

    time: int
    decode_time: int
    is_keyframe: bool
    is_plain: bool
    position: int | None

    @classmethod
    def of(cls, packet: "av.Packet", nal_length_size: int | None) -> "Packet":
        """The packet's facts; nal_length_size is None where keyframes always start afresh.

        A packet is not plain if it has no time, is thrown away after decoding, or is a keyframe from which H.264 does
        not start afresh (open groups of pictures: later frames may need what is before it).
        """
        time = packet.pts
        is_plain = time is not None and not packet.is_discard
        if is_plain and packet.is_keyframe and nal_length_size is not None:
            is_plain = _starts_afresh(bytes(packet), nal_length_size)
        decode_time = time if packet.dts is None else packet.dts
        return cls(time or 0, decode_time or 0, bool(packet.is_keyframe), is_plain, packet.pos)


def unit_length_size(extradata: bytes | None) -> int:
    """Bytes of the length before each H.264 unit (ISO 14496-15, 5.2.4.1); 0 where start codes separate the units."""
    return (extradata[4] & 3) + 1 if extradata and len(extradata) > 4 and extradata[0] == 1 else 0


def _starts_afresh(packet: bytes, nal_length_size: int) -> bool:
    """Whether an H.264 packet holds an instantaneous decoder refresh, unit type 5 (ITU-T H.264, table 7-1)."""
    position = 0
    while 0 <= position < len(packet):
        if nal_length_size:
            start = position + nal_length_size
            position = start + int.from_bytes(packet[position:start], "big")
        else:
            found = packet.find(b"\x00\x00\x01", position)
            position = start = found + 3 if found >= 0 else len(packet)
        if start < len(packet) and packet[start] & 31 == 5:
            return True
    return False


def are_timed(packets: Sequence[Packet]) -> bool:
    """Whether each packet is one visible frame with a time of its own, and the first frame shown is a keyframe."""
    if not packets or not packets[0].is_keyframe or not all(packet.is_plain for packet in packets):
        return False
    times = {packet.time for packet in packets}
    return len(times) == len(packets) and min(times) == packets[0].time


def are_closed(packets: Sequence[Packet]) -> bool:
    """Whether no frame is shown before the keyframe that it follows in the file: counting from a keyframe is right."""
    key_time = packets[0].time
    for packet in packets:
        key_time = packet.time if packet.is_keyframe else key_time
        if packet.time < key_time:
            return False
    return True


def seeks_land(container: "av.container.InputContainer", stream: "av.VideoStream", packets: Sequence[Packet]) -> bool:
    """Whether a seek to a keyframe's time ends at that keyframe's place in the file, for all of them."""
    for packet in packets:
        if packet.is_keyframe:
            container.seek(packet.time, stream=stream)
            landed = next(container.demux(stream))
            if (landed.pts, landed.pos) != (packet.time, packet.position):
                return False
    return True
