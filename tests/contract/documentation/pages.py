"""What each page presumes, and who types. A page that is not here presumes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml

from tests.contract.documentation.models import (
    SCALED,
    V1,
    changed,
    document,
    named,
    rolling,
    running,
    serving,
)
from tests.contract.documentation.reader import ROOT
from tests.contract.documentation.setups import (
    Setup,
    both,
    command_line,
    files,
    nothing,
    of_models,
    offline,
    released,
    route,
    routed,
    shown,
    with_event,
    with_lease,
    with_logs,
    with_node,
    without_release,
)
from tests.unit.cli import documents as d
from tidegate.api import names


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        setup: what is there before its first command.
        before: what happens before a command, by how it begins.
        instead: words of commands, and what is typed instead of them.
        ends: exit statuses other than 0, by how the command begins.
        users: who types a command, by how it begins; else an administrator.
        differs: commands of whose output only the first line is compared, and why.
    """

    setup: Setup = nothing
    before: Mapping[str, Setup] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)


GOLDEN: Final = "docs/guide/golden-requests.md"
SIMULATED: Final = """\
apiVersion: tidegate.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: detector}}
spec:
  model:
    source: {{uri: "s3://models/detector/v{version}"}}
    config: {{maxBatchSize: 8, dynamicBatching: {{}}}}
  slo: {{latency: {{target: 100ms}}}}
  scaling: {{mode: SLO, minReplicas: 1, maxReplicas: 8}}
"""
RUNBOOKS: Final = "docs/operations/runbooks/"
MIGRATE: Final = "docs/guide/migrate.md"
BARE: Final = "no operator, gateway, node here"

PAGES: Final[Mapping[str, Page]] = {
    "README.md": Page(
        both(without_release, shown("README.md", "my-model.yaml", "name: magika")),
    ),
    "helm/tidegate/README.md": Page(without_release),
    "docs/guide/air-gapped.md": Page(
        both(of_models(), offline),
        ends={"kubectl tidegate doctor": 1},
    ),
    "docs/guide/autoscaling.md": Page(of_models(scorer=SCALED)),
    "docs/guide/cloud.md": Page(
        both(of_models(), files(key_json="{}")),
        before={
            # The page has one for each cloud.
            "kubectl create secret generic models-read -n models --from-literal": lambda r: (
                r.kube.delete("v1", "Secret", "models-read", "models")
            )
        },
    ),
    "docs/guide/command-line.md": Page(
        command_line,
        before={
            "kubectl tidegate diff": changed,
            "kubectl tidegate plan -f magika.yaml": serving,
            "kubectl tidegate load": named,
            "kubectl tidegate promote": rolling,
        },
        instead={
            " --apply": " --apply --url MODEL",
            "http://10.96.115.89:8000 --rate 20 --duration 20s": "MODEL --rate 20 --duration 1s",
            "/etc/bash_completion.d/tidegate": "completion.bash",
        },
        ends={
            "kubectl tidegate plan -f bad.yaml": 1,
            "kubectl tidegate doctor": 1,
            "kubectl tidegate promote": 1,
            "kubectl tidegate abort": 1,
        },
        users={"kubectl tidegate promote": "cy"},
        differs={
            "kubectl tidegate doctor": BARE,
            "kubectl tidegate load": "a busy machine is told that it sent late",
        },
    ),
    "docs/guide/dashboard.md": Page(both(released, of_models())),
    "docs/guide/getting-started.md": Page(
        both(
            shown("docs/guide/getting-started.md", "sentiment.yaml", "name: sentiment"),
            lambda reader: reader.space("tidegate-demo"),
            lambda reader: reader.model(d.STEADY),
            lambda reader: reader.space("default"),
        )
    ),
    "docs/guide/gitops.md": Page(
        both(
            of_models(detector=d.STEADY),
            files(
                **{
                    "chart/Chart_yaml": "apiVersion: v2\nname: models\nversion: 0.1.0\n",
                    "chart/templates/detector_yaml": document(V1, "detector"),
                }
            ),
            lambda reader: reader.kube.delete(
                names.API_VERSION, names.KIND, "detector", reader.namespace
            ),
            lambda reader: reader.must("helm install models ./chart"),
        )
    ),
    GOLDEN: Page(
        both(
            files(**{"golden/python_json": "{}", "example_py": "import os\n", "tide_png": "png"}),
        )
    ),
    "docs/guide/install.md": Page(
        both(without_release, files(values_yaml="replicaCount: 1\n")),
        before={
            "kubectl apply --server-side -f install.yaml": without_release,
            "helm upgrade": released,
        },
        # For real: tests/contract/test_chart.py. Helm would not take over what it left.
        instead={"-f install.yaml": "-f install.yaml --dry-run=server"},
    ),
    MIGRATE: Page(
        both(
            routed,
            of_models(),
            files(old_yaml=(ROOT / "docs/examples/migrate/deployment.yaml").read_text()),
        ),
        before={
            "kubectl patch httproute": lambda r: r.kube.apply_all(
                list(yaml.safe_load_all(r.block(MIGRATE, "name: ranker-cutover")))
            )
        },
    ),
    "docs/guide/model-sources.md": Page(
        both(
            of_models(),
            with_node,
            lambda reader: running(reader, "magika-x7k2m4q9ab-5d9c7", {}),
        )
    ),
    "docs/guide/own-prometheus.md": Page(
        of_models(ranker=d.STEADY), ends={"kubectl tidegate doctor": 1}
    ),
    "docs/guide/pipelines.md": Page(
        both(
            of_models(),
            lambda r: (r.folder / "overlays").symlink_to(ROOT / "docs/examples/gitops/overlays"),
        )
    ),
    "docs/guide/rollouts.md": Page(of_models(magika=d.STEP)),
    "docs/guide/traffic.md": Page(
        both(
            routed,
            of_models(ranker=d.STEP),
            lambda r: route(r, "ranker", annotations={"tidegate.dev/decision": "Canary"}),
        )
    ),
    "docs/guide/simulate.md": Page(
        both(
            files(
                detector_yaml=SIMULATED.format(version=1),
                v1_yaml=SIMULATED.format(version=1),
                v2_yaml=SIMULATED.format(version=2),
                # Hours and minutes, as on the page; few requests.
                day_csv="time,rps\n" + "".join(f"{60 * i},0.5\n" for i in range(120)),
                load_csv="time,rps\n" + "".join(f"{60 * i},1\n" for i in range(12)),
            )
        ),
        instead={
            "--runs 10": "--runs 1",
            "detector.yaml --trace load": "detector.yaml --trace day",
        },
        differs={"tidegate simulate": "another load: other lines of what was missed"},
    ),
    "docs/operations/troubleshooting.md": Page(of_models(magika=d.STALLED)),
    "docs/operations/upgrades.md": Page(
        both(released, of_models(detector=d.STEADY), files(values_yaml="replicaCount: 1\n")),
        instead={" --wait": ""},  # for pods
        ends={"kubectl tidegate doctor": 1},
    ),
    "docs/reference/events.md": Page(both(of_models(magika=d.STEADY), with_event)),
    f"{RUNBOOKS}no-leader.md": Page(
        both(with_lease, with_logs), ends={"kubectl tidegate doctor": 1}
    ),
    f"{RUNBOOKS}rolled-back.md": Page(both(with_logs, of_models(magika=d.ROLLED_BACK))),
    f"{RUNBOOKS}waiting-for-gpu.md": Page(both(of_models(magika=d.GPU), with_node)),
}


def page_of(name: str) -> Page:
    """A page; a runbook is read with a rollout under way."""
    return PAGES.get(name) or Page(with_logs if name.startswith(RUNBOOKS) else nothing)
