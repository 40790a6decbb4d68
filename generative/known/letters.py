"""Letters of 5x7 pixels, which stand in the cells of the micro-world's signs, and their words.

Capital letters as dot-matrix displays have them. Two of them differ by at least two pixels, which
is farther than the two closest objects are apart, so that a sign is read as safely as a scene.
"""

from __future__ import annotations

import string

__all__ = ["GLYPHS", "LETTERS", "SIGN_WORDS"]

LETTERS = string.ascii_lowercase
"""Letters as captions write them; they are drawn as capitals."""

_ROWS = (
    ".###. ####. .###. ####. ##### ##### .###. #...# .###. ..### #...# #.... #...#",
    "#...# #...# #...# #...# #.... #.... #...# #...# ..#.. ...#. #..#. #.... ##.##",
    "#...# #...# #.... #...# #.... #.... #.... #...# ..#.. ...#. #.#.. #.... #.#.#",
    "##### ####. #.... #...# ####. ####. #.### ##### ..#.. ...#. ##... #.... #.#.#",
    "#...# #...# #.... #...# #.... #.... #...# #...# ..#.. ...#. #.#.. #.... #...#",
    "#...# #...# #...# #...# #.... #.... #...# #...# ..#.. #..#. #..#. #.... #...#",
    "#...# ####. .###. ####. ##### #.... .###. #...# .###. .##.. #...# ##### #...#",
    "#...# .###. ####. .###. ####. .#### ##### #...# #...# #...# #...# #...# #####",
    "#...# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# #...# #...# ....#",
    "##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. .#.#. ...#.",
    "#.#.# #...# ####. #...# ####. .###. ..#.. #...# #...# #.#.# ..#.. ..#.. ..#..",
    "#..## #...# #.... #.#.# #.#.. ....# ..#.. #...# #...# #.#.# .#.#. ..#.. .#...",
    "#...# #...# #.... #..#. #..#. ....# ..#.. #...# .#.#. ##.## #...# ..#.. #....",
    "#...# .###. #.... .##.# #...# ####. ..#.. .###. ..#.. #...# #...# ..#.. #####",
)

GLYPHS = tuple(
    tuple(row.split()[column] for row in rows)
    for rows in (_ROWS[:7], _ROWS[7:])
    for column in range(13)
)
"""Pixels of each letter: seven rows of five characters, "#" where one is lit."""

SIGN_WORDS = (
    "ant", "arm", "art", "axe", "bag", "bat", "bear", "bed", "bell", "belt", "bird", "boat",
    "bone", "book", "bowl", "box", "bread", "bus", "cake", "cap", "car", "cat", "chair", "clock",
    "cloud", "coat", "coin", "corn", "cow", "cup", "desk", "dog", "door", "drum", "duck", "ear",
    "egg", "eye", "fan", "farm", "fire", "fish", "flag", "fly", "fork", "fox", "frog", "gate",
    "goat", "gold", "hand", "hat", "hen", "hill", "horn", "horse", "ice", "iron", "jar", "key",
    "king", "kite", "lake", "lamp", "leaf", "lion", "map", "milk", "moon", "nest", "net", "nut",
    "owl", "pan", "park", "pen", "pig", "pin", "plane", "queen", "rain", "ring", "road", "rope",
    "rose", "ship", "shoe", "snow", "sock", "star", "sun", "tent", "tiger", "tree", "van",
    "wheel", "wolf", "yard", "zoo", "zebra",
)  # fmt: skip
"""Words that signs show, of three to five letters. A caption may name any of up to nine."""
