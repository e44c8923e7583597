"""The progress bar of the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def clip_bar(total: int | None = None, **options: Any) -> tqdm[Any]:
    """Return a progress bar that counts clips, shown only on a terminal; ``options`` are tqdm's."""
    from tqdm import tqdm

    return tqdm(total=total, **{"unit": "clip", "disable": None, **options})
