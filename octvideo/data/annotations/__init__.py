"""Lists of labelled videos: plain lists, CSV files, folders and the official lists of data sets."""

from octvideo.data.annotations.classes import CLASS_LISTS, read_class_names
from octvideo.data.annotations.files import VIDEO_EXTENSIONS
from octvideo.data.annotations.read import read_annotations
from octvideo.data.annotations.records import Annotations, VideoRecord

__all__ = ["CLASS_LISTS", "VIDEO_EXTENSIONS", "Annotations", "VideoRecord", "read_annotations", "read_class_names"]
