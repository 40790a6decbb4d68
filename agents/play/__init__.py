"""A page on which a person drives the real track and the dream side by side.

`session` is the game, without a server; `server` shows it on a local web page (`page.html`).
`alone` builds a page of the dream that needs neither (`alone.html`).
"""

from agents.play.server import PlayServer
from agents.play.session import Session

__all__ = ["PlayServer", "Session"]
