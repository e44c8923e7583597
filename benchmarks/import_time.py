"""Measure how long imports take, compared with torch alone, and which large packages they load.

  python benchmarks/import_time.py --out benchmarks/results/cpu/import_time.json

Every import is timed in a new process, from the start of the interpreter to its end, with the files in the
page cache. The target is that ``import avslib`` takes at most 0.3 s more than ``import torch``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import torch
from _measure import make_parser, set_up, time_in_turn, write

STATEMENTS = (
    "import torch",
    "import torch, avslib",
    "import avslib.cli",
    "import avslib.data",
    "import avslib.metrics",
    "import avslib.models",
)
LARGE = (
    *("PIL", "accelerate", "av", "diffusers", "einops", "huggingface_hub", "matplotlib", "numpy", "pandas"),
    *(
        "safetensors",
        "scipy",
        "sklearn",
        "sympy",
        "timm",
        "torch",
        "torchaudio",
        "torchmetrics",
        "torchvision",
    ),
    "transformers",
)
"""The packages to look for."""


def execute(statement: str, loads: dict[str, list[str]]) -> None:
    """Execute a statement in a new process, and record which large packages are loaded at its end."""
    tell = f"import json, sys; print(json.dumps([name for name in {LARGE} if name in sys.modules]))"
    command = [sys.executable, "-c", f"{statement}\n{tell}"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    loads[statement] = json.loads(printed)


def main() -> None:
    parser = make_parser(__doc__, rounds=7)
    parser.add_argument(
        "--statements", nargs="+", default=STATEMENTS, help="imports; the first is the reference"
    )
    parser.add_argument("--seconds", type=float, default=45, help="of timing, about")
    arguments = parser.parse_args()
    set_up(arguments)

    loads: dict[str, list[str]] = {}
    runs = {statement: partial(execute, statement, loads) for statement in arguments.statements}
    by_the_clock = torch.device("cpu")
    timings = time_in_turn(runs, device=by_the_clock, rounds=arguments.rounds, seconds=arguments.seconds)
    reference = next(iter(timings.values()))
    rows = []
    print(f"{'ms':26}{'p50':>8}{'p10':>8}{'p90':>8}{'beyond':>8}  loads")
    for statement, (ms, speedup) in timings.items():
        beyond = ms["p50"] - reference.ms["p50"]
        print(f"{statement:26}", end="")
        print("".join(f"{ms[p]:8.0f}" for p in ("p50", "p10", "p90")), end="")
        print(f"{beyond:8.0f}  {' '.join(loads[statement])}")
        row = {"implementation": statement, "ms": ms, "speedup": speedup}
        rows.append({**row, "ms beyond the first": beyond, "loads": loads[statement]})
    write(arguments, "import_time", rows)


if __name__ == "__main__":
    main()
