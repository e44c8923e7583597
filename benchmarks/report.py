"""Write the docs' page on performance, and its pictures, from the results of the benchmarks.

  python benchmarks/report.py                # docs/performance.md from benchmarks/results
  python benchmarks/report.py --folder cuda  # only print the folder name for a device's results

``make bench`` runs the benchmarks, then this script. Every number on the page comes from the JSON files. The
page names what was not measured, with the command that measures it. A file reasons.json in the folder of the
results may explain missed targets: it maps targets, worded as on the page, to reasons. A reason is shown
while its target is missed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from _performance_figures import PICTURES, draw
from _performance_results import Device, read, table
from _performance_sections import TABLES
from _performance_targets import write_targets

HERE = Path(__file__).parent
Pictures = Mapping[tuple[str, str], tuple[Path, str]]
"""Files and captions, by device and kind."""


def write(results: Path, docs: Path) -> None:
    """Write the page and its pictures into the folder of the docs."""
    devices = read(results)
    folder = docs / "_static" / "performance"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    pictures = {(d.folder, kind): drawn for d in devices for kind, drawn in draw(d, folder).items()}
    parts = {subject: write_tables(subject, devices) for subject in TABLES}
    parts |= {f"{kind}_picture": write_pictures(kind, devices, pictures, docs) for kind in PICTURES}
    template = Template((HERE / "performance.md.template").read_text(encoding="utf-8"))
    page = template.substitute(parts, machines=write_machines(devices), targets=write_targets(devices))
    (docs / "performance.md").write_text(page, encoding="utf-8")


def write_tables(subject: str, devices: Sequence[Device]) -> str:
    """Write the results of a subject on every device, or how to measure it."""
    measure = f"`make bench-{subject}`"
    if not any(device.rows(subject) for device in devices):
        return f"*Not measured here: {measure} does.*"
    parts = []
    for device in devices:
        if device.rows(subject):
            settings = device.reports[subject]["settings"]
            told = ", ".join(
                f"{name.replace('_', ' ')} {value}"
                for name, value in settings.items()
                if isinstance(value, int | float)
            )
            parts += [f"**On `{device.folder}`** ({told})", *TABLES[subject](device)]
        else:
            parts += [f"**On `{device.folder}`**", f"*Not measured: {measure} does, on such a device.*"]
    return "\n\n".join(parts)


def write_pictures(kind: str, devices: Sequence[Device], pictures: Pictures, docs: Path) -> str:
    """Write the available pictures of a kind."""
    found = [
        (device, *pictures[device.folder, kind]) for device in devices if (device.folder, kind) in pictures
    ]
    lines = [
        f"![{caption}, on {d.folder}]({path.relative_to(docs).as_posix()})" for d, path, caption in found
    ]
    return "\n\n".join(lines) or "*No picture: what it shows was not measured.*"


def write_machines(devices: Sequence[Device]) -> str:
    """Write a table of machines and versions, with one column for all subjects that share them."""
    subjects: dict[tuple[str, tuple[tuple[str, object], ...]], list[str]] = {}
    for device in devices:
        for subject, report in device.reports.items():
            subjects.setdefault((device.folder, tuple(report["machine"].items())), []).append(subject)
    if not subjects:
        return "*Nothing was measured here: `make bench` does.*"
    names = list(dict.fromkeys(name for _, machine in subjects for name, _ in machine))
    lines = [[name, *(str(dict(machine).get(name, "")) for _, machine in subjects)] for name in names]
    header = ["", *(f"`{folder}`" for folder, _ in subjects)]
    return table(header, [["subjects", *map(", ".join, subjects.values())], *lines])


def folder_of(device: str | None) -> str:
    """Return the folder name for the results of a device: cpu, or the name of the GPU, such as h200."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(device).type != "cuda":
        return device
    return torch.cuda.get_device_name(device).lower().removeprefix("nvidia ").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="a folder of folders of JSON")
    parser.add_argument(
        "--docs", type=Path, default=HERE.parent / "docs", help="where to write performance.md"
    )
    parser.add_argument("--folder", nargs="?", const="", metavar="DEVICE", help="print a folder's name only")
    arguments = parser.parse_args()
    if arguments.folder is None:
        write(arguments.results, arguments.docs)
    else:
        print(folder_of(arguments.folder))


if __name__ == "__main__":
    main()
