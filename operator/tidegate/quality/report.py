"""What labels and samples come to: two conditions, and a line for each revision. Pure.

``Accurate`` and ``Steady`` speak of the canary while one is on trial, and only then can they be
True: a gate that a rollout waits for is never answered by what was known of another revision. At
rest they are False where the revision that serves is shown to be bad, else Unknown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tidegate.api import units
from tidegate.quality import accuracy
from tidegate.quality.accuracy import Accuracy, Answer
from tidegate.quality.policy import Policy
from tidegate.quality.shift import Bins, Shift, shift
from tidegate.view import facts

ACCURATE: Final = "Accurate"
STEADY: Final = "Steady"
REFERENCE: Final = 1000
"""A revision's first days, until there are so many samples, are what it is compared with later."""
LEAST_OF_DAY: Final = 50
"""Samples without which nothing is said of a day."""
DAYS: Final = 365
"""`Policy.error` is spent evenly over the days of a year."""

Counts = Mapping[str, int]


@dataclass(frozen=True)
class Figures:
    """What was counted of one revision.

    Attributes:
        right: right answers among
        labels: so many that were compared.
        days: of each field, counts by day (days since 1970, UTC) and bin.
    """

    right: int = 0
    labels: int = 0
    days: Mapping[str, Mapping[int, Counts]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A condition without its times.

    Attributes:
        type: Accurate or Steady.
        status: True, False or Unknown.
        reason: one CamelCase word.
        message: the numbers.
        revision: of which it speaks; empty: of none.
    """

    type: str
    status: str
    reason: str
    message: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Report:
    """What is known.

    Attributes:
        verdicts: those that are asked for.
        revisions: ``status.quality``.
    """

    verdicts: tuple[Verdict, ...] = ()
    revisions: tuple[dict[str, str], ...] = ()


def useless(problem: str) -> Report:
    """What is said where the policy cannot be used: no gate is answered."""
    return Report(
        tuple(Verdict(t, "Unknown", "QualityInvalid", problem) for t in (ACCURATE, STEADY))
    )


def report(
    deployment: Mapping[str, Any],
    policy: Policy,
    bins: Mapping[str, Bins],
    figures: Mapping[str, Figures],
    now: datetime,
) -> Report:
    """The report on a ModelDeployment.

    Args:
        deployment: as it lives.
        policy: what is asked.
        bins: of each field, in the order in which they were set.
        figures: by revision.
        now: UTC.
    """
    return _Reporting(deployment, policy, bins, figures, int(now.timestamp() // 86400)).report()


@dataclass(frozen=True)
class _Reporting:
    deployment: Mapping[str, Any]
    policy: Policy
    bins: Mapping[str, Bins]
    figures: Mapping[str, Figures]
    today: int

    def report(self) -> Report:
        stable = str(facts.revision(self.deployment, "stable").get("hash") or "")
        canary = str(facts.revision(self.deployment, "canary").get("hash") or "")
        if not facts.rolling(self.deployment) or canary == stable:
            canary = ""
        found = []
        if self.policy.asks_accuracy:
            found.append(self._accurate(stable, canary))
        shifts = {
            canary: self._from_stable(stable, canary) if canary else [],
            stable: self._from_its_first_days(stable),
        }
        if self.policy.max_shift is not None:
            found.append(self._steady(shifts[canary or stable], stable, canary))
        lines = []
        for hash_ in dict.fromkeys(h for h in (stable, canary) if h):
            known = self._accuracy(hash_)
            worst = _worst(shifts[hash_])
            line = {
                "revision": hash_,
                "accuracy": _accuracy_text(known) if known.labels else "",
                "shift": _shift_text(*worst) if worst else "",
            }
            if line["accuracy"] or line["shift"]:
                lines.append({key: text for key, text in line.items() if text})
        return Report(tuple(found), tuple(lines))

    # Labels.

    @property
    def _error(self) -> float:
        return units.fraction(self.policy.error)

    def _accuracy(self, hash_: str) -> Accuracy:
        # Two revisions may be compared: each has half.
        known = self.figures.get(hash_, Figures())
        return accuracy.measured(known.right, known.labels, self._error / 2.0)

    def _accurate(self, stable: str, canary: str) -> Verdict:
        policy = self.policy
        least = None if policy.min_accuracy is None else units.fraction(policy.min_accuracy)
        drop = policy.max_accuracy_drop
        most_drop = None if drop is None or not canary else units.fraction(drop)
        subject = canary or stable
        known, other = self._accuracy(subject), self._accuracy(stable)
        answer = accuracy.judge(known, other, least=least, most_drop=most_drop)
        text = f"revision {subject}: " if subject else ""
        text += _accuracy_text(known) if known.labels else "no labels yet"
        asked = [] if least is None else [f"at least {policy.min_accuracy}"]
        if most_drop is not None:
            stable_text = _accuracy_text(other) if other.labels else "no labels yet"
            asked.append(f"at most {drop} less than stable ({stable_text})")
        text += f"; asked {' and '.join(asked)}" if asked else ""
        if answer is Answer.BAD:
            return Verdict(ACCURATE, "False", "TooManyWrong", text, subject)
        if not canary:
            return Verdict(ACCURATE, "Unknown", "NothingOnTrial", text, subject)
        if answer is Answer.GOOD:
            return Verdict(ACCURATE, "True", "Shown", text, subject)
        more = accuracy.labels_needed(
            known, other, self._error / 2.0, least=least, most_drop=most_drop
        )
        text += f"; about {_rounded(more):,} more labels would show it" if more else ""
        return Verdict(ACCURATE, "Unknown", "TooFewLabels", text, subject)

    # Samples.

    def _from_stable(self, stable: str, canary: str) -> list[tuple[str, Shift]]:
        """How far a canary's fields lie from stable's, since the canary's first day."""
        mine = self.figures.get(canary, Figures()).days
        theirs = self.figures.get(stable, Figures()).days
        began = min((day for days in mine.values() for day in days), default=None)
        if began is None:
            return []
        found = []
        for index, (name, bins) in enumerate(self.bins.items()):
            days = mine.get(name, {})
            first = min(days, default=began)
            before = _added(c for day, c in theirs.get(name, {}).items() if day >= first)
            after = _added(days.values())
            # What stable's samples have and the canary's lack is not known to be steady.
            if before or after:
                found.append((name, shift(bins, before, after, self._error * _part(index))))
        return found

    def _from_its_first_days(self, stable: str) -> list[tuple[str, Shift]]:
        """How far a revision's fields have moved since its first days: today's and yesterday's."""
        found = []
        for index, (name, bins) in enumerate(self.bins.items()):
            days = self.figures.get(stable, Figures()).days.get(name, {})
            before: Counter[str] = Counter()
            later = set(days)
            for day in sorted(days):
                if before.total() >= REFERENCE:
                    break
                before.update(days[day])
                later.discard(day)
            for day in (self.today, self.today - 1):
                if day in later and sum(days[day].values()) >= LEAST_OF_DAY:
                    alpha = self._error * _part(index) / DAYS
                    found.append((name, shift(bins, before, days[day], alpha)))
        return found

    def _steady(self, found: list[tuple[str, Shift]], stable: str, canary: str) -> Verdict:
        assert self.policy.max_shift is not None
        subject = canary or stable
        most = units.fraction(self.policy.max_shift)
        worst = _worst(found)
        if worst is None:
            reason = "TooFewSamples" if canary else "NothingOnTrial"
            return Verdict(STEADY, "Unknown", reason, "no samples to compare yet", subject)
        text = f"{_shift_text(*worst)}; allowed {self.policy.max_shift}"
        if worst[1].low > most:
            return Verdict(STEADY, "False", "Shifted", text, subject)
        if not canary:
            return Verdict(STEADY, "Unknown", "NothingOnTrial", text, subject)
        # Fields whose bins are still being set were not looked at, so they are not in the way.
        if all(s.high <= most for _, s in found):
            return Verdict(STEADY, "True", "Shown", text, subject)
        least_known = max(found, key=lambda f: f[1].high)
        text += f"; {least_known[0]} may have moved by up to {_percent(least_known[1].high)} still"
        return Verdict(STEADY, "Unknown", "TooFewSamples", text, subject)


def _part(index: int) -> float:
    """The share of the error for the field that came as this one, from 0; all add up to 1."""
    return 1.0 / ((index + 1) * (index + 2))


def _worst(found: list[tuple[str, Shift]]) -> tuple[str, Shift] | None:
    return max(found, key=lambda f: (f[1].low, f[1].largest), default=None)


def _added(counts: Iterable[Counts]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in counts:
        found.update(one)
    return found


def _rounded(count: int) -> int:
    """To two digits, so that the message does not change with each label."""
    size = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // size) * size


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _accuracy_text(known: Accuracy) -> str:
    return (
        f"{_percent(known.share)} of {known.labels:,} labels right "
        f"({_percent(known.low)} to {_percent(known.high)})"
    )


def _shift_text(name: str, found: Shift) -> str:
    return (
        f"{name}, {found.where}: {_percent(found.current)} instead of {_percent(found.reference)} "
        f"(shift of {_percent(found.low)} to {_percent(found.high)}, PSI {found.psi:.2f}, at least "
        f"{found.psi_low:.2f}; {found.samples:,} samples)"
    )
