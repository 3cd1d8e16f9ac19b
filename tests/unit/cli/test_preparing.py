"""`plan`, `diff`, `eject` and `doctor`: what they make of a cluster."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cli.api_server import SPACE, Server
from tests.unit.cli.conftest import Run
from tests.unit.plan.world import World
from tidegate.api import admission, names
from tidegate.cli import checks
from tidegate.cli.planning import applied_changes, refusal
from tidegate.observed import Ref

NOW = datetime(2026, 3, 6, 17, 30, tzinfo=UTC)


def live(**blocks: Any) -> World:
    world = World()
    world.edit(**blocks)
    world.settle()
    return world


def on_trial() -> World:
    """A second revision that waits for evidence."""
    world = live()
    world.edit(model={"source": {"uri": "s3://models/magika/v2"}})
    for _ in range(3):
        world.step()
    return world


def node(name: str, gpus: int, **labels: str) -> dict[str, Any]:
    there = {"cpu": "16", "memory": "64Gi", "pods": "110"}
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {
            "allocatable": there | ({"nvidia.com/gpu": str(gpus)} if gpus else {}),
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def server(world: World, **more: Any) -> Server:
    nodes = {"/api/v1/nodes": [node("a", 2), node("b", 0)], "/api/v1/pods": []}
    return Server(world, more=nodes | more.pop("more", {}), **more)


def manifest(world: World, path: Path, **blocks: Any) -> str:
    """A file with the world's spec, changed."""
    changed = World(spec=copy.deepcopy(world.spec))
    changed.edit(**blocks)
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "magika"},
        "spec": changed.spec,
    }
    file = path / "magika.yaml"
    file.write_text(yaml.safe_dump(body))
    return str(file)


V2 = {"source": {"uri": "s3://models/magika/v2"}}


class TestPlan:
    def test_of_a_new_one(self, run: Run, tmp_path: Path) -> None:
        world = World()
        found = server(world, there=False)
        done = run(found, "plan", "-f", manifest(world, tmp_path))
        assert done.out.startswith(f"ModelDeployment {SPACE}/magika would be created\n")
        assert "the first: goes live when it is ready" in done.out
        assert "created, 0 changed, 0 the same" in done.out
        assert "nodes: room for 2 more pods now (a: 2)" in done.out
        assert found.written == [], "nothing is written"
        assert len(found.dry) == 1

    def test_of_what_is_there(self, run: Run, tmp_path: Path) -> None:
        world = live()
        done = run(server(world), "plan", "-f", manifest(world, tmp_path))
        assert "is the same" in done.out
        assert "no pod is replaced" in done.out
        assert "objects: 0 created, 0 changed" in done.out

    def test_of_a_new_version(self, run: Run, tmp_path: Path) -> None:
        world = live()
        file = manifest(world, tmp_path, model=V2)
        done = run(server(world), "plan", "-f", file, "--rate", "10")
        lines = done.out.splitlines()
        assert lines[:2] == [
            f"ModelDeployment {SPACE}/magika would change",
            "  spec.model.source.uri: s3://models/magika/v3 -> s3://models/magika/v2",
        ]
        assert f"on trial against {world.stable()}" in lines[2]
        assert any(line.startswith("rollout: about ") for line in lines)
        assert any(line.startswith("  step 1 of 4  1%  ") for line in lines)

    def test_without_a_rate_it_says_how_many_requests(self, run: Run, tmp_path: Path) -> None:
        world = live()
        done = run(server(world), "plan", "-f", manifest(world, tmp_path, model=V2))
        assert "canary requests if none fails; how long depends on the traffic" in done.out

    def test_what_admission_refuses(self, run: Run, tmp_path: Path) -> None:
        world = live()
        said = "ValidatingAdmissionPolicy 'x' with binding 'x' denied request: ask for this right"
        found = server(world, refusal=(422, "Invalid", said))
        done = run(found, "plan", "-f", manifest(world, tmp_path, model=V2), code=1)
        assert "refused: ask for this right" in done.out
        assert "error: 1 of 1 would be refused" in done.err

    def test_what_the_operator_would_not_make(self, run: Run, tmp_path: Path) -> None:
        world = live()
        file = manifest(world, tmp_path, runtime={"profile": "gold"})
        done = run(server(world), "plan", "-f", file, code=1)
        assert "refused: ProfileNotFound: " in done.out

    def test_a_field_that_there_is_not(self, run: Run, tmp_path: Path) -> None:
        world = live()
        done = run(server(world), "plan", "-f", manifest(world, tmp_path, modle={}), code=1)
        assert "refused: spec.modle: " in done.out

    def test_with_the_least_rights(self, run: Run, tmp_path: Path) -> None:
        """Whoever may only look still learns most of it, and which rights are missing."""
        world = live()
        denied = frozenset({"patch", "nodes", "configmaps"})
        file = manifest(world, tmp_path, model=V2)
        done = run(server(world, denied=denied), "plan", "-f", file)
        assert "on trial against" in done.out
        assert "note: admission not asked: you may not apply" in done.out
        assert "note: room on the nodes not known" in done.out
        assert "note: not read: configmaps" in done.out

    def test_forms(self, run: Run, tmp_path: Path) -> None:
        world = live()
        file = manifest(world, tmp_path, model=V2)
        found = json.loads(run(server(world), "plan", "-f", file, "-o", "json").out)
        assert found["newRevision"]
        assert found["fit"]["pods"] == 2
        assert found["changes"][0]["path"] == "spec.model.source.uri"
        keys = run(server(world), "plan", "-f", file, "-o", "name").out.split()
        assert f"Deployment/magika-{found['revision']}" in keys
        objects = list(yaml.safe_load_all(run(server(world), "plan", "-f", file, "--objects").out))
        assert {o["kind"] for o in objects} >= {"Deployment", "ConfigMap", "Service"}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a: [", "is no YAML"),
            ("kind: Pod", "holds no ModelDeployment"),
            ("", "holds no ModelDeployment"),
            ("kind: ModelDeployment", "without metadata.name or spec"),
        ],
    )
    def test_files_that_are_none(self, run: Run, tmp_path: Path, text: str, said: str) -> None:
        file = tmp_path / "x.yaml"
        file.write_text(text)
        assert said in run(Server(), "plan", "-f", str(file), code=1).err

    def test_a_gateway(self, run: Run, tmp_path: Path) -> None:
        world = live()
        gateway = {"parentRefs": [{"name": "public", "namespace": "edge"}], "hostnames": ["m.org"]}
        done = run(
            server(world), "plan", "-f", manifest(world, tmp_path, traffic={"gateway": gateway})
        )
        assert "route: HTTPRoute magika: m.org by gateway edge/public" in done.out
        assert f"  all: magika-{world.stable()} 100%" in done.out

    def test_a_source_that_is_followed(self, run: Run, tmp_path: Path) -> None:
        world = live()
        world.present_kinds |= {"CronJob"}
        followed = {"source": {"uri": "s3://models/magika/v3", "onChange": "NewRevision"}}
        file = manifest(world, tmp_path, model=followed)
        done = run(server(world), "plan", "-f", file, "--objects")
        assert "kind: CronJob" in done.out
        assert "CronJob/magika-source  created" in run(server(world), "plan", "-f", file).out
        world.edit(model=followed)
        world.settle()
        done = run(server(world), "plan", "-f", file)
        assert "objects: 0 created, 0 changed" in done.out
        batch: dict[str, Any] = {"/apis/batch/v1": []}  # served, if not to be read
        found = server(world, denied=frozenset({"cronjobs"}), more=batch)
        done = run(found, "plan", "-f", file)
        assert "note: not read: cronjobs" in done.out

    def test_an_object_of_somebody_elses(self, run: Run, tmp_path: Path) -> None:
        world = live()
        key = Ref("v1", "Service", "magika")
        world.children[key]["metadata"]["ownerReferences"] = []
        done = run(server(world), "plan", "-f", manifest(world, tmp_path, model=V2), code=1)
        assert "refused: Service/magika exists and is somebody else's" in done.out


def test_only_what_a_manifest_names_is_compared() -> None:
    want = {"spec": {"ports": [{"port": 1}], "selector": {"a": "b"}}}
    have = {"spec": {"ports": [{"port": 1, "nodePort": 3}], "selector": {"a": "c"}, "more": 1}}
    assert [c.path for c in applied_changes(want, have)] == ["spec.selector.a"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            'ModelDeployment.tidegate.dev "m" is invalid: spec.slo: Invalid value: say more',
            "spec.slo: Invalid value: say more",
        ),
        ('x "m" is forbidden: policy denied request: no Secret x', "no Secret x"),
        ("something else", "something else"),
    ],
)
def test_refusals_without_their_preamble(message: str, expected: str) -> None:
    assert refusal(message) == expected


class TestDiff:
    def test_canary_against_stable(self, run: Run) -> None:
        done = run(Server(on_trial()), "diff", "magika")
        assert "-    uri: s3://models/magika/v3" in done.out.replace("      ", "    ")
        assert "+" in done.out
        assert "/v2" in done.out

    def test_forms(self, run: Run) -> None:
        world = on_trial()
        found = json.loads(run(Server(world), "diff", "magika", "-o", "json").out)
        assert found["before"] == world.stable()
        assert {
            "path": "spec.model.source.uri",
            "from": "s3://models/magika/v3",
            "to": "s3://models/magika/v2",
        } in found["changes"]
        names_ = run(Server(world), "diff", "magika", "-o", "name").out.split()
        assert names_ == [found["before"], found["after"]]

    def test_whole_shows_manifests_without_what_only_names_them(self, run: Run) -> None:
        world = on_trial()
        done = run(Server(world), "diff", "magika", "--whole")
        changed = [li for li in done.out.splitlines() if li[:1] in "+-" and li[:3] not in "+++---"]
        assert changed
        assert not any(world.stable() in line for line in changed)

    def test_one_revision(self, run: Run) -> None:
        assert "nothing to compare" in run(Server(live()), "diff", "magika", code=1).err

    def test_no_such_revision(self, run: Run) -> None:
        assert "keeps no revision zz" in run(Server(on_trial()), "diff", "magika", "zz", code=5).err


class TestEject:
    def test_the_same_pods_without_an_owner(self, run: Run) -> None:
        world = live()
        text = run(Server(world), "eject", "magika").out
        assert text.startswith("# magika, as it serves now")
        found = [d for d in yaml.safe_load_all(text) if d]
        kinds = [d["kind"] for d in found]
        assert "ControllerRevision" not in kinds
        assert "ModelDeployment" not in kinds
        for one in found:
            assert "ownerReferences" not in one["metadata"], one["kind"]
            assert "uid" not in one["metadata"]
            assert "status" not in one
            notes = one["metadata"].get("annotations") or {}
            assert not any(k.startswith("tidegate.dev/") for k in notes)
        (deployment,) = (d for d in found if d["kind"] == "Deployment")
        live_one = world.of_kind("Deployment")[0]
        assert deployment["spec"] == live_one["spec"], "replicas, selector and template as they are"
        mounted = {
            v["configMap"]["name"]
            for v in deployment["spec"]["template"]["spec"]["volumes"]
            if "configMap" in v
        }
        assert mounted <= {d["metadata"]["name"] for d in found if d["kind"] == "ConfigMap"}

    def test_not_in_the_middle_of_a_rollout(self, run: Run) -> None:
        done = run(Server(on_trial()), "eject", "magika", code=1)
        assert "a canary of magika is on trial; wait, or: tidegate abort magika" in done.err

    def test_nothing_serves(self, run: Run) -> None:
        assert "no revision of magika serves" in run(Server(), "eject", "magika", code=5).err

    def test_not_what_looks_at_a_followed_source(self, run: Run) -> None:
        world = World(present_kinds=frozenset({"CronJob"}))
        world.edit(model={"source": {"uri": "s3://models/magika/v3", "onChange": "NewRevision"}})
        world.settle()
        assert world.of_kind("CronJob")
        denied = frozenset({"cronjobs", "controllerrevisions"})
        text = run(Server(world, denied=denied), "eject", "magika").out
        assert "CronJob" not in text
        assert "\n#   3. kubectl -n demo delete cronjob magika-source\n# From then on" in text
        assert "cronjob" not in run(Server(live()), "eject", "magika").out

    def test_names(self, run: Run) -> None:
        found = run(Server(live()), "eject", "magika", "-o", "name").out.split()
        assert "service/magika" in found


def operator(ready: int = 2, version: str = "0.1.0") -> dict[str, Any]:
    env = [{"name": "TIDEGATE_LEASE_NAME", "value": "tidegate-operator"}]
    return {
        "metadata": {
            "name": "tidegate-operator",
            "labels": {
                "app.kubernetes.io/component": "operator",
                "app.kubernetes.io/version": version,
            },
        },
        "spec": {
            "replicas": 2,
            "template": {"spec": {"serviceAccountName": "op", "containers": [{"env": env}]}},
        },
        "status": {"readyReplicas": ready},
    }


def well() -> Server:
    """A cluster in which all is well."""
    system = "/namespaces/tidegate-system"
    admitted = admission.objects("tidegate")
    policies = [o for o in admitted if o["kind"] == "ValidatingAdmissionPolicy"]
    lease = {
        "metadata": {"name": "tidegate-operator"},
        "spec": {
            "holderIdentity": "op-1_x",
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }
    features = [{"name": f} for f in checks.MIRROR_FEATURES]
    labels = {"nvidia.com/gpu.product": "L4", "nvidia.com/gpu.memory": "23034"}
    api = "/apis/admissionregistration.k8s.io/v1"
    gateway = {
        "metadata": {"name": "public", "namespace": "edge"},
        "status": {"conditions": [{"type": "Programmed", "status": "True"}]},
    }
    return Server(
        live(),
        more={
            f"/apis/apps/v1{system}/deployments": [operator()],
            f"/apis/coordination.k8s.io/v1{system}/leases": [lease],
            f"{api}/validatingadmissionpolicies": policies,
            f"{api}/validatingadmissionpolicybindings": [
                o for o in admitted if o["kind"] != "ValidatingAdmissionPolicy"
            ],
            "/api/v1/nodes": [node("a", 2, **labels)],
            "/apis/gateway.networking.k8s.io/v1/gateways": [gateway],
            "/apis/gateway.networking.k8s.io/v1/gatewayclasses": [
                {"metadata": {"name": "envoy"}, "status": {"supportedFeatures": features}}
            ],
        },
    )


class TestDoctor:
    def results(self, run: Run, server: Server, code: int = 0) -> dict[str, tuple[str, str]]:
        done = run(server, "doctor", "-o", "json", code=code)
        found: dict[str, tuple[str, str]] = {}
        for one in json.loads(done.out)["items"]:
            if found.get(one["check"], ("ok", ""))[0] == "ok":
                found[one["check"]] = (one["result"], f"{one['message']}; {one['mend']}")
            assert one["result"] in ("ok", "unknown") or one["mend"], one
        return found

    def test_where_all_is_well(self, run: Run) -> None:
        server = well()
        found = self.results(run, server)
        wrong = {k: v for k, v in found.items() if v[0] != "ok"}
        # The server of the tests lets everybody do everything.
        assert set(wrong) == {"monitoring.coreos.com", "operator's rights"}
        assert "may read Secrets" in found["operator's rights"][1]
        text = run(server, "doctor").out
        assert text.splitlines()[0].split() == ["RESULT", "CHECK", "WHY"]
        assert "op-1 leads" in text

    def test_with_the_role_view_only(self, run: Run) -> None:
        """What may not be read is unknown, and says which right is missing."""
        server = well()
        server.denied = frozenset(
            {
                *("nodes", "gatewayclasses", "validatingadmissionpolicies", "leases"),
                "subjectaccessreviews",
            }
        )
        found = self.results(run, server)
        for check in ("GPUs", "gateway", "admission", "leader", "operator's rights"):
            assert found[check][0] == "unknown", check
            assert "you may not " in found[check][1]

    def test_what_is_wrong_ends_with_1(self, run: Run) -> None:
        server = well()
        system = "/namespaces/tidegate-system"
        server.more[f"/apis/coordination.k8s.io/v1{system}/leases"] = []
        server.more[f"/apis/apps/v1{system}/deployments"] = [operator(ready=0)]
        found = self.results(run, server, code=1)
        assert found["leader"][0] == found["operator"][0] == "failed"

    def test_rights_that_the_operator_lacks(self, run: Run) -> None:
        server = well()
        server.denied = frozenset({"networkpolicies", "secrets"})
        found = self.results(run, server, code=1)
        assert found["operator's rights"] == (
            "failed",
            "op may not create networkpolicies in demo; add demo to the chart's watchNamespaces, "
            "or leave rbac.create on",
        )

    @pytest.mark.parametrize(("named", "code"), [("", 0), ("a, demo", 0), ("a,b", 1)])
    def test_whether_the_operator_looks_here(self, run: Run, named: str, code: int) -> None:
        server, found = well(), operator()
        (container,) = found["spec"]["template"]["spec"]["containers"]
        container["env"].append({"name": "TIDEGATE_WATCH_NAMESPACES", "value": named})
        server.more["/apis/apps/v1/namespaces/tidegate-system/deployments"] = [found]
        said = "it looks at a, b, and at nothing in demo; add demo to the chart's watchNamespaces"
        assert (said in run(server, "doctor", code=code).out) == bool(code)


def judged(found: Any) -> list[tuple[str, str]]:
    return [(f.result, f.message) for f in found]


@pytest.mark.parametrize(
    ("minor", "result"), [("29", "failed"), ("30", "ok"), ("30+", "ok"), ("", "unknown")]
)
def test_versions(minor: str, result: str) -> None:
    found = judged(checks.version({"major": "1", "minor": minor, "gitVersion": "v"}))
    assert found[0][0] == result


def test_a_cluster_without_tidegate() -> None:
    assert judged(checks.api(None))[0][0] == "failed"
    assert judged(checks.admission([], []))[0][0] == "failed"


def test_a_policy_without_a_binding_is_not_in_force() -> None:
    made = admission.objects("tidegate")
    policies = [o for o in made if o["kind"] == "ValidatingAdmissionPolicy"]
    found = judged(checks.admission(policies, []))
    assert found[0][0] == "failed"


def test_gpus_that_do_not_say_what_they_are() -> None:
    assert judged(checks.gpus([node("a", 1)]))[0][0] == "warning"
    assert judged(checks.gpus([node("a", 0)]))[0][0] == "warning"


def test_gateways() -> None:
    broken = {
        "metadata": {"name": "g", "namespace": "n"},
        "status": {"conditions": [{"type": "Programmed", "status": "False", "reason": "Invalid"}]},
    }
    plain = {"metadata": {"name": "c"}, "status": {"supportedFeatures": ["HTTPRoute"]}}
    silent = {"metadata": {"name": "s"}}
    found = judged(checks.gateway([broken], [plain, silent]))
    assert [result for result, _ in found] == ["failed", "warning", "unknown"]
    assert judged(checks.gateway(None, None))[0][0] == "warning"
