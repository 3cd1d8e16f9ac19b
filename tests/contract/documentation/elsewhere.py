"""Commands of the documentation that are not run against a bare API server: why, and who runs them.

Keep it short. A command that nothing runs is one that the next change may break unseen.
"""

from typing import Final, NamedTuple


class Elsewhere(NamedTuple):
    """Commands with one reason.

    Attributes:
        command: a regular expression for how they begin, placeholders put in.
        reason: why they are not run here.
        by: the file that runs them, in the form that can be run there; '': none does.
    """

    command: str
    reason: str
    by: str = ""


LOGS: Final = "kubectl logs -n tidegate-system -l app.kubernetes.io/component=operator"

NOT_HERE: Final = (
    # The project's own stages.
    Elsewhere("make (venv|check|contract|e2e|test)\\b", "would run these tests in themselves"),
    Elsewhere("make generate", "writes into the tree", "tests/unit/architecture/test_tree.py"),
    Elsewhere("make docs", "seconds, in another stage", "tests/integration/docs/test_site.py"),
    Elsewhere("make images", "builds images: minutes, root", "e2e/cluster/images.py"),
    Elsewhere("make demo$", "a cluster with pods, two minutes", "e2e/tests/test_demo.py"),
    Elsewhere("make demo DEMO=", "a cluster with pods; the options: unit tests", "tests/unit/demo"),
    Elsewhere("CLUSTER=current make demo|export ", "a cluster and a store of the reader's own"),
    Elsewhere(
        "(PYTHONPATH=.* )?[.]venv/bin/python -m e2e.bench[.]", "minutes to an hour", "e2e/bench"
    ),
    # What asks a package index or a registry.
    Elsewhere("pip (install|wheel) ", "asks a package index"),
    Elsewhere("skopeo copy ", "asks a registry"),
    Elsewhere("npm pack |tar -xzf uplot|cp package/", "asks a package index"),
    # What takes pods.
    Elsewhere("helm test ", "takes pods", "e2e/tests/test_chart.py"),
    Elsewhere("kubectl logs -f job/", "takes pods"),
    Elsewhere("kubectl tidegate dashboard", "takes pods", "tests/unit/cli/test_forwarding.py"),
    Elsewhere("kubectl port-forward ", "takes pods"),
    Elsewhere("curl ", "takes pods", "e2e/tests/test_serving.py"),
    # What takes long, or much.
    Elsewhere("tidegate prepare ", "a Triton", "tests/integration/preparation/test_prepare.py"),
    Elsewhere("model_signing sign ", "another project's program", "tests/unit/fetch"),
    Elsewhere(
        "(MODEL=.* )?sh docs/examples/release.sh",
        "a Triton",
        "tests/unit/cli/test_release_script.py",
    ),
    Elsewhere("helm upgrade models ./chart --wait", "waits for pods of the reader's own chart"),
    # The reader's own repository.
    Elsewhere("git revert COMMIT", "a commit of the reader's own", "e2e/tests/test_flux.py"),
)
