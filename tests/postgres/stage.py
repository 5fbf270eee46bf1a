"""Scenarios that cross an event together: the compute is killed, stopped and started, or left for a branch of it.

A scenario is a generator: it writes, yields, and finds itself on the compute of after the event. All scenarios of a stage
cross the same events, so that twenty of them cost three starts of a compute and not sixty. Each has a schema of its own.
"""
import traceback

import pq
from compute import Compute

DATABASE = "recovery"


class Scene:
    """What one scenario sees: its schema in the database, where that is now, and by which event it came there."""

    def __init__(self, stage, name):
        self.stage, self.name, self.sessions, self.main = stage, f"{stage.event}_{name}", [], None
        self.before_close = []  # what ends threads that use a session

    @property
    def event(self):
        return self.stage.event

    @property
    def compute(self):
        return self.stage.compute

    def session(self, database=DATABASE):
        """A session more. It is open until the event is over."""
        db = pq.connect(self.compute.uri.replace("/postgres?", f"/{database}?"))
        self.sessions.append(db)
        db.query("SET client_min_messages = warning")
        if database == DATABASE:
            db.query(f"CREATE SCHEMA IF NOT EXISTS {self.name}")
            db.query(f"SET search_path = {self.name}, public")
        return db

    @property
    def db(self):
        if self.main is None:
            self.main = self.session()
        return self.main

    def run(self, *statements):
        for statement in statements:
            self.db.query(statement)

    def query(self, statement):
        return self.db.query(statement)

    def value(self, statement):
        return self.db.value(statement)

    def refused(self, statement, *sqlstates):
        try:
            self.db.query(statement)
        except pq.Error as error:
            assert error.sqlstate in sqlstates, f"{statement}: {error.sqlstate}: {error}"
            return
        raise AssertionError(f"it was not refused: {statement}")

    def close(self):
        for step in self.before_close:
            step()
        for db in self.sessions:
            db.close()
        self.sessions, self.before_close, self.main = [], [], None


class Stage:
    def __init__(self, compute, event):
        self.compute, self.event, self.rounds = compute, event, 0
        if DATABASE not in compute.databases():
            compute.sql(f"CREATE DATABASE {DATABASE}")

    def happen(self):
        """Open sessions see it: whoever is in the middle of something is cut off."""
        self.rounds += 1
        if self.event == "crash":  # by turns the whole server and one of its processes, which takes the others along
            self.compute.kill("postmaster" if self.rounds % 2 else "backend")
        elif self.event == "restart":
            self.compute.restart()
        else:
            parent = self.compute
            self.compute = Compute(parent.project, f"{parent.name}-{self.rounds}", parent.branch, **parent.settings)
            self.compute.parent = parent

    def play(self, scenarios):
        """Yields (test, passed, why)."""
        playing = {}
        for scenario in scenarios:
            scene = Scene(self, scenario.__name__)
            playing[scene] = scenario(scene)
        while playing:
            for scene, generator in list(playing.items()):
                test = f"{self.event}/{scene.name.removeprefix(self.event + '_')}"
                try:
                    next(generator)
                    continue
                except StopIteration:
                    yield test, True, ""
                except Exception:  # noqa: BLE001 - any failure is a failed scenario
                    yield test, False, f"{test}\n{traceback.format_exc()}"
                scene.close()
                del playing[scene]
            if playing:
                self.happen()
                for scene in playing:
                    scene.close()

    def end(self):
        """Back to the compute that it began with, without the branches, and without what was prepared and ended there only."""
        while parent := getattr(self.compute, "parent", None):
            self.compute.check_health()
            self.compute.remove()
            self.compute = parent
        for gid, database in self.compute.sql("SELECT gid, database FROM pg_prepared_xacts"):
            self.compute.sql(f"ROLLBACK PREPARED '{gid}'", database)
