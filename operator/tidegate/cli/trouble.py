"""What goes wrong, in one line with a mend; and the exit codes."""

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes."""

    REACHED = 0
    ERROR = 1
    USAGE = 2
    FAILED = 3
    """Rolled back, or waiting for somebody to mend something."""
    TIMEOUT = 4
    NOT_FOUND = 5


class Trouble(Exception):
    """Ends a command.

    Attributes:
        message: what is wrong, in one line.
        mend: what to do about it; may be empty.
        code: exit code.
    """

    def __init__(self, message: str, mend: str = "", *, code: Exit = Exit.ERROR) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.mend = " ".join(mend.split())
        self.code = code

    def __str__(self) -> str:
        """Message and mend in one line."""
        return f"{self.message}; {self.mend}" if self.mend else self.message


class Misuse(Trouble):
    """The command line itself is wrong: what no cluster needs to be asked about.

    A value that is none, options that are missing or contradict each other, a file that is not
    there. The message names the option and the value.
    """

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message, mend, code=Exit.USAGE)


def misused(error: Exception, arguments: Sequence[str] = ()) -> Trouble | None:
    """Typer's word for wrong usage as one line with a mend; None for any other error.

    Typer's errors have no public names: they are click's, or those of its own copy of click. The
    line is empty where the help was printed already.

    Args:
        error: what was raised.
        arguments: as they were typed, for the value that typer does not name.
    """
    if not hasattr(error, "format_message"):
        return None
    text = " ".join(str(error.format_message()).replace("Value error, ", "").split())
    options = getattr(getattr(error, "param", None), "opts", ())
    if (value := _typed(options, arguments)) is not None and repr(value) not in text:
        text = text.replace("Invalid value", f"Invalid value {value!r}", 1)
    text, _, meant = text.removesuffix(".").partition(". Did you mean ")
    if not meant and " (Possible options: " in text:
        text, _, meant = text.removesuffix(")").partition(" (Possible options: ")
    if meant:
        names = meant.replace("'", "").removesuffix("?").split(", ")
        mend = f"did you mean {' or '.join(names)}?"
    else:
        context = getattr(error, "ctx", None)
        mend = f"see {context.command_path if context else 'tidegate'} --help"
    return Misuse(text[:1].lower() + text[1:], mend if text else "")


def _typed(options: Sequence[str], arguments: Sequence[str]) -> str | None:
    """The value that was given to an option last."""
    found = None
    for place, here in enumerate(arguments):
        for option in (o for o in options if o.startswith("-")):
            if here == option:
                found = next(iter(arguments[place + 1 :]), None)
            elif here.startswith(f"{option}="):
                found = here.removeprefix(f"{option}=")
    return found
