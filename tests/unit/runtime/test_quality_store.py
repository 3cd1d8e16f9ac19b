"""What is kept of samples and labels, and what is not."""

from pathlib import Path

import pytest

from tidegate.quality.report import REFERENCE
from tidegate.quality.sample import MOST_FIELDS, LabelOf, Sample
from tidegate.quality.shift import CALIBRATION
from tidegate.runtime.quality import store as store_module
from tidegate.runtime.quality.store import DAY_S, DAYS_KEPT, FullError, Store, Taken

M = "demo/magika"
NOW = 1_000 * DAY_S + 5.0


def sample(
    label: str | None = "cat", revision: str = "aaa", id_: str | None = None, **v: float
) -> Sample:
    return Sample(revision=revision, id=id_, label=label, values=v)


def calibrated(store: Store) -> None:
    taken = store.add_samples(M, [sample() for _ in range(CALIBRATION)], NOW)
    assert taken.taken == CALIBRATION


@pytest.fixture
def store() -> Store:
    return Store(":memory:")


def test_the_first_values_make_the_bins_and_are_gone(store: Store) -> None:
    store.add_samples(M, [sample(score=0.5) for _ in range(CALIBRATION - 1)], NOW)
    assert store.figures(M) == ({}, {})
    store.add_samples(M, [sample(score=0.5)], NOW)
    bins, figures = store.figures(M)
    assert set(bins) == {"label", "score"}
    assert figures == {}
    assert store._db.execute("SELECT count(*) FROM first_values").fetchone() == (0,)


def test_counts_by_revision_day_and_bin(store: Store) -> None:
    calibrated(store)
    store.add_samples(M, [sample(), sample(), sample("dog"), sample(revision="bbb")], NOW)
    store.add_samples(M, [sample()], NOW + DAY_S)
    _, figures = store.figures(M)
    assert figures["aaa"].days == {"label": {1000: {"cat": 2, "": 1}, 1001: {"cat": 1}}}
    assert figures["bbb"].days == {"label": {1000: {"cat": 1}}}


def test_one_request_may_set_the_bins_and_be_counted(store: Store) -> None:
    store.add_samples(M, [sample() for _ in range(CALIBRATION + 5)], NOW)
    assert store.figures(M)[1]["aaa"].days == {"label": {1000: {"cat": 5}}}


def test_labels_meet_their_samples_once(store: Store) -> None:
    store.add_samples(M, [sample(id_="1"), sample("dog", id_="2"), sample(id_="3")], NOW)
    both = [LabelOf(id="1", label="cat"), LabelOf(id="2", label="cat"), LabelOf(id="9", label="x")]
    assert store.add_labels(M, both) == Taken(taken=2, unknown=1)
    assert store.add_labels(M, both) == Taken(taken=0, unknown=3), "sent again"
    figures = store.figures(M)[1]["aaa"]
    assert (figures.right, figures.labels) == (1, 2)
    assert store.add_labels("demo/other", [LabelOf(id="3", label="cat")]).unknown == 1


def test_counted_labels(store: Store) -> None:
    for _ in range(2):
        store.add_labels(M, [LabelOf(revision="aaa", labels=10, right=9)])
    figures = store.figures(M)[1]["aaa"]
    assert (figures.right, figures.labels) == (18, 20)


def test_a_sample_that_is_sent_twice_counts_once(store: Store) -> None:
    calibrated(store)
    once = [sample(id_="1"), sample(id_="2")]
    assert store.add_samples(M, once, NOW) == Taken(taken=2)
    store.add_labels(M, [LabelOf(id="1", label="cat")])
    assert store.add_samples(M, once, NOW) == Taken(known=2)
    assert store.figures(M)[1]["aaa"].days == {"label": {1000: {"cat": 2}}}


def test_ids_and_values_are_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    store = Store(str(path))
    samples = [sample(id_=f"patient-{i}", age=31.25) for i in range(CALIBRATION)]
    store.add_samples(M, samples, NOW)
    store.close()
    raw = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"patient-" not in raw
    assert b"cat" in raw


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "q.db")
    store = Store(path)
    calibrated(store)
    store.add_samples(M, [sample(id_="1")], NOW)
    before = store.figures(M)
    store.close()
    store = Store(path)
    assert store.figures(M) == before
    assert store.add_labels(M, [LabelOf(id="1", label="cat")]).taken == 1


def test_answers_wait_as_long_as_they_may(store: Store) -> None:
    store.add_samples(M, [sample(id_="old"), sample(id_="oldest")], NOW)
    store.add_samples(M, [sample(id_="new")], NOW + 100)
    old = [LabelOf(id="old", label="cat")]
    assert store.add_labels(M, old, NOW + 50).unknown == 1, "before it is tidied, too"
    assert store.add_labels(M, old, NOW).taken == 1
    store.tidy(M, ["aaa"], 60.0, NOW + 110)
    assert store.add_labels(M, [LabelOf(id="oldest", label="cat")]).unknown == 1
    assert store.add_labels(M, [LabelOf(id="new", label="cat")]).taken == 1


def test_first_values_wait_no_longer_either(store: Store) -> None:
    store.add_samples(M, [sample(None, age=float(i)) for i in range(CALIBRATION - 1)], NOW)
    store.tidy(M, ["aaa"], 60.0, NOW + 59)
    assert store._db.execute("SELECT count(*) FROM first_values").fetchone() == (199,)
    store.tidy(M, ["aaa"], 60.0, NOW + 61)
    assert store._db.execute("SELECT count(*) FROM first_values").fetchone() == (0,)


@pytest.mark.parametrize("how", ["too old", "left out", "forgotten"])
def test_what_is_forgotten_is_in_no_file(tmp_path: Path, how: str) -> None:
    store = Store(str(tmp_path / "q.db"))
    for i in range(50):
        store.add_samples(M, [sample("diagnosis", id_=f"{i}")], NOW + i)

    def files() -> bytes:
        return b"".join(p.read_bytes() for p in tmp_path.iterdir())

    assert b"diagnosis" in files()
    if how == "too old":
        store.tidy(M, ["aaa"], 60.0, NOW + 1000)
    elif how == "left out":
        store.leave_out(M, ["label"])
    else:
        store.forget(M)
    store.scrub()
    assert b"diagnosis" not in files(), "while the file is still open"
    store.close()


def test_no_more_answers_wait_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_WAITING", 3)
    path = str(tmp_path / "q.db")
    store = Store(path)
    for i in range(5):
        store.add_samples(M, [sample(id_=str(i))], NOW + i)
        store.add_samples("demo/other", [sample(id_="only")], NOW)
        if i == 3:
            store.close()
            store = Store(path)
    taken = [store.add_labels(M, [LabelOf(id=str(i), label="cat")]).taken for i in range(5)]
    assert taken == [0, 0, 1, 1, 1]
    assert store.add_labels("demo/other", [LabelOf(id="only", label="cat")]).taken == 1


def test_many_waiting_make_room_for_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST_WAITING", 1000)
    for i in range(30):
        store.add_samples(M, [sample(id_=f"{i}-{j}") for j in range(70)], NOW + i)
        (waiting,) = store._db.execute("SELECT count(*) FROM waiting").fetchone()
        assert waiting == min(70 * (i + 1), waiting) <= 1000
        assert store._waiting[M] == waiting
    assert waiting >= 900


def test_another_life_of_the_name_begins_with_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "q.db")
    store = Store(path)
    assert not store.meet(M, "u-1")
    store.add_labels(M, [LabelOf(revision="aaa", labels=10, right=9)])
    assert not store.meet(M, "u-1")
    store.close()
    store = Store(path)
    assert not store.meet(M, "u-1")
    assert store.figures(M)[1]["aaa"].labels == 10
    assert store.meet(M, "u-2")
    assert store.figures(M) == ({}, {})
    assert not store.meet(M, "u-2")
    store.forget(M)
    assert store.models() == set()


def test_revisions_and_days_that_nobody_asks_for_go(store: Store) -> None:
    calibrated(store)
    store.add_labels(M, [LabelOf(revision="bbb", labels=1, right=1)])
    store.add_samples(M, [sample() for _ in range(REFERENCE)], NOW)
    for day in (1, 2, DAYS_KEPT + 5):
        store.add_samples(M, [sample(), sample(revision="bbb")], NOW + day * DAY_S)
    store.tidy(M, ["aaa"], 1e9, NOW + (DAYS_KEPT + 6) * DAY_S)
    _, figures = store.figures(M)
    assert set(figures) == {"aaa"}
    # The reference, and what is recent.
    assert sorted(figures["aaa"].days["label"]) == [1000, 1000 + DAYS_KEPT + 5]


def test_forget(store: Store) -> None:
    store.add_samples(M, [sample(id_="1", x=1.0)], NOW)
    store.add_samples("demo/other", [sample(id_="1")], NOW)
    store.forget(M)
    assert store.models() == {"demo/other"}
    assert store.add_labels(M, [LabelOf(id="1", label="cat")]).unknown == 1


def test_a_field_that_is_left_out_from_now_on_is_forgotten(store: Store) -> None:
    store.add_samples(M, [sample(x=1.0) for _ in range(CALIBRATION + 5)], NOW)
    store.add_samples(M, [sample(id_="1", x=1.0)], NOW)
    store.leave_out(M, ["x", "label"])
    assert store.figures(M) == ({}, {})
    assert store.add_labels(M, [LabelOf(id="1", label="cat")]).unknown == 1


def test_fields_stand_in_the_order_in_which_their_bins_were_set(store: Store) -> None:
    store.add_samples(M, [sample(slow=1.0)], NOW)
    store.add_samples(M, [sample() for _ in range(CALIBRATION)], NOW)
    assert list(store.figures(M)[0]) == ["label"]
    store.add_samples(M, [sample(None, slow=1.0, late=2.0) for _ in range(CALIBRATION)], NOW)
    first = list(store.figures(M)[0])
    assert first[0] == "label"
    assert set(first) == {"label", "slow", "late"}


def test_no_more_fields_than_there_may_be(store: Store) -> None:
    values = {f"v{i}": 1.0 for i in range(MOST_FIELDS)}
    store.add_samples(M, [Sample(revision="aaa", values=values)], NOW)
    assert store.add_samples(M, [sample(w=1.0)], NOW) == Taken(taken=1, left_out=("label", "w"))


def test_a_full_store_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "q.db"), max_bytes=1 << 18)
    store.add_samples(M, [sample(id_="0-0")], NOW)
    many = [sample(id_=f"{i}") for i in range(20_000)]
    with pytest.raises(FullError):
        store.add_samples(M, many, NOW)
    assert store.add_samples(M, many[:10], NOW).taken == 10, "none of them was taken"
    assert store.add_labels(M, [LabelOf(id="0-0", label="cat")]).taken == 1
    store.tidy(M, ["aaa"], 1.0, NOW + 10)
    assert store.add_samples(M, [sample(id_="later")], NOW).taken == 1
