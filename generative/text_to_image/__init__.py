"""Images from texts by diffusion: one U-Net that is told what to draw.

    model = TextToImage.from_pretrained("runs/text_to_image/model")
    images = model.sample(["a red square left of a blue disc"] * 8)     # (8, 3, 24, 24) in [0, 1]
    filled = model.inpaint(images, hole, ["two red squares"] * 8)

`model` has GLIDE, whose text Transformer is trained with the U-Net (Nichol et al. 2022), and its
learner. `dalle2` joins a CLIP, a prior and the decoder of its embeddings (Ramesh et al. 2022).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
