"""Command lines from settings: `script.py [PRESET] [--field value ...]` or `--resume RUN`.

PRESETS = {"paper": Args(), "smoke": Args(steps=50)}

if __name__ == "__main__":
    start(main, PRESETS)
"""

from __future__ import annotations

import dataclasses
import difflib
import dis
import inspect
import signal
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from generative.training.extras import how_to_install, is_asked_for
from generative.training.hub import hub_name, where_else
from generative.training.interrupts import interrupt_again
from generative.training.needs import what_is_needed
from generative.training.platforms import BROKEN_PIPE
from generative.training.settings import differences, flatten, from_json, may_change, to_json
from generative.training.streams import nobody_reads, open_closed_streams
from generative.training.tracking import TRACKERS, choose_tracker

A = TypeVar("A")
WIDTH = 78
TRACK_HELP = (
    f"And --track NAME, one of {', '.join(TRACKERS)}: log to it beside metrics.jsonl; by default "
    "to TensorBoard if it is installed, and where a run goes on, to what has tracked it"
)
PACKAGES = frozenset({"generative", "worldmodels", "agents", "envs", "scripts", "__main__"})


def start(
    main: Callable[[A], object],
    presets: Mapping[str, A],
    default: str | None = None,
    *,
    argv: Sequence[str] | None = None,
    prog: str | None = None,
) -> None:
    """Run a command: `main` with the settings that `parse` reads.

    Errors that a user can mend are told in one line: those that this project raised itself (they
    say what was got and what to do), those of the system (such as a place that cannot be written),
    and a package that is not installed. Any other error is a fault in a program and keeps its
    traceback.

    Raises:
        SystemExit: 1 after an error told in one line, 2 for a wrong command line, 130 after Ctrl-C,
            141 if nobody reads the output any more (`| head`).
    """
    open_closed_streams()
    interrupt_again()
    prog = prog or Path(sys.argv[0]).name
    try:
        try:
            args = parse(presets, default, argv=argv, prog=prog)
            _check_inputs(args)
            main(args)
            _tell_ending(args)
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{prog}: stopped (SIGINT)", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            raise SystemExit(BROKEN_PIPE) from None
        told = _in_words(error)
        if told is None:
            raise
        print(f"{prog}: {told}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        raise SystemExit(1) from None


@dataclasses.dataclass(frozen=True)
class Input:
    """Annotation of a path that is read: the script that makes the folder or file.

    `start` checks that the path exists before the command begins, unless its run is finished.

    Args:
        hub: the command also takes a name on the hub, which it finds by `find_folder`.
    """

    script: str
    hub: bool = False

    @property
    def command(self) -> str:
        """Words that run it: "train_gpt dialogues"."""
        return self.script.replace(".py", "", 1)


def _tell_ending(args: Any) -> None:
    """Print the results of the command's run, if it has one that has ended."""
    if "out" not in vars(args):
        return
    run = Path(args.out)
    if all((run / name).exists() for name in ("config.json", "result.json")):
        from generative.training.ending import describe_run

        if text := describe_run(run):
            print(text)


def _check_inputs(args: Any) -> None:
    """Raise FileNotFoundError if a path with `Input` is missing."""
    if "out" in vars(args) and (Path(args.out) / "result.json").exists():
        return
    for option, read, path in _inputs(args):
        if not path.exists() and not (read.hub and hub_name(path)):
            raise FileNotFoundError(
                f"{path}: no such folder; make it with `worldmodels {read.command}`, or pass "
                f"another as {option}{where_else(path)}"
            )


def _inputs(args: Any) -> Iterator[tuple[str, Input, Path]]:
    """Yield (option, its `Input`, path) of every path with one in the settings."""
    for name, hint in typing.get_type_hints(type(args), include_extras=True).items():
        read, value = _input(hint), getattr(args, name, None)
        for path in value if isinstance(value, tuple) else (value,):
            if read is not None and path is not None:
                yield name if _is_positional(hint) else f"--{name.replace('_', '-')}", read, path


def _input(hint: Any) -> Input | None:
    """The `Input` in an annotation, or in a part of it; None if there is none."""
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, Input):
            return extra
    return next(filter(None, map(_input, typing.get_args(hint))), None)


def _in_words(error: Exception) -> str | None:
    """Message for an error that a user can mend; None for a fault in a program."""
    if isinstance(error, OSError) and error.errno and not _is_ours(error):
        places = [str(place) for place in (error.filename, error.filename2) if place is not None]
        return ": ".join([*dict.fromkeys(places), error.strerror or str(error)])
    if isinstance(error, ModuleNotFoundError) and not _is_ours(error):
        return how_to_install(error.name) if error.name and is_asked_for(error.name) else None
    if isinstance(error, (ValueError, RuntimeError, OSError, ArithmeticError, ImportError)):
        return str(error) if _is_ours(error) else None
    # Gymnasium's errors have no base of their own, and it need not be loaded.
    missing = type(error).__name__ == "DependencyNotInstalled"
    return str(error) if missing else None


def _is_ours(error: BaseException) -> bool:
    """True if a `raise` in one of this project's packages made the error."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    frame = last.tb_frame
    raised = dis.opname[frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
    return raised and frame.f_globals.get("__name__", "").partition(".")[0] in PACKAGES


def parse(
    presets: Mapping[str, A],
    default: str | None = None,
    description: str | None = None,
    *,
    argv: Sequence[str] | None = None,
    prog: str | None = None,
) -> A:
    """Settings from the command line.

    Args:
        presets: complete settings by name; all of one frozen dataclass.
        default: preset used if none is named; by default "paper" if there is one, else the first.
        description: first text of the help; by default the dataclass's docstring.
        argv: the arguments; by default sys.argv[1:].
        prog: name shown in the help.
    Raises:
        SystemExit: 0 after --help, 2 for a wrong command line (explained on stderr).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    prog = prog or Path(sys.argv[0]).name
    name = default or ("paper" if "paper" in presets else next(iter(presets)))
    kind: type[Any] = type(presets[name])
    if any(word in ("-h", "--help") for word in words):
        words = ["--help"] if words[0] not in presets else [words[0], "--help"]
    words, run = _take_resume(words, prog)
    if any(field.name == "out" for field in dataclasses.fields(kind)):
        words = _choose_tracker(words, prog)
    trusts = "--trust" in words
    if run is not None and trusts and "trust" not in {f.name for f in dataclasses.fields(kind)}:
        words.remove("--trust")
    if words and words[0] in presets:
        if run is not None:
            _fail(prog, f"--resume takes all settings from {run}; leave out {words[0]!r}")
        name = words.pop(0)
    elif words and not words[0].startswith("-") and not _has_positional(kind):
        close = difflib.get_close_matches(words[0], presets, n=1)
        hint = f"did you mean {close[0]}?" if close else f"presets are {', '.join(presets)}"
        _fail(prog, f"there is no preset {words[0]!r}; {hint}")
    start = presets[name] if run is None else _read_run(kind, run, prog, trusts)
    args = tyro.cli(
        kind,
        prog=f"{prog} [PRESET]",
        description=_describe(description or kind.__doc__ or "", presets, name, kind),
        args=words,
        default=start,
        config=(tyro.conf.AvoidSubcommands,),
    )
    if run is not None:
        _refuse_changes(start, args, run, prog)
    return args


def _take_resume(words: list[str], prog: str) -> tuple[list[str], Path | None]:
    for i, word in enumerate(words):
        if word.startswith("--resume="):
            return words[:i] + words[i + 1 :], Path(word.removeprefix("--resume="))
        if word == "--resume":
            if i + 1 == len(words) or words[i + 1].startswith("-"):
                _fail(prog, "--resume needs the folder of a run")
            return words[:i] + words[i + 2 :], Path(words[i + 1])
    return words, None


def _choose_tracker(words: list[str], prog: str) -> list[str]:
    """Choose the tracker that `--track NAME` names; returns the other words."""
    for i, word in enumerate(words):
        if word == "--track" or word.startswith("--track="):
            joined = "=" in word
            name = word.partition("=")[2] if joined else next(iter(words[i + 1 :]), "")
            try:
                choose_tracker(name or "without a name")
            except (ValueError, ImportError) as error:
                _fail(prog, f"--track: {error}")
            return words[:i] + words[i + 2 - joined :]
    return words


def _read_run(kind: type[A], run: Path, prog: str, trusts: bool) -> A:
    from generative.training.run import CONFIG_NAME, read_config
    from generative.training.trust import refuse_import

    try:
        command, settings = read_config(run)
        for name, value in flatten(settings).items():
            if name.rpartition(".")[2] in ("env", "env_id") and not trusts:
                refuse_import(str(value), run / CONFIG_NAME)
    except ValueError as error:
        _fail(prog, str(error))
    try:
        start = from_json(kind, settings)
    except ValueError as error:
        _fail(prog, f"{run} is a run of {command}; its settings do not fit this command: {error}")
    if "out" in settings:
        start = dataclasses.replace(start, out=run)  # type: ignore[type-var]
    return start


def _refuse_changes(start: Any, args: Any, run: Path, prog: str) -> None:
    free = getattr(args, "resumable_fields", frozenset())
    changed = differences(to_json(start), to_json(args))
    refused = {name: pair for name, pair in changed.items() if not may_change(name, free)}
    if refused:
        lines = [f"  {name}: stays {old!r}, not {new!r}" for name, (old, new) in refused.items()]
        allowed = f"may change: {', '.join(sorted(free))}" if free else "nothing may change"
        _fail(
            prog,
            f"{run} can not be continued with other settings ({allowed}). Refused:\n"
            + "\n".join(lines)
            + "\nFor these, begin a new run.",
        )


def _describe(text: str, presets: Mapping[str, Any], default: str, kind: type) -> str:
    """Text above the options in the help: text, the presets, one line each, and --resume.

    tyro joins lines that begin with a letter and wraps none of them. Every paragraph is therefore
    wrapped here, and its further lines are indented.
    """
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n")]
    lines = ["\n\n".join(_wrap(part) for part in paragraphs), "", "Presets (the first word):"]
    plain = flatten(to_json(presets[default]))
    width = max(map(len, presets))
    for name, settings in presets.items():
        values = flatten(to_json(settings))
        differing = [key for key, v in values.items() if plain.get(key) != v and key != "steps"]
        changed = ", ".join(f"{key} {_short(values[key])}" for key in differing)
        what = "used if none is named" if name == default else changed or "otherwise the same"
        line = f"  {name:<{width}}  {_costs(settings)}{what}"
        if len(line) > WIDTH:
            whole, comma, _ = line[: WIDTH - 3].rpartition(", ")
            line = f"{whole}, ..." if comma else f"{line[: WIDTH - 4]} ..."
        lines.append(line)
    if any(field.name == "out" for field in dataclasses.fields(kind)):
        names = getattr(presets[default], "resumable_fields", ())
        free = sorted("--" + name for name in names)
        may = f"; may then change: {', '.join(free)}".replace("_", "-") if free else ""
        longer = "; learning rates follow the new number of steps" if "steps" in names else ""
        text = f"Options also include --resume RUN: go on with its settings{may}{longer}"
        lines += ["", _wrap(text), "", _wrap(TRACK_HELP)]
    return "\n".join(lines)


def _costs(settings: Any) -> str:
    """Steps and requirements of a preset, each ending in "; "; "" if there are none."""
    parts = []
    if isinstance(steps := getattr(settings, "steps", None), int):
        parts.append(f"{steps:,} steps")
    names = [getattr(settings, field, "") for field in ("data", "env")]
    parts += [f"needs {need}" for need in map(what_is_needed, filter(_is_text, names)) if need]
    inputs = _inputs(settings)
    makers = [read.script for _, read, path in inputs if "pretrained" not in path.parts]
    if makers:
        parts.append(f"needs {' and '.join(dict.fromkeys(Path(m).stem for m in makers))} first")
    return "".join(f"{part}; " for part in parts)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _has_positional(kind: type) -> bool:
    hints = typing.get_type_hints(kind, include_extras=True).values()
    return any(map(_is_positional, hints))


def _is_positional(hint: Any) -> bool:
    return "Positional" in repr(getattr(hint, "__metadata__", ""))


def _fail(prog: str, message: str) -> NoReturn:
    print(f"{prog}: {message}", file=sys.stderr)
    raise SystemExit(2)
