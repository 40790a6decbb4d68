"""Server of a local page: its state as a stream, its requests as JSON, nobody else's page.

    with PageServer(page, posts={"add": add}) as server:
        server.publish_state({"count": 0})
        server.start()
        print(server.url)                   # http://127.0.0.1:PORT/TOKEN/

The page sends requests as JSON (POST), and gets the state as server-sent events (GET stream): the
last one that was published, so that a slow page misses some and waits for none. Browsers support
both without a library.

A web page from elsewhere must not use this one, although the browser that shows it can reach this
machine. All addresses therefore begin with a random token. The Host header must be a name of this
machine, which stops foreign names that point here (DNS rebinding). An Origin header must be our
own.
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

__all__ = ["MAX_BODY", "MAX_VIEWERS", "PageServer", "is_loopback"]

MAX_BODY = 4096
"""Largest request, in bytes, unless a page needs more."""
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


class PageServer:
    """Serves one page, the state that is published, and the answers to its requests.

    A first state is published before `start`, so that nobody sees less. Requests are answered in
    threads of their own.

    Args:
        page: the page, in UTF-8.
        host: address to listen on.
        port: 0 takes a free one.
        gets: name -> function that makes a JSON value; GET view, the last state, is always there.
        posts: name -> function of the JSON value that was sent, which makes one. A ValueError of it
            is told to the page.
        max_body: largest request, in bytes.
        command: name of the command that prints the address, for messages.
    Raises:
        OSError: the port is taken, or the host is not one of this machine.
    """

    def __init__(
        self,
        page: bytes,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        gets: Mapping[str, Callable[[], Any]] | None = None,
        posts: Mapping[str, Callable[[Any], Any]] | None = None,
        max_body: int = MAX_BODY,
        command: str = "the command",
    ):
        self.page, self.host, self.command = page, host, command
        self.gets, self.posts, self.max_body = dict(gets or {}), dict(posts or {}), max_body
        self.token = secrets.token_urlsafe(18)
        self.changed = threading.Condition()
        """Condition whose lock guards the state; it is notified of a new state and of the end."""
        self.closing = False
        self._viewers, self._started = 0, False
        self._version, self._view = 0, b"null"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._http = _Http((host, port), _handler(self), family)
        except OSError as error:
            raise OSError(
                f"can not listen on port {port} of {host} ({error.strerror}); give another --port, "
                "or 0 for any that is free"
            ) from error
        self.port: int = self._http.server_address[1]

    @property
    def url(self) -> str:
        """Address of the page, with its token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/{self.token}/"

    @property
    def viewers(self) -> int:
        """Number of pages that watch the stream."""
        return self._viewers

    def start(self) -> None:
        """Begin to answer."""
        self._started = True
        threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """End all streams and stop listening."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        if self._started:
            self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish_state(self, state: Mapping[str, Any]) -> int:
        """Send a state of JSON values to all viewers; returns its version, which it also has."""
        with self.changed:
            self._version += 1
            content = {**state, "version": self._version}
            self._view = json.dumps(content, allow_nan=False).encode()
            self.changed.notify_all()
            return self._version

    def view(self) -> bytes:
        """Last published state, as JSON."""
        with self.changed:
            return self._view

    def views(self) -> Iterator[bytes]:
        """States from now on, the present one first; empty after `KEEP_ALIVE` seconds without."""
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


def _handler(server: PageServer) -> type[BaseHTTPRequestHandler]:
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
            elif name in server.gets:
                self._answer(server.gets[name]())
            elif name is not None:
                self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

        def do_POST(self) -> None:
            name = self._allowed()
            if name is None:
                return
            if name not in server.posts:
                return self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            length = self._header("Content-Length") or ""
            if not re.fullmatch("[0-9]+", length) or "Transfer-Encoding" in self.headers:
                return self._refuse(HTTPStatus.LENGTH_REQUIRED, "a request needs a Content-Length")
            if len(length) > 10:
                text = f"a Content-Length has at most 10 digits, this one {len(length)}"
                return self._refuse(HTTPStatus.BAD_REQUEST, text)
            if int(length) > server.max_body:
                text = f"a request has {length} bytes; at most {server.max_body} are read"
                return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
            body = self.rfile.read(int(length))
            try:
                answer = server.posts[name](json.loads(body))
            except (ValueError, RecursionError) as error:  # JSON's errors are ValueErrors
                return self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            self._answer(answer)

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
                text = (
                    "the token is missing or wrong; open the address that "
                    f"{server.command} has printed"
                )
                self._refuse(HTTPStatus.FORBIDDEN, text)
            return None

        def _header(self, name: str) -> str | None:
            """Value of a header; "" if it occurs more than once, which no check accepts."""
            values = self.headers.get_all(name, [])
            return None if not values else values[0] if len(values) == 1 else ""

        def _stream(self) -> None:
            with server.viewer() as welcome:
                if not welcome:
                    text = f"{MAX_VIEWERS} pages are open already; close one"
                    return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, text)
                self.close_connection = True
                self._head(HTTPStatus.OK, {"Content-Type": "text/event-stream"})
                for view in server.views():
                    self.wfile.write(b"data: " + view + b"\n\n" if view else b":\n\n")

        def _answer(self, value: Any) -> None:
            body = json.dumps(value, allow_nan=False).encode()
            self._send(HTTPStatus.OK, "application/json", body)

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
            return "page"

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing: the terminal shows the address."""

    return Handler
