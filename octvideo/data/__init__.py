"""Videos on disk to batches of clips: annotations, frame indices, decoding, transforms, data module."""

from octvideo.data.annotations import CLASS_LISTS, VIDEO_EXTENSIONS, Annotations, VideoRecord, read_annotations
from octvideo.data.datamodule import VideoDataModule
from octvideo.data.dataset import ClipItem, VideoDataset
from octvideo.data.decode import DECODERS, decode_frames, iterate_frames
from octvideo.data.draws import EpochSampler
from octvideo.data.guard import GuardedDataset
from octvideo.data.mix import CutMix, MixUp
from octvideo.data.motion import synthesize_motion_set
from octvideo.data.multigrid import GridStage, MultigridPlan, plan_long_cycle
from octvideo.data.probe import VideoDecodeError, VideoInfo, probe_video
from octvideo.data.sampling import (
    SHORT_POLICIES,
    centre_clip,
    clip_span,
    random_clip,
    segment_clip,
    stride_for_fps,
    uniform_clips,
)
from octvideo.data.scan import Manifest, scan_videos
from octvideo.data.split import split_annotations
from octvideo.data.transforms import EvalTransform, TrainTransform, normalise
from octvideo.data.unreadable import UnreadableClip, UnreadableLog, collate_clips

__all__ = [
    "CLASS_LISTS",
    "DECODERS",
    "SHORT_POLICIES",
    "VIDEO_EXTENSIONS",
    "Annotations",
    "ClipItem",
    "CutMix",
    "EpochSampler",
    "EvalTransform",
    "GridStage",
    "GuardedDataset",
    "Manifest",
    "MixUp",
    "MultigridPlan",
    "TrainTransform",
    "UnreadableClip",
    "UnreadableLog",
    "VideoDataModule",
    "VideoDataset",
    "VideoDecodeError",
    "VideoInfo",
    "VideoRecord",
    "centre_clip",
    "clip_span",
    "collate_clips",
    "decode_frames",
    "iterate_frames",
    "normalise",
    "plan_long_cycle",
    "probe_video",
    "random_clip",
    "read_annotations",
    "scan_videos",
    "segment_clip",
    "split_annotations",
    "stride_for_fps",
    "synthesize_motion_set",
    "uniform_clips",
]
