"""Constants and types that the parsers of all commands share."""

import argparse
from typing import TypeAlias

SETTINGS = ("s4", "ms3", "avss", "folder")
"""The settings of AVSBench, and a folder of your own clips."""

FRAME_RULES = ("avsbench", "end", "middle", "start")
"""Those of :func:`~avslib.curation.frame_moments`, written out so that a help text does not import them."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""The subparsers to which each command is added.

Each command sets ``run``, a function that takes the parsed arguments and returns an exit status. The parsed
arguments also have ``words``, the command line itself; if ``main`` was called from Python, it is not that of
the process.
"""
