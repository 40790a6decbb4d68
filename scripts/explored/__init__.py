"""Drawings of `scripts/explore.py`, a module for each kind of model.

A module's `CLASSES` are the models it draws, `Settings` its options, and `explore` writes the
pictures and returns the figures. Nothing here loads torch before something is drawn.
"""
