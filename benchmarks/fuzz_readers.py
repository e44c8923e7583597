"""Feed the readers damaged and hostile files: each must be read, or refused with an error that names it.

  python benchmarks/fuzz_readers.py --cases 100000 --seed 0 --out benchmarks/results/cpu/fuzz-readers.json

A case is an intact file that was damaged: bits are flipped, parts cut, doubled or spliced, numbers in the
header made extreme, names of functions inserted. While a reader works, an audit hook stops everything except
opening that file for reading, a timer stops what takes too long, and a limit on the address space stops what
takes too much memory. Anything but a valid result, or a ValueError or FileNotFoundError that names the file,
is a failure: it is printed, and its file is kept. The same seed gives the same cases.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import os
import pickle
import platform
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import PIL.TiffImagePlugin  # JPEG files with EXIF need it, and nothing may be imported while a file is read
import torch
from PIL import Image
from torch import Tensor

import avslib
from avslib.data.layout import PLAIN, read_table
from avslib.media.audio import read_wav
from avslib.media.frame import read_frame
from avslib.media.mask import read_mask
from avslib.media.palette import class_palette, read_classes
from avslib.media.tensor_pickle import MAX_BYTES, load_tensor_pickle

SECONDS = 5.0
"""Most CPU time that reading a file may take; wall-clock time may be ten times as long."""
TIMERS = {signal.ITIMER_PROF: 1, signal.ITIMER_REAL: 10}
HEADROOM = 1 << 31
"""Bytes that reading a file may take: the largest picture that is read has 2**26 pixels."""
HARMLESS = {"array.__new__"}
"""Audit events that do nothing outside the process: a JPEG's tables come in such arrays."""
EXTREME = [
    0,
    1,
    2,
    3,
    4,
    8,
    *(2**bits + add for bits in (7, 8, 15, 16, 31, 32, 62, 63, 64) for add in (-1, 0)),
]


class Kind(NamedTuple):
    """A kind of file: its reader, a check of every result, intact files, and words to insert."""

    read: Callable[[Path], Any]
    holds: Callable[[Any], bool]
    whole: list[bytes]
    words: bytes = b""
    """The words, separated by spaces."""
    finish: Callable[[random.Random, bytes], bytes] = lambda rng, data: data
    """Repairs checksums and sizes in some cases, so that damage beyond them is tested too."""


class Failure(NamedTuple):
    """A case that went wrong; seed, kind and number reproduce it."""

    kind: str
    number: int
    problem: str
    file: str


class Stopped(BaseException):
    """Stops a reader; not an Exception, so that readers do not catch it."""


class Watch:
    """Stops what no reader may do, and records it in `problems` in case the reader catches even that."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.problems: list[str] = []
        sys.addaudithook(self._hear)
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, lambda *_: self._stop("took too long"))

    @contextlib.contextmanager
    def over(self, path: Path, seconds: float) -> Iterator[None]:
        """Allow nothing but reading one file."""
        self.problems.clear()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            self.path = path
            for timer, share in TIMERS.items():
                signal.setitimer(timer, seconds * share)
            try:
                yield
            finally:
                for timer in TIMERS:
                    signal.setitimer(timer, 0)
                self.path = None
                self.problems += [f"warned: {warning.message}" for warning in heard]

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.path is None or event in HARMLESS:
            return
        if event == "open":
            name, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            if name in (self.path, str(self.path)) and not writes:
                return
        self._stop(f"did {event}{arguments!r}"[:300])

    def _stop(self, problem: str) -> None:
        self.problems.append(problem)
        raise Stopped(problem)


def try_case(kind: Kind, data: bytes, path: Path, watch: Watch, seconds: float) -> tuple[bool, str]:
    """Return whether the file was read, and a description of what went wrong, normally empty."""
    path.write_bytes(data)
    result, error = None, None
    with watch.over(path, seconds):
        try:
            result = kind.read(path)
        except (Exception, Stopped) as raised:
            error = raised
    problems = list(watch.problems)
    if error is None:
        problems += [] if kind.holds(result) else [f"gave {str(result)[:200]}"]
    elif not isinstance(error, ValueError | FileNotFoundError | Stopped):
        problems.append("".join(traceback.format_exception(error)))
    elif path.name not in str(error) and not problems:
        problems.append(f"does not name the file: {error}")
    if any(isinstance(cause, MemoryError) or "allocate" in str(cause) for cause in causes(error)):
        problems.append(f"ran out of memory: {error}")
    return error is None, "; ".join(problems)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def damage(kind: Kind, rng: random.Random) -> bytes:
    """Take one of a kind's intact files and damage it up to eight times, or not at all."""
    data = bytearray(rng.choice(kind.whole))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        end = min(len(data), 64) if rng.random() < 0.5 else len(data)  # half of the damage goes to headers
        at = rng.randrange(end + 1)
        length = rng.choice((1, 1, 2, 4, 8, 16, 100))
        match rng.randrange(9):
            case 0 | 1:
                data[at : at + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1])
            case 2:
                data[at:at] = rng.randbytes(length)
            case 3:
                del data[at : at + length]
            case 4:
                del data[at:]
            case 5:
                data[at:at] = data[at : at + length] * rng.choice((1, 1, 2, 30))
            case 6:
                other = rng.choice(kind.whole)
                data[at:] = other[rng.choice((at, rng.randrange(len(other) + 1))) :]
            case 7:
                word = rng.choice(kind.words.split(b" "))
                data[at : at + rng.choice((0, len(word)))] = word
            case 8:
                width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
                data[at : at + width] = (rng.choice(EXTREME) % 256**width).to_bytes(width, order)
    return kind.finish(rng, bytes(data))


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


HOSTILE = [Call(os.system, "false"), Call(eval, "1"), Call(exec, ""), Call(subprocess.Popen, ["false"])]
PICKLE_WORDS = (
    b"cos\nsystem\n cposix\nsystem\n cbuiltins\neval\n cbuiltins\nexec\n ctorch\nload\n cpickle\nloads\n "
    b"c__main__\n__dict__\n ios\nsystem\n \x8c\x02os\x8c\x06system\x93 \x8c\x08builtins\x8c\x04eval\x93 "
    b"X\x05\0\0\0false \x85R ( t R b o \x81 \x92 } ] s u 0 2 Q P1\n . \x82\x01 I1\n L1L\n F1\n V\\u\n "
    b"r\xff\xff\xff\xff \x8b\xff\xff\xff\x7f \x8e\xff\xff\xff\xff\xff\xff\xff\x7f"
)


def pickles() -> list[bytes]:
    x = torch.arange(12.0).view(2, 1, 2, 3)
    values: list[Any] = [x, x.mT, x.double(), x.half(), x > 5, torch.zeros(0, 2), x.clone().requires_grad_()]
    values += [torch.nn.Parameter(x), x.numpy(), np.asfortranarray(x.numpy()), np.arange(6, dtype=">i2")]
    values += [np.array(["a"]), [x], {"a": 1}, *HOSTILE]
    return [pickle.dumps(value, protocol) for value in values for protocol in (2, 3, 4, 5)]


def storages() -> list[bytes]:
    """Return the bytes of storages as pickled tensors hold them: a pickle in a pickle."""
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool)
    values = [torch.ones(4, dtype=dtype)._typed_storage() for dtype in dtypes]
    files = [io.BytesIO() for _ in range(2 * (len(values) + 2))]
    for file, value in zip(files, 2 * [*values, {"a": HOSTILE[0]}, HOSTILE[1]], strict=True):
        torch.save(value, file, _use_new_zipfile_serialization=file in files[::2])
    return [file.getvalue() for file in files]


def wrap_storage(rng: random.Random, storage: bytes) -> bytes:
    size = rng.choice([(2, 2), (4,), (1,), (0,), (2**40,), (4, 0)])
    inner = Call(torch.storage._load_from_bytes, storage)
    tensor = Call(torch._utils._rebuild_tensor_v2, inner, 0, size, (1,) * len(size), False, None)
    return pickle.dumps(tensor, rng.choice((2, 4, 5)))


WAV_WORDS = b"RIFF RIFX RF64 WAVE fmt data ds64 LIST fact \0\0\xc0\x7f \0\0\x80\x7f \x01\0\x80\x7f"


def wav(samples: bytes, bits: int, *, kind: int = 1, channels: int = 1, form: str = "RIFF") -> bytes:
    order, block = "<>"[form == "RIFX"], channels * bits // 8
    header = struct.pack(order + "HHIIHH", kind, channels, 8_000, 8_000 * block, block, bits)
    if kind == 0xFFFE:
        header += struct.pack("<HHIIHH", 22, bits, 4, 1, 0, 16) + bytes.fromhex("800000aa00389b71")
    sizes = struct.pack("<4sIQQQ", b"ds64", 24, 68 + len(samples), len(samples), 0) if form == "RF64" else b""
    sound = struct.pack(order + "4sI", b"data", len(samples)) + samples
    body = b"WAVE" + sizes + struct.pack(order + "4sI", b"fmt ", len(header)) + header + sound
    return form.encode() + struct.pack(order + "I", 2**32 - 1 if form == "RF64" else len(body)) + body


def wavs() -> list[bytes]:
    noise, ramp = bytes(range(96)), np.linspace(-1, 1, 12)
    files = [wav(noise, bits, channels=channels) for bits in (8, 16, 24, 32) for channels in (1, 2)]
    files += [wav(ramp.astype("<f4").tobytes(), 32, kind=3), wav(ramp.tobytes(), 64, kind=3)]
    files += [wav(noise, 24, kind=0xFFFE), wav(noise, 16, form="RIFX"), wav(noise, 16, form="RF64")]
    stream = files[0][:40] + b"\xff\xff\xff\xff" + files[0][44:]
    return [*files, stream]


def resize_wav(rng: random.Random, data: bytes) -> bytes:
    fixed = bytearray(data)
    if rng.random() < 0.5 and len(data) > 12:
        fixed[4:8] = struct.pack("<I", len(data) - 8)
        if 0 < (at := data.find(b"data") + 4) < len(data) - 4 and rng.random() < 0.5:
            fixed[at : at + 4] = struct.pack("<I", len(data) - at - 4)
    return bytes(fixed)


PICTURE_WORDS = (
    b"IHDR IDAT PLTE tRNS IEND acTL fcTL iCCP zTXt eXIf \xff\xd8 \xff\xd9 \xff\xc0 \xff\xc2 \xff\xc4 "
    b"\xff\xda \xff\xdb \xff\xdd \xff\xe1 \xff\xe2MPF\0 BM GIF89a 8BPS II*\0 %!PS-Adobe-3.0 %PDF-1.4"
)


def pictures(modes: str, *formats: str) -> list[bytes]:
    classes = torch.randint(71, (19, 23), generator=torch.Generator().manual_seed(0))
    coloured = Image.fromarray(class_palette()[classes].numpy())
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    files = []
    for mode in modes.split():
        image = coloured.convert("L").convert("I").convert(mode) if mode == "I;16" else coloured.convert(mode)
        for name in formats:
            for options in ({}, {"exif": exif, "progressive": True}):
                file = io.BytesIO()
                with contextlib.suppress(OSError):  # not every format supports every mode
                    image.save(file, name, **options)
                    files.append(file.getvalue())
    return files


def repair_png(rng: random.Random, data: bytes) -> bytes:
    fixed, at = bytearray(data), 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data) and rng.random() < 0.9:
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 <= len(data):
            fixed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(fixed)


COLUMNS = dict.fromkeys(("name", "category", "split"), PLAIN)
TABLE_WORDS = (
    b'../ .. /etc/passwd C:\\ \\\\ \0 " "" , \n \r ; =1+1 \x1a \xef\xbb\xbf \xff\xfe name split \xe2\x80\xae '
)


def tables() -> list[bytes]:
    rows = [f"clip{i},{i},dög,{'train' if i % 2 else 'test'}" for i in range(4)]
    text = "\r\n".join(["name,start,category,split", *rows])
    quoted = '"name","category","split","other"\n"a ""b""","x,y","val","' + "z" * 150_000 + '"\n'
    return [
        text.encode(),
        text.encode("utf-8-sig"),
        text.encode("utf-16"),
        text.encode("latin1"),
        quoted.encode(),
    ]


def kinds() -> dict[str, Kind]:
    """Return the kinds of files by name."""

    def is_tensor(tensor: Any) -> bool:
        return type(tensor) is Tensor and tensor.is_contiguous() and tensor.nbytes <= MAX_BYTES

    def is_sound(sound: Any) -> bool:
        return sound[0].dtype == torch.float32 and bool(sound[0].isfinite().all()) and sound[1] > 0

    def is_frame(frame: Any) -> bool:
        return frame.dtype == torch.uint8 and frame.ndim == 3 and len(frame) == 3 and frame.numel() > 0

    def is_mask(mask: Any, classes: int = 2) -> bool:
        return mask.dtype == torch.int64 and mask.ndim == 2 and 0 <= mask.min() <= mask.max() < classes

    def is_table(rows: Any) -> bool:
        return all(
            row.keys() == COLUMNS.keys() and not set("/\\\0") & set("".join(row.values())) for row in rows
        )

    frames = pictures("RGB L P 1 RGBA LA CMYK I;16", "PNG", "JPEG", "BMP")
    masks, colours = pictures("1 L P", "PNG", "BMP"), pictures("RGB P", "PNG")

    def read_crop(path: Path) -> Tensor:
        return read_frame(path, (16, 16), fit="crop")

    return {
        "tensor pickle": Kind(load_tensor_pickle, is_tensor, pickles(), PICKLE_WORDS),
        "storage in a pickle": Kind(load_tensor_pickle, is_tensor, storages(), PICKLE_WORDS, wrap_storage),
        "sound": Kind(read_wav, is_sound, wavs(), WAV_WORDS, resize_wav),
        "frame": Kind(read_frame, is_frame, frames, PICTURE_WORDS, repair_png),
        "cropped frame": Kind(read_crop, is_frame, frames, PICTURE_WORDS, repair_png),
        "mask": Kind(read_mask, is_mask, masks, PICTURE_WORDS, repair_png),
        "colour mask": Kind(read_classes, lambda mask: is_mask(mask, 71), colours, PICTURE_WORDS, repair_png),
        "table": Kind(lambda path: read_table(path, COLUMNS), is_table, tables(), TABLE_WORDS),
    }


def fuzz(
    name: str, kind: Kind, *, cases: int, seed: int, folder: Path, watch: Watch, seconds: float = SECONDS
) -> tuple[dict[str, float], list[Failure]]:
    """Read damaged files of one kind, and keep the files of failures in the folder."""
    path = folder / "case.bin"
    failures, times, number_read = [], [], 0
    for data in kind.whole:  # intact files first: imports on first use are not failures
        path.write_bytes(data)
        with contextlib.suppress(Exception):
            kind.read(path)
    for number in range(cases):
        if number % 1000 == 0:
            faulthandler.dump_traceback_later(300, exit=True)  # the timer cannot stop code outside Python
        data = damage(kind, random.Random(f"{seed}/{name}/{number}"))
        begun = time.perf_counter()
        is_read, problem = try_case(kind, data, path, watch, seconds)
        times.append(time.perf_counter() - begun)
        number_read += is_read
        if problem:
            kept = folder / f"{name}-{seed}-{number}.bin".replace(" ", "-")
            kept.write_bytes(data)
            failures.append(Failure(name, number, problem, str(kept)))
    faulthandler.cancel_dump_traceback_later()
    path.unlink()
    row = {"cases": cases, "read": number_read, "refused": cases - number_read, "failures": len(failures)}
    return row | {"seconds": round(sum(times), 2), "slowest ms": round(1e3 * max(times), 1)}, failures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000, help="over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files of failures; a new one if not given")
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faulthandler.enable()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    versions |= {"pillow": PIL.__version__, "avslib": avslib.__version__}
    print(versions)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + HEADROOM,) * 2)
    watch = Watch()
    rows, failures = {}, []
    for name, kind in (known := kinds()).items():
        cases = -(-arguments.cases // len(known))
        rows[name], failed = fuzz(name, kind, cases=cases, seed=arguments.seed, folder=folder, watch=watch)
        print(f"{name:20}", *(f"{key} {value:8}" for key, value in rows[name].items()), flush=True)
        print(*failed[:20], sep="\n", end="\n" * bool(failed))
        failures += failed
    if arguments.out is not None:
        record = {
            "versions": versions,
            "machine": platform.processor() or platform.machine(),
            "seed": arguments.seed,
            "cases": sum(row["cases"] for row in rows.values()),
            "seconds": round(sum(row["seconds"] for row in rows.values()), 2),
            "peak memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "kinds": rows,
            "failures": [failure._asdict() for failure in failures[:100]],
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
