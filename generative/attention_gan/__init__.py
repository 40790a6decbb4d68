"""GANs with self-attention, of classes: SAGAN and BigGAN (Foster 2023, chapter 10).

`model` has the pair with what only it can do: noise of a narrower law, statistics of that law, maps
of attention; `networks` a generator and a critic of residual blocks, with attention at one of their
resolutions. They are trained by `generative.gan.GANLearner` with the losses of GANs.

    from generative.attention_gan import AttentionGANConfig
    config = AttentionGANConfig((3, 32, 32), 10, widths=(16, 32, 64), attention_side=16)
    gan = config.build().eval()
    images = gan.sample(4, labels=7, truncation=0.5)            # (4, 3, 32, 32) in [0, 1]
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
