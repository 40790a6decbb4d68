"""Server of the page: one session, one lock, and no access for other pages or machines.

    with PlayServer(session) as server:
        print(server.url)                   # http://127.0.0.1:PORT/TOKEN/
        with stop_signals() as stop:
            server.play(stop)

The page sends requests as small JSON objects (POST act, see `agents.play.requests`), and gets the
game as server-sent events (GET stream): one object per decision, with numbers and raw pictures.
Browsers support both without a library.

A web page from elsewhere must not drive the car, although the browser that shows it can reach this
machine. All addresses therefore begin with a random token. The Host header must be a name of this
machine, which stops foreign names that point here (DNS rebinding). An Origin header must be our
own.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import ipaddress
import json
import re
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from agents.play.session import Session
from generative.training.signals import Stop

__all__ = ["MAX_BODY", "MAX_VIEWERS", "PlayServer", "is_loopback"]

MAX_BODY = 4096
"""Largest request, in bytes."""
MAX_VIEWERS = 8
"""Largest number of streams at a time."""
KEEP_ALIVE = 10.0
"""Seconds after which an idle stream sends a sign of life, which finds viewers that have left."""

_HOST = re.compile(
    r"(?:(?P<name>[a-z0-9._-]{1,253})|\[(?P<address>[0-9a-f:.]{2,45})\])(?::[0-9]{1,5})?"
)

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """True if only this machine can reach a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class PlayServer:
    """Shows a session in a browser. Time passes in `play`, and only while there is a viewer.

    Args:
        session: the game; from now on only this server may use it.
        host: address to listen on.
        port: 0 takes a free one.
    Raises:
        OSError: the port is taken, or the host is not one of this machine.
    """

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0):
        self.session, self.host = session, host
        self.token = secrets.token_urlsafe(18)
        self.page = resources.files("agents.play").joinpath("page.html").read_bytes()
        self.changed = threading.Condition()
        """Condition whose lock guards the session."""
        self.closing = False
        self._viewers = 0
        self._version, self._view = 0, b""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._http = _Http((host, port), _handler(self), family)
        except OSError as error:
            raise OSError(
                f"can not listen on port {port} of {host} ({error.strerror}); give another --port, "
                "or 0 for any that is free"
            ) from error
        self.port: int = self._http.server_address[1]
        with self.changed:
            self.publish()
        threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def url(self) -> str:
        """Address of the page, with its token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/{self.token}/"

    def play(self, stop: Stop) -> None:
        """Advance the session at the speed of the game, until a stop is requested."""
        due = time.monotonic()
        while not stop.requested:
            with self.changed:
                if self._viewers and self.session.advance():
                    self.publish()
            # A machine that is too slow falls behind, and does not catch up afterwards.
            due = max(due + self.session.seconds_per_decision, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def close(self) -> None:
        """End all streams and the session."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        with self.changed:
            self.session.close()

    def __enter__(self) -> PlayServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(self) -> None:
        """Send the present view of the session to all viewers; the caller holds the lock."""
        pictures, numbers = self.session.view()
        encoded = {
            name: {
                "width": picture.shape[1],
                "height": picture.shape[0],
                "rgb": base64.b64encode(picture.tobytes()).decode(),
            }
            for name, picture in pictures.items()
        }
        self._version += 1
        view = {**numbers, "version": self._version, "pictures": encoded}
        self._view = json.dumps(view, allow_nan=False).encode()
        self.changed.notify_all()

    def view(self) -> bytes:
        """Last published view, as JSON."""
        with self.changed:
            return self._view

    def views(self) -> Iterator[bytes]:
        """Views published from now on; empty after `KEEP_ALIVE` seconds without one."""
        seen = 0
        while True:
            with self.changed:
                self.changed.wait_for(
                    lambda seen=seen: self.closing or self._version != seen, KEEP_ALIVE
                )
                if self.closing:
                    return
                view = self._view if self._version != seen else b""
                seen = self._version
            yield view

    @contextlib.contextmanager
    def viewer(self) -> Iterator[bool]:
        """Count a viewer inside the block; False if there are too many."""
        with self.changed:
            welcome = self._viewers < MAX_VIEWERS
            self._viewers += welcome
        try:
            yield welcome
        finally:
            with self.changed:
                self._viewers -= welcome

    def apply(self, request: Any) -> int:
        """Apply the request of a page and publish the result; see `agents.play.requests`.

        Returns:
            The version of the first view that shows it.
        """
        with self.changed:
            self.session.apply(request)
            self.publish()
            return self._version

    def knows_host(self, header: str) -> bool:
        """True if a Host header names this machine, by name or address, with or without a port."""
        found = _HOST.fullmatch(header.lower())
        if found is None:
            return False
        name = found["name"] or found["address"]
        if is_loopback(self.host):
            return name in {"localhost", "127.0.0.1", "::1", self.host}
        with contextlib.suppress(ValueError):  # unlike a name, an address cannot be redirected
            return bool(ipaddress.ip_address(name))
        return name in (self.host.lower(), socket.gethostname().lower(), "localhost")


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type, family: socket.AddressFamily):
        self.address_family = family
        super().__init__(address, handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's would query a name server
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that a browser closed; report other errors as usual."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def _handler(server: PlayServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30  # seconds to wait for a request, or for a viewer that does not read

        def do_GET(self) -> None:
            name = self._allowed()
            if name == "":
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", server.page)
            elif name == "view":
                self._send(HTTPStatus.OK, "application/json", server.view())
            elif name == "stream":
                self._stream()
            elif name is not None:
                self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

        def do_POST(self) -> None:
            name = self._allowed()
            if name is None:
                return
            if name != "act":
                return self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            length = self._header("Content-Length") or ""
            if not re.fullmatch("[0-9]+", length) or "Transfer-Encoding" in self.headers:
                return self._refuse(HTTPStatus.LENGTH_REQUIRED, "a request needs a Content-Length")
            if len(length) > 10:
                text = f"a Content-Length has at most 10 digits, this one {len(length)}"
                return self._refuse(HTTPStatus.BAD_REQUEST, text)
            if int(length) > MAX_BODY:
                text = f"a request has {length} bytes; at most {MAX_BODY} are read"
                return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
            body = self.rfile.read(int(length))
            try:
                version = server.apply(json.loads(body))
            except (ValueError, RecursionError) as error:  # JSON's errors are ValueErrors
                return self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            self._send(HTTPStatus.OK, "application/json", b"%d" % version)

        def _allowed(self) -> str | None:
            """Path behind the token; None if the request has no right to it and was refused."""
            host, origin = self._header("Host"), self._header("Origin")
            if host is None or not server.knows_host(host):
                self._refuse(HTTPStatus.FORBIDDEN, "this is not the name of this machine")
            elif origin is not None and origin != f"http://{host}":
                self._refuse(HTTPStatus.FORBIDDEN, "this page is not for other pages")
            else:
                token, slash, name = urlsplit(self.path).path[1:].partition("/")
                if slash and hmac.compare_digest(token.encode(), server.token.encode()):
                    return name
                text = "the token is missing or wrong; open the address that play.py has printed"
                self._refuse(HTTPStatus.FORBIDDEN, text)
            return None

        def _header(self, name: str) -> str | None:
            """Value of a header; "" if it occurs more than once, which no check accepts."""
            values = self.headers.get_all(name, [])
            return None if not values else values[0] if len(values) == 1 else ""

        def _stream(self) -> None:
            with server.viewer() as welcome:
                if not welcome:
                    text = f"{MAX_VIEWERS} pages show this game already"
                    return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, text)
                self.close_connection = True
                self._head(HTTPStatus.OK, {"Content-Type": "text/event-stream"})
                for view in server.views():
                    self.wfile.write(b"data: " + view + b"\n\n" if view else b":\n\n")

        def _send(self, status: HTTPStatus, kind: str = "", body: bytes = b"") -> None:
            about = {"Content-Type": kind, "Content-Length": str(len(body))} if kind else {}
            self._head(status, about)
            self.wfile.write(body)

        def _refuse(self, status: HTTPStatus, text: str) -> None:
            self.close_connection = True  # the rest of the request is not read
            self._send(status, "text/plain; charset=utf-8", f"{text}\n".encode())

        def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
            self.send_response(status)
            for item in {**_HEADERS, **headers}.items():
                self.send_header(*item)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()

        def version_string(self) -> str:
            return "play"

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing: the terminal shows the address."""

    return Handler
