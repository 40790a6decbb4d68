"""Flow matching: a network learns the velocity that carries noise to data along straight lines.

An example and a noise are joined by a line, x_t = (1 - t) noise + t data, and the network learns
the mean of data - noise over all lines through x_t (Lipman et al. 2023; Liu et al. 2023). An
ordinary differential equation then carries noise to data, and its divergence gives the exact
likelihood. MeanFlow learns the mean velocity from a time to a later one, and samples in one step
(Geng et al. 2025):

    flow = FlowMatching.from_pretrained("runs/flow-matching/model")
    points = flow.sample(16)                             # (16, 2), 50 steps
    nats = flow.log_prob(points)                         # (16,)
    quick = MeanFlow.from_pretrained("runs/mean-flow/model")
    points = quick.sample(16)                            # one call of the network

In reading order: `paths` has the line, what turns it into diffusion and back, and the times and
pairs of training; `model` the flow, `mean_flow` the one-step form, `networks` perceptron and U-Net,
`exact` the best velocity there is for data whose density is known.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
