"""ProGAN, StyleGAN and StyleGAN2: GANs that grow, and GANs with a style for each layer.

ProGAN is trained on images of 4x4 first, and its networks grow with the images. StyleGAN maps the
noise to a style w that sets the statistics of every layer; StyleGAN2 sets the weights instead and
need not grow (Karras et al. 2018, 2019, 2020; Foster 2023, chapter 10).

    gan = StyleGAN2Config((3, 32, 32), 32, channel_base=256, channel_max=64, style_dim=64).build()
    gan.sample(16, truncation=0.7)       # (16, 3, 32, 32) in [0, 1]
    w = gan.styles(gan.draw_z(2))        # (2, 8, 64), a style for each layer
    w[0, :4] = w[1, :4]                  # the coarse traits of the other
    gan.synthesise(w)

`config` has sizes and settings, `growing` the schedule of growth, `progan`, `styles` and
`stylegan2` the networks, `model` what can be asked of a trained pair, `learner` the training.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
