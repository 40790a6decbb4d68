"""Server of the page: one session, one lock, and no access for other pages or machines.

    with PlayServer(session) as server:
        print(server.url)                   # http://127.0.0.1:PORT/TOKEN/
        with stop_signals() as stop:
            server.play(stop)

The page sends requests as small JSON objects (POST act, see `agents.play.requests`), and gets the
game as server-sent events (GET stream): one object per decision, with numbers and raw pictures.
`generative.pages.server` answers them, and keeps other pages and machines out.
"""

from __future__ import annotations

import base64
import time
from importlib import resources
from typing import Any

from agents.play.session import Session
from generative.pages.server import MAX_BODY, MAX_VIEWERS, PageServer, is_loopback
from generative.training.signals import Stop

__all__ = ["MAX_BODY", "MAX_VIEWERS", "PlayServer", "is_loopback"]


class PlayServer(PageServer):
    """Shows a session in a browser. Time passes in `play`, and only while there is a viewer.

    Args:
        session: the game; from now on only this server may use it, under the lock of `changed`.
        host: address to listen on.
        port: 0 takes a free one.
    Raises:
        OSError: the port is taken, or the host is not one of this machine.
    """

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0):
        page = resources.files("agents.play").joinpath("page.html").read_bytes()
        super().__init__(page, host, port, posts={"act": self.apply}, command="play.py")
        self.session = session
        self.publish()
        self.start()

    def play(self, stop: Stop) -> None:
        """Advance the session at the speed of the game, until a stop is requested."""
        due = time.monotonic()
        while not stop.requested:
            with self.changed:
                if self.viewers and self.session.advance():
                    self.publish()
            # A machine that is too slow falls behind, and does not catch up afterwards.
            due = max(due + self.session.seconds_per_decision, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def close(self) -> None:
        """End all streams and the session."""
        super().close()
        with self.changed:
            self.session.close()

    def publish(self) -> int:
        """Send the present view of the session to all viewers; returns its version."""
        with self.changed:
            pictures, numbers = self.session.view()
            encoded = {
                name: {
                    "width": picture.shape[1],
                    "height": picture.shape[0],
                    "rgb": base64.b64encode(picture.tobytes()).decode(),
                }
                for name, picture in pictures.items()
            }
            return self.publish_state({**numbers, "pictures": encoded})

    def apply(self, request: Any) -> int:
        """Apply the request of a page and publish the result; see `agents.play.requests`.

        Returns:
            The version of the first view that shows it.
        """
        with self.changed:
            self.session.apply(request)
            return self.publish()
