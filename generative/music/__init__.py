"""Music: reading files, scores, words that a network takes, pictures, sound, measures of style.

    score = parse("bach.mid")                    # notes with exact times, in parts
    streams = streams_of_score(score)            # as two lists of words
    again = score_of_streams(streams)
    again.write_midi("again.mid")
    picture = piano_roll(again)                  # uint8 (H, W, 3)
    sound = synthesise(again)                    # float32, 22,050 numbers a second

`generative.music_transformer`, `generative.music_rnn` and `generative.musegan` learn from these.
"""

from generative.music.metrics import Style, StyleDistance, real_distance, style, style_distance
from generative.music.parsing import parse, parse_pieces, read_pieces, read_streams
from generative.music.pictures import piano_roll, piano_rolls
from generative.music.score import Note, Score, score_of_voices
from generative.music.sound import synthesise, wav_bytes
from generative.music.tokens import (
    Streams,
    Vocabulary,
    deinterleave,
    events,
    grid,
    interleave,
    one_word_each,
    score_of_events,
    score_of_grid,
    score_of_stream,
    score_of_streams,
    score_of_words,
    streams_of_score,
    transpose_streams,
)

__all__ = [
    "Note",
    "Score",
    "Streams",
    "Style",
    "StyleDistance",
    "Vocabulary",
    "deinterleave",
    "events",
    "grid",
    "interleave",
    "one_word_each",
    "parse",
    "parse_pieces",
    "piano_roll",
    "piano_rolls",
    "read_pieces",
    "read_streams",
    "real_distance",
    "score_of_events",
    "score_of_grid",
    "score_of_stream",
    "score_of_streams",
    "score_of_voices",
    "score_of_words",
    "streams_of_score",
    "style",
    "style_distance",
    "synthesise",
    "transpose_streams",
    "wav_bytes",
]
