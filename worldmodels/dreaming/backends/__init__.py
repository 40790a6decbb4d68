"""Rollouts without gradients, as fast as a device allows; a kind of M chooses one.

All draw the random numbers of `Dream.rollout` in its order, and give its returns up to rounding.
"""
