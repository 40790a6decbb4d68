"""What tests of local pages share: requests, the stream, and tiny models to draw and to ask."""

import contextlib
import http.client
import json
import re
import time

import torch

from generative.flamingo import FlamingoConfig, NFNetConfig, ResamplerConfig
from generative.known.picture_talk import PictureTalk
from generative.text.config import GPTConfig, gpt2_block
from tests.commands import ROOT, command
from tests.warm import Program


@contextlib.contextmanager
def running(script: str, verb: str, *words: object):
    """A running command that serves a page, and the address that it printed as "VERB at ..."."""
    argv = command(script, "--port", 0, "--no-open", *words)[1:]
    with Program(argv, cwd=ROOT, env={}) as process:
        while not process.stdout.endswith("\n"):
            assert process.poll() is None, process.stdout + process.stderr
            time.sleep(0.05)
        found = re.match(rf"{verb} at (http://\S+)", process.stdout)
        assert found, process.stdout
        yield process, found[1]


def fetch(server, method="GET", name="", body=None, token=None, **headers):
    """Status and body of a request."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    path = f"/{server.token if token is None else token}/{name}"
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


@contextlib.contextmanager
def watching(server):
    """Views, one after another, as a page gets them."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    connection.request("GET", f"/{server.token}/stream")
    response = connection.getresponse()
    assert response.status == 200
    assert response.getheader("Content-Type") == "text/event-stream"

    def views():
        while line := response.readline():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))

    try:
        yield views()
    finally:
        response.close()
        connection.close()


def tiny_flamingo():
    """A Flamingo of the words of `PictureTalk`, whose weights are anything."""
    talk = PictureTalk()
    torch.manual_seed(0)
    config = FlamingoConfig(
        GPTConfig(len(talk.tokeniser), 48, 2, gpt2_block(16, 2, 0.0)),
        NFNetConfig((3, 24, 24), (4,), (1,), (8,), (1,), (2,)),
        ResamplerConfig(2, 1, 2, max_frames=1),
        num_heads=2,
        image_token=talk.image_token,
        chunk_token=talk.chunk_token,
    )
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()
