"""Local web pages of commands: their address, and how a command fetches its own page."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generative.pages.server import PageServer

__all__ = ["fetch", "show_address"]


def show_address(server: PageServer, verb: str, in_browser: bool) -> None:
    """Print where the page is, with a warning if other machines can reach it.

    Args:
        verb: what is done there.
        in_browser: open it, too.
    """
    from generative.pages.server import is_loopback

    if not is_loopback(server.host):
        print(
            f"warning: all who can reach {server.host} and know the address below can use the "
            "page, and whoever listens on the way can read it",
            file=sys.stderr,
        )
    print(f"{verb} at {server.url}   (Ctrl-C ends it)", flush=True)
    if in_browser:
        import webbrowser

        webbrowser.open(server.url)


def fetch(server: PageServer, name: str = "", request: Any = None) -> bytes:
    """Answer of a page of this machine, as a browser would get it.

    Args:
        name: behind the address; "" for the page itself.
        request: JSON to send; None only reads.
    """
    from urllib.request import ProxyHandler, build_opener

    open_url = build_opener(ProxyHandler({})).open  # this machine is not reached by a proxy
    body = None if request is None else json.dumps(request).encode()
    with open_url(server.url + name, body, timeout=30) as answer:
        return answer.read()
