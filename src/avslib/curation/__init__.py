"""Prepare data folders from videos and downloads, and examine and repair them."""

from avslib.curation.doctor import examine
from avslib.curation.doctor_fix import fix
from avslib.curation.doctor_report import Diagnosis, Finding, SplitCount
from avslib.curation.frame_rule import frame_moments
from avslib.curation.prepare import convert_pickles, prepare
from avslib.curation.prepare_folder import prepare_folder
from avslib.curation.report import Report

__all__ = [
    "Diagnosis",
    "Finding",
    "Report",
    "SplitCount",
    "convert_pickles",
    "examine",
    "fix",
    "frame_moments",
    "prepare",
    "prepare_folder",
]
