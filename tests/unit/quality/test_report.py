"""What labels and samples come to, and that no gate is answered by what is known of another."""

from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from tidegate.quality.policy import ANNOTATION, Policy, PolicyError, policy_of
from tidegate.quality.report import Figures, Report, report, useless
from tidegate.quality.shift import Bins, bins_of

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
TODAY = int(NOW.timestamp() // 86400)
BINS = {"label": Bins(labels=("cat", "dog"))}
ACCURACY = Policy(min_accuracy="90%")
SHIFT = Policy(max_shift="10%")


def deployment(canary: str = "", phase: str = "Canary") -> dict[str, Any]:
    revisions: dict[str, Any] = {"stable": {"hash": "aaa"}}
    if canary:
        revisions["canary"] = {"hash": canary}
    return {
        "metadata": {"name": "m", "namespace": "demo"},
        "status": {"revisions": revisions, "rollout": {"phase": phase if canary else "Promoted"}},
    }


def labels(right: int, total: int) -> Figures:
    return Figures(right=right, labels=total)


def days(**by_day: tuple[int, int]) -> Figures:
    """Cats and dogs of days: d0 is today, d1 yesterday."""
    counts = {TODAY - int(k[1:]): {"cat": c, "dog": d} for k, (c, d) in by_day.items()}
    return Figures(days={"label": counts})


def verdict(found: Report) -> tuple[str, str]:
    (only,) = found.verdicts
    return only.status, only.reason


class TestAccurate:
    @pytest.mark.parametrize(
        ("canary", "stable", "policy", "expected"),
        [
            (labels(0, 0), labels(990, 1000), ACCURACY, ("Unknown", "TooFewLabels")),
            (labels(29, 30), labels(990, 1000), ACCURACY, ("Unknown", "TooFewLabels")),
            (labels(990, 1000), labels(0, 0), ACCURACY, ("True", "Shown")),
            (labels(700, 1000), labels(990, 1000), ACCURACY, ("False", "TooManyWrong")),
            (
                labels(9700, 10000),
                labels(9700, 10000),
                Policy(max_accuracy_drop="3%"),
                ("True", "Shown"),
            ),
            (
                labels(9700, 10000),
                labels(0, 0),
                Policy(max_accuracy_drop="3%"),
                ("Unknown", "TooFewLabels"),
            ),
            (
                labels(9000, 10000),
                labels(9700, 10000),
                Policy(max_accuracy_drop="3%"),
                ("False", "TooManyWrong"),
            ),
        ],
    )
    def test_of_a_canary(
        self, canary: Figures, stable: Figures, policy: Policy, expected: tuple[str, str]
    ) -> None:
        found = report(deployment("bbb"), policy, {}, {"aaa": stable, "bbb": canary}, NOW)
        assert verdict(found) == expected

    def test_the_message_has_the_numbers_and_what_is_missing(self) -> None:
        figures = {"aaa": labels(990, 1000), "bbb": labels(58, 60)}
        (only,) = report(deployment("bbb"), ACCURACY, {}, figures, NOW).verdicts
        assert only.message.startswith("revision bbb: 96.7% of 60 labels right (")
        assert "asked at least 90%; about " in only.message
        assert "more labels would show it" in only.message

    @pytest.mark.parametrize(
        ("stable", "expected"),
        [
            (labels(990, 1000), ("Unknown", "NothingOnTrial")),
            (labels(700, 1000), ("False", "TooManyWrong")),
            (labels(0, 0), ("Unknown", "NothingOnTrial")),
        ],
    )
    def test_at_rest_nothing_is_ever_true(self, stable: Figures, expected: tuple[str, str]) -> None:
        found = report(deployment(), ACCURACY, {}, {"aaa": stable}, NOW)
        assert verdict(found) == expected

    @pytest.mark.parametrize("phase", ["RolledBack", "Promoted", ""])
    def test_a_canary_that_is_off_trial_answers_no_gate(self, phase: str) -> None:
        figures = {"aaa": labels(990, 1000), "bbb": labels(990, 1000)}
        found = report(deployment("bbb", phase), ACCURACY, {}, figures, NOW)
        assert verdict(found)[0] == "Unknown"

    def test_what_was_known_of_another_revision_does_not_count(self) -> None:
        found = report(deployment("ccc"), ACCURACY, {}, {"bbb": labels(990, 1000)}, NOW)
        assert verdict(found) == ("Unknown", "TooFewLabels")


class TestSteady:
    def test_a_field_that_only_stable_has_is_not_known_to_be_steady(self) -> None:
        bins = {**BINS, "score": Bins(edges=(0.5,)), "gone": Bins(edges=(0.5,))}
        label = {TODAY: {"cat": 4000, "dog": 4000}}
        mine = Figures(days={"label": label})
        both = {"label": label, "score": {TODAY: {"0": 4000, "1": 4000}}}
        # Nobody sends it any more.
        past = {TODAY - 9: {"0": 4000, "1": 4000}}
        for theirs, expected in (
            ({"label": label, "gone": past}, ("True", "Shown")),
            ({**both, "gone": past}, ("Unknown", "TooFewSamples")),
        ):
            figures = {"aaa": Figures(days=theirs), "bbb": mine}
            found = report(deployment("bbb"), SHIFT, bins, figures, NOW)
            assert verdict(found) == expected
        assert "score may have moved by up to 52.6% still" in found.verdicts[0].message
        figures = {"aaa": Figures(days=both), "bbb": Figures(days=both)}
        assert verdict(report(deployment("bbb"), SHIFT, bins, figures, NOW)) == ("True", "Shown")

    @pytest.mark.parametrize(
        ("canary", "stable", "expected"),
        [
            (days(), days(), ("Unknown", "TooFewSamples")),
            (days(d0=(50, 50)), days(d0=(50, 50)), ("Unknown", "TooFewSamples")),
            (days(d0=(4000, 4000)), days(d0=(4000, 4000)), ("True", "Shown")),
            (days(d0=(900, 100)), days(d0=(500, 500)), ("False", "Shifted")),
            # Stable before the canary came is another time: it does not count.
            (days(d0=(900, 100)), days(d5=(500, 500)), ("Unknown", "TooFewSamples")),
        ],
    )
    def test_of_a_canary(self, canary: Figures, stable: Figures, expected: tuple[str, str]) -> None:
        found = report(deployment("bbb"), SHIFT, BINS, {"aaa": stable, "bbb": canary}, NOW)
        assert verdict(found) == expected

    @pytest.mark.parametrize(
        ("stable", "expected"),
        [
            (days(d9=(500, 500), d8=(500, 500), d0=(500, 500)), ("Unknown", "NothingOnTrial")),
            (days(d9=(500, 500), d8=(500, 500), d0=(900, 100)), ("False", "Shifted")),
            (days(d9=(500, 500), d8=(500, 500), d1=(900, 100)), ("False", "Shifted")),
            # Long over, too few samples, and still a part of the reference.
            (days(d9=(500, 500), d8=(500, 500), d2=(900, 100)), ("Unknown", "NothingOnTrial")),
            (days(d9=(500, 500), d8=(500, 500), d0=(40, 0)), ("Unknown", "NothingOnTrial")),
            (days(d1=(100, 100), d0=(900, 100)), ("Unknown", "NothingOnTrial")),
        ],
    )
    def test_of_what_serves_against_its_first_days(
        self, stable: Figures, expected: tuple[str, str]
    ) -> None:
        assert verdict(report(deployment(), SHIFT, BINS, {"aaa": stable}, NOW)) == expected

    def test_the_first_days_are_not_compared_with_themselves(self) -> None:
        # The first day is too short for a reference, so the second belongs to it, too.
        stable = days(d1=(250, 250), d0=(4000, 0))
        found = report(deployment(), Policy(max_shift="1%"), BINS, {"aaa": stable}, NOW)
        assert verdict(found) == ("Unknown", "NothingOnTrial")

    def test_a_year_without_any_drift_gives_no_alarm(self) -> None:
        random = Random(7)
        bins = {"score": bins_of([random.random() for _ in range(200)])}

        def day(samples: int) -> dict[str, int]:
            counts = dict.fromkeys(bins["score"].names, 0)
            for _ in range(samples):
                counts[bins["score"].name(random.random())] += 1
            return counts

        reference = {TODAY - 1000: day(1000)}
        alarms = 0
        for _ in range(365):
            figures = {"aaa": Figures(days={"score": {**reference, TODAY: day(100)}})}
            found = report(deployment(), Policy(max_shift="0%"), bins, figures, NOW)
            alarms += verdict(found)[0] == "False"
        assert alarms == 0

    def test_each_further_field_has_less_of_the_error(self) -> None:
        figures = {"aaa": Figures(days={}), "bbb": days(d0=(900, 100))}
        stable = {"label": {TODAY: {"cat": 500, "dog": 500}}}
        figures["aaa"] = Figures(days=stable)
        one = report(deployment("bbb"), SHIFT, BINS, figures, NOW).revisions
        later = {"a": Bins(edges=(1.0,)), **BINS}
        two = report(deployment("bbb"), SHIFT, later, figures, NOW).revisions
        assert one != two


class TestRevisions:
    def test_each_in_a_line(self) -> None:
        stable = Figures(960, 1000, days(d9=(500, 500), d0=(450, 550)).days)
        found = report(deployment(), Policy(), BINS, {"aaa": stable}, NOW)
        assert found.verdicts == ()
        (line,) = found.revisions
        assert line["revision"] == "aaa"
        assert line["accuracy"].startswith("96.0% of 1,000 labels right (93.")
        assert line["shift"].startswith("label, dog: 55.0% instead of 50.0% (shift of 0.0% to ")

    def test_nothing_known_is_not_listed(self) -> None:
        assert report(deployment("bbb"), Policy(), BINS, {}, NOW).revisions == ()


class TestPolicy:
    def of(self, text: str) -> Policy | None:
        return policy_of({"metadata": {"annotations": {ANNOTATION: text}}})

    def test_nothing_is_asked_where_nothing_stands(self) -> None:
        assert policy_of({"metadata": {}}) is None
        assert self.of("{}") == Policy()

    def test_all_of_it(self) -> None:
        found = self.of(
            '{"minAccuracy": "95%", "maxAccuracyDrop": "1%", "maxShift": "10%", "error": "1%",'
            ' "keep": "24h", "leaveOut": ["age"]}'
        )
        assert found is not None
        assert (found.min_accuracy, found.keep, found.leave_out) == ("95%", "24h", ("age",))

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("no", "JSON"),
            ("[]", ANNOTATION),
            ('{"minAccuracy": 95}', "minAccuracy"),
            ('{"minAccuracy": "0.95"}', "minAccuracy"),
            ('{"maxshift": "10%"}', "maxshift"),
            ('{"error": "0%"}', "error"),
            ('{"leaveOut": ["a b"]}', "leaveOut"),
            ('{"keep": "7d"}', "keep"),
            ("{}" + " " * 5000, "longer"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, text: str, named: str) -> None:
        with pytest.raises(PolicyError, match=named):
            self.of(text)

    def test_a_broken_policy_answers_no_gate(self) -> None:
        assert {v.status for v in useless("why").verdicts} == {"Unknown"}
