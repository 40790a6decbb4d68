"""Examples in docstrings as blocks of code, for the reference of the site.

An example stands below a docstring's first line without indentation, where Markdown would take it
for prose and run its lines together. A paragraph that is Python and does something gets fences.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

DOES_SOMETHING = ast.Call | ast.Assign | ast.With | ast.ClassDef


class ExamplesInDocstrings(griffe.Extension):
    """Put fences around the examples of every docstring."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **_: Any) -> None:
        """Change the docstring of what has just been read."""
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    """The docstring with fences around paragraphs of Python that are not indented.

    Neighbours become one block. The first paragraph says what the object is and is never code.
    """
    first, *rest = re.split(r"\n\s*\n", docstring)
    parts, code = [first], list[str]()
    for paragraph in [*rest, None]:
        if paragraph is not None and is_example(paragraph):
            code.append(paragraph)
            continue
        if code:
            parts.append("```python\n" + "\n\n".join(code) + "\n```")
            code = []
        if paragraph is not None:
            parts.append(paragraph)
    return "\n\n".join(parts)


def is_example(paragraph: str) -> bool:
    """Tell whether a paragraph is Python that does something; prose never is."""
    if paragraph.startswith(" "):
        return False
    try:
        nodes = ast.walk(ast.parse(paragraph))
    except SyntaxError:
        return False
    return any(isinstance(node, DOES_SOMETHING) for node in nodes)
