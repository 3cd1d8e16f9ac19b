"""Wrong usage of every command: status 2, one line that names option and value, and the mend.

No cluster is asked for any of it: the kubeconfig names a server that is not there.
"""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.cli import main, reference, waiting
from tidegate.cli.trouble import Exit
from tidegate.verbs import Verb

NOWHERE = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: away, user: me}}]
clusters: [{name: away, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: me, user: {}}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "config").write_text(NOWHERE)
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-text.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "in.json").write_text('{"inputs": [{"name": "x"}]}')
    two = "\n---\n".join(
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {n}}}" for n in "ab"
    )
    (tmp_path / "two.yaml").write_text(two)
    return tmp_path


RECORD = ("golden", "record", "m")
NO_SPAN = "is no length of time; write 90s, 30m, 1h30m"
VERBS = [((verb.value, "m", "--timeout", "3 parsecs"), f"'3 parsecs' {NO_SPAN}") for verb in Verb]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        *VERBS,
        (("wait", "m", "--timeout", "x"), f"--timeout 'x' {NO_SPAN}"),
        (("wait", "m", "--timeout", ""), f"--timeout '' {NO_SPAN}"),
        (("wait", "m", "--timeout", "-5s"), f"--timeout '-5s' {NO_SPAN}"),
        (("wait", "m", "--timeout", "1h2h"), f"--timeout '1h2h' {NO_SPAN}"),
        (("wait", "m", "--timeout", "9" * 400), NO_SPAN),
        (("wait", "m", "--timeout", "²"), f"--timeout '²' {NO_SPAN}"),
        (("wait", "m", "--for", "Promoted"), "'Promoted' is not one of 'promoted', 'ready', 'avai"),
        (("get", "m", "-w", "-o", "json"), "-w and -o do not go together; leave one out"),
        (("get", ""), "'' names no ModelDeployment; see tidegate list"),
        (("explain", "mdep/"), "'mdep/' names no ModelDeployment; see tidegate list"),
        (("get", "m", "-o", "xml"), "'xml' is not one of 'json', 'yaml', 'name', 'view'"),
        (("list", "--kubeconfig", "away"), "there is no kubeconfig away; correct --kubeconfig"),
        (("list", "--context", "there"), "--context 'there' is not in the kubeconfig; it has here"),
        (("--color", "pink", "list"), "'pink' is not one of 'auto', 'always', 'never'"),
        (("logs", "m", "--tail", "-3"), "invalid value '-3' for '--tail': "),
        (("logs", "m", "--tail=few"), "invalid value 'few' for '--tail': "),
        (("dashboard", "--port", "70000"), "invalid value '70000' for '--port': "),
        (("init", "away"), "there is nothing at away; name a model's file or folder"),
        (("init", "empty"), "empty holds no files; name a model's file or folder"),
        (("init", "empty", "-f", "x", "-o", "json"), "-f and -o do not go together; leave one out"),
        (("eject", "m", "-f", "x", "-o", "json"), "-f and -o do not go together; leave one out"),
        (("migrate", "two.yaml", "-f", "x", "-o", "yaml"), "-f and -o do not go together"),
        (("migrate", "away.yaml"), "FILE away.yaml: No such file or directory; give manifests"),
        (("migrate", "no-text.yaml"), "FILE no-text.yaml: is no text; give manifests"),
        (("migrate", "two.yaml", "--name", "x"), "--name 'x' is about one object, there are 2; gi"),
        (("migrate", "two.yaml", "--latency", "soon"), "--latency soon cannot be an objective; tw"),
        (("migrate", "two.yaml", "--latency", "123ms"), "--latency 123ms cannot be an objective"),
        (("plan", "-f", "away.yaml"), "-f away.yaml: No such file or directory; name a manifest"),
        (("plan", "-f", "empty"), "-f empty: Is a directory; name a manifest"),
        (("plan", "-f", "no-text.yaml"), "-f no-text.yaml: is no text; name a manifest"),
        (("plan", "-f", "two.yaml", "--objects", "-o", "json"), "--objects and -o do not go toge"),
        (("plan", "-f", "two.yaml", "--rate", "-1"), "invalid value '-1' for '--rate': "),
        (("plan", "-f", "two.yaml", "--rate", "nan"), "'--rate'"),
        (("plan", "-f", "two.yaml", "--rate", "inf"), "--rate inf is no number; write one"),
        (RECORD, "no INPUTS; name a folder of requests, or --again"),
        ((*RECORD, "in.json", "--again"), "--again and INPUTS in.json do not go together; leave"),
        ((*RECORD, "away.json"), "INPUTS away.json: No such file or directory; one request each"),
        ((*RECORD, "empty"), "empty holds no .json files; one request each"),
        ((*RECORD, "in.json", "--host", "h"), "--host h is for a gateway; give its --url, too"),
        ((*RECORD, "in.json", "--url", "ftp://m"), "'ftp://m' is no http(s) address; such as http"),
        ((*RECORD, "in.json", "--redact", "("), "--redact ( is no regular expression: missing )"),
        (
            (*RECORD, "in.json", "--tolerance", "x"),
            "--tolerance x cannot be read; write score=0.01",
        ),
        (
            (*RECORD, "in.json", "--tolerance", "y=1", "--drop", "y"),
            "--drop and --tolerance both name output y; choose one",
        ),
        ((*RECORD, "in.json", "--times", "0"), "invalid value '0' for '--times': "),
        (("load", "m", "in.json", "--duration", "x"), f"--duration 'x' {NO_SPAN}"),
        (
            ("load", "m", "in.json", "--duration", "11m"),
            "--duration 11m is no short test; write 1s",
        ),
        (("load", "m", "in.json", "--duration", "0"), "--duration 0 is no short test; write 1s to"),
        (("load", "m", "in.json", "--in-flight", "0"), "invalid value '0' for '--in-flight': "),
        (("load", "m", "in.json", "--rate", "0"), "invalid value '0' for '--rate': "),
        (("load", "m", "in.json", "--rate", "nan"), "'--rate'"),
        (("load", "m", "in.json", "--url", "::"), "'::' is no http(s) address; such as http"),
        (("load", "m", "away"), "INPUTS away: No such file or directory; one request each"),
        (("completion", "cmd"), "'cmd' is not one of 'bash'"),
        (("prepare", "--confidence", "2"), "invalid value '2' for '--confidence': "),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("folder")
def test_it_ends_with_2_and_one_line(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    printed = capsys.readouterr()
    assert said in printed.err
    assert ended.value.code == Exit.USAGE
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert "; " in printed.err, "says what to do about it"


def test_every_option_of_a_number_is_tried() -> None:
    """A new one shows up here, so that it is thought of: what if it is none, or `nan`?"""
    page = reference.markdown()
    sections = re.findall(r"^### tidegate (.+?)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    found = {
        f"{command} {option}"
        for command, text in sections
        for option in re.findall(r"(--[a-z-]+) <(?:int|float)", text)
    }
    assert found == {
        *("logs --tail", "dashboard --port", "plan --rate", "golden record --times"),
        *("load --rate", "load --in-flight", "prepare --confidence"),
        *(f"simulate --{n}" for n in ("variation", "times", "gpu-price", "runs", "seed")),
        *(f"simulate --{n}" for n in ("hpa-utilization", "hpa-latency", "keda-rps")),
    }


@given(st.text(max_size=8))
def test_a_length_of_time_is_one_or_is_refused(text: str) -> None:
    try:
        found = waiting.seconds(text)
    except ValueError:
        return
    assert 0.0 <= found <= waiting.LONGEST_S


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("0", 0.0), ("90s", 90.0), ("1h30m", 5400.0), ("2d", 172_800.0)],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert waiting.seconds(text) == seconds
