"""Plumbing of a training run that knows no model: runs, command lines, checkpoints, the loop."""
