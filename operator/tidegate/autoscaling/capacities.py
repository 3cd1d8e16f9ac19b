"""Capacities of many deployments, worked out within a budget."""


class Capacities:
    """Remembers what the capacity model said, and spends at most so much work between refills."""

    def refill(self) -> None:
        """Call once before each round of looks: the budget is full again."""
        raise NotImplementedError
