"""Autoencoders: a code from which the image can be drawn again (Foster 2023, chapter 3).

model = Autoencoder.from_pretrained("runs/autoencoder/model")
z = model.encode(images)                        # (B, 1, 32, 32) in [0, 1] -> (B, 2)
again = model.decode(z)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
