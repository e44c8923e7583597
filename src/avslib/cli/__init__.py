"""The command ``avslib``: it parses arguments, calls the library and prints, and decides nothing itself."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, cast

from avslib._version import __version__
from avslib.cli.cache_audio import add_cache_audio
from avslib.cli.doctor import add_doctor
from avslib.cli.evaluate import add_evaluate
from avslib.cli.export import add_export
from avslib.cli.listen import add_listen
from avslib.cli.pack import add_pack
from avslib.cli.prepare import add_prepare
from avslib.cli.segment import add_segment
from avslib.cli.train import add_train
from avslib.cli.weights import add_convert, add_models

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 1 on an error, 130 on Ctrl-C, 141 on a closed output pipe."""
    parser = argparse.ArgumentParser(
        prog="avslib", description="Audio-visual segmentation.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"avslib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        add_segment,
        add_prepare,
        add_doctor,
        add_pack,
        add_cache_audio,
        add_train,
        add_evaluate,
        add_listen,
        add_convert,
        add_export,
        add_models,
    ):
        add(commands)
    words = sys.argv[1:] if arguments is None else list(arguments)
    parsed = parser.parse_args(words)
    parsed.words = words

    def complain(message: Warning | str, *_: Any) -> None:
        print(f"avslib {parsed.command}: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = cast("Any", complain)
        try:
            status = parsed.run(parsed)
            sys.stdout.flush()  # here, to notice that `| head` has stopped reading
            return status
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
            return 141
        except (OSError, ValueError, ImportError) as error:
            print(f"avslib {parsed.command}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"avslib {parsed.command}: interrupted", file=sys.stderr)
            return 130
