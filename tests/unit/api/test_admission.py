"""The policies as documents; what they do is tested on a real API server."""

import json
import re
from typing import Any

import pytest

from tidegate.api import admission, names

OBJECTS = admission.objects("t", watch_namespaces=("a", "b"))
POLICIES = [o for o in OBJECTS if o["kind"] == "ValidatingAdmissionPolicy"]
BINDINGS = [o for o in OBJECTS if o["kind"] == "ValidatingAdmissionPolicyBinding"]


def test_each_policy_is_bound_and_denies() -> None:
    assert [b["spec"]["policyName"] for b in BINDINGS] == [p["metadata"]["name"] for p in POLICIES]
    assert {tuple(b["spec"]["validationActions"]) for b in BINDINGS} == {("Deny",)}


def test_they_fail_closed() -> None:
    assert {p["spec"]["failurePolicy"] for p in POLICIES} == {"Fail"}


def test_they_hold_where_they_are_told() -> None:
    for binding in BINDINGS:
        (selector,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert selector["values"] == ["a", "b"]
    everywhere = admission.objects("t")
    assert all("matchResources" not in o["spec"] for o in everywhere)


def test_status_and_scale_are_left_alone() -> None:
    """The operator's own writes are never asked about."""
    for policy in POLICIES:
        (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
        assert rule["resources"] == [names.PLURAL]
        assert rule["operations"] == ["CREATE", "UPDATE"]


def checks(expression: str, variables: dict[str, str]) -> int:
    """Authorizer checks of an expression, with those of the variables that it uses."""
    used = set(re.findall(r"variables\.(\w+)", expression))
    return expression.count("authorizer.") + sum(checks(variables[n], variables) for n in used)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p["metadata"]["name"])
def test_at_most_two_authorizer_checks_an_expression(policy: dict[str, Any]) -> None:
    variables = {v["name"]: v["expression"] for v in policy["spec"]["variables"]}
    counts = [checks(v["expression"], variables) for v in policy["spec"]["validations"]]
    assert max(counts) <= 2
    if policy["metadata"]["name"] != "t-platform":
        assert max(counts) >= 1


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p["metadata"]["name"])
def test_variables_stand_before_their_use(policy: dict[str, Any]) -> None:
    known: set[str] = set()
    for variable in policy["spec"]["variables"]:
        assert set(re.findall(r"variables\.(\w+)", variable["expression"])) <= known
        known.add(variable["name"])
    for validation in policy["spec"]["validations"]:
        assert set(re.findall(r"variables\.(\w+)", json.dumps(validation))) <= known


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("1/promote/abcdefghij/ada", True),
        ("a-b-c/pause//ada", True),
        ("1/abort//https://issuer.example.com#ada", True),
        ("1/abort//system:serviceaccount:a:b", True),
        ("1/destroy//ada", False),
        ("/abort//ada", False),
        ("1/abort/ada", False),
        ("1/abort//", False),
        ("1/abort/Abc/ada", False),
        (f"{'1' * 65}/abort//ada", False),
    ],
)
def test_request_pattern(text: str, good: bool) -> None:
    assert bool(re.fullmatch(admission.REQUEST_PATTERN, text)) == good


def test_lists_are_written_as_cel() -> None:
    entries = ('a"b', "c\\d", "e'f", "é")
    assert json.loads(admission.literal(entries)) == list(entries)
