"""What the demo shows: on a terminal, in a pipe, in a picture."""

import re
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.text import Text

from e2e.demo.screen import WIDTH, Screen, client_line, record, svg
from e2e.demo.story import ACTS, Tally
from tidegate.cli.render import plain

SEEN = Tally(sent=100, failed=2, by={"v1": 74, "v2": 24}, p50_ms=21.4, p99_ms=48.0)


def told(*, live: bool) -> tuple[Screen, str]:
    """An act as it is told, and what was written."""
    file = StringIO()
    console = Console(
        file=file, width=WIDTH, force_terminal=live, color_system="truecolor" if live else None
    )
    screen = Screen(console, live=live)
    with screen.act(ACTS[2], 5):
        screen.beat(1.25, "Mirroring, 100% mirrored", SEEN)
        screen.show(Text("a moment"))
        screen.keep(Text("a moment that stays"))
    screen.results(["RolledBack; the client: nothing"], ["failed responses: 2, expected 0"])
    return screen, file.getvalue()


def test_what_the_client_sees() -> None:
    shown = plain(client_line(SEEN, SEEN, 2.0))
    assert "50 requests/s, this act 100 sent, 2 failed, p50 21 ms, p99 48 ms" in shown
    assert re.search(r"v1 █+░+ 76 % +v2 █+░+ 24 %", shown)


def test_a_client_without_answers_has_no_shares() -> None:
    assert plain(client_line(Tally(), Tally(), 2.0)).count("\n") == 1


def test_in_a_pipe_there_are_plain_lines() -> None:
    _, text = told(live=False)
    assert "\x1b" not in text
    assert "Act 3 of 5  a bad v3 is caught in the mirror" in text
    assert "1.2 s  Mirroring, 100% mirrored" in text
    assert "client: 100 requests, 2 failed; v1 74, v2 24" in text
    assert "a moment that stays" in text
    assert "a moment\n" not in text
    assert "not as told: failed responses: 2, expected 0" in text


def test_on_a_terminal_it_moves_and_what_happened_stays() -> None:
    screen, text = told(live=True)
    assert "\x1b[" in text
    assert "a moment\x1b" in text or "a moment " in text or "a moment\r" in text
    assert "Mirroring, 100% mirrored" in text
    shown = "".join(plain(one) for one in screen.told)
    assert "a moment that stays" in shown
    assert "a moment\n" not in shown


def test_the_picture_shows_the_story_and_asks_no_other_server(tmp_path: Path) -> None:
    screen, _ = told(live=False)
    path = tmp_path / "images" / "demo.svg"
    record(screen.told, "make demo", path)
    text = path.read_text()
    assert text == svg(screen.told, "make demo")
    drawn = ElementTree.fromstring(text)
    assert [one.text for one in drawn if one.tag.endswith("title")] == ["make demo in a terminal"]
    assert "font-face" not in text
    assert set(re.findall(r"https?://[^\"'\s)<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "Mirroring,&#160;100%&#160;mirrored" in text
