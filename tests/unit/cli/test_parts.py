"""The pure parts behind `init`, `plan`, `golden record` and `load`."""

import base64
import json
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.api_server import Server
from tests.unit.cli.conftest import Run
from tests.unit.plan.world import World
from tidegate import golden
from tidegate.api.spec import parse
from tidegate.cli import expecting, fitting, loading, recording, starting
from tidegate.cli.trouble import Trouble
from tidegate.golden import Answer, Output

ARTEFACTS = Path("tests/unit/fetch/artefacts")
MINIMAL = {
    "model": {"source": {"uri": "s3://models/magika/v3"}},
    "slo": {"latency": {"quantile": "0.99", "target": "100ms"}, "maxErrorRate": "1%"},
}


class TestInit:
    @pytest.mark.parametrize(
        ("path", "backend", "name"),
        [
            (ARTEFACTS / "onnx.onnx", "onnxruntime", "onnx"),
            (ARTEFACTS / "xgboost.json", "fil", "xgboost"),
            (Path("e2e/models/magika"), "python", "magika"),
        ],
    )
    def test_a_manifest_that_is_one(self, path: Path, backend: str, name: str) -> None:
        found = starting.look(path)
        text = starting.manifest(found, name=name, uri="", gpu=None, pin=True)
        body = yaml.safe_load(text)
        assert body["metadata"]["name"] == name
        spec = parse(body["spec"])
        assert spec.model.backend == backend == found.backend
        assert spec.model.source.sha256 == found.sha256

    def test_a_repository(self, tmp_path: Path) -> None:
        folder = tmp_path / "Ranker_2"
        (folder / "3").mkdir(parents=True)
        (folder / "3" / "model.onnx").write_bytes((ARTEFACTS / "onnx.onnx").read_bytes())
        (folder / "config.pbtxt").write_text('backend: "onnxruntime"\nmax_batch_size: 8\n')
        found = starting.look(folder)
        assert (found.layout, found.versions, found.batches) == ("repository", ("3",), True)
        name = starting.deployment_name(found.model)
        body = yaml.safe_load(starting.manifest(found, name=name, uri="", gpu=False, pin=False))
        assert name == "ranker-2"
        assert body["spec"]["model"]["name"] == "Ranker_2"
        assert "backend" not in body["spec"]["model"], "the repository says it itself"
        assert body["spec"]["runtime"]["gpu"]["count"] == 0

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            (Path("/nowhere"), "there is nothing at /nowhere"),
            (ARTEFACTS, "more than one model fits"),
            (ARTEFACTS / "openvino.xml", "without its .bin"),
        ],
    )
    def test_what_is_none(self, path: Path, said: str) -> None:
        with pytest.raises(Trouble, match=said):
            starting.look(path)

    def test_nothing_is_overwritten(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "x.yaml"
        arguments = ("init", str(ARTEFACTS / "onnx.onnx"), "-f", str(file))
        run(Server(), *arguments)
        before = file.read_text()
        assert "exists" in run(Server(), *arguments, code=1).err
        assert file.read_text() == before

    @given(st.text(max_size=60))
    def test_any_name_becomes_one_or_is_refused(self, text: str) -> None:
        try:
            found = starting.deployment_name(text)
        except Trouble:
            return
        assert starting.deployment_name(found) == found


def container(cpu: str, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu}, **more}}


def node(name: str, *, gpus: int = 1, **more: Any) -> dict[str, Any]:
    labels = {"nvidia.com/gpu.memory": "23034", **more.pop("labels", {})}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": more,
        "status": {
            "allocatable": {"cpu": "8", "nvidia.com/gpu": str(gpus), "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


GPU_POD = {"containers": [container("1", limits={"nvidia.com/gpu": "1"})]}


class TestFit:
    def test_what_a_pod_asks_for(self) -> None:
        """Sidecars count with the containers, init steps only where they are larger."""
        pod = {
            "initContainers": [
                container("3"),
                {**container("0.5"), "restartPolicy": "Always"},
                container("0.25"),
            ],
            "containers": [container("1"), container("500m")],
        }
        assert fitting.requests(pod)["cpu"] == 3
        pod["initContainers"][0] = container("100m")
        assert fitting.requests(pod)["cpu"] == 2

    def test_room(self) -> None:
        there = {"spec": {"nodeName": "a", **GPU_POD}, "status": {"phase": "Running"}}
        done = {"spec": {"nodeName": "a", **GPU_POD}, "status": {"phase": "Succeeded"}}
        found = fitting.fit(GPU_POD, [node("a", gpus=3), node("b", gpus=1)], [there, done])
        assert (found.pods, found.nodes) == (3, {"a": 2, "b": 1})

    @pytest.mark.parametrize(
        ("one", "reason"),
        [
            (node("a", gpus=0), "lack nvidia.com/gpu"),
            (node("a", unschedulable=True), "are cordoned"),
            (
                node("a", taints=[{"key": "gpu", "effect": "NoSchedule"}]),
                "have the taint gpu",
            ),
        ],
    )
    def test_why_not(self, one: dict[str, Any], reason: str) -> None:
        found = fitting.fit(GPU_POD, [one], [])
        assert (found.pods, found.reasons) == (0, {reason: 1})
        assert str(found) == f"0/1 nodes have room: 1 {reason}"

    def test_which_gpu(self) -> None:
        term = {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["24000"]}
        required = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
        large = node("b", labels={"nvidia.com/gpu.memory": "46068"})
        found = fitting.fit({**GPU_POD, "affinity": affinity}, [node("a"), large], [])
        assert found.nodes == {"b": 1}
        assert found.reasons == {"have another GPU than asked for": 1}

    def test_a_taint_that_is_tolerated(self) -> None:
        tolerant = {**GPU_POD, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
        tainted = node("a", taints=[{"key": "gpu", "effect": "NoSchedule"}])
        assert fitting.fit(tolerant, [tainted], []).pods == 1


class TestExpecting:
    def test_the_requests_of_a_proof(self) -> None:
        """With no failure, 1 % is proved after 377 requests at 95 %."""
        found = expecting.stages(parse(MINIMAL), None)
        assert sum(s.requests or 0 for s in found) == 377
        assert expecting.total_s(found) is None

    @given(st.floats(0.01, 1e5))
    def test_more_traffic_is_never_slower(self, rate: float) -> None:
        spec = parse(MINIMAL)
        slow = expecting.total_s(expecting.stages(spec, rate))
        fast = expecting.total_s(expecting.stages(spec, 2 * rate))
        assert slow is not None
        assert fast is not None
        assert fast <= slow * 1.01 + 1

    def test_holds_bound_it_from_below(self) -> None:
        found = expecting.total_s(expecting.stages(parse(MINIMAL), 1e6))
        assert found == 4 * 30 + 600

    def test_without_steps_only_the_bake_is_left(self) -> None:
        spec = parse({**MINIMAL, "rollout": {"strategy": "BlueGreen"}})
        assert [s.name for s in expecting.stages(spec, 1.0)] == ["bake"]


class TestRedaction:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("mail ada@example.com now", "mail xxxxxxxxxxxxxxx now"),
            ("card 4111 1111 1111 1111.", "card xxxx xxxx xxxx xxxx."),
            ("order 1234567812345678", "order 1234567812345678"),
            ("key AKIAIOSFODNN7EXAMPLE", "key xxxxxxxxxxxxxxxxxxxx"),
            ("Authorization: Bearer abcdef1234567890", "Authorization: Bearer xxxxxxxxxxxxxxxx"),
            ("nothing here", "nothing here"),
        ],
    )
    def test_texts(self, text: str, expected: str) -> None:
        assert recording.Redactor().text(text) == expected

    def test_bytes_and_lists(self) -> None:
        redactor = recording.Redactor()
        raw = base64.b64encode(b"\xff to ada@example.com").decode()
        found = redactor.value([["ada@example.com"], {"base64": raw}, 7, True])
        assert found[0] == ["x" * 15]
        assert base64.b64decode(found[1]["base64"]) == b"\xff to " + b"x" * 15
        assert found[2:] == [7, True]
        assert redactor.struck == {"e-mail address": 2}

    def test_more_patterns(self) -> None:
        redactor = recording.Redactor({"ticket": r"T-\d+"})
        assert redactor.text("see T-123, ada@example.com") == "see xxxxx, ada@example.com"
        with pytest.raises(Trouble, match="no regular expression"):
            recording.Redactor({"x": "["})

    @given(st.text(max_size=200))
    def test_the_length_stays(self, text: str) -> None:
        assert len(recording.Redactor().text(text)) == len(text)


REQUEST = {
    "inputs": [{"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": ["import os"]}]
}


def answer(label: bytes = b"python", *scores: float) -> Answer:
    values = scores or (0.5,)
    return Answer(
        200,
        {
            "label": Output("BYTES", (1, 1), struct.pack("<I", len(label)) + label),
            "score": Output("FP32", (1, len(values)), struct.pack(f"<{len(values)}f", *values)),
        },
    )


def recorded(*answers: Answer, **more: Any) -> recording.Recorded:
    left = list(answers)
    return recording.record("a.json", REQUEST, lambda: left.pop(0), times=len(answers), **more)


class TestRecording:
    def test_an_answer_becomes_an_expectation_that_it_meets(self) -> None:
        found = recorded(answer(), answer())
        assert found.notes == ()
        body = recording.config_map("m-golden", "demo", {"a.json": found})
        (parsed,) = golden.parse(body)
        assert golden.compare(parsed, answer()) == ""
        assert "label" in golden.compare(parsed, answer(b"html"))

    def test_a_number_that_wavers_gets_a_tolerance(self) -> None:
        found = recorded(answer(b"python", 0.5), answer(b"python", 0.5001))
        score = found.document["expected"]["outputs"][1]
        assert 1e-4 <= score["tolerance"]["absolute"] <= 0.01
        assert "differs from answer to answer" in found.notes[0]
        (parsed,) = golden.parse(recording.config_map("m", "demo", {"a.json": found}))
        assert golden.compare(parsed, answer(b"python", 0.5001)) == ""

    def test_what_differs_otherwise_is_kept_by_its_shape(self) -> None:
        found = recorded(answer(b"python"), answer(b"ruby"))
        assert found.document["expected"]["outputs"][0] == {"name": "label", "shape": [1, 1]}

    def test_outputs_that_are_not_wanted(self) -> None:
        found = recorded(answer(), drop=["score"], shape_only=["label"])
        assert found.document["expected"]["outputs"] == [{"name": "label", "shape": [1, 1]}]
        with pytest.raises(Trouble, match="no output is left"):
            recorded(answer(), drop=["score", "label"])

    @pytest.mark.parametrize(
        ("text", "written", "fits", "not_"),
        [
            ("score=0.01", {"absolute": 0.01}, 0.509, 0.511),
            ("score=1%", {"relative": 0.01}, 0.504, 0.506),
            ("score=0.01+1%", {"absolute": 0.01, "relative": 0.01}, 0.514, 0.516),
            ("score=1e-3", {"absolute": 0.001}, 0.5009, 0.502),
            ("score=0", {"absolute": 0.0}, 0.5, 0.50001),
        ],
    )
    def test_a_tolerance_that_is_given(
        self, text: str, written: dict[str, float], fits: float, not_: float
    ) -> None:
        found = recorded(answer(), answer(), allowed=recording.tolerances([text]))
        assert found.document["expected"]["outputs"][1]["tolerance"] == written
        assert found.notes == ()
        (parsed,) = golden.parse(recording.config_map("m", "demo", {"a.json": found}))
        assert golden.compare(parsed, answer(b"python", fits)) == ""
        assert "score" in golden.compare(parsed, answer(b"python", not_))

    def test_a_tolerance_that_the_answers_themselves_keep(self) -> None:
        """Without one this much would leave the shape only."""
        wavering = [answer(b"python", 0.5), answer(b"python", 0.7)]
        found = recorded(*wavering, allowed=recording.tolerances(["score=0.3"]))
        assert found.document["expected"]["outputs"][1]["data"] == [0.5]
        with pytest.raises(Trouble, match=r"output score: differs .* by more than its --tolerance"):
            recorded(*wavering, allowed=recording.tolerances(["score=0.1"]))

    @pytest.mark.parametrize(
        ("texts", "more", "said"),
        [
            (["label=0.1"], {}, "output label: is no output of numbers"),
            (["score=0.1"], {"drop": ["score"]}, "choose one"),
            (["score=0.1"], {"shape_only": ["score"]}, "choose one"),
        ],
    )
    def test_a_tolerance_of_nothing(
        self, texts: list[str], more: dict[str, list[str]], said: str
    ) -> None:
        with pytest.raises(Trouble, match=said):
            recorded(answer(), allowed=recording.tolerances(texts), **more)

    @pytest.mark.parametrize(
        "texts", [["score"], ["=1"], ["score="], ["score=-1"], ["score=1+2"], ["score=1%%"]]
    )
    def test_a_tolerance_that_cannot_be_read(self, texts: list[str]) -> None:
        with pytest.raises(Trouble, match="cannot be read"):
            recording.tolerances(texts)
        with pytest.raises(Trouble, match="twice"):
            recording.tolerances(["score=1", "score=2%"])

    def test_a_large_output(self) -> None:
        found = recorded(answer(b"x", *([0.5] * 2000)))
        assert found.document["expected"]["outputs"][1] == {"name": "score", "shape": [1, 2000]}

    def test_a_refusal(self) -> None:
        with pytest.raises(Trouble, match="answered HTTP 400: no such input"):
            recorded(Answer(400, error="no such input"))


def wire(found: Answer) -> tuple[int, dict[str, str], bytes]:
    """An answer as a server sends it."""
    outputs = [
        {
            "name": name,
            "datatype": o.datatype,
            "shape": list(o.shape),
            "parameters": {"binary_data_size": len(o.raw)},
        }
        for name, o in found.outputs.items()
    ]
    head = json.dumps({"outputs": outputs}).encode()
    body = head + b"".join(o.raw for o in found.outputs.values())
    return 200, {"Inference-Header-Content-Length": str(len(head))}, body


def model() -> dict[str, tuple[int, dict[str, str], bytes]]:
    said = {"name": "magika", "outputs": [{"name": "label"}, {"name": "score"}]}
    return {
        "/v2/models/magika": (200, {}, json.dumps(said).encode()),
        "/v2/models/magika/infer": wire(answer()),
    }


def test_recording_through_the_api_server(run: Run, tmp_path: Path) -> None:
    world = World()
    world.settle()
    server = Server(world, services=model())
    text = {**REQUEST["inputs"][0], "data": ["to ada@example.com"]}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(json.dumps({"inputs": [text]}))
    arguments = ("golden", "record", "magika", str(tmp_path / "in"))
    done = run(server, *arguments)
    made = yaml.safe_load(done.out)
    assert made["metadata"]["name"] == "magika-golden"
    assert "ada@" not in done.out
    assert "struck out: 1 x e-mail address" in done.err
    assert len(golden.parse(made)) == 1
    assert server.written == [], "not without --apply"
    run(server, *arguments, "--apply")
    assert server.written[0]["data"] == made["data"]
    wide = yaml.safe_load(run(server, *arguments, "--tolerance", "score=2%").out)
    outputs = json.loads(wide["data"]["a.json"])["expected"]["outputs"]
    assert [o.get("tolerance") for o in outputs] == [None, {"relative": 0.02}]
    done = run(server, *arguments, "--tolerance", "scores=2%", code=2)
    assert "--tolerance scores: there is no such output" in done.err


class Slow:
    """A server that stalls once, and answers everything else at once."""

    def __init__(self, stall_s: float) -> None:
        self.stall_s, self.seen = stall_s, 0
        self.lock = threading.Lock()

    def __call__(self, number: int) -> tuple[str, bool]:
        with self.lock:  # one at a time: whoever comes during the stall waits
            self.seen += 1
            if number == 5:
                time.sleep(self.stall_s)
        return "", False


class TestLoad:
    def test_every_request_is_counted_once(self) -> None:
        found = loading.run(lambda: lambda _: ("", False), rate_per_s=500, seconds=0.2)
        assert len(found) == 100
        assert loading.Summary.of(found).failed == 0

    def test_requests_leave_when_they_are_due(self) -> None:
        due_s = [0.0, 0.0, 0.0, 0.1, 0.15]
        at: list[float] = []

        def asker(_: int) -> tuple[str, bool]:
            at.append(time.perf_counter() - began)
            return "", False

        began = time.perf_counter()
        found = loading.run(lambda: asker, rate_per_s=0, seconds=0, due_s=due_s)
        assert len(found) == 5
        assert all(left >= due for left, due in zip(sorted(at), due_s, strict=True))

    def test_a_stall_is_seen_by_all_that_were_due_in_it(self) -> None:
        """No coordinated omission: a client that waits for each answer would see one."""
        slow = Slow(0.3)
        found = loading.run(lambda: slow, rate_per_s=100, seconds=0.3)
        waited = [s for s in found if s.took_s > 0.05]
        assert len(found) == 30
        assert len(waited) > 10

    def test_what_leaves_late_is_as_late_as_it_is(self) -> None:
        """Also where this client itself stalls: latency counts from when a request was due."""
        stalls = [0.2]

        def oversleep(pause_s: float) -> None:
            time.sleep(pause_s + (stalls.pop() if stalls else 0.0))

        found = loading.run(
            lambda: lambda _: ("", False), rate_per_s=100, seconds=0.3, sleep=oversleep
        )
        assert len(found) == 30
        assert sum(s.took_s > 0.05 for s in found) > 5
        assert all(s.took_s >= s.late_s for s in found)

    def test_what_cannot_leave_is_counted_as_failed(self) -> None:
        release = threading.Event()

        def stuck(_: int) -> tuple[str, bool]:
            release.wait(10)
            return "", False

        done: list[list[loading.Sent]] = []
        thread = threading.Thread(
            target=lambda: done.append(
                loading.run(lambda: stuck, rate_per_s=200, seconds=0.1, in_flight=4)
            )
        )
        thread.start()
        time.sleep(0.2)
        release.set()
        thread.join()
        summary = loading.Summary.of(done[0])
        assert (summary.requests, summary.failed) == (20, 16)
        assert summary.errors == {"not sent: 4 unanswered": 16}

    def test_a_summary(self) -> None:
        sent = [loading.Sent(i / 1000, 0.0) for i in range(1, 101)]
        sent += [loading.Sent(9.0, 0.0, "HTTP 503")]
        found = loading.Summary.of(sent)
        assert (found.p50_ms, found.p99_ms, found.max_ms) == (50.0, 99.0, 100.0)
        assert found.lines(10, 10)[2] == "errors 1 (0.99%)  wrong answers 0"
        assert loading.Summary.of([]).p99_ms is None

    def test_against_a_model(self, run: Run, tmp_path: Path) -> None:
        world = World()
        world.settle()
        wrong = dict(recorded(answer(b"html")).document)
        (tmp_path / "a.json").write_text(json.dumps(wrong))
        with model_server() as url:
            arguments = ("load", "magika", str(tmp_path / "a.json"), "--url", url)
            short = ("--rate", "50", "--duration", "1s", "-o", "json")
            found = json.loads(run(Server(world), *arguments, *short).out)
        assert (found["requests"], found["failed"], found["wrong"]) == (50, 0, 50)
        assert found["p50_ms"] > 0

    def test_bounds(self, run: Run) -> None:
        done = run(Server(), "load", "magika", "--duration", "2h", code=2)
        assert "write 1s to 10m" in done.err


class model_server:
    """A model at an address, while the block runs."""

    def __enter__(self) -> str:
        answers = model()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def _do(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, headers, body = answers.get(self.path, (404, {}, b""))
                self.send_response(code)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _do

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=lambda: self.http.serve_forever(poll_interval=0.01))
        self.thread.start()
        return f"http://127.0.0.1:{self.http.server_port}"

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()
