"""Agents: things with SB3's `predict`, and drivers that collect data."""
