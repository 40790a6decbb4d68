"""Boltzmann machines: fully connected, restricted, and stacked to deep belief networks.

Visible bits v and hidden bits h have p(v, h) = exp(-E(v, h)) / Z. In the restricted machine no two
units of one side are connected. A whole side is therefore drawn at once given the other, and the
sum over h has a closed form, F(v) = -log sum_h exp(-E(v, h)) (Smolensky 1986; Hinton 2002).

    rbm = RBM.from_pretrained("runs/rbm/model")
    rbm.free_energy(x)                   # (B, *shape) of bits -> (B,)
    rbm.log_prob(x)                      # exact, if one side has 20 units or fewer
    estimate = rbm.estimate_log_partition()      # any size, by annealed importance sampling
    -rbm.free_energy(x) - estimate.log_partition
    rbm.sample(64)                       # (64, *shape)

`machines` has the fully connected and the restricted one, `deep` the stack of restricted ones,
`training` their learners, `measures` the likelihood of test images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
