"""What the server has to remember, in one SQLite file: projects, what is to be looked at, what is done, trainings.

Every change is on disk before its method returns, and either all of it or nothing. All methods are short, and may be
called from any thread.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sam2_core.errors import InputError
from sam2_core.volume.files import disk_errors

VERSION = 1
"""Of the tables; a file of a newer one is refused."""

WHOLE_PROJECT = 0
"""In the place of a task's number: all tasks of the project are to be compared."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE projects (id INTEGER PRIMARY KEY, created TEXT, label_config TEXT, options TEXT);
CREATE TABLE tasks (
    project INTEGER, task INTEGER, item TEXT, version INTEGER, digest TEXT, source TEXT, listed TEXT, problem TEXT,
    PRIMARY KEY (project, task)
);
CREATE INDEX tasks_by_number ON tasks (task);
CREATE TABLE annotations (id INTEGER PRIMARY KEY, project INTEGER NOT NULL, task INTEGER NOT NULL);
CREATE TABLE pending (
    project INTEGER, task INTEGER, seq INTEGER NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL,
    PRIMARY KEY (project, task)
);
CREATE TABLE fresh (project INTEGER, task INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (project, task));
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, state TEXT NOT NULL, project INTEGER, asked REAL NOT NULL, snapshot TEXT,
    configured TEXT, start TEXT, name TEXT, before REAL, after REAL, message TEXT NOT NULL DEFAULT ''
);
"""


@dataclass(frozen=True)
class Project:
    """A project as Label Studio last showed it; None is what it has not shown yet.

    Attributes
    ----------
    id : int
    created : str or None
        When it was made, which tells it from an earlier one of the same number.
    label_config : str or None
    """

    id: int
    created: str | None = None
    label_config: str | None = None


@dataclass(frozen=True)
class Pending:
    """A task that is to be looked at, or with `WHOLE_PROJECT` all tasks of a project."""

    project: int
    task: int
    seq: int
    due: float
    attempts: int


@dataclass(frozen=True)
class TaskRecord:
    """What is known about a task.

    Attributes
    ----------
    project, task : int
    item : str or None
        Of the label store; None if the task never had labels.
    version : int or None
        Of the item.
    digest : str or None
        Of the annotation that the version holds; None if that was taken back.
    source : str or None
        Where the image came from.
    listed : str or None
        How Label Studio listed the task when it was looked at.
    problem : str or None
        Why its annotation is not in the store, in a sentence.
    """

    project: int
    task: int
    item: str | None = None
    version: int | None = None
    digest: str | None = None
    source: str | None = None
    listed: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Job:
    """A training that was asked for.

    Attributes
    ----------
    id : int
    state : {"waiting", "running", "used", "kept out", "failed"}
    project : int or None
        That it was asked for from.
    asked : float
        Seconds since the epoch.
    snapshot : str or None
        Of the label store.
    configured : str or None
        The model that the server was started with.
    start : str or None
        The model that is trained further.
    name : str or None
        Of the new model.
    before, after : float or None
        The measure that decides.
    message : str
        How it stands or how it ended, in a sentence.
    """

    id: int
    state: str
    project: int | None
    asked: float
    snapshot: str | None
    configured: str | None
    start: str | None
    name: str | None
    before: float | None
    after: float | None
    message: str


class State:
    """The records.

    Parameters
    ----------
    path : Path
        The file, made if it is not there.

    Raises
    ------
    InputError
        It is no such file, is of a newer version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            with self._change():
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _TABLES.strip().split(";\n"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} cannot be used as the records of the server ({error}): move it away") from None
        if version > VERSION:
            raise InputError(f"{path} was made by a newer release: install that, or give another folder")

    def close(self) -> None:
        """Close the file; nothing can be asked afterwards."""
        with self._lock:
            self._db.close()

    def serve(self, server: str) -> None:
        """Say which Label Studio this is about; what was known of another one is forgotten."""
        with self._change() as db:
            known = db.execute("SELECT value FROM meta WHERE key = 'server'").fetchone()
            if known is not None and known[0] != server:
                for table in ("projects", "tasks", "annotations", "pending", "fresh"):
                    db.execute(f"DELETE FROM {table}")
            db.execute("INSERT OR REPLACE INTO meta VALUES ('server', ?)", (server,))

    # projects

    def note_project(self, id: int, label_config: str | None = None, options: Any = None) -> bool:
        """Take note of a project; whether it is new. None leaves what is known."""
        with self._change() as db:
            is_new = db.execute("INSERT OR IGNORE INTO projects (id) VALUES (?)", (id,)).rowcount == 1
            if label_config is not None:
                db.execute("UPDATE projects SET label_config = ? WHERE id = ?", (label_config, id))
            if options is not None:
                db.execute("UPDATE projects SET options = ? WHERE id = ?", (json.dumps(options), id))
            return is_new

    def put_project(self, project: Project) -> None:
        """Keep what Label Studio shows of a project; of another one that had its number, all tasks are forgotten."""
        known = self.project(project.id)
        with self._change() as db:
            if known is not None and known.created not in (None, project.created):
                self._forget_tasks(db, project.id)
            db.execute("INSERT OR IGNORE INTO projects (id) VALUES (?)", (project.id,))
            db.execute(
                "UPDATE projects SET created = ?, label_config = ? WHERE id = ?",
                (project.created, project.label_config, project.id),
            )

    def project(self, id: int) -> Project | None:
        """A project, if it is known."""
        return next(iter(self._select(Project, "projects WHERE id = ?", (id,))), None)

    def projects(self) -> list[int]:
        """Numbers of all projects."""
        with self._lock:
            return [id for (id,) in self._db.execute("SELECT id FROM projects ORDER BY id")]

    def options(self, project: int) -> Any:
        """The options that were noted for a project; None for none."""
        with self._lock:
            row = self._db.execute("SELECT options FROM projects WHERE id = ?", (project,)).fetchone()
        return None if row is None or row[0] is None else json.loads(row[0])

    def forget_project(self, id: int) -> None:
        """Forget a project and its tasks; their items stay in the label store."""
        with self._change() as db:
            self._forget_tasks(db, id)
            db.execute("DELETE FROM projects WHERE id = ?", (id,))

    # what is to be looked at

    def note(
        self,
        tasks: Iterable[tuple[int, int]] = (),
        annotations: Iterable[tuple[int, int, int]] = (),
        now: float = 0.0,
    ) -> None:
        """Note tasks (project, task) that are to be looked at, and annotations (id, project, task) that were seen."""
        with self._change() as db:
            db.executemany("INSERT OR REPLACE INTO annotations VALUES (?, ?, ?)", annotations)
            for project, task in tasks:
                db.execute("INSERT OR IGNORE INTO projects (id) VALUES (?)", (project,))
                db.execute(
                    "INSERT INTO pending VALUES (?, ?, ?, ?, 0) ON CONFLICT DO UPDATE"
                    " SET seq = excluded.seq, due = min(due, excluded.due), attempts = 0",
                    (project, task, self._next(db), now),
                )

    def next_pending(self) -> Pending | None:
        """What is due first."""
        return next(iter(self._select(Pending, "pending ORDER BY due, seq LIMIT 1")), None)

    def pending_count(self, most_attempts: int | None = None) -> int:
        """How much is to be looked at; with `most_attempts` only what failed less often than that."""
        with self._lock:
            limit = 2**31 if most_attempts is None else most_attempts
            return self._db.execute("SELECT count(*) FROM pending WHERE attempts < ?", (limit,)).fetchone()[0]

    def postpone(self, pending: Pending, due: float) -> None:
        """Look at something later, unless it was noted again in the meantime."""
        with self._change() as db:
            db.execute(
                "UPDATE pending SET due = ?, attempts = attempts + 1 WHERE project = ? AND task = ? AND seq = ?",
                (due, pending.project, pending.task, pending.seq),
            )

    def finish(self, pending: Pending, record: TaskRecord | None = None, fresh: bool = False) -> None:
        """Something was looked at: what is known of the task now, and whether it has labels that no training had."""
        with self._change() as db:
            if record is not None:
                names = [field.name for field in fields(TaskRecord)]
                db.execute(
                    f"INSERT OR REPLACE INTO tasks ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
                    [getattr(record, name) for name in names],
                )
            if fresh:
                row = (pending.project, pending.task, self._next(db))
                db.execute("INSERT OR REPLACE INTO fresh VALUES (?, ?, ?)", row)
            db.execute(
                "DELETE FROM pending WHERE project = ? AND task = ? AND seq = ?",
                (pending.project, pending.task, pending.seq),
            )

    # what is known

    def task(self, project: int, task: int) -> TaskRecord | None:
        """A task, if it was looked at."""
        return next(iter(self._select(TaskRecord, "tasks WHERE project = ? AND task = ?", (project, task))), None)

    def tasks(self, project: int) -> list[TaskRecord]:
        """All tasks of a project that were looked at."""
        return self._select(TaskRecord, "tasks WHERE project = ? ORDER BY task", (project,))

    def project_of(self, task: int) -> int | None:
        """The project of a task that was looked at."""
        with self._lock:
            row = self._db.execute("SELECT project FROM tasks WHERE task = ?", (task,)).fetchone()
        return None if row is None else row[0]

    def task_of(self, annotation: int) -> tuple[int, int] | None:
        """Project and task of an annotation that was seen."""
        with self._lock:
            return self._db.execute("SELECT project, task FROM annotations WHERE id = ?", (annotation,)).fetchone()

    def fresh(self) -> tuple[int, int]:
        """How many tasks have labels that no training had, and the mark by which `change_job` settles them."""
        with self._lock:
            count, last = self._db.execute("SELECT count(*), coalesce(max(seq), 0) FROM fresh").fetchone()
        return count, last

    # trainings

    def ask_for_job(self, project: int | None, configured: str, now: float) -> Job:
        """The training that waits; a new one if none does."""
        with self._change() as db:
            if db.execute("SELECT 1 FROM jobs WHERE state = 'waiting'").fetchone() is None:
                db.execute(
                    "INSERT INTO jobs (state, project, configured, asked) VALUES ('waiting', ?, ?, ?)",
                    (project, configured, now),
                )
        (job,) = self._select(Job, "jobs WHERE state = 'waiting'")
        return job

    def change_job(self, id: int, settled: int = 0, **changes: Any) -> Job:
        """Change a training; `settled` is the mark of `fresh` up to which labels are in it."""
        with self._change() as db:
            db.execute("DELETE FROM fresh WHERE seq <= ?", (settled,))
            for name, value in changes.items():
                db.execute(f"UPDATE jobs SET {name} = ? WHERE id = ?", (value, id))
        (job,) = self._select(Job, "jobs WHERE id = ?", (id,))
        return job

    def jobs(self) -> list[Job]:
        """All trainings, oldest first."""
        return self._select(Job, "jobs ORDER BY id")

    def model(self, configured: str) -> str | None:
        """The model that training has put in the place of the one that the server is started with, if it has."""
        found = self._select(
            Job, "jobs WHERE state = 'used' AND configured = ? ORDER BY id DESC LIMIT 1", (configured,)
        )
        return found[0].name if found else None

    # within

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction, on disk when the block has ended."""
        with self._lock, disk_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _select(self, kind: type, where: str, values: tuple[Any, ...] = ()) -> list[Any]:
        names = ", ".join(field.name for field in fields(kind))
        with self._lock:
            return [kind(*row) for row in self._db.execute(f"SELECT {names} FROM {where}", values)]

    def _next(self, db: sqlite3.Connection) -> int:
        """A number above all before it."""
        db.execute("INSERT INTO meta VALUES ('seq', '1') ON CONFLICT DO UPDATE SET value = CAST(value AS INTEGER) + 1")
        return int(db.execute("SELECT value FROM meta WHERE key = 'seq'").fetchone()[0])

    def _forget_tasks(self, db: sqlite3.Connection, project: int) -> None:
        for table in ("tasks", "annotations", "pending", "fresh"):
            db.execute(f"DELETE FROM {table} WHERE project = ?", (project,))
