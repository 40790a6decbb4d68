"""Tasks whose optimum is known, so that a model can be compared with the best possible one.

`densities` has points, `texts` Markov and hidden Markov texts, `reviews` and `requests` answers
that are right or liked, `sprites`, `scenes` and `bars_and_stripes` images that can be listed.
`captions` tells what scenes show, `captioned_scenes` draws pairs of both, `questions` asks about
them; `scene_denoiser`, `scene_scores` and `prompts` are what models of such pairs are held against.
`quadrature` and `two_samples` compare a model with them; `points` gives a run its batches of a
density. `baselines` has the simplest models of images.
"""
