"""Server of the page on which words become pictures.

    with PictureServer(painter) as server:
        print(server.url)                   # http://127.0.0.1:PORT/TOKEN/
        with stop_signals() as stop:
            server.serve(stop)

GET about tells the page what the model knows. POST draw asks for pictures, see
`generative.pages.pictures.requests`, and returns the number of the drawing; the stream then has its
pictures at every step. One drawing is made at a time: a new request ends the one before. POST stop
ends it too. POST ask has a question about a picture, and returns the answer.
"""

from __future__ import annotations

import base64
import io
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from generative.pages.pictures.asking import Asker
from generative.pages.pictures.examples import example_prompts
from generative.pages.pictures.painter import Painter
from generative.pages.pictures.requests import (
    MAX_PICTURES,
    MAX_SCALE,
    MAX_SEED,
    MAX_STEPS,
    MAX_WALK,
    Drawing,
    checked_drawing,
    checked_question,
    picture_bytes,
)
from generative.pages.server import MAX_BODY, PageServer
from generative.training.signals import Stop

__all__ = ["PictureServer", "png"]


class PictureServer(PageServer):
    """Shows the drawings of a painter in a browser. They are made in `serve`.

    Args:
        painter: draws; from now on only this server may use it.
        asker: answers questions about pictures, if there is one.
        name: of the model, for the page.
        host: address to listen on.
        port: 0 takes a free one.
    Raises:
        OSError: the port is taken, or the host is not one of this machine.
    """

    def __init__(
        self,
        painter: Painter,
        asker: Asker | None = None,
        name: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
    ):
        page = resources.files("generative.pages.pictures").joinpath("page.html").read_bytes()
        super().__init__(
            page, host, port,
            gets={"about": self.about},
            posts={"draw": self.draw, "stop": self.stop, "ask": self.ask},
            max_body=MAX_BODY + picture_bytes(painter.image_shape),
            command="play_pictures.py",
        )  # fmt: skip
        self.painter, self.asker, self.name = painter, asker, name
        self._asking = threading.Lock()
        self._number = 0
        self._waiting: Drawing | None = None
        """Drawing that is made next."""
        self.publish_state(_state(0, "idle"))
        self.start()

    def about(self) -> dict[str, Any]:
        """Words, sizes and limits that the page needs to know, in JSON types."""
        model, words = self.painter.model, self.painter.tokeniser.words
        return {
            "name": self.name,
            "words": sorted(words),
            "examples": example_prompts(words),
            "image_shape": list(self.painter.image_shape),
            "scale": model.scale,
            "steps": min(model.diffusion.steps, MAX_STEPS),
            "most": {
                "pictures": MAX_PICTURES,
                "walk": MAX_WALK,
                "steps": min(self.painter.max_steps or MAX_STEPS, MAX_STEPS),
                "scale": MAX_SCALE,
                "seed": MAX_SEED,
            },
            "asks": self.asker is not None,
        }

    def draw(self, request: Any) -> int:
        """Take the request of a page; returns the number of its drawing.

        Raises:
            ValueError: a value does not fit, or the model cannot draw this; the drawing that is
                being made goes on.
        """
        drawing = checked_drawing(request, self.painter.image_shape)
        self.painter.check(drawing)
        with self.changed:
            self._number += 1
            self._waiting = drawing
            self.changed.notify_all()
            return self._number

    def stop(self, _request: Any) -> int:
        """End the drawing that is being made; returns its number."""
        with self.changed:
            before = self._number
            self._number += 1  # which the drawing finds out before its next step
            self._waiting = None
            return before

    def ask(self, request: Any) -> dict[str, Any]:
        """Answer a question about a picture: {"answer": text, "unknown": words}.

        Raises:
            ValueError: there is nobody to ask, a value does not fit, or the question is too long.
        """
        if self.asker is None:
            raise ValueError("there is no model to ask; start the page with --flamingo FOLDER")
        asked = checked_question(request, self.painter.image_shape)
        with self._asking:
            answer = self.asker.ask(asked.picture, asked.question)
        return {"answer": answer.text, "unknown": answer.unknown}

    def serve(self, stop: Stop) -> None:
        """Make the drawings that are asked for, until a stop is requested."""
        while not stop.requested:
            self.make_next(stop)

    def make_next(self, stop: Stop, seconds: float = 0.1) -> bool:
        """Make the drawing that waits; False if none comes in this time."""
        with self.changed:
            self.changed.wait_for(lambda: self._waiting is not None, seconds)
            number, drawing, self._waiting = self._number, self._waiting, None
        if drawing is None:
            return False
        self._make(number, drawing, stop)
        return True

    def _make(self, number: int, drawing: Drawing, stop: Stop) -> None:
        started, total = time.monotonic(), self.painter.num_steps(drawing)
        unknown = self.painter.unknown(drawing)
        pictures: list[str] = []
        step = 0

        def show(status: str, error: str = "") -> None:
            self.publish_state(
                _state(
                    number, status, drawing, step, total, time.monotonic() - started, pictures,
                    unknown, error,
                )
            )  # fmt: skip

        show("drawing")
        try:
            for step, drawn in enumerate(self.painter.draw(drawing), 1):
                pictures = [png(picture) for picture in drawn]
                if step == total:
                    break
                if self._number != number or stop.requested:
                    return show("stopped")
                show("drawing")
            show("done")
        except Exception as error:  # the page goes on, whatever a model does with a request
            traceback.print_exc()
            show("failed", f"{type(error).__name__}: {error}")


def png(picture: np.ndarray) -> str:
    """A picture uint8 (H, W, 3) as a PNG file in base64."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _state(
    number: int,
    status: str,
    drawing: Drawing | None = None,
    step: int = 0,
    total: int = 0,
    seconds: float = 0.0,
    pictures: Sequence[str] = (),
    unknown: Mapping[str, Sequence[str]] | None = None,
    error: str = "",
) -> dict[str, Any]:
    """State of a drawing that the page shows: idle, drawing, done, stopped or failed."""
    return {
        "drawing": number,
        "status": status,
        "mode": drawing.mode if drawing else "draw",
        "prompt": drawing.prompt if drawing else "",
        "last": drawing.last if drawing else "",
        "seed": drawing.seed if drawing else 0,
        "num": drawing.num if drawing else 0,
        "step": step,
        "steps": total,
        "seconds": seconds,
        "pictures": list(pictures),
        "unknown": dict(unknown or {}),
        "error": error,
    }
