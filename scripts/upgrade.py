"""Replace the running containers with those of this checkout, without a gap: `make upgrade`.

    upgrade.py                  upgrade, or roll back to the release in this checkout
    upgrade.py --replace-nginx  also replace nginx's container; it refuses connections for a second

1. Build or pull the images.
2. Migrate the database. The running release continues (docs/decisions/0006).
3. Start new backends beside the old ones. They get requests once they are ready.
4. Let nginx apply the new configuration, in the same container.
5. Check the API through nginx, and stop the old backends, which finish their requests.

If a step fails before the old backends are stopped, the new containers are removed, and the old
ones continue. The exit status is then 1. If a step fails later, the new ones continue, and it is 3.
Migrations are not undone, because the previous release works with them.

It runs `docker compose` in this checkout, with its `.env`. Requires no packages.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from containers import ROOT, compose_command, stop_on_terminate, why_no_docker

READY_SECONDS = 300
"""How long a new backend may take until it is ready."""
NGINX_SECONDS = 60
"""How long nginx may take to apply its configuration."""
MIGRATION_ATTEMPTS = 5
TEMPORARY_FAILURE = 75
"""The exit status of `pressroom migrate` after which it can be run again."""
RELEASED = ("backend", "nginx-config")
"""Services with an image of this project. `migrate` uses that of the backend."""
POLL_SECONDS = 0.25
NGINX_STOP_SECONDS = 3
"""How long requests in progress may take when nginx's container is replaced."""


class UpgradeError(Exception):
    """A step failed. The message contains the reason."""


class UnfinishedUpgrade(UpgradeError):
    """A step failed after the old backends were stopped: this release continues."""


def say(text: str) -> None:
    """Print a step with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def run(command: Sequence[str], *, quiet: bool = True) -> str:
    """Run a command in the checkout and return its output. Raises UpgradeError if it fails."""
    result = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        reason = f": {result.stderr.strip()[-2000:]}" if quiet else ""
        raise UpgradeError(f"`{' '.join(command)}` failed{reason}")
    return result.stdout or ""


def compose(*arguments: str, quiet: bool = True) -> str:
    """Run a compose command with the settings in `.env`."""
    return run([*(compose_command(env_file=None) or ()), *arguments], quiet=quiet)


def docker(*arguments: str) -> str:
    """Run a Docker command."""
    return run(["docker", *arguments])


def containers(service: str, *, stopped: bool = False) -> list[str]:
    """Return the ids of a service's running containers, with `stopped` of all.

    Containers of `docker compose run` are left out, such as that of an import.
    """
    columns = '{{.ID}} {{.Label "com.docker.compose.oneoff"}}'
    options = ("--no-trunc", "--format", columns, *(["--all"] if stopped else []))
    lines = compose("ps", *options, service).splitlines()
    return [line.split()[0] for line in lines if not line.endswith("True")]


def inspect(container: str) -> Any:
    """Return the `docker inspect` data of a container."""
    return json.loads(docker("container", "inspect", container))[0]


def tail(container: str) -> str:
    """Return the last lines of a container's log."""
    result = subprocess.run(
        ["docker", "logs", "--tail", "60", container],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.stdout.strip()


def wait_until_healthy(container: str, what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until Docker reports a container as healthy.

    Raises UpgradeError at the time limit, or if the container ends.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = inspect(container)
        state = found["State"]
        if state["Health"]["Status"] == "healthy":
            return
        reason = ""
        if found["RestartCount"] or state["Status"] in {"exited", "dead", "restarting"}:
            # A restarted container has the status 0.
            status = f" with status {state['ExitCode']}" if state["ExitCode"] else ""
            reason = f"it ended{status}"
        elif time.monotonic() > deadline:
            reason = f"not ready within {seconds} s"
        if reason:
            raise UpgradeError(f"{what}: {reason}. Its log:\n{tail(container)}")
        time.sleep(POLL_SECONDS)


class Upgrade:
    """The steps of an upgrade, and how to undo them."""

    def __init__(self, config: Any) -> None:
        """`config` is the output of `docker compose config --format json`."""
        self.services = config["services"]
        self._rotation: str = config["networks"]["rotation"]["name"]
        self._undo: list[Callable[[], None]] = []

    def prepare_images(self) -> None:
        """Build the images, or pull published ones. This changes nothing that runs."""
        if self.services["backend"].get("pull_policy") == "build":
            say("building the images")
            compose("build", "--quiet", *RELEASED, quiet=False)
        else:
            say("pulling missing images")
            compose("pull", "--quiet", "--policy", "missing", *RELEASED, quiet=False)

    def migrate(self) -> None:
        """Run the migrations of this release."""
        say("migrating the database")
        for attempt in range(1, MIGRATION_ATTEMPTS + 1):
            # `up` instead of `run`, so that a later `docker compose up` has nothing to replace.
            # --no-deps: otherwise compose stops the backend, which depends on it.
            compose("up", "--detach", "--no-deps", "--force-recreate", "--no-build", "migrate")
            (container,) = containers("migrate", stopped=True)
            status = int(docker("wait", container))
            if status == 0:
                return
            if status != TEMPORARY_FAILURE or attempt == MIGRATION_ATTEMPTS:
                break
            say(f"a table is locked, or the database is not available: attempt {attempt + 1}")
            time.sleep(attempt)
        raise UpgradeError(
            f"the migration failed with status {status}. Its log:\n{tail(container)}"
        )

    def start_backends(self) -> list[str]:
        """Start as many new backends as old ones run. Returns the ids of the old ones."""
        compose("rm", "--force", "backend")  # stopped containers: compose would start them again
        old = containers("backend")
        say(f"starting new containers of the backend beside the old ones: {len(old)}")
        new = self._create_beside("backend", old)
        for container in new:
            # Without requests until it is ready.
            docker("network", "disconnect", self._rotation, container)
        docker("start", *new)
        for container in new:
            wait_until_healthy(container, "the new backend")
        for container in new:
            aliases = ["--alias", "ready-backend", "--alias", "backend"]
            docker("network", "connect", *aliases, self._rotation, container)
        say("the new backends are ready")
        return old

    def configure_nginx(self) -> None:
        """Let nginx apply the configuration of this release."""
        old = containers("nginx-config")
        if not old:  # the previous release has no such service
            compose("up", "--detach", "--no-deps", "--no-build", "nginx-config")
            return
        say("applying the configuration of nginx")
        (new,) = self._create_beside("nginx-config", old)
        # A restarted container selects its configuration again.
        self._undo.append(lambda: self._restart(old))
        docker("start", new)
        wait_until_healthy(new, "the configuration of nginx", NGINX_SECONDS)
        self._remove(old)

    def verify(self) -> None:
        """Check the API through nginx, which may still try a container that was just stopped."""
        deadline = time.monotonic() + NGINX_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise UpgradeError(
                    f"the API does not answer through nginx within {NGINX_SECONDS} s"
                )
            time.sleep(POLL_SECONDS)

    @staticmethod
    def _answers() -> bool:
        curl = ("curl", "--fail", "--silent", "--max-time", "30")
        try:
            compose("exec", "-T", "nginx", *curl, "http://127.0.0.1/health/ready")
        except UpgradeError:
            return False
        return True

    def roll_back(self) -> None:
        """Remove the new containers, also if some of this fails."""
        while self._undo:
            self._try(self._undo.pop())

    @staticmethod
    def _try(undo: Callable[[], None]) -> None:
        try:
            undo()
        except UpgradeError as error:
            say(f"while removing: {error}")

    def _create_beside(self, service: str, old: Sequence[str]) -> list[str]:
        """Create as many containers as `old` has, without starting them."""
        count = f"{service}={2 * len(old)}"
        options = ("--no-start", "--no-deps", "--no-recreate", "--no-build", "--scale", count)
        compose("up", *options, service)
        new = [each for each in containers(service, stopped=True) if each not in old]
        self._undo.append(lambda: self._remove(new))
        return new

    @staticmethod
    def _restart(ids: Sequence[str]) -> None:
        docker("restart", "--time", "1", *ids)
        for container in ids:
            wait_until_healthy(container, "the previous configuration of nginx", NGINX_SECONDS)

    @staticmethod
    def _remove(ids: Sequence[str]) -> None:
        docker("stop", *ids)  # each has its stop_grace_period
        docker("rm", *ids)

    def finish(self, old: Sequence[str]) -> None:
        """Stop the old backends. After this, there is no rollback."""
        say("stopping the old backends")
        self._undo.clear()
        self._remove(old)


def uses_configuration(nginx: str) -> bool:
    """Return whether nginx's container reads the volume of `nginx-config`."""
    return any(mount["Destination"] == "/config" for mount in inspect(nginx)["Mounts"])


def replace_nginx(old: str) -> None:
    """Replace nginx's container. It refuses connections between the stop and the start."""
    say("replacing the container of nginx")
    options = ("--no-start", "--no-deps", "--no-recreate", "--scale", "nginx=2")
    compose("up", *options, "nginx")
    (new,) = (each for each in containers("nginx", stopped=True) if each != old)
    started = time.monotonic()
    docker("stop", "--time", str(NGINX_STOP_SECONDS), old)
    try:
        docker("start", new)
        seconds = time.monotonic() - started
        wait_until_healthy(new, "nginx")
    except BaseException:
        docker("rm", "--force", new)
        docker("start", old)
        raise
    docker("rm", old)
    say(f"nginx was replaced; it refused connections for up to {seconds:.1f} s")


def has_changed(service: str) -> bool:
    """Return whether the service's container differs from its definition or image."""
    definition = compose("config", "--hash", service).split()[1]
    for container in containers(service):
        found = inspect(container)
        labels = found["Config"]["Labels"]
        if labels["com.docker.compose.config-hash"] != definition:
            return True
        image = json.loads(docker("image", "inspect", found["Config"]["Image"]))[0]
        if image["Id"] != found["Image"]:
            return True
    return False


def upgrade(*, with_nginx: bool) -> None:
    """Run all steps. Raises UnfinishedUpgrade if this release runs, otherwise UpgradeError."""
    steps = Upgrade(json.loads(compose("config", "--format", "json")))
    nginx = containers("nginx")
    steps.prepare_images()
    if not containers("backend") or not nginx:
        say("the stack does not run: starting it")
        compose("up", "--detach", "--wait", "--no-build", quiet=False)
        return
    steps.migrate()
    is_current = uses_configuration(nginx[0])
    try:
        old = steps.start_backends()
        if is_current:
            steps.configure_nginx()
        steps.verify()
    except BaseException:
        say("this release did not become ready: removing its containers")
        steps.roll_back()
        raise
    try:
        steps.finish(old)
        if not is_current:
            say("nginx has the configuration of a release without `nginx-config`")
            steps.configure_nginx()
        if with_nginx or not is_current:
            replace_nginx(nginx[0])
        steps.verify()
    except UpgradeError as error:
        raise UnfinishedUpgrade(str(error)) from error
    say("this release runs")
    if has_changed("nginx"):
        say("note: nginx's container has a new definition or image; the old one continues.")
        say("      To replace it, refusing connections for a second:")
        say("      make upgrade ARGS=--replace-nginx")
    if "db" in steps.services and has_changed("db"):
        say("note: the database's container has a new definition or image; the old one continues.")
        say("      To replace it, failing requests for some seconds:")
        say("      docker compose up --detach --wait --no-deps db")


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description="Upgrade or roll back to this checkout.")
    parser.add_argument("--replace-nginx", action="store_true", help="see the top of this file")
    options = parser.parse_args(arguments)
    if problem := why_no_docker():
        print(f"`make upgrade` requires containers: {problem}.", file=sys.stderr)
        return 2
    stop_on_terminate()
    with (ROOT / "docker-compose.yml").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another upgrade is in progress", file=sys.stderr)
            return 2
        try:
            upgrade(with_nginx=options.replace_nginx)
        except UnfinishedUpgrade as error:
            print(f"this release runs, but the upgrade is not finished: {error}", file=sys.stderr)
            return 3
        except UpgradeError as error:
            print(f"the upgrade failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("the upgrade was interrupted", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
