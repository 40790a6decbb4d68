"""The console command: `worldmodels VERB [arguments]` runs scripts/VERB.py."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
import textwrap
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run the verb that the command line names; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbs = find_verbs()
    if not words or words[0] in ("-h", "--help"):
        print(usage(verbs))
        return 0 if words else 2
    verb = words[0].replace("-", "_")
    if verb not in verbs:
        close = difflib.get_close_matches(verb, verbs, n=1)
        hint = f"did you mean {close[0]}?" if close else "`worldmodels --help` lists them"
        print(f"worldmodels: there is no verb {words[0]!r}; {hint}", file=sys.stderr)
        return 2
    from generative.training.cli import start

    script = importlib.import_module(f"scripts.{verb}")
    default = getattr(script, "DEFAULT_PRESET", None)
    prog = f"worldmodels {verb}"
    start(script.main, script.PRESETS, default, argv=words[1:], prog=prog)
    return 0


def find_verbs() -> dict[str, str]:
    """First docstring line of every script by name, read without importing any."""
    verbs = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        verbs[path.stem] = docstring.partition("\n")[0]
    return verbs


def usage(verbs: dict[str, str]) -> str:
    """The help text."""
    width = max(map(len, verbs), default=0)
    lines = ["usage: worldmodels VERB [PRESET] [--field value ...]", "", "verbs:"]
    for verb, text in verbs.items():
        indent = " " * (width + 4)
        lines.append(textwrap.fill(f"  {verb:<{width}}  {text}", 80, subsequent_indent=indent))
    lines += ["", "`worldmodels VERB --help` tells what a verb can be given."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
