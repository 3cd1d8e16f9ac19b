"""What is open, what is closed, and what a model that does not load leaves behind."""

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import grpc as grpc_library
import pytest
import tritonclient.grpc

from e2e.native import parts
from e2e.native.processes import Pod, Process, pod, triton_environment, wait_for
from e2e.ports import free_ports
from tests.integration.sidecar.conftest import MODELS, REVISION
from tests.integration.sidecar.wire import ERROR, OK, call, grpc_status, knob, knob_inputs
from tidegate.resources.drain import sidecar_liveness_probe, sidecar_startup_probe
from tidegate.resources.sidecar import REVISION_HEADER, Ports
from tidegate.resources.triton import RESTRICTED_GRPC_HEADER, RESTRICTED_HTTP_HEADER, triton_args

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index",
        "/v2/repository/models/knob/unload",
        "/v2/repository/models/knob/load",
        "/v2/systemsharedmemory/region/x/register",
        "/v2/cudasharedmemory/unregister",
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/models/knob/trace/setting",
        # Ways around a prefix.
        "//v2/repository/index",
        "/v2/./repository/index",
        "/v2/models/../repository/index",
        "/v2/%72epository/index",
        "/V2/repository/index",
    ],
)
def test_http_is_closed(running: Pod, path: str) -> None:
    refused = call(f"{running.serving}{path}", b"{}")
    assert refused.status in (403, 404)
    assert "error" in json.loads(refused.body)


def test_an_answer_says_which_revision_gave_it(running: Pod) -> None:
    for body in (knob(OK), knob(ERROR)):
        assert (
            call(f"{running.serving}/v2/models/knob/infer", body).headers[REVISION_HEADER]
            == REVISION
        )
    address = f"127.0.0.1:{running.ports.serving}"
    with grpc_library.insecure_channel(address) as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        _, answered = ask.with_call(b"", timeout=30)
    assert (REVISION_HEADER, REVISION) in [(k, v) for k, v in answered.initial_metadata()]


def test_grpc_is_closed(running: Pod, grpc: "tritonclient.grpc.InferenceServerClient") -> None:
    for ask in (
        grpc.get_model_repository_index,
        lambda: grpc.unload_model("knob"),
        lambda: grpc.load_model("knob"),
        grpc.get_log_settings,
        lambda: grpc.update_log_settings({"log_verbose_level": 1}),
        grpc.get_trace_settings,
        grpc.get_system_shared_memory_status,
        grpc.get_cuda_shared_memory_status,
    ):
        assert grpc_status(ask) == "PERMISSION_DENIED"
    assert grpc.is_model_ready("knob")


def test_reads_are_open(running: Pod, grpc: "tritonclient.grpc.InferenceServerClient") -> None:
    for path in (
        *("/v2", "/v2/health/live", "/v2/health/ready"),
        *("/v2/models/knob", "/v2/models/knob/ready", "/v2/models/knob/versions/1/ready"),
        *("/v2/models/knob/config", "/v2/models/knob/stats", "/v2/models/stats"),
    ):
        assert call(f"{running.serving}{path}").status == 200, path
    assert grpc.is_server_live()
    assert grpc.is_server_ready()
    assert grpc.get_model_config("knob").config.backend == "python"
    assert grpc.get_model_metadata("knob").name == "knob"
    assert grpc.get_inference_statistics("knob").model_stats


@pytest.mark.parametrize("host", ["magika", "10.0.0.7:8000", "a.b.example.", "[::1]:8000"])
def test_any_host_is_served(running: Pod, host: str) -> None:
    assert call(f"{running.serving}/v2", headers={"Host": host}).status == 200


def test_internal_listener_only_reads(running: Pod) -> None:
    assert b"nv_inference_count" in call(f"{running.internal}/metrics").body
    assert b"envoy_cluster_upstream_rq_total" in call(f"{running.internal}/stats/prometheus").body
    assert call(f"{running.internal}/v2/health/ready").status == 200
    assert call(f"{running.internal}/v2/models/knob/stats").status == 200
    index = json.loads(call(f"{running.internal}/v2/repository/index", b"").body)
    assert {(model["name"], model["state"]) for model in index} == {
        ("knob", "READY"),
        ("echo", "READY"),
    }
    for path in ("/quitquitquit", "/healthcheck/fail", "/stats", "/config_dump", "/runtime_modify"):
        assert call(f"{running.internal}{path}", b"").status == 404
        assert call(f"{running.internal}{path}").status == 404
    assert call(f"{running.internal}/v2/repository/models/knob/unload", b"").status == 403
    assert call(f"{running.serving}/v2/health/ready").status == 200


def test_the_sidecars_own_probes(running: Pod) -> None:
    for probe in (sidecar_startup_probe(), sidecar_liveness_probe()):
        assert call(f"{running.internal}{probe['httpGet']['path']}").status == 200


def test_a_model_that_does_not_load_tells_why(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "echo", tmp_path / "broken")
    (tmp_path / "broken" / "1" / "model.py").write_text("raise RuntimeError('no such weights')\n")
    with pod(tmp_path, ready=False) as broken:
        assert call(f"{broken.internal}/v2/health/live").status == 200
        assert call(f"{broken.internal}/v2/health/ready").status == 400
        [model] = json.loads(call(f"{broken.internal}/v2/repository/index", b"").body)
        assert model["state"] == "UNAVAILABLE"
        assert "no such weights" in model["reason"]


def test_without_the_sidecar_triton_closes_the_same(tmp_path: Path) -> None:
    install = parts.triton()
    ports = Ports(*free_ports(6))
    command = triton_args(
        exit_timeout_s=1, gpu=False, restricted_key="key1", repository=str(MODELS), ports=ports
    )
    command = [str(install.server), *command[1:], f"--backend-directory={install.backends}"]
    log = tmp_path / "triton.log"
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("wb"))
        process = Process(
            subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=triton_environment(install)
            ),
            log,
        )
        stack.callback(process.stop)
        base = f"http://127.0.0.1:{ports.triton_http}"
        wait_for(f"{base}/v2/health/ready", process)
        assert call(f"{base}/v2/models/knob/infer", knob()).status == 200
        for path in (
            *("/v2/repository/index", "/v2/repository/models/knob/unload"),
            *("/v2/systemsharedmemory/region/x/register", "/v2/logging", "/v2/trace/setting"),
        ):
            assert call(f"{base}{path}", b"{}").status == 403, path
        key = {RESTRICTED_HTTP_HEADER: "key1"}
        assert call(f"{base}/v2/repository/index", b"", headers=key).status == 200
        client = stack.enter_context(
            tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{ports.triton_grpc}")
        )
        client.infer("knob", knob_inputs())
        assert grpc_status(client.get_model_repository_index) == "UNAVAILABLE"
        assert grpc_status(client.get_log_settings) == "UNAVAILABLE"
        grpc_key = {RESTRICTED_GRPC_HEADER: "key1"}
        assert client.get_model_repository_index(headers=grpc_key).models
