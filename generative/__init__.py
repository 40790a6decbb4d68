"""Generative model families. Import the one you need: `from generative.vae import ConvVAE`."""

from generative.training import interrupts as interrupts
