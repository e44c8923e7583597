"""Segmenting video files: masks, and a copy of the video with the masks drawn over it."""

from avslib.pipeline.files import segment_video
from avslib.pipeline.render import draw_mask, write_overlay
from avslib.pipeline.segmenter import SegmentedFrame, VideoSegmenter
from avslib.pipeline.windows import cut_windows

__all__ = [
    "SegmentedFrame",
    "VideoSegmenter",
    "cut_windows",
    "draw_mask",
    "segment_video",
    "write_overlay",
]
