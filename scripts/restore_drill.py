"""Restore a stack twice, and compare it with what it was: `make restore-drill`.

The stack of docker-compose.backup.yml is written to while it is backed up. Then its database and
images are removed, and restored: from the newest backup, and by Barman to a moment before it.
Meanwhile, Barman loses its replication slot. The stack is a separate compose project on a free
port, which is removed at the end. Requires no packages.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from boot import free_port
from containers import Project, exit_status, project_name, why_no_docker
from smoke import Client, SmokeError, expect, require

FILES = ("docker-compose.yml", "docker-compose.backup.yml")
TABLES = ("users", "articles", "article_revisions", "comments", "media")
AUTHORS = 3
TIMEOUT_SECONDS = 120
# Independent of the backup's own checksums. Empty tables have the checksum of nothing.
COUNT = """
    SELECT json_build_object({tables})
"""
OF_TABLE = """
    '{table}', (SELECT json_build_array(count(*), md5(coalesce(
      string_agg(md5(each::text), '' ORDER BY each.id), ''))) FROM {table} AS each)
"""
# Prints the checksums of images by folder, also of those that were deleted shortly before.
DIGESTS = """
import hashlib, json, pathlib
def digest(folder):
    files = sorted((file.name, file.read_bytes()) for file in folder.iterdir())
    return hashlib.sha256(repr(files).encode()).hexdigest()
folders = [each for name in {folders} for each in pathlib.Path("/media", name).glob("*")]
print(json.dumps({{folder.name: digest(folder) for folder in folders}}))
"""


class State(NamedTuple):
    """What is in a database at a moment."""

    tables: Mapping[str, tuple[int, str]]
    """The number of rows of each table, and their checksum."""
    images: Mapping[str, str]
    """The checksums of the images that the table `media` lists, by folder."""


def differences(expected: State, found: State) -> list[str]:
    """Return what differs, one sentence for each difference."""
    problems = []
    for table in sorted({*expected.tables, *found.tables}):
        before, after = expected.tables.get(table), found.tables.get(table)
        if before is None or after is None:
            problems.append(f"{table} is missing")
        elif before[0] != after[0]:
            problems.append(f"{table} has {after[0]} rows, but had {before[0]}")
        elif before[1] != after[1]:
            problems.append(f"{table} has other contents")
    lost = expected.images.keys() - found.images.keys()
    changed = [
        name
        for name in expected.images.keys() - lost
        if expected.images[name] != found.images[name]
    ]
    problems += [f"{len(lost)} images have no files"] if lost else []
    problems += [f"{len(changed)} images have other files"] if changed else []
    return problems


class Stack:
    """The containers of the drill."""

    def __init__(self) -> None:
        self.port = os.environ.get("HTTP_PORT") or str(free_port())
        environment = {
            "DATABASE_URL": "",
            "HTTP_PORT": self.port,
            "HTTP_BIND": "127.0.0.1",
            "BACKEND_TARGET": "runtime",
            "WEB_CONCURRENCY": "2",
            "EDGE_UPLOADS_PER_MINUTE": "60000",
            "LIMITS": "comments=100000/hour,articles=100000/hour,changes=100000/hour,"
            "uploads=100000/hour",
        }
        self.name = project_name("drill")
        self.project = Project(self.name, *FILES, environment=environment)

    def client(self) -> Client:
        """Return a client for nginx."""
        return Client(f"http://127.0.0.1:{self.port}")

    def up(self, *services: str) -> None:
        """Start services, and wait until they are healthy."""
        log = self.project.run_captured("up", "--detach", "--wait", *services, seconds=300)
        if log.returncode != 0:
            self.project.run("logs", "--tail", "30", *services)
            raise SmokeError(f"the containers did not start: {log.stderr[-500:]}")

    def run(self, service: str, *command: str, status: int = 0) -> str:
        """Run a command in a new container; return its output. Another status is an error."""
        arguments = ("run", "--rm", "--no-deps", "-T", service, *command)
        result = self.project.run_captured(*arguments, seconds=300)
        if result.returncode != status:
            raise SmokeError(
                f"{service} {command}: {result.returncode} {result.stdout} {result.stderr}"
            )
        return result.stdout if status == 0 else result.stderr

    def execute(self, service: str, *command: str) -> str:
        """Run a command in a running container, and return its output."""
        return self.project.output("exec", "-T", service, *command)

    def query(self, sql: str) -> Any:
        """Return the JSON value of a query."""
        psql = ("psql", "-U", "pressroom", "-d", "pressroom", "-AtX", "-c", sql)
        return json.loads(self.execute("db", *psql))

    def tables(self) -> dict[str, tuple[int, str]]:
        """Return the counts and checksums of tables."""
        tables = ",".join(OF_TABLE.format(table=table) for table in TABLES)
        return {
            name: (row[0], row[1]) for name, row in self.query(COUNT.format(tables=tables)).items()
        }

    def folders(self) -> list[str]:
        """Return the folders of the images that the database lists."""
        found: list[str] = self.query("SELECT coalesce(json_agg(folder), '[]') FROM media")
        return found

    def digests(self, *, deleted: bool = False) -> dict[str, str]:
        """Return the checksums of all images by folder, also of deleted ones."""
        names = ["files", "deleted"] if deleted else ["files"]
        command = ("run", "--rm", "--no-deps", "-T", "backup", "python", "-c")
        found: dict[str, str] = json.loads(
            self.project.output(*command, DIGESTS.format(folders=names))
        )
        return found

    def base_backups(self) -> list[str]:
        """Return the ids of Barman's complete base backups."""
        listed = self.execute("barman", "barman", "--format", "json", "list-backups", "pressroom")
        return [
            each["backup_id"]
            for each in json.loads(listed)["pressroom"]
            if each["status"] == "DONE"
        ]

    def lose_data(self) -> None:
        """Remove the containers, the database and the images; keep the backups."""
        self.project.run_captured("--profile", "restore", "down", "--timeout", "5", seconds=120)
        for volume in ("db-data", "media-data"):
            subprocess.run(
                ["docker", "volume", "rm", f"{self.name}_{volume}"], check=True, capture_output=True
            )


class Load:
    """Authors who write, comment, and upload and delete images, until they are stopped."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._may_write = threading.Event()
        self._idle = threading.Semaphore(0)
        self._stopped = False
        self.written: Counter[str] = Counter()
        self.refused: list[str] = []
        self._threads = [
            threading.Thread(target=self._write, args=(number,), daemon=True)
            for number in range(AUTHORS)
        ]

    def start(self) -> None:
        """Register the authors, and begin to write."""
        self._may_write.set()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until all have stopped."""
        self._stopped = True
        for thread in self._threads:
            thread.join()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Wait until no request is in progress, and send none meanwhile."""
        self._may_write.clear()
        for _ in self._threads:
            self._idle.acquire()
        yield
        self._may_write.set()

    def wait_for(self, count: int) -> None:
        """Wait for this number of further writes."""
        enough = self.total() + count
        wait_until(lambda: self.total() >= enough, "the load continues")

    def total(self) -> int:
        """Return the number of writes."""
        return sum(self.written.values())

    def _write(self, number: int) -> None:
        client, chance = self._stack.client(), random.Random(number)  # noqa: S311 - a load
        name = f"author{number}{secrets.token_hex(4)}"
        user = {
            "email": f"{name}@example.com",
            "username": name,
            "name": name,
            "password": secrets.token_urlsafe(18),
        }
        client.send("POST", "/users", json_body=user)
        form = {"username": name, "password": user["password"]}
        client.token = client.send("POST", "/auth/login", form=form).body["access_token"]
        articles: list[int] = []
        images: list[int] = []
        while not self._stopped:
            if not self._may_write.is_set():
                self._idle.release()
                self._may_write.wait()
            self._write_once(client, chance, articles, images)
            time.sleep(0.05)

    def _write_once(
        self, client: Client, chance: random.Random, articles: list[int], images: list[int]
    ) -> None:
        what = chance.choice(["article", "edit", "comment", "comment", "image", "image", "removal"])
        text = "".join(chance.choice("abcdefgh ") for _ in range(400))
        if what == "article" or not articles:
            what = "article"
            draft = {"title": f"About {secrets.token_hex(6)}", "content": text, "published": True}
            response = client.send("POST", "/articles", json_body=draft)
            articles += [response.body["id"]] if response.status == 201 else []
        elif what == "edit":
            path = f"/articles/{chance.choice(articles)}"
            response = client.send("PATCH", path, json_body={"content": text})
        elif what == "comment":
            path = f"/articles/{chance.choice(articles)}/comments"
            response = client.send("POST", path, json_body={"content": text})
        elif what == "image" or len(images) < 3:
            what = "image"
            response = client.upload("/media", noise(chance))
            images += [response.body["id"]] if response.status == 201 else []
        else:
            image = images.pop(chance.randrange(len(images)))
            response = client.send("DELETE", f"/media/{image}")
        if response.status >= 300:
            self.refused.append(f"{what}: {response.status} {response.body}")
        self.written[what] += 1


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until the condition holds. Raises SmokeError after TIMEOUT_SECONDS."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > TIMEOUT_SECONDS:
            raise SmokeError(f"{what}: not within {TIMEOUT_SECONDS} s")
        time.sleep(0.1)


def noise(chance: random.Random) -> bytes:
    """Return a PNG of 64 by 64 random pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")

    header = (64).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(
        b"".join(b"\0" + bytes(chance.choices(range(256), k=192)) for _ in range(64))
    )
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


class Drill:
    """The steps, and how long they took."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.times: list[tuple[str, float]] = []
        self.compared: list[tuple[str, str, str]] = []

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Measure a step."""
        print(f"-- {what}", flush=True)
        started = time.monotonic()
        yield
        self.times.append((what, time.monotonic() - started))

    def compare(self, what: str, expected: State, found: State) -> None:
        """Raise SmokeError if something differs."""
        problems = differences(expected, found)
        require(f"{what}: nothing is lost or changed", not problems, problems)
        for table, (count, checksum) in expected.tables.items():
            self.compared.append((what, f"{count} {table}", checksum[:8]))
        self.compared.append((what, f"{len(expected.images)} images", "files"))

    def run(self) -> None:
        """Write, back up, restore twice and compare."""
        stack = self.stack
        with self.step("start the stack with its first base backup"):
            stack.up()
        load = Load(stack)
        with self.step("write 150 articles, comments and images"):
            load.start()
            load.wait_for(150)
        with load.paused():
            time.sleep(1)  # files of images deleted before are withdrawn in the background
            moment = stack.query("SELECT to_json(clock_timestamp())")
            tables, folders = stack.tables(), stack.folders()
        load.wait_for(60)
        cursor = stack.client().send("GET", "/changes?cursor=latest").body["next"]
        with self.step("`pressroom backup create`, under load"):
            manifest = json.loads(
                stack.execute("backup", "pressroom", "backup", "create", "--json")
            )
        load.wait_for(60)
        load.stop()
        require("writes were accepted", not load.refused, load.refused[:3])
        self.check_full_disk()
        self.lose_slot()
        with self.step("archive the rest of the WAL"):
            stack.execute("barman", "barman", "switch-wal", "--force", "--archive", "pressroom")
        contents = stack.digests(deleted=True)
        at_moment = State(tables, {folder: contents[folder] for folder in folders})
        self.restore_backup(manifest, contents, cursor)
        self.restore_moment(moment, at_moment)
        self.report(load)

    def lose_slot(self) -> None:
        """Remove the replication slot of Barman and the WAL that it needs.

        Barman must begin again. What it received of an incomplete file must stay recoverable.
        """
        stack = self.stack
        before = len(stack.base_backups())
        stack.project.output("stop", "--timeout", "5", "barman")
        sql = ["SELECT pg_drop_replication_slot('barman')"]
        sql += ["SELECT pg_create_restore_point('x')", "SELECT pg_switch_wal()", "CHECKPOINT"] * 2
        for statement in sql:
            stack.execute("db", "psql", "-U", "pressroom", "-qc", statement)
        with self.step("replace the lost slot, and make a new base backup"):
            stack.up("barman")
            wait_until(lambda: len(stack.base_backups()) > before, "there is a new base backup")

    def check_full_disk(self) -> None:
        """Make a backup to a disk that is too small: it must not be listed as good."""
        commands = "pressroom backup create --json; pressroom backup list --json"
        docker = [
            "docker",
            "run",
            "--rm",
            "--read-only",
            "--network",
            f"{self.stack.name}_data",
            "--tmpfs",
            "/tmp",  # noqa: S108 - in a container
            "--tmpfs",
            "/small:size=150k,uid=10001",
            "--volume",
            f"{self.stack.name}_media-data:/media",
            "--env",
            "MEDIA_DIR=/media",
            "--env",
            "DATABASE_URL=postgresql://pressroom:pressroom@db/pressroom",
            "--env",
            "BACKUP_TARGET=/small",
            f"{self.stack.name}-backup:0.1.0",
        ]
        output = subprocess.run(
            [*docker, "sh", "-c", commands], capture_output=True, text=True, check=False
        )
        lines = [json.loads(line) for line in output.stdout.splitlines()]
        require(
            "a full disk is one sentence, and no backup is listed as good",
            "No space left" in lines[0]["error"]
            and all("problem" in backup for backup in lines[1]["backups"]),
            output,
        )

    def restore_backup(
        self, manifest: dict[str, Any], contents: dict[str, str], cursor: str
    ) -> None:
        """Restore the newest backup into a fresh stack."""
        stack = self.stack
        stack.lose_data()
        with self.step("restore the newest backup"):
            stack.up("db")
            output = stack.run("backup", "pressroom", "backup", "restore", "--json")
        restored = json.loads(output.splitlines()[-1])  # warnings may precede it
        require("it is the one under load", restored["id"] == manifest["id"], restored["id"])
        # The backup compared its own checksums of rows with those of its snapshot.
        require(
            "rows are those of the snapshot", restored["counts"] == manifest["counts"], restored
        )
        folders = stack.folders()
        found = State(stack.tables(), stack.digests())
        counts = {name: (manifest["counts"][name], found.tables[name][1]) for name in TABLES}
        expected = State(counts, {folder: contents[folder] for folder in folders})
        self.compare("newest backup", expected, found)
        with self.step("start the restored stack"):
            stack.up("nginx", "nginx-config", "backend")
        response = stack.client().send("GET", f"/changes?cursor={cursor}")
        expect("cursors of before are unknown", response.status == 422, response)
        self.check_reading()

    def restore_moment(self, moment: str, expected: State) -> None:
        """Recover the moment into a fresh stack, with the images of the newest backup."""
        stack = self.stack
        stack.lose_data()
        refusal = stack.run("barman-restore", "2020-01-01 00:00:00+00", status=1)
        require("a moment before the first WAL is refused", "oldest moment" in refusal, refusal)
        with self.step("restore a moment by Barman, and the images"):
            stack.run("barman-restore", moment)
            stack.up("db")
            stack.run("backup", "pressroom", "backup", "restore", "--images-only")
            stack.run("migrate")
            stack.run("backend", "pressroom", "after-restore")
        self.compare("point in time", expected, State(stack.tables(), stack.digests()))
        with self.step("start all, and make a new base backup"):
            stack.up()
            wait_until(lambda: len(stack.base_backups()) > 1, "there is a new base backup")
        self.check_reading()

    def check_reading(self) -> None:
        """Read an article and an image through nginx."""
        client = self.stack.client()
        response = client.send("GET", "/articles?limit=1")
        expect("articles are read", response.status == 200 and bool(response.body), response)
        path = self.stack.query(
            "SELECT to_json('/media/' || folder || '/picture.png') FROM media LIMIT 1"
        )
        response = client.send("GET", path)
        expect("an image is read", response.status == 200, response)

    def report(self, load: Load) -> None:
        """Print the tables for docs/operations.md."""
        print(f"\nwritten meanwhile: {dict(load.written)}\n\n| step | seconds |\n|---|---|")
        for what, seconds in self.times:
            print(f"| {what} | {seconds:.1f} |")
        print("\n| restored | compared | checksum |\n|---|---|---|")
        for row in self.compared:
            print(f"| {' | '.join(row)} |")


def drill() -> None:
    """Run the drill in a stack, and remove it."""
    stack = Stack()
    started = time.monotonic()
    # Builds the images. The database starts alone: the drill measures the others.
    with stack.project.running("db"):
        if stack.project.run_captured("build", seconds=900).returncode != 0:
            raise SmokeError("the images cannot be built")
        Drill(stack).run()
    print(f"\nBoth restores are complete ({time.monotonic() - started:.0f} s)")


def main() -> int:
    """Return the exit status."""
    if problem := why_no_docker():
        print(f"`make restore-drill` requires containers: {problem}.", file=sys.stderr)
        return 2
    return exit_status(drill, SmokeError)


if __name__ == "__main__":
    sys.exit(main())
