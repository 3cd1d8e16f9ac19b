"""Which pods answer: silence counts from the last answer, and pods that are gone are forgotten."""

from tidegate.runtime.pods import Answers


def test_silence_is_counted_from_the_last_answer_or_the_first_try() -> None:
    answers = Answers()
    answers.looked(["a", "b"], 0.0)
    assert (answers.silent_s("a", 5.0), answers.silent_s("b", 5.0)) == (0.0, 0.0)
    answers.problems |= {"a": "no answer", "c": "no answer"}
    answers.looked(["a", "b", "c"], 10.0)
    answers.looked(["a", "b", "c"], 20.0)
    assert [answers.silent_s(uid, 21.0) for uid in "abc"] == [21.0, 0.0, 11.0]
    del answers.problems["a"]
    answers.looked(["a", "b", "c"], 30.0)
    assert answers.silent_s("a", 31.0) == 0.0


def test_nothing_is_kept_of_pods_that_are_not_asked_any_more() -> None:
    answers = Answers()
    for number in range(100):
        answers.problems[f"pod-{number}"] = "no answer"
        answers.looked([f"pod-{number}"], float(number))
    assert answers == Answers({"pod-99": "no answer"}, {"pod-99": 99.0})
