"""Sizes and settings of the generative families, one module each, none of which loads torch.

Every family re-exports its own (`from generative.vae import ConvVAE, ConvVAEConfig`); they stand
here so that a command line can show and parse them at once.
"""
