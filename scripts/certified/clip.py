"""CLIP on scenes: its loss beside the floor, search, and what belongs to what."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def clip_scenes(settings: Settings) -> list[Line]:
    """Scenes and their captions: nearly perfect search tells little, so what is bound is asked too.

    The floor is the entropy of what fits, on the same pairs. A bag of words finds the caption of
    nearly every picture, and the object at a place of 36 % of them. Both are asked again of objects
    that no training caption names: their colours and shapes are known, and they are not.
    """
    from generative.training.run import read_result
    from scripts import train_clip

    args = replace(train_clip.PRESETS["scenes"], out=settings.work / "clip", seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=2, batch_size=8)
    train_clip.main(args)
    found = read_result(args.out)
    loss, floor = found["test_loss"], found["floor"]
    bound, words = found["object_at_place"], found["object_at_place_of_words"]
    old, new = 1 - found["recall_of_placed"], 1 - found["recall_of_new_objects"]
    new_bound, new_words = found["new_object_at_place"], found["new_object_at_place_of_words"]
    unseen = 1 - found["zero_shot"]
    return [
        Line("loss on new scenes, nats, gap as a share", loss, floor, "entropy of what fits",
             loss / floor - 1, 0.05),
        Line("pairs of 128 that search misses", old, 0.0, "none", old, 0.01),
        Line("objects at a place that are told wrong", 1 - bound, 1 - words, "bag of words",
             1 - bound, 0.1),
        Line("pairs of 128 with new objects that search misses", new, 0.0, "none", new, 0.2),
        Line("new objects at a place, both of the scene new, that are told wrong", 1 - new_bound,
             1 - new_words, "bag of words", 1 - new_bound, 0.2),
        Line("scenes of one object that are classified wrong", unseen, 0.0, "none", unseen, 0.25),
    ]  # fmt: skip


CERTIFICATES = {"clip-scenes": Certificate("CLIP", clip_scenes, 13)}
