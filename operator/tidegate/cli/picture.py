"""A picture of three curves over the same minutes, as a PNG."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidegate.cli.trouble import Misuse, Trouble


def check(path: Path | None) -> None:
    """Whether it may be drawn into, before the minutes that its curves take.

    Raises:
        Misuse: it is no PNG, or its folder is not there.
    """
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise Misuse(f"--picture {path} is no PNG", "give a path that ends in .png")
    if not path.parent.is_dir() or path.is_dir():
        raise Misuse(f"--picture {path} cannot be written", "name a file in a folder that is there")


@contextmanager
def three_axes(path: Path, height_in: float) -> Iterator[tuple[Any, Any, Any]]:
    """Axes to draw on, the top one first; the file is written at the end.

    Args:
        path: of the file.
        height_in: of the picture, inches; it is 10 wide.

    Raises:
        Trouble: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise Trouble(
            "--picture needs matplotlib, which is not installed", "pip install matplotlib"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (top, middle, bottom) = pyplot.subplots(3, 1, figsize=(10, height_in), sharex=True)
    try:
        yield top, middle, bottom
        for axis in (top, middle, bottom):
            axis.grid(alpha=0.3)
        bottom.set_xlabel("minutes")
        figure.tight_layout()
        try:
            figure.savefig(path, dpi=90)
        except (OSError, ValueError) as error:
            raise Misuse(
                f"--picture {path} cannot be written: {error}", "give a path that ends in .png"
            ) from None
    finally:
        pyplot.close(figure)
