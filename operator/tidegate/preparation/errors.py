"""What stops a preparation, in one sentence for the person who started it."""

from typing import Final

INSTALL: Final = "in a copy of Tidegate's repository: pip install '.[cli,preparation]'"
"""How to get what is not installed."""


class PreparationError(RuntimeError):
    """Something is wrong with what was given, or with this machine; says what and the way round."""


class NoRoomError(PreparationError):
    """A disc is full: nothing that failed for it says anything of the model."""


class NothingToDo(PreparationError):
    """An optimisation that has nothing to work on in this model."""


def one_line(problem: BaseException) -> str:
    """What another library's failure says first, at most 300 characters.

    Where that only announces what follows, the last line.
    """
    lines = [line for line in map(str.strip, str(problem).splitlines()) if line]
    told = lines[0] if lines else type(problem).__name__
    if told.endswith(":"):
        told = lines[-1]
    return told if len(told) <= 300 else f"{told[:297]}..."
