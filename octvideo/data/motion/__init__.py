"""A data set made on the spot whose classes differ by motion alone."""

from octvideo.data.motion.states import CLASS_NAMES, REFERENCE_SPAN, STATE_NAMES, MotionStates, draw_states
from octvideo.data.motion.synthesis import MotionSet, render_video, synthesize_motion_set

__all__ = [
    "CLASS_NAMES",
    "REFERENCE_SPAN",
    "STATE_NAMES",
    "MotionSet",
    "MotionStates",
    "draw_states",
    "render_video",
    "synthesize_motion_set",
]
