"""A video file -> masks, and the video with its masks drawn on it."""

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
