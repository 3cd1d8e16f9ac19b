"""What goes wrong, in one line with a mend; and the exit codes."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; 2 is wrong usage."""

    REACHED = 0
    ERROR = 1
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
