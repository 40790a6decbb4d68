"""Music: files, scores, words for a network, pictures, sound, measures of style.

    score = parse("bach.mid")                    # notes with exact times, in parts
    streams = streams_of_score(score)            # two lists of words
    again = score_of_streams(streams)
    again.write_midi("again.mid")
    picture = piano_roll(again)                  # uint8 (H, W, 3)
    sound = synthesise(again)                    # float32, 22,050 samples a second

`generative.music.transformer`, `generative.music.rnn` and `generative.musegan` learn from these;
`measures` has the likelihood of whole pieces.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
