"""Looks at one revision's pods, remembered and turned into a `Demand`."""

from collections.abc import Collection, Iterable

from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.reading import Look
from tidegate.autoscaling.server import LAW, Law, ServerModel


class Observer:
    """Remembers what the law needs of one revision.

    Args:
        model: how one of its pods serves.
        capacities: shared by all revisions of the process.
        law: constants.
    """

    def __init__(self, model: ServerModel, capacities: Capacities, law: Law = LAW) -> None:
        raise NotImplementedError

    def observe(
        self, at_s: float, looks: Iterable[Look], *, ready: Collection[str]
    ) -> Demand | None:
        """Take in one look at all pods; what it comes to, or None before 60 s of data.

        Args:
            at_s: now, seconds since the epoch; earlier than the last call's is passed over.
            looks: of pods of this revision, Ready or not, that could be read.
            ready: UIDs of the pods that are Ready, read or not.
        """
        raise NotImplementedError
