"""A hub on this machine: the few endpoints that huggingface_hub asks, over a folder of files."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories in memory: of each its commits, by their SHA, and what its names stand for."""

    def __init__(self):
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.names: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.visibility: dict[str, str | None] = {}
        self.url = ""

    def commit(self, repo: str, files: dict[str, bytes], tag: str = "") -> str:
        """Put a commit of these files on main; returns its SHA."""
        parts = [part for name in sorted(files) for part in (name.encode(), files[name])]
        sha = hashlib.sha1(b"\0".join(parts)).hexdigest()
        self.commits.setdefault(repo, {})[sha] = dict(files)
        self.names.setdefault(repo, {}).update({"main": sha, **({tag: sha} if tag else {})})
        return sha

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        return self.commits[repo][self.names[repo].get(revision, revision)]


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a new, empty hub at `hub.url`."""
    hub = Hub()

    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._about(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            files = self.hub.files(match[1], match[2])
            self._json(
                [
                    {"type": "file", "path": p, "size": len(x), "oid": _oid(x)}
                    for p, x in files.items()
                ]
            )
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            data = self.hub.files(match[1], match[2])[match[3]]
            self._send(200, data, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": match[2]})
        else:
            self._send(404, b"{}")

    do_HEAD = do_GET

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.hub.visibility[repo] = asked.get("visibility")
            self.hub.commit(repo, {}) if repo not in self.hub.names else None
            self._json({"url": f"{self.hub.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            asked = json.loads(body)["files"]
            self._json(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in asked
                    ]
                }
            )
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            sha = self.hub.commit(match[1], {**self.hub.files(match[1]), **files})
            url = f"{self.hub.url}/{match[1]}/commit/{sha}"
            self._json({"success": True, "commitUrl": url, "commitOid": sha})
        else:
            self._send(404, b"{}")

    def _about(self, repo: str, revision: str) -> None:
        known = self.hub.commits.get(repo)
        sha = self.hub.names.get(repo, {}).get(revision, revision)
        if known is None or sha not in known:
            code = "RepoNotFound" if known is None else "RevisionNotFound"
            return self._send(404, b"{}", {"X-Error-Code": code})
        siblings = [{"rfilename": name} for name in known[sha]]
        self._json({"id": repo, "sha": sha, "siblings": siblings, "private": False, "tags": []})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def _oid(data: bytes) -> str:
    """SHA-1 of a file as git counts it."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
