"""What every command's parser is made from."""

import argparse
from typing import TypeAlias

SETTINGS = ("s4", "ms3", "avss", "folder")
"""AVSBench's, and clips of one's own."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command is added; each sets ``run``, a function of the parsed arguments that returns a status.

It is given ``words`` too, the command line as it was, which is not that of the process where Python calls it.
"""
