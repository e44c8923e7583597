"""A folder imports from itself and from the groups below it, nothing else."""

import ast
from pathlib import Path

import pytest

import avslib

ROOT = Path(avslib.__file__).parent
GROUPS = (  # top to bottom
    {"cli"},
    {"training", "pipeline"},
    {"models", "curation", "storage"},
    {"data"},
    {"encoders", "fusion", "latent", "decoders", "losses", "metrics", "media"},
    {"_jobs"},
    {"clip", "_checks", "_version"},
)
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def level(part: str) -> int:
    return next(i for i, group in enumerate(GROUPS) if part in group)


def imported_parts(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            modules.add(node.module or "")
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    return {module.split(".")[1] for module in modules if module.startswith("avslib.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for part in imported_parts(path):
        assert part == own or level(part) > level(own), f"{path} imports avslib.{part}"


def test_every_folder_is_in_a_group() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set.union(*GROUPS)
    assert not [
        path
        for folder in folders
        for path in (ROOT / folder).iterdir()
        if path.is_dir() and path.name != "__pycache__"
    ]
