"""What is kept of samples and labels: counts, in SQLite.

A value is not kept: it becomes one more in a bin. The exceptions are kept at most as long as the
policy says: the first values of a field, from which its bins are made, go as soon as they are; the
answered class of a request with an id waits for its label. Ids are kept as keyed hashes.
What is forgotten is overwritten in the file, and its journal is cut off (`Store.scrub`).
"""

import hashlib
import json
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tidegate.quality.report import REFERENCE, Figures
from tidegate.quality.sample import LABEL, MOST_FIELDS, LabelOf, Sample
from tidegate.quality.shift import CALIBRATION, Bins, bins_of

DAY_S: Final = 86_400
DAYS_KEPT: Final = 60
"""Of a revision, beside its first days: no rollout takes longer."""
MOST_WAITING: Final = 1_000_000
"""Answers of one model that wait for their labels; the oldest go first."""
ROOM: Final = 10_000
"""So many go at once when there are more."""
PAGE_BYTES: Final = 4096

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS lives (model TEXT PRIMARY KEY, uid TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fields (
  place INTEGER PRIMARY KEY, model TEXT NOT NULL, name TEXT NOT NULL, bins TEXT,
  UNIQUE (model, name));
CREATE TABLE IF NOT EXISTS first_values (
  model TEXT NOT NULL, field TEXT NOT NULL, value, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS first_values_of ON first_values (model, field);
CREATE TABLE IF NOT EXISTS counts (
  model TEXT NOT NULL, revision TEXT NOT NULL, field TEXT NOT NULL, day INTEGER NOT NULL,
  bin TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (model, revision, field, day, bin)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (
  model TEXT NOT NULL, id BLOB NOT NULL, revision TEXT NOT NULL, label TEXT, at REAL NOT NULL,
  PRIMARY KEY (model, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS waiting_since ON waiting (model, at);
CREATE TABLE IF NOT EXISTS labels (
  model TEXT NOT NULL, revision TEXT NOT NULL, correct INTEGER NOT NULL, labels INTEGER NOT NULL,
  PRIMARY KEY (model, revision)) WITHOUT ROWID;
"""


class FullError(Exception):
    """There is no room left."""


@dataclass(frozen=True)
class Taken:
    """What became of what was posted.

    Attributes:
        taken: samples or labels that count.
        known: samples whose id had come before; they count once.
        unknown: labels whose id no sample has that still waits for one.
        left_out: fields beyond the most that a model may have.
    """

    taken: int = 0
    known: int = 0
    unknown: int = 0
    left_out: tuple[str, ...] = ()


class Store:
    """Counts of all models. For one thread.

    Args:
        path: the database's file; ``:memory:`` for none.
        max_bytes: it grows no larger.

    Raises:
        sqlite3.Error: the file cannot be used.
    """

    def __init__(self, path: str, max_bytes: int = 512 << 20) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("PRAGMA temp_store = MEMORY")  # the pod's root is read-only
        self._db.execute(f"PRAGMA max_page_count = {max(64, max_bytes // PAGE_BYTES)}")
        self._db.executescript(_SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO secrets VALUES ('ids', ?)", (os.urandom(32),))
        (self._key,) = self._db.execute("SELECT value FROM secrets WHERE name = 'ids'").fetchone()
        self._waiting: dict[str, int] = {}
        """Answers that wait, by model; counted when first needed."""

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Taking in.

    def add_samples(self, model: str, samples: Iterable[Sample], at_s: float) -> Taken:
        """Count samples, redacted already: all, or none.

        Args:
            model: namespace and name.
            samples: which.
            at_s: Unix time.

        Raises:
            FullError: there is no room left.
        """
        taken = known = awaited = 0
        left_out: set[str] = set()
        values: dict[str, list[tuple[str, float | str]]] = defaultdict(list)
        with self._writing():
            there = self._fields(model)
            for sample in samples:
                if sample.id is not None:
                    if not self._await(model, sample, at_s):
                        known += 1
                        continue
                    awaited += 1
                taken += 1
                found: dict[str, float | str] = dict(sample.values)
                if sample.label is not None:
                    found[LABEL] = sample.label
                for name, value in found.items():
                    if name not in there and len(there) >= MOST_FIELDS:
                        left_out.add(name)
                        continue
                    there.setdefault(name, None)
                    values[name].append((sample.revision, value))
            for name, its in values.items():
                self._count(model, name, there[name], its, at_s)
            waiting = self._make_room(model, awaited) if awaited else None
        if waiting is not None:
            self._waiting[model] = waiting
        return Taken(taken=taken, known=known, left_out=tuple(sorted(left_out)))

    def add_labels(self, model: str, labels: Iterable[LabelOf], since_s: float = 0.0) -> Taken:
        """Count labels: all, or none.

        Args:
            model: namespace and name.
            labels: which.
            since_s: Unix time; answers from before wait no longer.

        Raises:
            FullError: there is no room left.
        """
        taken = unknown = 0
        right: Counter[str] = Counter()
        total: Counter[str] = Counter()
        with self._writing():
            for one in labels:
                if one.revision is not None:
                    taken += one.labels or 0
                    right[one.revision] += one.right or 0
                    total[one.revision] += one.labels or 0
                    continue
                key = (model, self._hashed(one.id or ""))
                row = self._db.execute(
                    "SELECT revision, label FROM waiting WHERE model = ? AND id = ?"
                    " AND label IS NOT NULL AND at >= ?",
                    (*key, since_s),
                ).fetchone()
                if row is None:
                    unknown += 1
                    continue
                # The row stays, so that a sample that is sent twice counts once.
                self._db.execute("UPDATE waiting SET label = NULL WHERE model = ? AND id = ?", key)
                taken += 1
                right[row[0]] += row[1] == one.label
                total[row[0]] += 1
            self._db.executemany(
                "INSERT INTO labels VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " correct = correct + excluded.correct, labels = labels + excluded.labels",
                [(model, revision, right[revision], n) for revision, n in total.items()],
            )
        return Taken(taken=taken, unknown=unknown)

    def _fields(self, model: str) -> dict[str, Bins | None]:
        rows = self._db.execute(
            "SELECT name, bins FROM fields WHERE model = ? ORDER BY place", (model,)
        )
        return {name: None if text is None else _bins(text) for name, text in rows}

    def _await(self, model: str, sample: Sample, at_s: float) -> bool:
        """Whether the sample's id is new; its label is awaited then."""
        row = (model, self._hashed(sample.id or ""), sample.revision, sample.label, at_s)
        done = self._db.execute("INSERT OR IGNORE INTO waiting VALUES (?, ?, ?, ?, ?)", row)
        return done.rowcount == 1

    def _make_room(self, model: str, awaited: int) -> int:
        """Forget the oldest answers that wait where they are too many; returns how many wait.

        Args:
            model: of which.
            awaited: so many came in this transaction.
        """
        if model in self._waiting:
            waiting = self._waiting[model] + awaited
        else:
            query = "SELECT count(*) FROM waiting WHERE model = ?"
            (waiting,) = self._db.execute(query, (model,)).fetchone()
        if waiting <= MOST_WAITING:
            return waiting
        # One model's ids must not fill the file that all share.
        gone = self._db.execute(
            "DELETE FROM waiting WHERE model = ?1 AND id IN"
            " (SELECT id FROM waiting WHERE model = ?1 ORDER BY at LIMIT ?2)",
            (model, waiting - MOST_WAITING + min(ROOM, MOST_WAITING // 100)),
        )
        return waiting - gone.rowcount

    def _count(
        self,
        model: str,
        field: str,
        bins: Bins | None,
        values: list[tuple[str, float | str]],
        at_s: float,
    ) -> None:
        if bins is None:
            self._db.execute(
                "INSERT OR IGNORE INTO fields (model, name) VALUES (?, ?)", (model, field)
            )
            key = (model, field)
            query = "SELECT count(*) FROM first_values WHERE model = ? AND field = ?"
            (there,) = self._db.execute(query, key).fetchone()
            first, values = values[: CALIBRATION - there], values[CALIBRATION - there :]
            self._db.executemany(
                "INSERT INTO first_values VALUES (?, ?, ?, ?)", [(*key, v, at_s) for _, v in first]
            )
            if there + len(first) < CALIBRATION:
                return
            query = "SELECT value FROM first_values WHERE model = ? AND field = ?"
            bins = bins_of([v for (v,) in self._db.execute(query, key)])
            self._db.execute("DELETE FROM first_values WHERE model = ? AND field = ?", key)
            text = json.dumps({"edges": bins.edges, "labels": bins.labels})
            # In the order in which they can be looked at: what one field was tested by stays so.
            self._db.execute(
                "UPDATE fields SET bins = ?, place = (SELECT max(place) + 1 FROM fields)"
                " WHERE model = ? AND name = ?",
                (text, *key),
            )
        day = int(at_s // DAY_S)
        found = Counter((revision, bins.name(value)) for revision, value in values)
        self._db.executemany(
            "INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(model, revision, field, day, name, n) for (revision, name), n in found.items()],
        )

    # Giving out.

    def figures(self, model: str) -> tuple[dict[str, Bins], dict[str, Figures]]:
        """Bins by field, in the order in which they were set, and what was counted by revision."""
        bins = {name: its for name, its in self._fields(model).items() if its is not None}
        days: dict[str, dict[str, dict[int, dict[str, int]]]] = {}
        rows = self._db.execute(
            "SELECT revision, field, day, bin, n FROM counts WHERE model = ?", (model,)
        )
        for revision, field, day, name, n in rows:
            of = days.setdefault(revision, {}).setdefault(field, {}).setdefault(day, {})
            of[name] = n
        query = "SELECT revision, correct, labels FROM labels WHERE model = ?"
        labels = {r: (right, n) for r, right, n in self._db.execute(query, (model,))}
        return bins, {
            revision: Figures(*labels.get(revision, (0, 0)), days=days.get(revision, {}))
            for revision in {*days, *labels}
        }

    def models(self) -> set[str]:
        """All models of which anything is kept."""
        tables = ("fields", "labels", "waiting", "lives")
        query = " UNION ".join(f"SELECT model FROM {table}" for table in tables)
        return {model for (model,) in self._db.execute(query)}

    # Forgetting.

    def meet(self, model: str, uid: str) -> bool:
        """Take note of who has the name; what is kept of another who had it is forgotten.

        A model that was deleted and made again may have the same revisions, by their hashes, and
        other bytes behind them.

        Args:
            model: namespace and name.
            uid: of the ModelDeployment.

        Returns:
            Whether there was another.
        """
        query = "SELECT uid FROM lives WHERE model = ?"
        found = self._db.execute(query, (model,)).fetchone()
        if found == (uid,):
            return False
        if found is not None:
            self.forget(model)
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO lives VALUES (?, ?)", (model, uid))
        return found is not None

    def tidy(self, model: str, revisions: Iterable[str], keep_s: float, at_s: float) -> None:
        """Forget what is not needed any more.

        Args:
            model: of which.
            revisions: of which anything is still asked.
            keep_s: how long answers wait for their labels, and first values for their bins.
            at_s: Unix time.
        """
        known = json.dumps(sorted(revisions))
        self._waiting.pop(model, None)
        with self._writing():
            for table in ("waiting", "first_values"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE model = ? AND at < ?", (model, at_s - keep_s)
                )
            for table in ("counts", "labels"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE model = ?"
                    " AND revision NOT IN (SELECT value FROM json_each(?))",
                    (model, known),
                )
            # Days that are neither among a revision's first nor recent.
            before: Counter[tuple[str, str]] = Counter()
            old = int(at_s // DAY_S) - DAYS_KEPT
            rows = self._db.execute(
                "SELECT revision, field, day, sum(n) FROM counts WHERE model = ?"
                " GROUP BY revision, field, day ORDER BY day",
                (model,),
            ).fetchall()
            for revision, field, day, n in rows:
                if before[revision, field] >= REFERENCE and day < old:
                    self._db.execute(
                        "DELETE FROM counts WHERE model = ? AND revision = ? AND field = ?"
                        " AND day = ?",
                        (model, revision, field, day),
                    )
                before[revision, field] += n

    def forget(self, model: str) -> None:
        """Forget all of a model."""
        self._waiting.pop(model, None)
        with self._writing():
            for table in ("lives", "fields", "first_values", "counts", "waiting", "labels"):
                self._db.execute(f"DELETE FROM {table} WHERE model = ?", (model,))

    def leave_out(self, model: str, names: Iterable[str]) -> None:
        """Forget fields that are not to be recorded any more."""
        with self._writing():
            for name in names:
                key = (model, name)
                self._db.execute("DELETE FROM fields WHERE model = ? AND name = ?", key)
                self._db.execute("DELETE FROM first_values WHERE model = ? AND field = ?", key)
                self._db.execute("DELETE FROM counts WHERE model = ? AND field = ?", key)
                if name == LABEL:
                    self._db.execute("UPDATE waiting SET label = NULL WHERE model = ?", (model,))

    def scrub(self) -> None:
        """Leave nothing of what was forgotten in the journal, which keeps pages as they were.

        Raises:
            FullError: the disc has no room to do so.
        """
        with _telling_full():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _hashed(self, id_: str) -> bytes:
        return hashlib.blake2b(id_.encode(), key=self._key, digest_size=16).digest()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _telling_full():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disc ends it by itself
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def _telling_full() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise FullError("there is no room left for samples and labels") from error
        raise


def _bins(text: str) -> Bins:
    found: Mapping[str, list[float] | list[str]] = json.loads(text)
    return Bins(
        edges=tuple(float(e) for e in found["edges"]),
        labels=tuple(str(name) for name in found["labels"]),
    )
