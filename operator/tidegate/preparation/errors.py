"""What stops a preparation, in one sentence for the person who started it."""


class PreparationError(RuntimeError):
    """Something is wrong with what was given, or with this machine; says what and the way round."""


class NothingToDo(PreparationError):
    """An optimisation that has nothing to work on in this model."""


def one_line(problem: BaseException) -> str:
    """The first line with words of another library's failure, at most 300 characters."""
    lines = (line.strip() for line in str(problem).splitlines())
    told = next((line for line in lines if line), type(problem).__name__)
    return told if len(told) <= 300 else f"{told[:297]}..."
