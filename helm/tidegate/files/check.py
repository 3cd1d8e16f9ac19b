"""What `helm test` runs, in the operator's image: does this installation work?

Uses the standard library only, so that it depends on nothing that it tests. Each check prints
one line; the first that fails ends the run with status 1 and says what to look at.

Settings come from the environment (set by templates/tests.yaml): TEST_NAMESPACE (the
operator's), TEST_MODEL_NAMESPACE (one that it serves), TEST_LEASE, TEST_ADMISSION (``true`` or
``false``), TEST_TIMEOUT_SECONDS and, for an inference, TEST_URL, TEST_MODEL, TEST_REQUEST and
TEST_EXPECT (JSON).
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_TIMEOUT_SECONDS = 10
PAUSE_SECONDS = 1.0


class CheckFailed(Exception):
    """A check that did not hold; the message says what to do."""


@dataclass(frozen=True)
class Answer:
    """Status and body of an HTTP answer; body is parsed JSON, or text where it is none."""

    status: int
    body: Any


def ask(
    url: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """GET, or POST of a JSON body. Status 0 and the error's text: nobody answered."""
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(
            request, timeout=REQUEST_TIMEOUT_SECONDS, context=context
        ) as response:
            status, raw = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    except OSError as error:
        return Answer(0, str(error))
    text = raw.decode(errors="replace")
    try:
        return Answer(status, json.loads(text))
    except ValueError:
        return Answer(status, text)


def patiently(check: Callable[[], str], timeout_seconds: float) -> str:
    """Repeat a check until it holds or the time is up; its last failure is what is raised."""
    end = time.monotonic() + timeout_seconds
    while True:
        try:
            return check()
        except CheckFailed:
            if time.monotonic() >= end:
                raise
            time.sleep(PAUSE_SECONDS)


def message(answer: Answer) -> str:
    """What an API server or Triton said, in one line."""
    if isinstance(answer.body, dict):
        return str(answer.body.get("message") or answer.body.get("error") or answer.body)
    return f"{answer.status} {str(answer.body).strip()}"


def check_served(api: Callable[..., Answer]) -> str:
    """The API server serves the custom resource."""
    answer = api("/apis/tidegate.dev/v1alpha1")
    names = [r["name"] for r in answer.body["resources"]] if answer.status == 200 else []
    missing = {"modeldeployments", "modeldeployments/status", "modeldeployments/scale"} - set(names)
    if missing:
        raise CheckFailed(
            f"the API server does not serve {', '.join(sorted(missing))} ({message(answer)}); "
            "install the custom resource definition: crds.enabled=true"
        )
    return "the API server serves modeldeployments.tidegate.dev/v1alpha1"


def check_leader(api: Callable[..., Answer], namespace: str, lease: str) -> str:
    """Some operator holds the Lease and renews it."""
    answer = api(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{lease}")
    if answer.status != 200:
        raise CheckFailed(f"no operator leads ({message(answer)}); see the operator's pods")
    spec = answer.body["spec"]
    holder = spec.get("holderIdentity")
    if not holder:
        raise CheckFailed("nobody holds the Lease; see the operator's pods and logs")
    renewed = datetime.fromisoformat(spec["renewTime"])
    age = (datetime.now(UTC) - renewed).total_seconds()
    if age > spec["leaseDurationSeconds"]:
        raise CheckFailed(f"{holder} last renewed its Lease {age:.0f} s ago; see its log")
    return f"{holder} leads, Lease renewed {age:.1f} s ago"


def manifest(namespace: str, **spec: Any) -> dict[str, Any]:
    """A ModelDeployment for a dry run."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "helm-test", "namespace": namespace},
        "spec": {"model": {"source": {"uri": "https://models.example.org/m"}}, **spec},
    }


def check_admission(api: Callable[..., Answer], namespace: str, policy: bool) -> str:
    """Bad manifests are refused, by the schema and by the admission policy (dry runs)."""
    path = (
        f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/modeldeployments"
        "?dryRun=All&fieldValidation=Strict"
    )
    empty = api(path, manifest(namespace, model={}))
    if empty.status != 422:
        raise CheckFailed(f"a ModelDeployment without a source was not refused: {message(empty)}")
    if not policy:
        return "a bad manifest is refused"
    stranger = api(
        path, manifest(namespace, runtime={"serviceAccountName": "tidegate-helm-test-stranger"})
    )
    # Its source may be off the list as well; the API server tells the first refusal only.
    if stranger.status not in (403, 422) or "not among the platform's" not in message(stranger):
        raise CheckFailed(
            "a service account that is not on the list was not refused by the admission policy: "
            + message(stranger)
        )
    return "bad manifests are refused, by the schema and by the admission policy"


def zeros(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """An inference request of zeros (empty strings for BYTES), free dimensions being 1."""
    inputs = []
    for tensor in metadata["inputs"]:
        shape = [max(1, int(n)) for n in tensor["shape"]]
        count = 1
        for n in shape:
            count *= n
        value: Any = "" if tensor["datatype"] == "BYTES" else 0
        if tensor["datatype"] == "BOOL":
            value = False
        inputs.append(
            {
                "name": tensor["name"],
                "datatype": tensor["datatype"],
                "shape": shape,
                "data": [value] * count,
            }
        )
    return {"inputs": inputs}


def check_inference(
    url: str, model: str, request: Mapping[str, Any], expect: Mapping[str, Any]
) -> str:
    """One real inference: every output of the model's metadata comes back, with the data expected.

    Raises:
        CheckFailed: the model does not answer, or answers something else.
    """
    base = f"{url.rstrip('/')}/v2/models/{model}"
    metadata = ask(base)
    if metadata.status != 200:
        raise CheckFailed(
            f"{base}: {message(metadata)}; see `kubectl describe modeldeployment` of that model"
        )
    start = time.monotonic()
    answer = ask(f"{base}/infer", dict(request) or zeros(metadata.body))
    seconds = time.monotonic() - start
    if answer.status != 200:
        raise CheckFailed(f"{base}/infer: {answer.status} {message(answer)}")
    outputs = {o["name"]: o.get("data") for o in answer.body["outputs"]}
    for name in [t["name"] for t in metadata.body["outputs"]]:
        if name not in outputs:
            raise CheckFailed(f"{base}/infer: output {name} is missing; got {sorted(outputs)}")
    for name, data in expect.items():
        if outputs.get(name) != data:
            raise CheckFailed(f"{base}/infer: {name} is {outputs.get(name)}, expected {data}")
    seen = json.dumps(outputs)
    return (
        f"{model} answered in {seconds * 1000:.0f} ms: "
        f"{seen if len(seen) <= 200 else seen[:200] + ' ...'}"
    )


def in_cluster() -> Callable[..., Answer]:
    """Asks the API server as the pod's service account: (path, body=None) -> Answer."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    address = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}
    return lambda path, body=None: ask(address + path, body, headers, context)


def main(env: Mapping[str, str], api: Callable[..., Answer]) -> int:
    """Run the checks in order; 0 if all hold."""
    namespace, timeout = env["TEST_NAMESPACE"], float(env["TEST_TIMEOUT_SECONDS"])
    checks: list[Callable[[], str]] = [
        lambda: check_served(api),
        lambda: check_leader(api, namespace, env["TEST_LEASE"]),
        lambda: check_admission(api, env["TEST_MODEL_NAMESPACE"], env["TEST_ADMISSION"] == "true"),
    ]
    if env.get("TEST_URL"):
        request, expect = json.loads(env["TEST_REQUEST"]), json.loads(env["TEST_EXPECT"])
        checks.append(lambda: check_inference(env["TEST_URL"], env["TEST_MODEL"], request, expect))
    for check in checks:
        try:
            print("ok     " + patiently(check, timeout), flush=True)
        except CheckFailed as failure:
            print(f"FAILED {failure}", flush=True)
            return 1
    if not env.get("TEST_URL"):
        print("note   no inference was asked for; set tests.inference.enabled, url and model")
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ, in_cluster()))
