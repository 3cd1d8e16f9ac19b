"""Measured latency: shares and quantiles from counts below fixed edges."""

import math
from collections.abc import Sequence


def share_slower(
    edges_ms: Sequence[float], faster: Sequence[float], timed: float, target_ms: float
) -> float | None:
    """Share of the answers slower than the target; None: the edges do not reach so far.

    Exact at an edge; between two, the logarithm of the share falls in a straight line, as an
    exponential tail does.

    Args:
        edges_ms: ascending.
        faster: of the answers, in less than each edge.
        timed: answers.
        target_ms: of the objective.
    """
    if timed <= 0:
        return None
    at, share = 0.0, 1.0
    for edge, n in zip(edges_ms, faster, strict=True):
        above = max(0.0, 1.0 - n / timed)
        if edge >= target_ms:
            if above <= 0.0 or edge == target_ms:
                # A straight line where the tail ends in between.
                return share + (above - share) * (target_ms - at) / (edge - at)
            part = (target_ms - at) / (edge - at)
            return math.exp((1.0 - part) * math.log(share) + part * math.log(above))
        at, share = float(edge), above
        if share <= 0.0:
            return 0.0
    return None


def quantile_ms(
    edges_ms: Sequence[float], faster: Sequence[float], timed: float, quantile: float
) -> float | None:
    """The latency that this share of the answers does not exceed; interpolated as above.

    Beyond the last edge it is that edge: at least so slow. None: no answers.
    """
    if timed <= 0 or not edges_ms:
        return None
    wanted = 1.0 - quantile
    at, share = 0.0, 1.0
    for edge, n in zip(edges_ms, faster, strict=True):
        above = max(0.0, 1.0 - n / timed)
        if above <= wanted:
            if above <= 0.0:
                part = (share - wanted) / share
            else:
                part = (math.log(share) - math.log(wanted)) / (math.log(share) - math.log(above))
            return at + (edge - at) * part
        at, share = float(edge), above
    return at
