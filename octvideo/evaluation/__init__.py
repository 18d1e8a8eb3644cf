"""From the scores of single views to the scores of whole videos, and what is printed about them."""

from octvideo.evaluation.score_log import ScoreLog
from octvideo.evaluation.scores import VideoResults, VideoScores, combine_views
from octvideo.evaluation.tables import plot_confusion, write_confusion_csv, write_per_video_csv

__all__ = [
    "ScoreLog",
    "VideoResults",
    "VideoScores",
    "combine_views",
    "plot_confusion",
    "write_confusion_csv",
    "write_per_video_csv",
]
