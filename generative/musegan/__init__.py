"""MuseGAN: a few bars of several tracks from noise for chords, style, melody and groove.

    gan = MuseGAN.from_pretrained("runs/musegan/model")
    noise = gan.draw_noise(8)
    rolls = gan.generate(noise)                             # (8, tracks, bars, steps, pitches)
    gan.generate(noise._replace(style=other.style))         # the same piece in another style
    gan.scores(rolls)[0].write_midi("new.mid")

A score is an image: time and pitch are its sides, tracks its channels. Each track has a generator
of bars, which sees four noises: chords (different in each bar, shared by the tracks), style (the
same everywhere), melody (different in each bar and track) and groove (different in each track, the
same in each bar) (Dong et al. 2018; Foster 2023, chapter 11). A critic that convolves over bars,
pitch and time is trained with the gradient penalty of `generative.gan`.

With `given="track"` the generator gets one track and accompanies it; with `given="bar"` it gets
the previous bar, and `gan.go_on(rolls, 8)` makes a piece of any length.

`networks` has the generator and the critic, `model` the model, `training` the learner.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
