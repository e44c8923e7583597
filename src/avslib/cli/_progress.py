"""How a command shows what is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def clip_bar(total: int | None = None, **options: Any) -> tqdm[Any]:
    """Return a bar that counts clips, on a terminal alone; options are tqdm's."""
    from tqdm import tqdm

    return tqdm(total=total, **{"unit": "clip", "disable": None, **options})
