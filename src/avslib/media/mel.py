"""Compute log-mel examples from a waveform, with VGGish's constants by default."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from avslib._checks import check_one_of, check_positive, check_shape
from avslib.media.audio import check_waveform


def mel_matrix(
    *, bins: int, sample_rate: int, mel_bands: int = 64, min_hz: float = 125.0, max_hz: float = 7500.0
) -> Tensor:
    """Return the weights that turn a magnitude spectrum into mel bands.

    The bands are triangles of height 1 that are straight *in mel* (HTK's, ``1127 ln(1 + f / 700)``), not in
    Hz as in most filter banks. The bin at 0 Hz belongs to no band.

    Args:
        bins: number of bins of the spectrum, from 0 Hz to half the sample rate.
        sample_rate: sample rate of the waveform, Hz.
        mel_bands: number of bands.
        min_hz: lower edge of the lowest band, Hz.
        max_hz: upper edge of the highest band, Hz.

    Returns:
        ``(bins, mel_bands)``, float64, in ``[0, 1]``, on the CPU.

    Raises:
        ValueError: unless ``0 <= min_hz < max_hz <= sample_rate / 2``, and ``bins`` and ``mel_bands`` are
            above 0.

    Example:
        >>> mel_matrix(bins=257, sample_rate=16000).shape
        torch.Size([257, 64])
    """
    check_positive("bins", bins)
    check_positive("mel_bands", mel_bands)
    if not 0 <= min_hz < max_hz <= sample_rate / 2:
        raise ValueError(
            f"min_hz, max_hz: expected 0 <= min_hz < max_hz <= {sample_rate / 2:g} Hz (half of sample_rate), "
            f"got {min_hz:g} and {max_hz:g}"
        )

    def to_mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    frequencies = to_mel(torch.linspace(0, sample_rate / 2, bins, dtype=torch.float64, device="cpu"))
    lowest, highest = to_mel(torch.tensor([min_hz, max_hz], dtype=torch.float64, device="cpu")).tolist()
    edges = torch.linspace(lowest, highest, mel_bands + 2, dtype=torch.float64, device="cpu")
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - lower) / (centre - lower)
    falling = (upper - frequencies[:, None]) / (upper - centre)
    weights = torch.minimum(rising, falling).clamp(min=0)
    weights[0] = 0
    return weights


_STEPS = 3072
"""Steps that are computed at a time: the spectrum of a whole hour would take 4.7 GB."""
# A matrix made in inference mode could never take part in a gradient, even in later calls.
_cached_mel_matrix = functools.lru_cache(maxsize=8)(torch.inference_mode(False)(mel_matrix))


def log_mel_examples(
    waveform: Tensor,
    *,
    sample_rate: int = 16_000,
    window_seconds: float = 0.025,
    hop_seconds: float = 0.010,
    mel_bands: int = 64,
    min_hz: float = 125.0,
    max_hz: float = 7500.0,
    log_offset: float = 0.01,
    example_steps: int = 96,
    example_hop_steps: int = 96,
) -> Tensor:
    """Compute log-mel examples of a waveform, as VGGish does (Hershey et al., ICASSP 2017).

    The spectrum holds magnitudes, not powers, under a periodic Hann window. The waveform is not padded:
    sound that does not fill an example is dropped, so fewer than 15,600 samples (0.975 s) give none. Example
    ``i`` starts at ``0.96 i`` s. The computation runs in float64, since near silence the logarithm amplifies
    float32 errors to 5e-4. The defaults are the constants of VGGish and of AVSBench's log-mels.

    Args:
        waveform: mono sound, ``(S,)`` or ``(..., S)``, float in ``[-1, 1]``, on any device.
        sample_rate: sample rate, Hz; :func:`~avslib.media.resample` converts a waveform to it.
        window_seconds: length of the window, s; it is padded to a power of two for the FFT.
        hop_seconds: distance between two steps, s.
        mel_bands: number of mel bands.
        min_hz: lower edge of the lowest band, Hz.
        max_hz: upper edge of the highest band, Hz.
        log_offset: offset added before the logarithm; silence becomes its logarithm.
        example_steps: length of one example, steps.
        example_hop_steps: distance between two examples, steps.

    Returns:
        ``(..., N, 1, example_steps, mel_bands)``, float32; N may be 0. Gradients flow to the waveform.

    Raises:
        ValueError: if the waveform holds integers or an argument is out of range.

    Example:
        >>> import torch
        >>> log_mel_examples(torch.zeros(80_000)).shape
        torch.Size([5, 1, 96, 64])
        >>> log_mel_examples(torch.zeros(2, 15_599)).shape
        torch.Size([2, 0, 1, 96, 64])
    """
    check_waveform(waveform, "... s")
    window = round(sample_rate * window_seconds)
    hop = round(sample_rate * hop_seconds)
    check_positive("sample_rate * window_seconds", window)
    check_positive("sample_rate * hop_seconds", hop)
    check_positive("log_offset", log_offset)
    check_positive("example_steps", example_steps)
    check_positive("example_hop_steps", example_hop_steps)
    fft = 2 ** math.ceil(math.log2(window))
    weights = _cached_mel_matrix(
        bins=fft // 2 + 1, sample_rate=sample_rate, mel_bands=mel_bands, min_hz=min_hz, max_hz=max_hz
    )

    samples, leading = waveform.shape[-1], waveform.shape[:-1]
    steps = (samples - window) // hop + 1
    count = max(0, (steps - example_steps) // example_hop_steps + 1)
    if count == 0:
        return waveform.new_zeros((*leading, 0, 1, example_steps, mel_bands), dtype=torch.float32)

    device = waveform.device
    if device.type == "mps":  # does not support float64
        waveform = waveform.cpu()
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64, device=waveform.device)
    weights = weights.to(waveform.device)
    parts = []
    at_a_time = max(1, _STEPS // example_hop_steps)
    for first in range(0, count, at_a_time):
        used = (min(at_a_time, count - first) - 1) * example_hop_steps + example_steps
        start = first * example_hop_steps * hop
        stretch = waveform[..., start : start + (used - 1) * hop + window].double()
        spectrum = torch.fft.rfft(stretch.unfold(-1, window, hop) * hann, n=fft).abs()
        log_mel = torch.log(spectrum @ weights + log_offset)
        examples = log_mel.unfold(-2, example_steps, example_hop_steps).mT.unsqueeze(-3)
        parts.append(examples.to(torch.float32))
    return torch.cat(parts, dim=-4).contiguous().to(device)


def fit_examples(examples: Tensor, seconds: int, *, padding: str = "repeat") -> Tensor:
    """Cut or pad log-mel examples to one for each second of a clip.

    Five seconds of sound give exactly five examples; a shorter sound gives fewer. The log-mels that come with
    S4 and MS3 then repeat the last one. The published loader of AVSS appends zeros, which are not silence
    (silence is log 0.01).

    Args:
        examples: ``(N, 1, steps, bands)``.
        seconds: T, the number of examples to return.
        padding: ``"repeat"`` repeats the last example, ``"zero"`` appends zeros.

    Returns:
        ``(T, 1, steps, bands)``.

    Raises:
        ValueError: if there is no example to repeat, ``seconds`` is not above 0, or ``padding`` is unknown.

    Example:
        >>> import torch
        >>> fit_examples(torch.arange(3.0).view(3, 1, 1, 1), 5).flatten()
        tensor([0., 1., 2., 2., 2.])
    """
    check_shape("examples", examples, "n 1 steps bands")
    check_positive("seconds", seconds)
    check_one_of("padding", padding, ("repeat", "zero"))
    lacking = seconds - len(examples)
    if lacking <= 0:
        return examples[:seconds]
    if padding == "zero":
        return torch.cat([examples, examples.new_zeros(lacking, *examples.shape[1:])])
    if len(examples) == 0:
        raise ValueError(
            "examples: expected at least one to repeat, got none; a sound shorter than 0.975 s gives none, "
            "so append silence to the waveform first"
        )
    return torch.cat([examples, examples[-1:].expand(lacking, -1, -1, -1)])


class LogMel(nn.Module):
    """Compute log-mel examples from a waveform: `log_mel_examples` as a module without parameters.

    Args:
        sample_rate: sample rate, Hz.
        window_seconds: length of the window, s.
        hop_seconds: distance between two steps, s.
        mel_bands: number of mel bands.
        min_hz: lower edge of the lowest band, Hz.
        max_hz: upper edge of the highest band, Hz.
        log_offset: offset added before the logarithm.
        example_steps: length of one example, steps.
        example_hop_steps: distance between two examples, steps.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> LogMel()(torch.zeros(2, 80_000)).shape
        torch.Size([2, 5, 1, 96, 64])
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.010,
        mel_bands: int = 64,
        min_hz: float = 125.0,
        max_hz: float = 7500.0,
        log_offset: float = 0.01,
        example_steps: int = 96,
        example_hop_steps: int = 96,
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self._compute = functools.partial(
            log_mel_examples,
            sample_rate=sample_rate,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            mel_bands=mel_bands,
            min_hz=min_hz,
            max_hz=max_hz,
            log_offset=log_offset,
            example_steps=example_steps,
            example_hop_steps=example_hop_steps,
        )
        self._compute(torch.zeros(0))  # raises if an argument is out of range

    def forward(self, waveform: Tensor) -> Tensor:
        """Return log-mel examples ``(..., N, 1, example_steps, mel_bands)``, float32.

        Args:
            waveform: ``(..., S)``, float in ``[-1, 1]``, at ``sample_rate``.

        Raises:
            ValueError: if the waveform holds integers.
        """
        return self._compute(waveform)
