"""Data sets: one file each, that finds, checks and converts it. None is downloaded unasked.

digits = load_digits()
train = digits.part("train").as_tensor()      # (1257, 1, 8, 8) float32 in [0, 1]
"""
