"""Write a page with the sound and the piano rolls of MIDI files, in one HTML file.

python scripts/listen.py --music runs/musegan/midi --out runs/musegan/listen.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Ending, Positive

if TYPE_CHECKING:
    from generative.music.score import Score


@dataclass(frozen=True)
class Args(Checked):
    """Write a page to listen to MIDI files: their sound beside their piano rolls.

    The page holds all data and needs no network: a small synthesiser makes the sound.
    """

    music: tuple[Annotated[Path, Input("train_music_transformer.py")], ...] = (
        Path("runs/music_transformer/midi"),
    )
    """MIDI files (or kern, MusicXML), or folders of them; the last in the order of names are
    taken."""
    page: Annotated[Path, tyro.conf.arg(name="out"), Ending((".html", ".htm"))] = Path(
        "runs/listen.html"
    )
    """The HTML file."""
    title: str = "Generated music"
    most: Count = 6
    """Largest number of pieces on the page."""
    seconds: Positive = 15.0
    """Longest part of each piece in seconds."""
    bpm: Positive = 84.0
    """Quarter notes a minute."""


DEFAULT_PRESET = "page"
PRESETS = {"page": Args(), "smoke": Args(most=2, seconds=3.0)}
RATE = 16_000

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 880px; margin: 2.5rem auto;
  padding: 0 1rem; color: #222; background: #fafaf8; }}
h1 {{ font-weight: 600; }}
section {{ background: white; border-radius: 10px; padding: 1rem 1.2rem 1.2rem;
  margin: 1.2rem 0; box-shadow: 0 1px 4px rgba(0, 0, 0, .12); }}
h2 {{ font-size: 1rem; font-weight: 500; color: #555; margin: 0 0 .6rem; }}
.roll {{ position: relative; line-height: 0; }}
.roll img {{ width: 100%; border-radius: 4px; }}
.roll div {{ position: absolute; top: 0; bottom: 0; width: 2px; background: #222; left: 0; }}
audio {{ width: 100%; margin-top: .7rem; }}
</style></head><body>
<h1>{title}</h1>
"""
PIECE = """<section><h2>{name}</h2>
<div class="roll"><img alt="piano roll of {name}" src="data:image/png;base64,{picture}"><div></div>
</div>
<audio controls preload="auto" data-seconds="{seconds:.3f}" src="data:audio/wav;base64,{sound}">
</audio></section>
"""
TAIL = """<script>
for (const audio of document.querySelectorAll("audio")) {
  const line = audio.parentElement.querySelector(".roll div");
  const move = () => {
    const share = Math.min(1, audio.currentTime / Number(audio.dataset.seconds));
    line.style.left = `${100 * share}%`;
    if (!audio.paused) requestAnimationFrame(move);
  };
  audio.addEventListener("play", move);
  audio.addEventListener("seeked", move);
}
</script></body></html>
"""


def main(args: Args) -> Path:
    """Returns the path of the page."""
    from generative.music import parse_pieces
    from generative.training.files import write_file

    files = find_files(args.music)[-args.most :]
    pieces = [(path.stem, score) for path in files for score in parse_pieces(path)][-args.most :]
    sections = [section(name, score, args) for name, score in pieces]
    page = HEAD.format(title=escape(args.title)) + "".join(sections) + TAIL
    args.page.parent.mkdir(parents=True, exist_ok=True)
    write_file(args.page, page.encode())
    print(f"wrote {len(pieces)} pieces, {len(page) / 1e6:.1f} MB, into {args.page}")
    return args.page


def find_files(music: tuple[Path, ...]) -> list[Path]:
    """Files in the order given, and those in folders in the order of their names.

    Raises:
        FileNotFoundError: there are none; says which endings are read.
    """
    from generative.data.cello_suites import find_music

    files: list[Path] = []
    for path in music:
        if path.is_dir():
            files += find_music(path)
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(
                f"{path}: there is none; give MIDI files or folders, such as the midi folder of a "
                "run of train_music_transformer.py, train_musegan.py or train_music_rnn.py"
            )
    return files


def section(name: str, score: Score, args: Args) -> str:
    """HTML of a piece: its name, piano roll and sound, embedded as text."""
    import base64
    import io
    from fractions import Fraction

    from PIL import Image

    from generative.music import Score, piano_roll, synthesise, wav_bytes

    most = Fraction(args.seconds * args.bpm / 60).limit_denominator(48)
    notes = [n for n in score.notes if n.start < most]
    notes = [n._replace(duration=min(n.duration, most - n.start)) for n in notes]
    shown = Score(notes, score.key, score.time_signature, score.num_parts)
    length = float(shown.length) or 1.0
    buffer = io.BytesIO()
    picture = piano_roll(shown, width=1000, row=6, length=length)
    Image.fromarray(picture).save(buffer, format="png", optimize=True)
    sound = wav_bytes(synthesise(shown, args.bpm, RATE), RATE)
    return PIECE.format(
        name=escape(name),
        picture=base64.b64encode(buffer.getvalue()).decode(),
        sound=base64.b64encode(sound).decode(),
        seconds=length * 60 / args.bpm,
    )


def escape(text: str) -> str:
    """Escape text for HTML."""
    import html

    return html.escape(text)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
