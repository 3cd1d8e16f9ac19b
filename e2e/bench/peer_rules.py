"""How Argo Rollouts and Flagger decide about a canary's error rate, as small functions of counts.

Written from their documentation; what it leaves open is taken in the tools' favour: counters are
read without delay, Argo's first measurement waits for one interval, and no request in a window is a
success for Argo (the documented ``isNaN`` guard; without it, it is a failure).

Sources:
- Argo Rollouts, "Analysis & Progressive Delivery" (docs/features/analysis.md of argoproj/
  argo-rollouts): a metric is measured each ``interval``; it fails if ``successCondition`` does not
  hold; more than ``failureLimit`` failed measurements (0 unless given; they need not follow each
  other) abort the rollout. Background analysis goes on until the steps are done; then the rollout
  is promoted. The example there: 20, 40, 60 and 80 % for 10 minutes each, interval 5 m, limit 3.
- Flagger, "How it works" and "Deployment strategies" (docs/gitbook/usage of fluxcd/flagger): each
  ``interval`` the success rate of the last minute is compared with ``thresholdRange.min``. A check
  that holds raises the weight by ``stepWeight`` up to ``maxWeight``, and then promotes; one that
  does not, or that finds no values ("Halt advancement no values found"), counts as failed; at
  ``threshold`` failed checks, the next run rolls back. The example of "How it works": interval
  1 m, threshold 10, maxWeight 50, stepWeight 5; its tutorials: threshold 5, stepWeight 10.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Take = Callable[[int, float], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""The canary's next so many seconds at a weight: requests and failed ones, second by second."""


@dataclass(frozen=True)
class PeerEnded:
    """How a rollout ended: taken back or promoted, when, and what failed until then."""

    rolled_back: bool
    at_s: int
    failed: int


@dataclass(frozen=True)
class Argo:
    """A rollout's steps, and one metric of its background analysis.

    Attributes:
        steps: weight and pause in seconds.
        interval_s: between measurements.
        window_s: what the query looks back on.
        failure_limit: more failed measurements than this abort.
        least: the success rate that is asked for.
    """

    steps: tuple[tuple[float, int], ...]
    interval_s: int
    window_s: int
    failure_limit: int
    least: float = 0.99

    def play(self, take: Take) -> PeerEnded:
        """One rollout."""
        seconds = [take(pause, weight) for weight, pause in self.steps]
        requests = _sums(np.concatenate([r for r, _ in seconds]))
        failed = _sums(np.concatenate([f for _, f in seconds]))
        end, failures = len(requests) - 1, 0
        for at_s in range(self.interval_s, end + 1, self.interval_s):
            begin = max(at_s - self.window_s, 0)
            seen = requests[at_s] - requests[begin]
            if seen and 1.0 - (failed[at_s] - failed[begin]) / seen < self.least:
                failures += 1
            if failures > self.failure_limit:
                return PeerEnded(True, at_s, int(failed[at_s]))
        return PeerEnded(False, end, int(failed[end]))


@dataclass(frozen=True)
class Flagger:
    """A canary's analysis with the built-in success rate.

    Attributes:
        interval_s: between runs.
        window_s: what the query looks back on.
        threshold: failed checks that roll back.
        step_weight: by how much a run raises the weight.
        max_weight: where that ends.
        least: the success rate that is asked for.
    """

    interval_s: int
    window_s: int
    threshold: int
    step_weight: float
    max_weight: float
    least: float = 0.99

    def play(self, take: Take, most_s: int = 6 * 3600) -> PeerEnded:
        """One rollout."""
        requests, failed = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        weight, failures = self.step_weight, 0
        while len(requests) <= most_s:
            more = take(self.interval_s, weight)
            requests = np.append(requests, requests[-1] + np.cumsum(more[0]))
            failed = np.append(failed, failed[-1] + np.cumsum(more[1]))
            at_s = len(requests) - 1
            if failures >= self.threshold:
                return PeerEnded(True, at_s, int(failed[-1]))
            begin = max(at_s - self.window_s, 0)
            seen = requests[at_s] - requests[begin]
            if not seen or 1.0 - (failed[at_s] - failed[begin]) / seen < self.least:
                failures += 1
            elif weight >= self.max_weight - 1e-9:
                return PeerEnded(False, at_s, int(failed[-1]))
            else:
                weight = min(weight + self.step_weight, self.max_weight)
        return PeerEnded(False, len(requests) - 1, int(failed[-1]))


def _sums(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts)))
