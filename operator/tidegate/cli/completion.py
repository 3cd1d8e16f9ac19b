"""What may come next on a command line, in the protocol by which kubectl asks its plugins.

kubectl calls ``kubectl_complete-tidegate WORD... INCOMPLETE``, and the shells' own scripts (see
`SCRIPTS`) call ``tidegate __complete`` alike: one candidate a line, a description behind a tab, and
``:4`` in the end (no file names), or ``:0`` (file names).
"""

import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, Final

NO_FILES: Final = ":4"
FILES: Final = ":0"
_NAMED: Final = ("name", "revision")
_PATHS: Final = ("filename", "path", "inputs", "platform", "kubeconfig")
"""Parameters that are files."""

SCRIPTS: Final = {
    "bash": """\
_tidegate() {
  local IFS=$'\\n'
  COMPREPLY=($(tidegate __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null \\
    | grep -v '^:' | cut -f1))
}
complete -o default -F _tidegate tidegate
""",
    "zsh": """\
#compdef tidegate
_tidegate() {
  local -a found
  found=("${(@f)$(tidegate __complete "${(@)words[2,$CURRENT]}" 2>/dev/null \\
    | grep -v '^:' | sed 's/:/\\\\:/g; s/\\t/:/')}")
  _describe tidegate found
}
compdef _tidegate tidegate
""",
    "fish": """\
complete -c tidegate -f -a "(tidegate __complete (commandline -opc)[2..] (commandline -ct) \\
  2>/dev/null | string match -v -r '^:')"
""",
    "kubectl": """\
#!/bin/sh
# Put on PATH as kubectl_complete-tidegate; needed only where the package did not install it.
exec tidegate __complete "$@"
""",
}
"""By shell."""


def candidates(
    command: Any,
    words: Sequence[str],
    incomplete: str,
    known: Callable[[str, dict[str, str]], Iterable[tuple[str, str]]],
) -> tuple[list[tuple[str, str]], str]:
    """What may stand at the place of the incomplete word: texts with descriptions; a directive.

    Args:
        command: typer's group.
        words: complete ones before it.
        incomplete: the word so far.
        known: candidates for a parameter, by its name and what was given: names of the cluster.
    """
    given: dict[str, str] = {}
    positional = 0
    waiting: Any = None
    seen = [command]
    for word in words:
        if waiting is not None:
            given[waiting.name] = word
            waiting = None
        elif word.startswith("-"):
            option = _option(seen, word.partition("=")[0])
            if option is not None and not option.is_flag:
                if "=" in word:
                    given[option.name] = word.partition("=")[2]
                else:
                    waiting = option
        elif word in getattr(command, "commands", {}):
            command = command.commands[word]
            seen.append(command)
        else:
            arguments = [p for p in command.params if p.param_type_name == "argument"]
            if positional < len(arguments):
                given[arguments[positional].name] = word
            positional += 1
    if waiting is not None:
        return _values(seen, waiting, incomplete, given, known)
    if incomplete.startswith("-"):
        found = [
            (text, (p.help or "").partition("\n")[0])
            for c in reversed(seen)
            for p in c.params
            if p.param_type_name == "option" and not p.hidden
            for text in p.opts
            if text.startswith("--")
        ]
        return _begun(found, incomplete), NO_FILES
    if getattr(command, "commands", None):
        found = [
            (name, c.get_short_help_str(80)) for name, c in command.commands.items() if not c.hidden
        ]
        return _begun(found, incomplete), NO_FILES
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    if positional < len(arguments):
        return _values(seen, arguments[positional], incomplete, given, known)
    return [], NO_FILES


def _option(commands: Iterable[Any], text: str) -> Any:
    options = (p for c in commands for p in c.params if p.param_type_name == "option")
    return next((p for p in options if text in p.opts), None)


def _choices(command: Any, parameter: str) -> list[str]:
    """The values of a parameter that is an enumeration; none for others.

    From the annotations: what typer keeps of them differs from version to version.
    """
    function = inspect.unwrap(command.callback) if command.callback else None
    hint = typing.get_type_hints(function).get(parameter) if function else None
    kinds = typing.get_args(hint) or (hint,)
    return [str(m.value) for k in kinds if isinstance(k, type) and issubclass(k, Enum) for m in k]


def _values(
    commands: Sequence[Any],
    parameter: Any,
    incomplete: str,
    given: dict[str, str],
    known: Callable[[str, dict[str, str]], Iterable[tuple[str, str]]],
) -> tuple[list[tuple[str, str]], str]:
    owner = next((c for c in reversed(commands) if parameter in c.params), commands[-1])
    if choices := _choices(owner, parameter.name):
        return _begun([(text, "") for text in choices], incomplete), NO_FILES
    if parameter.name in _PATHS:
        return [], FILES
    return _begun(known(parameter.name, given), incomplete), NO_FILES


def _begun(found: Iterable[tuple[str, str]], incomplete: str) -> list[tuple[str, str]]:
    return [(text, about) for text, about in dict(found).items() if text.startswith(incomplete)]


def in_cluster(parameter: str, given: dict[str, str]) -> list[tuple[str, str]]:
    """Names of ModelDeployments, or hashes of one's revisions; none where none can be read."""
    if parameter not in _NAMED:
        return []
    from tidegate import view
    from tidegate.cli.client import Client, deployment_path
    from tidegate.cli.common import utc_now
    from tidegate.cli.kubeconfig import access
    from tidegate.cli.trouble import Trouble
    from tidegate.view import facts

    try:
        found = access(kubeconfig=given.get("kubeconfig"), context=given.get("context"))
        client = Client(found)
        space = given.get("namespace") or found.namespace
        try:
            if parameter == "name":
                rows = [view.summary(d, utc_now()) for d in client.list(deployment_path(space))]
                return [(r["name"], r["state"]["word"]) for r in rows]
            document = client.get(space, given.get("name", ""))
            return [(hash_, "") for hash_ in facts.known_revisions(document)]
        finally:
            client.close()
    except Trouble:
        return []


def answer(arguments: Sequence[str]) -> str:
    """The text that kubectl reads."""
    import typer

    from tidegate.cli.main import app

    words, incomplete = list(arguments[:-1]), (arguments[-1] if arguments else "")
    found, directive = candidates(typer.main.get_command(app), words, incomplete, in_cluster)
    lines = [f"{text}\t{about}" if about else text for text, about in found]
    return "\n".join([*lines, directive]) + "\n"


def main() -> None:
    """As ``kubectl_complete-tidegate``."""
    sys.stdout.write(answer(sys.argv[1:]))
