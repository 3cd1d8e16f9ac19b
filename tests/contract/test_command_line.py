"""The command line against a real API server, with the CRD, the admission policies and RBAC.

*vera* may only read; *ada* may change ModelDeployments and ask all verbs; *cy* may change them and
ask nothing; *zoe* has no rights. A thread plays the operator: it handles requests as they come.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.kube import KubeClient, KubeError, wait_for
from tests.contract.manifests import manifest
from tests.unit.cli import documents as d
from tidegate.api import admission, crd, names
from tidegate.cli.client import Client
from tidegate.cli.kubeconfig import Access, access
from tidegate.verbs import parse

pytestmark = pytest.mark.contract

NAMESPACE = "command-line"
PREFIX = "command-line"
COLLECTION = f"/apis/tidegate.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"
API = "rbac.authorization.k8s.io"
READ = ["get", "list", "watch"]

MODELS = {"apiGroups": [names.GROUP], "resources": [names.PLURAL]}
RIGHTS: dict[str, list[dict[str, Any]]] = {
    "vera": [
        MODELS | {"verbs": READ},
        {"apiGroups": [""], "resources": ["pods", "pods/log", "events"], "verbs": READ},
    ],
    "ada": [
        MODELS | {"verbs": [*READ, "patch", *admission.VERBS]},
        {"apiGroups": [""], "resources": ["events"], "verbs": READ},
    ],
    "cy": [MODELS | {"verbs": [*READ, "patch"]}],
    "robot": [MODELS | {"verbs": READ}],
}


@pytest.fixture(scope="module")
def configs(kube: KubeClient, control_plane: ControlPlane) -> Iterator[dict[str, Path]]:
    """A kubeconfig for each user, with rights and policies in force."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        crd.crd(),
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "robot", "namespace": NAMESPACE},
        },
    ]
    for user, rules in RIGHTS.items():
        meta = {"name": user, "namespace": NAMESPACE}
        subject: dict[str, Any] = {"apiGroup": API, "kind": "User", "name": user}
        if user == "robot":
            subject = {"kind": "ServiceAccount", "name": user, "namespace": NAMESPACE}
        objects += [
            {"apiVersion": f"{API}/v1", "kind": "Role", "metadata": meta, "rules": rules},
            {
                "apiVersion": f"{API}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": API, "kind": "Role", "name": user},
                "subjects": [subject],
            },
        ]
    policies = admission.objects(PREFIX, watch_namespaces=(NAMESPACE,))
    kube.apply_all([*objects, *policies])
    basic = ["system:authenticated"]
    found = {
        user: control_plane.kubeconfig_for(user, basic) for user in ("vera", "ada", "cy", "zoe")
    }
    with KubeClient(found["cy"]) as cy, KubeClient(found["ada"]) as ada:
        create(kube, "probe", None)

        def ask(client: KubeClient, text: str) -> bool:
            try:
                client.request(
                    "PATCH",
                    f"{COLLECTION}/probe",
                    body={"metadata": {"annotations": {names.REQUEST_ANNOTATION: text}}},
                    params={"dryRun": "All"},
                    content_type="application/merge-patch+json",
                )
            except KubeError:
                return False
            return True

        # Policies and rights take effect some moments after they are written.
        wait_for(
            lambda: ask(ada, "1/pause//ada") and not ask(cy, "1/pause//cy"),
            "policies and rights in force",
            timeout_seconds=60,
        )
    yield found
    for document in reversed(policies):
        kube.delete(document["apiVersion"], document["kind"], document["metadata"]["name"])


def create(kube: KubeClient, name: str, document: d.Document | None) -> None:
    """A ModelDeployment with the status of a document; a fresh one where it exists."""
    kube.delete(names.API_VERSION, names.KIND, name, NAMESPACE)
    body = manifest(name)
    if document is not None:
        body["spec"] = document["spec"]
    made = kube.request("POST", COLLECTION, body=body)
    if document is not None and "status" in document:
        write(kube, made, document["status"] | {"observedGeneration": 1})


def write(kube: KubeClient, made: d.Document, status: d.Document) -> None:
    """Put the status, whole."""
    path = f"{COLLECTION}/{made['metadata']['name']}"
    kube.request("PUT", f"{path}/status", body=kube.request("GET", path) | {"status": status})


def tidegate(
    config: Path | str, *arguments: str, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own; its exit code must be `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": "operator",
            "KUBECONFIG": str(config),
            "HOME": "/nonexistent",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def started(config: Path, *arguments: str, both_to: IO[str] | None = None) -> subprocess.Popen[str]:
    """A command that goes on beside the test; what it says comes at once, to pipes or to a file."""
    return subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": "operator",
            "PYTHONUNBUFFERED": "1",
            "KUBECONFIG": str(config),
            "HOME": "/nonexistent",
        },
        stdout=both_to or subprocess.PIPE,
        stderr=subprocess.STDOUT if both_to else subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has it ignored, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


N = ("-n", NAMESPACE)


@contextmanager
def operating(
    kube: KubeClient, name: str, handle: Callable[[d.Document], d.Document]
) -> Iterator[None]:
    """While the block runs, handle what is asked of it: `handle` gives the new status."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            found = kube.request("GET", f"{COLLECTION}/{name}")
            text = (found["metadata"].get("annotations") or {}).get(names.REQUEST_ANNOTATION)
            request = parse(text)
            if request and found["status"].get("lastRequest") != request.id:
                write(kube, found, handle(found) | {"lastRequest": request.id})

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class TestLooking:
    def test_with_a_service_accounts_token(
        self,
        kube: KubeClient,
        configs: dict[str, Path],
        control_plane: ControlPlane,
        tmp_path: Path,
    ) -> None:
        """The smallest rights there are: to read ModelDeployments; no pods, no events."""
        create(kube, "magika", d.STEP)
        config = token_config(kube, control_plane, tmp_path)
        listed = tidegate(config, "list", *N).stdout
        assert ["magika", "Canary", d.STABLE, d.CANARY, "5%", "2/4", "4/4"] in [
            line.split()[:7] for line in listed.splitlines()
        ]
        shown = tidegate(config, "get", "magika", *N).stdout
        assert "rollout  Canary, step 2 of 4, 5% of the traffic" in shown
        assert "420 of 600 requests" in shown
        told = tidegate(config, "explain", "magika", *N).stdout
        assert told.splitlines()[1] == "  2 of 420 failed (0.48%), limit 1%."
        past = tidegate(config, "history", "magika", *N).stdout
        assert f"{d.STABLE} *  Promoted" in past

    def test_every_status_of_the_unit_tests_is_one_that_the_crd_takes(
        self, kube: KubeClient, configs: dict[str, Path]
    ) -> None:
        for name, document in d.ALL.items():
            create(kube, name, document)
            found = kube.request("GET", f"{COLLECTION}/{name}")
            kept = {k: v for k, v in (document.get("status") or {}).items() if v is not None}
            assert without_none(found.get("status", {})) == without_none(
                kept | {"observedGeneration": 1 if kept else 0}
            ), name
        lines = tidegate(configs["vera"], "list", *N).stdout.splitlines()
        assert {line.split()[0] for line in lines[1:]} >= set(d.ALL)

    def test_forms(self, kube: KubeClient, configs: dict[str, Path]) -> None:
        create(kube, "magika", d.STEP)
        vera = configs["vera"]
        one = json.loads(tidegate(vera, "get", "magika", "-o", "json", *N).stdout)
        assert one["status"]["rollout"]["phase"] == "Canary"
        assert "managedFields" not in one["metadata"]
        many = yaml.safe_load(tidegate(vera, "list", "-o", "yaml", *N).stdout)
        assert "magika" in [item["metadata"]["name"] for item in many["items"]]
        named = tidegate(vera, "get", "magika", "-o", "name", *N).stdout.strip()
        assert named == "modeldeployment.tidegate.dev/magika"
        assert "Canary" in tidegate(vera, "-n", NAMESPACE, "get", named).stdout

    def test_no_colour_in_a_pipe_but_when_asked(
        self, kube: KubeClient, configs: dict[str, Path]
    ) -> None:
        create(kube, "magika", d.STEP)
        assert "\x1b[" not in tidegate(configs["vera"], "get", "magika", *N).stdout
        loud = tidegate(configs["vera"], "--color", "always", "get", "magika", *N, TERM="xterm")
        assert "\x1b[" in loud.stdout

    @pytest.mark.parametrize(
        ("user", "arguments", "code", "said"),
        [
            (
                "vera",
                ("get", "nothing", *N),
                5,
                f"error: no ModelDeployment nothing in namespace {NAMESPACE}; see tidegate list -A",
            ),
            (
                "vera",
                ("explain", "magika", "ffff", *N),
                5,
                f"error: magika has no revision ffff; it knows {d.CANARY}, {d.STABLE}, {d.OLDER}; "
                "see tidegate history magika",
            ),
            ("zoe", ("get", "magika", *N), 1, "ask for the role view there"),
            ("vera", ("list", "-A"), 1, "ask for the role view there"),
            ("vera", ("--context", "none", "list"), 2, "--context 'none' is not in the kubeconfig"),
            ("vera", ("list", "--kubeconfig", "/none"), 2, "there is no kubeconfig /none"),
            ("vera", ("wait", "magika", "--timeout", "soon", *N), 2, "is no length of time"),
            ("vera", ("get",), 2, "missing argument 'name'"),
        ],
    )
    def test_errors_in_a_line(
        self,
        kube: KubeClient,
        configs: dict[str, Path],
        user: str,
        arguments: tuple[str, ...],
        code: int,
        said: str,
    ) -> None:
        create(kube, "magika", d.STEP)
        done = tidegate(configs[user], *arguments, code=code)
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_without_the_crd(self, control_plane: ControlPlane, tmp_path: Path) -> None:
        config = yaml.safe_load(control_plane.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] += "/apis/apps/v1/none"
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(config))
        done = tidegate(path, "list", code=5)
        assert done.stderr.startswith("error: ")

    def test_an_api_server_that_is_away(self, tmp_path: Path) -> None:
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(config_of("http://127.0.0.1:9", {})))
        done = tidegate(path, "get", "magika", code=1)
        assert "http://127.0.0.1:9 does not answer" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    return [without_none(v) for v in value] if isinstance(value, list) else value


class TestVerbs:
    @pytest.mark.parametrize(
        ("verb", "document", "revision"),
        [
            ("promote", d.STEP, d.CANARY),
            ("abort", d.STEP, d.CANARY),
            ("skip-step", d.STEP, d.CANARY),
            ("pause", d.STEP, ""),
            ("resume", d.PAUSED, ""),
            ("restart", d.STEADY, ""),
            ("undo", d.STEADY, ""),
            ("retry", d.ROLLED_BACK, d.CANARY),
        ],
    )
    def test_what_is_written_and_what_became_of_it(
        self,
        kube: KubeClient,
        configs: dict[str, Path],
        verb: str,
        document: d.Document,
        revision: str,
    ) -> None:
        create(kube, "magika", document)
        status = d.BAKING["status"] | {"observedGeneration": 1}
        with operating(kube, "magika", lambda _: status):
            done = tidegate(configs["ada"], verb, "magika", *N)
        assert done.stdout == f"magika: {verb} handled; Baking, 100%\n"
        found = kube.request("GET", f"{COLLECTION}/magika")
        request = parse(found["metadata"]["annotations"][names.REQUEST_ANNOTATION])
        assert request is not None
        assert (request.verb, request.revision, request.user) == (verb, revision, "ada")
        assert found["status"]["lastRequest"] == request.id

    def test_undo_to_a_revision_by_its_beginning(
        self, kube: KubeClient, configs: dict[str, Path]
    ) -> None:
        create(kube, "magika", d.STEADY)
        with operating(kube, "magika", lambda found: found["status"]):
            tidegate(configs["ada"], "undo", "magika", d.OLDER[:4], *N)
        found = kube.request("GET", f"{COLLECTION}/magika")
        assert f"/undo/{d.OLDER}/ada" in found["metadata"]["annotations"][names.REQUEST_ANNOTATION]

    def test_refused_by_the_policy(self, kube: KubeClient, configs: dict[str, Path]) -> None:
        create(kube, "magika", d.STEP)
        done = tidegate(configs["cy"], "promote", "magika", *N, code=1)
        assert done.stderr == (
            "error: refused: cy may not promote magika; ask for the verb promote on "
            f"modeldeployments.tidegate.dev in {NAMESPACE}\n"
        )

    def test_refused_by_rbac(self, kube: KubeClient, configs: dict[str, Path]) -> None:
        create(kube, "magika", d.STEP)
        done = tidegate(configs["vera"], "abort", "magika", *N, code=1)
        assert done.stderr == (
            "error: refused: vera may not change modeldeployments.tidegate.dev in "
            f"{NAMESPACE}; ask for the role edit there (the verb patch), and for the verb abort\n"
        )

    def test_nothing_to_abort(self, kube: KubeClient, configs: dict[str, Path]) -> None:
        create(kube, "magika", d.STEADY)
        done = tidegate(configs["ada"], "abort", "magika", *N, code=1)
        assert "nothing to abort" in done.stderr
        found = kube.request("GET", f"{COLLECTION}/magika")
        assert names.REQUEST_ANNOTATION not in found["metadata"].get("annotations", {})

    def test_the_operators_no_is_told(self, kube: KubeClient, configs: dict[str, Path]) -> None:
        create(kube, "magika", d.STEP)

        def refuse(found: d.Document) -> d.Document:
            now = datetime.now(UTC)
            meta = {"generateName": "magika.", "namespace": NAMESPACE}
            event = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": meta,
                "involvedObject": {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "namespace": NAMESPACE,
                    "name": "magika",
                    "uid": found["metadata"]["uid"],
                },
                "type": "Warning",
                "reason": "RequestRefused",
                "message": "promote by ada: its pods cannot carry all of the traffic yet",
                "action": "RequestRefused",
                "reportingComponent": names.GROUP,
                "reportingInstance": "test",
                "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
            kube.request("POST", f"/api/v1/namespaces/{NAMESPACE}/events", body=event)
            status: d.Document = found["status"]
            return status

        with operating(kube, "magika", refuse):
            done = tidegate(configs["ada"], "promote", "magika", *N, code=1)
        assert done.stderr == (
            "error: promote magika: not done: its pods cannot carry all of the traffic yet; "
            "see tidegate get magika\n"
        )

    def test_without_an_operator(self, kube: KubeClient, configs: dict[str, Path]) -> None:
        create(kube, "magika", d.STEP)
        done = tidegate(configs["ada"], "pause", "magika", "--timeout", "1s", *N, code=4)
        assert "asked, but not handled within 1s; it stays asked; does an operator" in done.stderr


class TestWait:
    @pytest.mark.parametrize(
        ("document", "goal", "code"),
        [
            (d.STEADY, "promoted", 0),
            (d.STEADY, "ready", 0),
            (d.STEP, "available", 0),
            (d.ROLLED_BACK, "promoted", 3),
            (d.ROLLED_BACK, "ready", 3),
            (d.ROLLED_BACK, "available", 0),
            (d.STALLED, "available", 3),
            (d.STEP, "promoted", 4),
        ],
    )
    def test_exit_codes(
        self,
        kube: KubeClient,
        configs: dict[str, Path],
        document: d.Document,
        goal: str,
        code: int,
    ) -> None:
        create(kube, "magika", document)
        arguments = ("wait", "magika", "--for", goal, "--timeout", "1s", *N)
        tidegate(configs["vera"], *arguments, code=code)

    def test_no_such_deployment(self, configs: dict[str, Path]) -> None:
        tidegate(configs["vera"], "wait", "nothing", "--timeout", "60s", *N, code=5)

    def test_until_it_is_rolled_back(self, kube: KubeClient, configs: dict[str, Path]) -> None:
        create(kube, "magika", d.STEP)
        found = kube.request("GET", f"{COLLECTION}/magika")
        process = started(configs["vera"], "wait", "magika", "--timeout", "300s", *N)
        assert process.stderr is not None
        try:
            told = process.stderr.readline().rstrip()
            write(kube, found, d.ROLLED_BACK["status"] | {"observedGeneration": 1})
            last = process.stderr.read().rstrip()
            assert process.wait(120) == 3
        finally:
            process.kill()
            process.communicate()
        assert told.endswith(" Canary, step 2 of 4, 5%")
        assert last == (
            "error: magika was rolled back: RolledBack: 15 of 200 requests failed (7.5 %), the "
            "limit is 1 %; see tidegate explain magika"
        )

    def test_a_changed_spec_is_not_taken_for_the_old_one(
        self, kube: KubeClient, configs: dict[str, Path]
    ) -> None:
        create(kube, "magika", d.STEADY)
        kube.request(
            "PATCH",
            f"{COLLECTION}/magika",
            body={"spec": {"historyLimit": 3}},
            content_type="application/merge-patch+json",
        )
        done = tidegate(configs["vera"], "wait", "magika", "--timeout", "1s", *N, code=4)
        assert "the operator has not looked at this spec yet" in done.stderr
        assert done.stderr.endswith("lead, and watch this namespace? tidegate doctor\n")


class TestWatching:
    def test_each_change_until_it_is_interrupted(
        self, kube: KubeClient, configs: dict[str, Path], tmp_path: Path
    ) -> None:
        create(kube, "magika", d.STEP)
        out = tmp_path / "out"
        with out.open("w") as sink:
            process = started(configs["vera"], "get", "magika", "-w", *N, both_to=sink)
        try:
            wait_for(lambda: "step 2 of 4" in out.read_text(), "the tree", timeout_seconds=120)
            found = kube.request("GET", f"{COLLECTION}/magika")
            write(kube, found, d.ROLLED_BACK["status"] | {"observedGeneration": 1})
            wait_for(lambda: "RolledBack" in out.read_text(), "the change", timeout_seconds=120)
            process.send_signal(2)
            assert process.wait(120) == 130
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in out.read_text()


# Ways to the API server.


def config_of(server: str, user: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    return {
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}
        ],
        "current-context": "x",
    }


def token_of(kube: KubeClient) -> str:
    answer = kube.request(
        "POST",
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/robot/token",
        body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
    )
    return str(answer["status"]["token"])


def authority_of(plane: ControlPlane) -> str:
    config = yaml.safe_load(plane.kubeconfig.read_text())
    return str(config["clusters"][0]["cluster"]["certificate-authority-data"])


def token_config(kube: KubeClient, plane: ControlPlane, folder: Path) -> Path:
    data = {"certificate-authority-data": authority_of(plane)}
    path = folder / "token.kubeconfig"
    path.write_text(yaml.safe_dump(config_of(plane.url, {"token": token_of(kube)}, **data)))
    return path


def user_of(found: Access) -> str:
    client = Client(found)
    try:
        return client.user()
    finally:
        client.close()


ROBOT = f"system:serviceaccount:{NAMESPACE}:robot"


class TestAccess:
    @pytest.fixture
    def base(self, configs: dict[str, Path], control_plane: ControlPlane) -> dict[str, Any]:
        return {"certificate-authority-data": authority_of(control_plane)}

    def load(self, folder: Path, config: dict[str, Any]) -> Access:
        path = folder / "config"
        path.write_text(yaml.safe_dump(config))
        return access(kubeconfig=str(path))

    def test_client_certificates(self, configs: dict[str, Path]) -> None:
        assert user_of(access(kubeconfig=str(configs["vera"]))) == "vera"

    def test_an_exec_plugin(
        self, kube: KubeClient, control_plane: ControlPlane, base: dict[str, Any], tmp_path: Path
    ) -> None:
        plugin = tmp_path / "login.py"
        plugin.write_text(
            f"#!{sys.executable}\n"
            "import json, os\n"
            "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
            f"assert info['spec']['cluster']['server'] == {control_plane.url!r}\n"
            "print(json.dumps({'kind': 'ExecCredential', 'apiVersion': info['apiVersion'],\n"
            "                  'status': {'token': os.environ['TOKEN']}}))\n"
        )
        plugin.chmod(0o755)
        user = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": "./login.py",
                "env": [{"name": "TOKEN", "value": token_of(kube)}],
                "interactiveMode": "Never",
                "provideClusterInfo": True,
            }
        }
        assert user_of(self.load(tmp_path, config_of(control_plane.url, user, **base))) == ROBOT

    def test_a_token_that_is_replaced_in_its_file(
        self, kube: KubeClient, control_plane: ControlPlane, base: dict[str, Any], tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text("stale")
        found = self.load(tmp_path, config_of(control_plane.url, {"tokenFile": "token"}, **base))
        client = Client(found)
        with pytest.raises(Exception, match="log in again"):
            client.user()
        (tmp_path / "token").write_text(token_of(kube) + "\n")
        assert client.user() == ROBOT, "read again after a 401"
        client.close()

    def test_in_a_pod(
        self, kube: KubeClient, control_plane: ControlPlane, base: dict[str, Any], tmp_path: Path
    ) -> None:
        import base64

        ca = base64.b64decode(base["certificate-authority-data"]).decode()
        (tmp_path / "ca.crt").write_text(ca)
        (tmp_path / "token").write_text(token_of(kube))
        (tmp_path / "namespace").write_text(NAMESPACE)
        host, _, port = control_plane.url.removeprefix("https://").partition(":")
        found = access(
            environment={
                "HOME": "/nonexistent",
                "KUBERNETES_SERVICE_HOST": host,
                "KUBERNETES_SERVICE_PORT": port,
            },
            service_account=tmp_path,
        )
        assert found.namespace == NAMESPACE
        assert user_of(found) == ROBOT

    def test_through_a_proxy(
        self, kube: KubeClient, control_plane: ControlPlane, base: dict[str, Any], tmp_path: Path
    ) -> None:
        with tunnel() as (address, asked):
            found = self.load(
                tmp_path,
                config_of(
                    control_plane.url, {"token": token_of(kube)}, **base, **{"proxy-url": address}
                ),
            )
            assert user_of(found) == ROBOT
        assert asked == [control_plane.url.removeprefix("https://")]

    def test_another_name_in_the_certificate(
        self, kube: KubeClient, control_plane: ControlPlane, base: dict[str, Any], tmp_path: Path
    ) -> None:
        user = {"token": token_of(kube)}
        at = control_plane.url.replace("127.0.0.1", "localhost.localdomain")
        named = base | {"tls-server-name": "127.0.0.1"}
        with tunnel(host="127.0.0.1") as (address, _):
            cluster = named | {"proxy-url": address}
            assert user_of(self.load(tmp_path, config_of(at, user, **cluster))) == ROBOT
            with pytest.raises(Exception, match="is not trusted"):
                user_of(self.load(tmp_path, config_of(at, user, **base, **{"proxy-url": address})))

    def test_an_authority_that_did_not_sign_it(
        self, kube: KubeClient, control_plane: ControlPlane, configs: Any, tmp_path: Path
    ) -> None:
        user = {"token": token_of(kube)}
        with pytest.raises(Exception, match="is not trusted"):
            user_of(self.load(tmp_path, config_of(control_plane.url, user)))
        insecure = {"insecure-skip-tls-verify": True}
        assert user_of(self.load(tmp_path, config_of(control_plane.url, user, **insecure))) == ROBOT

    def test_a_list_in_many_pieces(self, kube: KubeClient, configs: dict[str, Path]) -> None:
        for i in range(5):
            create(kube, f"piece-{i}", None)
        client = Client(access(kubeconfig=str(configs["vera"])))
        found = {o["metadata"]["name"] for o in client.list(COLLECTION, chunk=2)}
        client.close()
        assert found >= {f"piece-{i}" for i in range(5)}


@contextmanager
def tunnel(host: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """A proxy that knows CONNECT; to `host` whatever is asked for. Address, and what was asked."""
    import select
    import socket

    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            name, _, port = self.path.rpartition(":")
            with socket.create_connection((host or name, int(port))) as far:
                self.send_response(200)
                self.end_headers()
                pair = {self.connection: far, far: self.connection}
                while True:
                    for one in select.select(list(pair), [], [])[0]:
                        data = one.recv(65536)
                        if not data:
                            self.close_connection = True
                            return
                        pair[one].sendall(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
