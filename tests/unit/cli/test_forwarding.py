"""The way to the dashboard."""

import pytest

from helm.chart import objects
from tidegate.cli.forwarding import LABELS, Door, door
from tidegate.cli.trouble import Trouble


def test_the_command_reaches_the_chosen_cluster() -> None:
    command = Door("ops", "gate-dashboard", "https").command(
        9000, context="prod", kubeconfig="/k/config"
    )
    assert " ".join(command) == (
        "kubectl --kubeconfig /k/config --context prod -n ops port-forward "
        "svc/gate-dashboard 9000:https"
    )
    assert Door("ops", scheme="https").address(9000) == "https://127.0.0.1:9000/"


def test_it_is_found_by_its_labels_as_the_chart_gives_them() -> None:
    values = {"dashboard": {"enabled": True}, "fullnameOverride": "gate"}
    [service] = [o for o in objects(values) if o["kind"] == "Service"]
    assert LABELS.items() <= service["metadata"]["labels"].items()
    assert door([service], "ops") == Door("ops", "gate-dashboard", "http")


def test_where_there_is_none_the_mend_is_told() -> None:
    with pytest.raises(Trouble, match="no dashboard in namespace ops") as told:
        door([], "ops")
    assert "dashboard.enabled=true" in str(told.value)
