"""Generative model families. Import the one you need: `from generative.vae import ConvVAE`."""
