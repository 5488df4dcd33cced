"""Turn a typed function into a command: options from its signature, help from its docstring.

Positional parameters become arguments, keyword-only ones become options of the same name. A parameter whose type is a
dataclass stands for one option per field. `*rest` receives everything after `--`. A `bool` that is False by default
becomes the flag `--name`; any other `bool` becomes the pair `--name` and `--no-name`. `Annotated[int, {"min": 1}]`
passes settings on to `typer.Option`.
"""

import dataclasses
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin, is_typeddict

import typer

from .. import __version__
from ..project import project_folder

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
COMMAND = "crossfilter-inference"
_COMMON = "common_options"


class UsageError(Exception):
    """A command line that the command does not accept."""


def is_script() -> bool:
    """Return whether a file of `scripts/` was started, not the installed command."""
    return Path(sys.argv[0]).resolve().parent == project_folder() / "scripts"


def parse(
    functions: Sequence[Callable[..., str]], command_line: list[str], about: str = "", common: type | None = None
) -> tuple[partial[str], Any] | None:
    """Read a command line.

    Parameters
    ----------
    functions : sequence of callable
        One for each command; a single one without `about` needs no name on the command line.
    command_line : list of str
        The words after the program's name.
    about : str
        Help of the program that has these commands.
    common : type, optional
        Dataclass of options that every command takes in addition to its own.

    Returns
    -------
    tuple or None
        The chosen function with its arguments, and the common options; None if help was printed.

    Raises
    ------
    UsageError
        If the command does not accept the command line.
    """
    before, rest = _split(command_line)
    program = f"python scripts/{Path(sys.argv[0]).name}" if is_script() else COMMAND
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    if about:
        app.callback(help=about, context_settings=_CONTEXT)(_version_option)
    for function in functions:
        name = function.__name__
        text = _help(function).replace(f"{COMMAND} {name}", program) if is_script() else _help(function)
        app.command(name, help=text, context_settings=_CONTEXT)(_typed(function, rest, common))
        is_chosen = not about or before[:1] == [name]
        if is_chosen and not any(map(_is_argument, inspect.signature(function).parameters.values())):
            before = _repeat_lists(before, function)
    try:
        chosen = app(before or (["--help"] if about else []), prog_name=program, standalone_mode=False)
    except typer.TyperException as error:
        message = _decapitalized(error.format_message()) + _hint(error, functions, before)
        raise UsageError(f"{message}; for help: {_help_command(error, program)}") from None
    return chosen if isinstance(chosen, tuple) else None


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(COMMAND, __version__)
        raise typer.Exit


_VERSION = typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)


def _version_option(version: Annotated[bool, _VERSION] = False) -> None:
    pass


def _split(command_line: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in command_line:
        return command_line, []
    end = command_line.index("--")
    return command_line[:end], command_line[end + 1 :]


def _typed(
    function: Callable[..., str], rest: Sequence[str] = (), common: type | None = None
) -> Callable[..., tuple[partial[str], Any]]:
    """Make the function that Typer calls, with a signature that Typer understands."""
    groups: dict[str, tuple[type, list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    takes_rest = False
    own = [*inspect.signature(function, eval_str=True).parameters.values()]
    if common:
        own.append(inspect.Parameter(_COMMON, inspect.Parameter.KEYWORD_ONLY, annotation=common))
    for parameter in own:
        if parameter.kind is parameter.VAR_POSITIONAL:
            takes_rest = True
        elif dataclasses.is_dataclass(parameter.annotation):
            group = cast(type, parameter.annotation)
            fields = inspect.signature(group, eval_str=True).parameters
            groups[parameter.name] = (group, list(fields))
            parameters += _described(fields.values(), group, is_group=True)
        else:
            parameters += _described([parameter], function)

    def call(**options: Any) -> tuple[partial[str], Any]:
        for name, value in options.items():
            if isinstance(value, float) and not math.isfinite(value):  # it passes every comparison with bounds
                raise UsageError(f"--{name}: {value} is not a number; give a finite one")
        if rest and not takes_rest:
            raise UsageError(f"this command takes nothing after --; remove {rest[0]!r}")
        for name, (make, names) in groups.items():
            options[name] = make(**{field: options.pop(field) for field in names})
        positional = [options.pop(parameter.name) for parameter in own if _is_argument(parameter)]
        shared = options.pop(_COMMON, None)
        return partial(function, *positional, *rest, **options), shared

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _is_argument(parameter: inspect.Parameter) -> bool:
    return parameter.kind is parameter.POSITIONAL_OR_KEYWORD


def _described(
    parameters: Iterable[inspect.Parameter], documented: Callable[..., object], is_group: bool = False
) -> Iterator[inspect.Parameter]:
    texts = dict(_parameter_texts(documented))
    for parameter in parameters:
        name, kind = parameter.name, parameter.annotation
        settings: dict[str, Any] = {"help": texts.get(name, "")}  # none with PYTHONOPTIMIZE=2
        if get_origin(kind) is Annotated:
            kind, more = get_args(kind)
            settings.update(more)
        if dict in _kinds(kind):
            settings["parser"] = json.loads
        if _is_argument(parameter) and not is_group:
            info = typer.Argument(metavar=name.upper(), **settings)
        elif bool in _kinds(kind):
            names = f"--{name}" if parameter.default is False else f"--{name}/--no-{name}"
            info = typer.Option(names, show_default=False, **settings)
        else:
            info = typer.Option(f"--{name}", metavar=_value_name(kind), **settings)
        yield parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=Annotated[kind, info])


def _help(function: Callable[..., str]) -> str:
    """Take summary and examples from a docstring."""
    text = inspect.getdoc(function) or ""
    summary = re.split(r"^\w+\n-+$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()
    # \b keeps the line breaks of a block.
    return f"{summary}\n\n\b\nExamples:\n{_section(text, 'Examples').rstrip()}\n"


def _parameter_texts(documented: Callable[..., object]) -> Iterator[tuple[str, str]]:
    """Yield the name and the description of each parameter of a numpydoc docstring."""
    section = _section(inspect.getdoc(documented) or "", "Parameters")
    for name, text in re.findall(r"^\*?(\w+) :.*\n((?:(?: .*)?\n)*)", section, re.MULTILINE):
        yield name, " ".join(text.split())


def _section(text: str, name: str) -> str:
    found = re.search(rf"^{name}\n-+\n(.*?)(?=^\w+\n-+$|\Z)", f"{text}\n", re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _repeat_lists(command_line: list[str], function: Callable[..., str]) -> list[str]:
    """Let a list option take several values, as Snakemake's do: `--configfile a b`."""
    signature = inspect.signature(_typed(function))
    lists = {f"--{p.name}" for p in signature.parameters.values() if _is_list(get_args(p.annotation)[0])}
    repeated: list[str] = []
    option, n_values = "", 0
    for word in command_line:
        if word.startswith("-"):
            option, n_values = word, 0
        elif option in lists:
            if n_values:
                repeated.append(option)
            n_values += 1
        repeated.append(word)
    return repeated


def _value_name(kind: object) -> str:
    names = {dict: "JSON", Path: "FILE", str: "TEXT", int: "NUMBER", float: "NUMBER"}
    return next(name for one, name in names.items() if one in _kinds(kind)) + (" ..." if _is_list(kind) else "")


def _is_list(kind: object) -> bool:
    return list in _kinds(kind)


def _kinds(kind: object) -> set[object]:
    """Name all types in an annotation: `list[str] | None` has list, str and None; a TypedDict is a dict."""
    return {dict if is_typeddict(kind) else kind, get_origin(kind)}.union(*map(_kinds, get_args(kind)))


def _decapitalized(text: str) -> str:
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]


def _hint(error: typer.TyperException, functions: Iterable[Callable[..., str]], words: list[str]) -> str:
    """Return where options belong that a command does not know but passes on."""
    chosen = [function for function in functions if function.__name__ in words[:1]]
    parameters = [parameter for function in chosen for parameter in inspect.signature(function).parameters.values()]
    passes_on = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    return "; put Snakemake options after --" if passes_on and "o such option" in error.format_message() else ""


def _help_command(error: typer.TyperException, program: str) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else program} --help"
