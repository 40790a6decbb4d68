"""Tasks whose optimum is known, so that a model can be compared with what is reachable.

`densities` has points, `texts` Markov and hidden Markov texts, `reviews` and `requests` answers
that are right or liked, `sprites` and `bars_and_stripes` images of known factors. `quadrature` and
`two_samples` have what compares a model with them.
"""
