"""Small synthesiser of scores: sums of decaying sines, in NumPy.

sound = synthesise(score)
Path("score.wav").write_bytes(wav_bytes(sound))
"""

from __future__ import annotations

import io
import wave

import numpy as np

from generative.music.score import Score

__all__ = ["RATE", "synthesise", "wav_bytes"]

RATE = 22_050
"""Samples a second; overtones reach 11 kHz."""
HARMONICS = (1.0, 0.46, 0.28, 0.15, 0.09, 0.05, 0.03)
"""Loudness of a tone and its overtones."""
ATTACK, RELEASE = 0.012, 0.14
"""Seconds in which a note fades in and out; without them it clicks."""
DECAY = 0.9
"""Seconds after which a held note has 1/e of its loudness; overtones fade sooner."""


def synthesise(score: Score, bpm: float = 84.0, rate: int = RATE) -> np.ndarray:
    """Synthesise a score, float32 (seconds * rate,) within -0.9 and 0.9; 0.1 s without notes.

    Args:
        bpm: quarter notes a minute.
        rate: samples a second.
    """
    second = 60 / bpm
    total = float(score.length) * second + RELEASE + 0.1
    sound = np.zeros(int(total * rate), dtype=np.float64)
    for start, duration, pitch, _ in score.notes:
        tone = _tone(pitch, float(duration) * second, rate)
        first = int(float(start) * second * rate)
        tone = tone[: len(sound) - first]
        sound[first : first + len(tone)] += tone
    loudest = np.abs(sound).max(initial=0.0)
    return (sound * (0.9 / loudest if loudest else 1.0)).astype(np.float32)


def _tone(pitch: int, seconds: float, rate: int) -> np.ndarray:
    """Sound of one note; equal temperament, A4 = 440 Hz, without overtones above half the rate."""
    t = np.arange(int((seconds + RELEASE) * rate)) / rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    tone = np.zeros_like(t)
    for k, loudness in enumerate(HARMONICS, start=1):
        if k * frequency < rate / 2:
            envelope = np.exp(-t * (1 + 0.35 * (k - 1)) / DECAY)
            tone += loudness * envelope * np.sin(2 * np.pi * k * frequency * t)
    # Low tones sound softer than high ones of the same amplitude.
    weight = (220 / max(frequency, 55)) ** 0.3
    ends = np.minimum(1, t / ATTACK) * np.clip((seconds + RELEASE - t) / RELEASE, 0, 1)
    return weight * ends * tone


def wav_bytes(sound: np.ndarray, rate: int = RATE) -> bytes:
    """Encode sound (N,) within -1 and 1 as a WAV file of one channel and 16 bits."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(sound, -1, 1) * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()
