"""Reads the API server as the caller, and asks what who may do."""

import re
from typing import Any

from tidegate.cli.client import ApiError, Client


class Denied(Exception):
    """The caller may not read this."""


class Look:
    """Reads the API server; what is not there is None."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def get(self, path: str) -> dict[str, Any] | None:
        """One document; None where there is none.

        Raises:
            Denied: it may not be read.
        """
        try:
            return self.client.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            if error.status == 403:
                raise Denied(error.message) from None
            raise

    def list(self, path: str, **more: Any) -> list[dict[str, Any]] | None:
        """A collection; None where the API server does not serve it.

        Raises:
            Denied: it may not be read.
        """
        try:
            return self.client.list(path, **more)
        except ApiError as error:
            if error.status == 404:
                return None
            if error.status == 403:
                raise Denied(error.message) from None
            raise

    def may(self, group: str, resource: str, sub: str, verb: str, namespace: str) -> bool:
        """Whether the caller may do that."""
        attributes = {
            "group": group,
            "resource": resource,
            "subresource": sub,
            "verb": verb,
            "namespace": namespace,
        }
        answer = self.client.request(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )
        return bool((answer.get("status") or {}).get("allowed"))

    def may_other(
        self, user: str, group: str, resource: str, sub: str, verb: str, namespace: str
    ) -> bool:
        """Whether somebody else may do that.

        Raises:
            Denied: the caller may not ask.
        """
        try:
            answer = self.client.request(
                "POST",
                "/apis/authorization.k8s.io/v1/subjectaccessreviews",
                body={
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SubjectAccessReview",
                    "spec": {
                        "user": user,
                        "groups": ["system:serviceaccounts", "system:authenticated"],
                        "resourceAttributes": {
                            "group": group,
                            "resource": resource,
                            "subresource": sub,
                            "verb": verb,
                            "namespace": namespace,
                        },
                    },
                },
            )
        except ApiError as error:
            if error.status == 403:
                raise Denied(error.message) from None
            raise
        return bool((answer.get("status") or {}).get("allowed"))


def right(message: str) -> str:
    """A refusal as the right that is missing."""
    match = re.search(r'cannot (\w+) resource "([^"]+)"(?: in API group "([^"]*)")?', message)
    if match is None:
        return message
    group = f".{match[3]}" if match[3] else ""
    scope = re.search(r'in the namespace "([^"]+)"', message)
    where = f"in {scope[1]}" if scope else "in the whole cluster"
    return f"you may not {match[1]} {match[2]}{group} {where}"
