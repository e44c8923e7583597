"""Convert a clip to the files of one sample in a tar file and back, in the layout of WebDataset."""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from collections.abc import Iterator, Mapping
from mmap import mmap
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from avslib.clip import Clip
from avslib.media._image import MAX_PIXELS
from avslib.storage.stored import check_decoded, narrow_masks

ENCODINGS = ("npy", "png")
BLOCK = 512
"""Block size of a tar file, bytes; headers and contents begin at multiples of it."""
END = bytes(2 * BLOCK)
"""End-of-archive mark of a tar file."""
_MAX_EXTENDED_HEADER = 64 * 2**10
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)


class Member(NamedTuple):
    """A file in a tar file; as in WebDataset, the key ends at the first dot of the file name."""

    key: str
    extension: str
    begin: int
    """Byte at which it begins: that of its header, or of an extra header before it."""
    start: int
    """Byte at which its contents begin."""
    size: int
    """Size of its contents, bytes."""


def encode_clip(clip: Clip, encoding: str) -> dict[str, bytes]:
    """Return the files of a clip, keyed and sorted by extension.

    Args:
        clip: a decoded clip with uint8 frames.
        encoding: ``"npy"`` for arrays, which are fastest to read; ``"png"`` for a picture of each frame and
            mask, which is smaller. Both are lossless.

    Raises:
        ValueError: if a field has another type or shape, or masks for PNG hold classes above 255.
    """
    check_decoded(clip)
    masks = narrow_masks(clip.masks)
    about = {"id": clip.id, "labelled": clip.labelled.tolist(), "valid": clip.valid.tolist()}
    files = {
        "json": json.dumps(about).encode(),
        "log_mel.npy": _to_npy(clip.log_mel.to(torch.float32)),
    }
    if encoding == "npy":
        return {"frames.npy": _to_npy(clip.frames), **files, "masks.npy": _to_npy(masks)}
    if masks.dtype != torch.uint8:
        raise ValueError(f"masks: expected classes 0 to 255 for PNG, got {int(masks.max())}; take 'npy'")
    for second, (frame, mask) in enumerate(zip(clip.frames, masks, strict=True)):
        files[f"frame_{second}.png"] = _to_png(frame.permute(1, 2, 0))
        files[f"mask_{second}.png"] = _to_png(mask)
    return dict(sorted(files.items()))


def decode_clip(files: Mapping[str, memoryview]) -> Clip:
    """Undo :func:`encode_clip`; frames stay uint8.

    Args:
        files: contents by extension; other extensions are ignored. Tensors from arrays share their memory.

    Raises:
        ValueError: if one is missing or damaged.
    """
    name, labelled, valid = _read_about(files)
    if "frames.npy" in files:
        frames = _from_npy(files, "frames.npy", torch.uint8)
        masks = _from_npy(files, "masks.npy", torch.uint8, torch.int16)
    else:
        seconds = range(len(labelled))
        frames = _from_png(files, [f"frame_{second}.png" for second in seconds], "RGB").permute(0, 3, 1, 2)
        masks = _from_png(files, [f"mask_{second}.png" for second in seconds], "L")
    clip = Clip(
        frames=frames.contiguous(),
        log_mel=_from_npy(files, "log_mel.npy", torch.float32),
        masks=masks.long(),
        labelled=torch.tensor(labelled),
        valid=torch.tensor(valid),
        id=name,
    )
    check_decoded(clip)
    return clip


def tar_sample(key: str, files: Mapping[str, bytes]) -> bytes:
    """Return the part of a tar file that holds a sample, without owners and times."""
    parts = []
    for extension, data in files.items():
        header = tarfile.TarInfo(f"{key}.{extension}")
        header.size = len(data)
        parts += [header.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % BLOCK)]
    return b"".join(parts)


def list_members(data: memoryview | mmap, *, whole: bool = True) -> Iterator[Member]:
    """List the files in a tar file without unpacking it.

    Only plain files with names of at most 256 bytes are supported, which is enough for samples.

    Args:
        data: the tar file, or a part of it that begins with a header.
        whole: whether an end-of-archive mark must follow the last file.

    Raises:
        ValueError: if a header is damaged, a file ends beyond the data, or there is an entry other than a
            file or a folder; the message gives its byte.
    """
    begin = position = 0
    while position < len(data):
        block = data[position : position + BLOCK]
        if block == END[:BLOCK]:
            return
        try:
            header = tarfile.TarInfo.frombuf(bytes(block), "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ValueError(f"byte {position}: expected the header of a file ({error})") from error
        start = position + BLOCK
        if not 0 <= header.size <= len(data) - start:
            raise ValueError(
                f"byte {position}: expected {header.size} bytes of {header.name!r:.99}, "
                f"got {len(data) - start}"
            )
        if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            _check_extended_header(data[start : start + min(header.size, _MAX_EXTENDED_HEADER + 1)])
        elif not header.isreg() and not header.isdir():
            raise ValueError(
                f"byte {position}: expected a file, got {header.name!r:.99} of type {header.type!r}"
            )
        position = start + math.ceil(header.size / BLOCK) * BLOCK
        name = _NAME.fullmatch(header.name)
        if header.isreg() and name:  # WebDataset also ignores names without an extension
            yield Member(name[1], name[2], begin, start, header.size)
            begin = position
    if whole:
        raise ValueError(f"byte {position}: expected the end of the archive, or more")


def _check_extended_header(content: memoryview | bytes) -> None:
    """Accept the times that some writers store, but nothing that would override a header."""
    if len(content) > _MAX_EXTENDED_HEADER or re.search(rb"\d (path|size|GNU\.sparse[^=]*)=", content):
        raise ValueError("expected names of at most 256 bytes and files of at most 8 GiB, got longer ones")


def _to_npy(tensor: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, tensor.contiguous().numpy(), allow_pickle=False)
    return file.getvalue()


def _to_png(pixels: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _get(files: Mapping[str, memoryview], extension: str) -> memoryview:
    if extension not in files:
        raise ValueError(f"expected a file .{extension}, got only {', '.join(f'.{name}' for name in files)}")
    return files[extension]


def _from_npy(files: Mapping[str, memoryview], extension: str, *dtypes: torch.dtype) -> Tensor:
    """Return an array without copying it. Its header must match the size of the data."""
    data = _get(files, extension)
    file = io.BytesIO(data[:BLOCK])
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version} of the format")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # a damaged header raises errors of many types
        raise ValueError(f".{extension}: expected an array as NumPy saves it ({error})") from error
    body = data[file.tell() :]
    for candidate in dtypes:
        if dtype == _NUMPY[candidate] and not is_fortran:
            break
    else:
        raise ValueError(f".{extension}: expected {' or '.join(map(str, dtypes))} in C order, got {dtype}")
    if not shape or min(shape) < 1 or math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f".{extension}: expected {shape} numbers of {dtype}, got {len(body)} bytes")
    return torch.frombuffer(body, dtype=candidate).reshape(shape)


def _from_png(files: Mapping[str, memoryview], extensions: list[str], mode: str) -> Tensor:
    pictures = []
    for extension in extensions:
        data = _get(files, extension)
        try:
            picture = PngImageFile(io.BytesIO(data))
            if math.prod(picture.size) > MAX_PIXELS or picture.mode != mode:
                raise ValueError(f"{picture.width} x {picture.height} pixels of {picture.mode}")
            pictures.append(torch.from_numpy(np.array(picture)))
        except Exception as error:  # a damaged picture raises errors of many types
            raise ValueError(f".{extension}: expected a PNG picture of {mode} ({error})") from error
    if len({picture.shape for picture in pictures}) != 1:
        raise ValueError(f".{extensions[0]}: expected pictures of one size")
    return torch.stack(pictures)


_NUMPY = {torch.uint8: np.dtype("u1"), torch.int16: np.dtype("<i2"), torch.float32: np.dtype("<f4")}


def _read_about(files: Mapping[str, memoryview]) -> tuple[str, list[bool], list[bool]]:
    try:
        about = json.loads(bytes(_get(files, "json")))
        name, labelled, valid = (about[key] for key in ("id", "labelled", "valid"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f".json: expected 'id', 'labelled' and 'valid' ({error!r:.80})") from error
    flags = (labelled, valid)
    if not isinstance(name, str) or not all(
        isinstance(flag, list) and flag and all(type(item) is bool for item in flag) for flag in flags
    ):
        raise ValueError(f".json: expected a text and two lists of true or false, got {about!r:.80}")
    return name, labelled, valid
