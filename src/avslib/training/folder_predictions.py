"""Predictions read from a folder of pictures, written by any code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avslib._checks import check_one_of
from avslib.data import ClipReader
from avslib.data.layout import ClipFiles
from avslib.data.reader import _fit_length
from avslib.media._image import MAX_PIXELS, fit_picture, open_picture
from avslib.media.palette import NUM_CLASSES, read_classes
from avslib.metrics.report import Prediction
from avslib.training.prediction import num_classes

_WHITE_OF_16_BITS = 65535


class FolderPredictions(Dataset[Prediction]):
    """Predictions stored as pictures in a folder: grey levels for binary masks, colours for classes.

    The prediction for second 0 of a clip may be in any of these files; each clip is looked up separately:

    - ``ID/0.png``, as :func:`save_prediction` writes it;
    - ``ID/ID_0.png``, as the published scripts of AVSBench write MS3 and AVSS;
    - either of them below ``CATEGORY/``, as they write S4.

    Seconds are counted from 0 if any picture has the number 0, else from 1. A grey level divided by 255 is a
    probability. Logits are computed so that their sigmoid is that probability; they are infinite for black
    and white. A picture of only black and white gets the F of its one mask: every threshold selects that
    mask except the first, 0, which selects the whole picture.

    For :class:`~avslib.data.AVSBenchSemantic` each colour is a class (see
    :func:`~avslib.media.class_palette`), and a prediction holds classes instead of logits. Colours of no
    class are refused: by default the published script of AVSBench resizes pictures, which blends colours
    since Pillow 7, and a blend may be the colour of another class.

    Args:
        folder: the folder of the predictions.
        clips: the dataset that holds the ground truth. Frames that are not ``labelled`` need no prediction.
        missing: ``"raise"``, or ``"empty"`` to count a frame without a prediction as predicted empty.
        resize: whether predictions of another size are resized to that of the ground truth, by the ``fit`` of
            ``clips``; bilinearly, or by nearest neighbour for classes. Resizing changes the scores, so it is
            off by default.
        white: the grey level of probability 1; use 1 for masks written as 0 and 1. It is always 65535 for
            16-bit pictures and 1 for 1-bit pictures.
        num_workers: number of loader processes.

    Raises:
        FileNotFoundError: if the folder does not exist or predictions are missing; if ``missing`` is
            ``"empty"``, only if all are. The message says how many and where they were looked for.
        ValueError: if ``clips`` is not a reader, ``missing`` is unknown, ``white`` is not from 1 to 255, or a
            second of a clip has two pictures; or if all of the first non-empty pictures hold only the levels
            0 and 1 while white is higher, which means that ``white`` should be 1.
    """

    def __init__(
        self,
        folder: str | Path,
        clips: ClipReader,
        *,
        missing: str = "raise",
        resize: bool = False,
        white: int = 255,
        num_workers: int = 0,
    ) -> None:
        if not isinstance(clips, ClipReader):
            raise ValueError(f"clips: expected a reader of files on disk, got {type(clips).__name__}")
        check_one_of("missing", missing, ("raise", "empty"))
        _check_white(white)
        self.folder = Path(folder)
        self.clips = clips
        self.missing = missing
        self.resize = resize
        self.white = white
        self.num_workers = num_workers
        self.of_classes = num_classes(clips) > 1
        self.pictures = _find_pictures(self.folder, clips.clips)
        self._check_missing()
        if not self.of_classes:
            self._check_levels()

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Prediction:
        """Return the prediction for one clip, a batch of one.

        Raises:
            ValueError: if a picture is damaged, has colours instead of grey levels or colours of no class,
                or differs in size from the ground truth.
        """
        files = self.clips.clips[index]
        masks, counted, padding = _ground_truth(self.clips, index)
        size = (masks.shape[-2], masks.shape[-1])
        predicted = torch.zeros(masks.shape, dtype=torch.int64 if self.of_classes else torch.float32)
        for second in counted.nonzero().flatten().tolist():
            path = self.pictures[index].get(second)
            if path is not None:
                predicted[second] = self._fit(self._read(path), size, path)
        logits = predicted[None] if self.of_classes else predicted.logit()[None, :, None]
        return Prediction(logits, masks[None], counted[None], [files.id], [files.category], padding[None])

    def __iter__(self) -> Iterator[Prediction]:
        """Iterate over all clips, one at a time."""
        return iter(DataLoader(self, batch_size=None, num_workers=self.num_workers))

    def _read(self, path: Path) -> Tensor:
        return read_predicted_classes(path) if self.of_classes else read_probability(path, white=self.white)

    def _fit(self, picture: Tensor, size: tuple[int, int], path: Path) -> Tensor:
        if picture.shape == size:
            return picture
        if not self.resize:
            raise ValueError(
                f"{path}: expected the size of the ground truth, {size[0]} x {size[1]}, got "
                f"{picture.shape[0]} x {picture.shape[1]}; read the ground truth at that size, or "
                "ask to resize"
            )
        if self.of_classes:
            return read_classes(path, size, fit=self.clips.fit)
        image = fit_picture(
            Image.fromarray(picture.numpy()),
            size,
            fit=self.clips.fit,
            resampling=Image.Resampling.BILINEAR,
            path=path,
            max_pixels=MAX_PIXELS,
        )
        return torch.from_numpy(np.array(image)).clamp(0, 1)

    def _check_missing(self) -> None:
        wanted = [
            (clip, second, found.get(second))
            for clip, found in zip(self.clips.clips, self.pictures, strict=True)
            for second, mask in enumerate(clip.masks[: self.clips.seconds])
            if mask is not None
        ]
        lacking = [(clip.id, second) for clip, second, path in wanted if path is None]
        if lacking and (self.missing == "raise" or len(lacking) == len(wanted)):
            name, second = lacking[0]
            raise FileNotFoundError(
                f"{self.folder}: no prediction for {len(lacking)} of {len(wanted)} frames, such as second "
                f"{second} of {name!r}; looked for {name}/{second}.png, {name}/{name}_{second}.png, and both "
                "below the category; missing 'empty' takes them for predicted empty"
            )

    def _check_levels(self) -> None:
        paths = (path for found in self.pictures for path in found.values())
        read = (_read_levels(path, white=self.white, max_pixels=MAX_PIXELS) for path in paths)
        highest = ((levels.max(), white) for levels, white in read if levels.any())  # empty ones tell nothing
        seen = list(islice(highest, 32))
        if seen and all(level == 1 < white for level, white in seen):
            white = seen[0][1]
            remedy = "white is 1" if white == self.white else "store them with 8 bits, and white is 1"
            raise ValueError(
                f"white: the pictures in {self.folder} hold the levels 0 and 1 alone, which would be "
                f"probabilities of 0 and 1/{white}; if 1 means foreground, {remedy}"
            )


def read_probability(path: str | Path, *, white: int = 255, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a grey picture as probabilities.

    Args:
        path: a PNG, JPEG or BMP file of 1, 8 or 16 bits, grey, or with a palette or RGB values that are all
            grey; transparency is ignored.
        white: the grey level of probability 1 in an 8-bit picture, from 1 to 255.
        max_pixels: largest number of pixels that is decoded.

    Returns:
        ``(H, W)``, float32, in ``[0, 1]``.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is damaged, has colours or a level above ``white``, or ``white`` is out of
            range.
    """
    levels, white = _read_levels(path, white=white, max_pixels=max_pixels)
    return torch.from_numpy(levels.astype(np.float32)) / white


def _read_levels(path: str | Path, *, white: int, max_pixels: int) -> tuple[NDArray[np.generic], int]:
    """Return the grey levels of a picture and the level of probability 1, fixed for 1 and 16 bits."""
    _check_white(white)
    image = open_picture(path, max_pixels=max_pixels)
    if image.mode.startswith("I"):
        return np.asarray(image), _WHITE_OF_16_BITS
    if image.mode == "1":
        return np.asarray(image), 1
    if image.mode == "L":
        levels = np.asarray(image)
    else:
        channels = np.asarray(image.convert("RGB"))
        levels = channels[..., 0]
        if (channels != levels[..., None]).any():
            raise ValueError(f"{path}: expected grey levels, got colours")
    if levels.max(initial=0) > white:
        raise ValueError(f"{path}: expected grey levels up to white={white}, got {levels.max()}")
    return levels, white


def _check_white(white: int) -> None:
    if not (1 <= white <= 255 and white % 1 == 0):
        raise ValueError(f"white: expected a grey level from 1 to 255, got {white}")


def read_predicted_classes(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture in the colours of AVSBench-semantic as classes.

    Args:
        path: a PNG or BMP file.
        max_pixels: largest number of pixels that is decoded.

    Returns:
        ``(H, W)``, int64, in ``[0, 71)``.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is damaged or holds a colour of no class.
    """
    classes = read_classes(path, num_classes=2**24, max_pixels=max_pixels)
    foreign = classes[classes >= NUM_CLASSES]
    if len(foreign):
        raise ValueError(
            f"{path}: expected colours of {NUM_CLASSES} classes, got {len(foreign)} pixels of other colours; "
            "grey pictures are of binary masks, and resizing a picture blends its colours"
        )
    return classes


def _find_pictures(folder: Path, clips: Sequence[ClipFiles]) -> list[dict[int, Path]]:
    """Return the pictures of every clip by second, counted from 0."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of predictions")
    found = []
    for clip in clips:
        places = (folder / clip.id, folder / clip.category / clip.id)
        place = next((place for place in places if place.is_dir()), None)
        pattern = re.compile(rf"(?:{re.escape(clip.id)}_)?(\d{{1,6}})\.png")
        pictures: dict[int, Path] = {}
        for path in [] if place is None else sorted(place.iterdir()):
            if match := pattern.fullmatch(path.name):
                other = pictures.setdefault(int(match[1]), path)
                if other != path:
                    raise ValueError(
                        f"{path}: expected one picture of number {int(match[1])}, got {other.name} too; "
                        "remove the one that is not meant"
                    )
        found.append(pictures)
    start = 0 if any(0 in pictures for pictures in found) else 1
    return [{number - start: path for number, path in pictures.items()} for pictures in found]


def _ground_truth(clips: ClipReader, index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the masks of a clip, which of its frames count, and which are padding.

    Its frames are read only if necessary.
    """
    files = clips.clips[index]
    paths = [path for path in files.masks if path is not None]
    if clips.transform is not None or clips.on_error != "raise" or not paths:
        clip = clips[index]
        return clip.masks, clip.valid & clip.labelled, ~clip.valid
    masks = torch.stack([clips._read_mask(path) for path in paths])
    counted = torch.tensor([path is not None for path in files.masks])
    spread = masks.new_zeros(len(counted), *masks.shape[1:])
    spread[counted] = masks
    seconds = len(counted) if clips.seconds is None else clips.seconds
    valid = _fit_length(torch.ones_like(counted), seconds)
    return _fit_length(spread, seconds), _fit_length(counted, seconds), ~valid
