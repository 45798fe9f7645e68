"""Consistency of settings, compose files, `.env.example`, scripts and documents."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import __version__, cli
from app.core.config import BACKEND_DIR, PROJECT_DIR, SECRETS, Settings
from app.core.errors import NotFound, PressroomError
from app.core.sources import ALIASES
from tests.web.browser.conftest import SCREENSHOTS

pytestmark = pytest.mark.checkout

SETTINGS = {name.upper() for name in Settings.model_fields}
ALTERNATIVE_NAMES = {alias.upper() for alias in ALIASES} | {
    f"{name}_FILE".upper() for name in SECRETS
}
"""Aliases of settings, and settings that name files with secrets."""
HOST_ONLY = {
    "HOST",
    "PORT",
    "DATA_DIR",
    "METRICS_DIR",
    "BIND",
    "DATABASE_URL_FILE",
    "DATABASE_OWNER_URL_FILE",
} | {name for name in SETTINGS | ALTERNATIVE_NAMES if name.startswith("BACKUP_")}
"""Settings that compose does not pass on: containers have a fixed port and data folder.

The backend must not know the key of backups; docker-compose.backup.yml has another container.
"""
OWNER_ONLY = {
    "DATABASE_OWNER_URL",
    "DATABASE_OWNER_PASSWORD",
    "DATABASE_OWNER_PASSWORD_FILE",
    "DATABASE_MONITOR_PASSWORD",
    "DATABASE_MONITOR_PASSWORD_FILE",
}
"""Settings of the role that owns the tables, which the backend must not know."""


def read(path: str) -> str:
    return (PROJECT_DIR / path).read_text(encoding="utf-8")


def gunicorn_settings() -> set[str]:
    """Return the environment variables that gunicorn.conf.py reads itself."""
    source = (BACKEND_DIR / "gunicorn.conf.py").read_text(encoding="utf-8")
    return set(re.findall(r'environ(?:\.get\(|\[)\s*"([A-Z0-9_]+)"', source))


def documented_settings() -> dict[str, str]:
    """Return the names in the tables of docs/settings.md, with the cells of their defaults."""
    rows = re.findall(
        r"^\| `([A-Z0-9_]+)` \| (.*?) \| .+ \|$", read("docs/settings.md"), re.MULTILINE
    )
    assert len(rows) == len(dict(rows))
    return dict(rows)


def default_values() -> Iterator[tuple[str, str]]:
    """Yield each simple default in Settings and in the compose files, as in `.env`."""
    for name, field in Settings.model_fields.items():
        value = field.default
        if isinstance(value, bool):
            yield name.upper(), str(value).lower()
        elif isinstance(value, (int, float)):
            yield name.upper(), f"{value:.15g}"
        elif isinstance(value, str) and value and name != "secret_key":
            yield name.upper(), value
    for path in compose_files():
        for name, value in re.findall(r"(?<!\$)\$\{([A-Z0-9_]+):-([^${}]+)\}", path.read_text()):
            if name != "TRUSTED_PROXY":  # its default is a value that matches no client
                yield name, value


def compose_files() -> list[Path]:
    return sorted(PROJECT_DIR.glob("docker-compose*.yml"))


def compose_services(path: str) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(read(path))["services"]
    return services


def substituted_variables() -> set[str]:
    """Return the variables that a compose file substitutes."""
    text = "".join(path.read_text() for path in compose_files())
    return set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", text))


def compose_variables() -> set[str]:
    """Return the variables that a compose file substitutes or passes on."""
    names = substituted_variables()
    for path in compose_files():
        for service in compose_services(path.name).values():
            passed_on = service.get("environment", {}) | service.get("build", {}).get("args", {})
            names |= {name for name, value in passed_on.items() if value is None}
    return names


def test_gunicorn_settings_are_found() -> None:
    assert "BIND" in gunicorn_settings()


def test_every_setting_and_variable_is_documented_once() -> None:
    known = SETTINGS | gunicorn_settings() | (compose_variables() - ALTERNATIVE_NAMES)
    assert known == documented_settings().keys()


def test_documented_defaults_are_those_of_the_code() -> None:
    documented = documented_settings()
    assert {
        name: (value, documented[name])
        for name, value in default_values()
        if f"`{value}`" not in documented[name]
    } == {}


@pytest.mark.parametrize(("service", "hidden"), [("backend", OWNER_ONLY), ("migrate", set())])
def test_compose_passes_every_setting_on(service: str, hidden: set[str]) -> None:
    environment = set(compose_services("docker-compose.yml")[service]["environment"])
    expected = (SETTINGS | ALTERNATIVE_NAMES | gunicorn_settings()) - HOST_ONLY - hidden
    assert expected == environment
    secrets = compose_services("docker-compose.secrets.yml")[service]
    assert ("postgres_password" in secrets["secrets"]) is (service == "migrate")


def test_env_example_has_known_settings_and_all_variables_of_compose_files() -> None:
    named = set(re.findall(r"^#?([A-Z0-9_]+)=", read(".env.example"), flags=re.MULTILINE))
    assert {"SECRET_KEY", "ENVIRONMENT"} <= named
    of_compose = {"COMPOSE_FILE"}
    assert named <= SETTINGS | gunicorn_settings() | compose_variables() | of_compose
    assert substituted_variables() - {"COMPOSE_PROJECT_NAME"} - named == set()
    assert {name for name in SETTINGS if name.startswith("BACKUP_")} <= named


def test_image_tags_have_the_project_and_the_version() -> None:
    """Otherwise compose would run the image of another checkout or release."""
    built = {
        name: service
        for path in ("docker-compose.yml", "docker-compose.observe.yml")
        for name, service in compose_services(path).items()
        if "build" in service
    }
    exporters = {"postgres-exporter", "nginx-exporter", "nginx-log-exporter"}
    assert set(built) == {"migrate", "backend", "nginx-config", *exporters}
    for service in built.values():
        assert re.search(rf"\$\{{COMPOSE_PROJECT_NAME\}}-[a-z-]+:{__version__}\b", service["image"])
        assert service["pull_policy"] == "${PULL_POLICY:-build}"


def new_services() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the services that compose files define, without the overrides of others."""
    for path in compose_files():
        for name, service in compose_services(path.name).items():
            of = service.get("extends")
            base = compose_services(of["file"])[of["service"]] if of else {}
            if "image" in base | service:
                yield f"{path.name}: {name}", base | service


def test_all_containers_are_hardened() -> None:
    """`make smoke` checks those that it starts; profiles are not among them."""
    services = dict(new_services())
    assert "docker-compose.backup.yml: barman-restore" in services
    assert "docker-compose.observe.yml: grafana" in services
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if "test.yml" not in name:
            assert {"mem_limit", "pids_limit"} <= service.keys(), name
            assert "max-size" in service["logging"]["options"], name


def test_overrides_do_not_weaken_containers() -> None:
    """Only `make watch`, which is for development, writes to the file system of a container."""
    names = {"read_only", "cap_add", "cap_drop", "security_opt", "privileged"}
    found = {
        path.name
        for path in compose_files()
        for service in compose_services(path.name).values()
        if "image" not in service and "extends" not in service and names & service.keys()
    }
    assert found == {"docker-compose.watch.yml"}


# --- documents

CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", document.read_text())):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if "://" not in link and not (
            target.exists() and (not anchor or anchor in anchors(target))
        ):
            broken.append(link)
    return broken


def test_links_in_documents_resolve() -> None:
    documents = [*PROJECT_DIR.glob("*.md"), *PROJECT_DIR.glob("docs/**/*.md")]
    documents += [*PROJECT_DIR.glob("bench/*.md"), *PROJECT_DIR.glob("nginx/*.md")]
    documents += [*PROJECT_DIR.glob("clients/*/README.md"), *PROJECT_DIR.glob("deploy/*/*.md")]
    assert PROJECT_DIR / "docs" / "api" / "index.md" in documents
    found = {document.name: broken_links(document) for document in documents}
    assert {name: links for name, links in found.items() if links} == {}


@pytest.mark.parametrize("folder", ["decisions", "integrations", "operations"])
def test_pages_are_listed_in_their_index(folder: str) -> None:
    index = PROJECT_DIR / "docs" / f"{folder}.md"
    if not index.exists():
        index = PROJECT_DIR / "docs" / folder / "README.md"
    linked = {
        (index.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)", index.read_text())
    }
    pages = set(PROJECT_DIR.glob(f"docs/{folder}/*.md")) - {index}
    assert pages
    assert pages - linked == set()


def test_groups_of_settings_are_listed() -> None:
    page = read("docs/settings.md")
    groups = re.findall(r"^## (.*)$", page, flags=re.MULTILINE)
    assert [group for group in groups if f"\n| [{group}](#" not in page] == []


def errors_of(parent: type[PressroomError]) -> Iterator[type[PressroomError]]:
    for error in parent.__subclasses__():
        yield error
        yield from errors_of(error)


def test_error_codes_are_documented() -> None:
    """The page does not list each code of status 404. `already_set_up` is an error of pages."""
    pages = read("docs/api/errors.md") + read("docs/integrations/realtime.md")
    codes = {
        error.code
        for error in errors_of(PressroomError)
        if not issubclass(error, NotFound) and not error.__module__.startswith("app.web.")
    }
    assert "slow_reader" in codes
    missing = {code for code in codes if f"`{code}`" not in pages}
    assert missing == {"already_set_up"}, "add the codes to docs/api/errors.md"


def code_for_operators() -> str:
    pages = [
        page
        for folder in ("docs", "docs/operations", "docs/runbooks")
        for page in PROJECT_DIR.glob(f"{folder}/*.md")
    ]
    return "\n".join(part for page in pages for part in CODE.findall(page.read_text()))


def test_redirected_output_has_no_log_of_a_build() -> None:
    """`docker compose run` builds the image, and prints the log to standard output."""
    code = code_for_operators().replace("\\\n", "")
    commands = re.findall(r"^ *docker compose (?:.* )?run .*>.*$", code, flags=re.MULTILINE)
    assert commands
    assert [each for each in commands if "--progress quiet" not in each] == []


def test_documented_commands_exist() -> None:
    """Commands of `pressroom` and targets of `make` in code, in the pages for operators."""
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))
    code = code_for_operators()
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) - targets == set()
    commands = re.findall(r"\bpressroom ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", code)
    assert ("keys", "rotate") in commands
    for name, subcommand in commands:
        assert name in cli.COMMANDS
        subcommands = getattr(cli.load(name), "commands", {})
        assert not subcommand or not subcommands or subcommand in subcommands


RUNBOOKS = sorted(PROJECT_DIR.glob("docs/runbooks/*.md"))
ALERTS = {
    "backup-too-old", "bad-release", "cache-poisoned-or-full", "certificate",
    "certificate-expiring", "data-request", "database-down", "database-slow", "disk-full",
    "high-error-rate", "high-latency", "job-silent", "leaked-key", "login-storm", "mail-stuck",
    "moving-hosts", "pool-exhausted", "replication-lag", "restore", "stolen-account",
    "streams", "target-down", "too-many-connections", "webhooks-failing", "webhooks-late",
}  # fmt: skip
"""Anchors of docs/runbooks.md, which alerts link to."""


def test_runbooks_have_the_same_parts_and_are_listed() -> None:
    index = PROJECT_DIR / "docs" / "runbooks.md"
    assert anchors(index) >= ALERTS
    for page in RUNBOOKS:
        assert f"(runbooks/{page.name})" in index.read_text()
        parts = re.findall(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)
        assert parts == ["Symptoms", "Confirm", "Act", "Confirm the recovery"], page.name


def test_documented_services_exist() -> None:
    """Services that `docker compose` executes commands in, or shows the logs of."""
    code = code_for_operators().replace("\\\n", "")
    services = {name for path in compose_files() for name in compose_services(path.name)}
    named = set(re.findall(r"docker compose exec (?:-T )?(?:--env \S+ )?([a-z-]+)", code))
    assert {"backend", "db", "nginx"} <= named <= services


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_all_commands_is_that_of_each(name: str) -> None:
    """`pressroom --help` has its own texts, because it does not import the commands."""
    text = cli.load(name).help.partition("\n\n")[0]
    assert " ".join(text.split()) == cli.COMMANDS[name].help


# --- clients

LOCK_FILES = sorted(PROJECT_DIR.glob("clients/*/package-lock.json")) + sorted(
    PROJECT_DIR.glob("clients/starters/*/package-lock.json")
)
CLIENT_PACKAGES = [
    *(path.parent for path in LOCK_FILES),
    BACKEND_DIR / "tests/contract/clients",
    BACKEND_DIR / "tests/clients/deno",
]


@pytest.mark.parametrize("folder", CLIENT_PACKAGES, ids=lambda folder: folder.name)
def test_npm_lock_files_name_no_registry(folder: Path) -> None:
    """npm uses the registry of the machine then, for example a mirror."""
    lock = (folder / "package-lock.json").read_text()
    assert "omit-lockfile-registry-resolved=true" in (folder / ".npmrc").read_text().splitlines()
    assert not re.search(r'"resolved": "(?!\.\.?/)', lock)
    assert "://" not in re.sub(r'"(url|funding)": ".*"', "", lock)


def test_python_lock_files_name_no_registry() -> None:
    for path in (BACKEND_DIR / "requirements").glob("*.txt"):
        assert "://" not in path.read_text(), path.name


def test_packages_and_builds_of_javascript_are_not_committed() -> None:
    command = ["git", "ls-files", "clients", "backend/tests/contract", "backend/tests/clients"]
    listed = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=True)
    files = listed.stdout.split()
    assert "clients/typescript/package.json" in files
    assert not [name for name in files if re.search(r"(^|/)(node_modules|dist|\.next)/", name)]


@pytest.mark.parametrize("name", ["astro", "next", "vue"])
def test_starters_are_short(name: str) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."]
    folder = PROJECT_DIR / "clients" / "starters" / name
    listed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    files = {*listed.stdout.split()} - {"package-lock.json"}
    assert sum(len((folder / file).read_text().splitlines()) for file in files) <= 150


def test_generated_clients_are_current() -> None:
    command = [sys.executable, str(PROJECT_DIR / "scripts" / "clients.py"), "check"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


# --- make env


def make_env(checkout: Path) -> str:
    """Run the script in a separate checkout, and return the contents of `.env`."""
    (checkout / "scripts").mkdir(parents=True, exist_ok=True)
    shutil.copy(PROJECT_DIR / ".env.example", checkout)
    script = shutil.copy(PROJECT_DIR / "scripts" / "make_env.py", checkout / "scripts")
    subprocess.run([sys.executable, script], check=True, capture_output=True)
    return (checkout / ".env").read_text(encoding="utf-8")


def secrets_in(env: str) -> list[str]:
    names = "SECRET_KEY|DATABASE_PASSWORD|POSTGRES_PASSWORD"
    return re.findall(rf"^(?:{names})=(.*)$", env, flags=re.MULTILINE)


def test_make_env_generates_secrets(tmp_path: Path) -> None:
    envs = [make_env(tmp_path / "one"), make_env(tmp_path / "two")]
    secrets = [secret for env in envs for secret in secrets_in(env)]
    assert len(secrets) == len(set(secrets)) == 6
    for secret in secrets:
        assert re.fullmatch(r"[A-Za-z0-9_-]{43,}", secret)  # 256 bits; safe in an address
    assert not any("=<generated>" in env for env in envs)
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / "one" / ".env").stat().st_mode) == 0o600


def test_make_env_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SECRET_KEY=mine\n", encoding="utf-8")
    assert make_env(tmp_path) == "SECRET_KEY=mine\n"


# --- make check, make validate

MATRIX_WITH_OTHER_ROWS = """
import contextlib, sys
sys.path.insert(0, sys.argv[1])
import matrix

matrix.ROWS = tuple(matrix.Row(f"row {word}", word) for word in sys.argv[2:])

def run(row, output):
    if row.command == "skips":
        raise matrix.SkipRow("not here")
    return {"passes": 0, "fails": 7}[row.command]

matrix.host_runner = lambda: contextlib.nullcontext((run, []))
sys.exit(matrix.main(["host"]))
"""


def run_matrix(*rows: str) -> tuple[int, dict[str, str]]:
    """Run the matrix with other rows; return its exit status, and the result of each row."""
    arguments = [sys.executable, "-c", MATRIX_WITH_OTHER_ROWS, str(PROJECT_DIR / "scripts"), *rows]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=False)
    table = re.findall(r"^row (\w+)  +\w+  +(.+?)  +\d+\.\d$", finished.stdout, flags=re.MULTILINE)
    return finished.returncode, dict(table)


def test_matrix_runs_all_rows_after_a_failure() -> None:
    status, results = run_matrix("fails", "skips", "passes")
    assert status == 1
    assert results == {"fails": "FAILED (7)", "skips": "skipped: not here", "passes": "ok"}


def test_matrix_without_failures_succeeds() -> None:
    assert run_matrix("passes", "skips") == (0, {"passes": "ok", "skips": "skipped: not here"})


MATRIX_WITH_ONE_ROW = """
import sys
sys.path.insert(0, sys.argv[1])
import matrix

matrix.ROWS = (matrix.Row("checked", sys.argv[2]),)
sys.exit(matrix.main(["container"]))
"""
# `docker` runs the commands of `docker compose exec` on the host. A file in $FAULTS is one failure.
FAIL = """#!/bin/sh
fail() { for file in "$FAULTS/$1".*; do rm "$file" 2>/dev/null && return 0; done; return 1; }
"""
PROGRAMS = {
    "docker": """
case " $* " in
*" up "*) ! fail up ;;
*" exec "*)
  fail exec && { echo 'service "backend" is not running' >&2; exit 1; }
  while [ "$1" != backend ]; do shift; done
  shift
  exec "$@" ;;
esac
""",
    "getent": """
fail getent && exit 2
echo '192.0.2.7       STREAM db'
""",
}
ADDRESS_IS_PASSED_ON = "test $DATABASE_URL = postgresql://name:word@192.0.2.7:5432/blog"


def run_matrix_in_containers(
    folder: Path, faults: list[str], command: str = ADDRESS_IS_PASSED_ON
) -> tuple[int, dict[str, str]]:
    """Run one row with other programs for Docker; return the exit status and the results."""
    for name, script in PROGRAMS.items():
        program = folder / name
        program.write_text(FAIL + script)
        program.chmod(0o755)
    for number, step in enumerate(faults):
        (folder / f"{step}.{number}").touch()
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FAULTS": str(folder),
        "DATABASE_URL": "postgresql://name:word@db:5432/blog",
    }
    arguments = [str(PROJECT_DIR / "scripts"), f"sh -c '{command}'"]
    finished = subprocess.run(
        [sys.executable, "-c", MATRIX_WITH_ONE_ROW, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    table = finished.stdout.rpartition("\nrow ")[2].splitlines()
    return finished.returncode, dict(
        re.findall(r"^(\w+)  .*  (\S.*?)  +\d+\.\d$", line)[0] for line in table[2:4]
    )


AGAIN = "(second attempt: it did not start at first)"


@pytest.mark.parametrize(
    ("faults", "status", "result"),
    [
        ([], 0, "ok"),
        (["exec"], 0, f"ok {AGAIN}"),
        (["getent"], 0, f"ok {AGAIN}"),
        (["exec"] * 2, 1, 'DID NOT START, twice: service "backend" is not running'),
        (["getent"] * 2, 1, "DID NOT START, twice: the name `db` does not resolve"),
    ],
)
def test_matrix_starts_a_row_again_once(
    tmp_path: Path, faults: list[str], status: int, result: str
) -> None:
    results = {"Containers": "ok", "checked": result}
    assert run_matrix_in_containers(tmp_path, faults) == (status, results)


def test_matrix_starts_containers_again_once(tmp_path: Path) -> None:
    results = {"Containers": f"ok {AGAIN}", "checked": "ok"}
    assert run_matrix_in_containers(tmp_path, ["up"]) == (0, results)
    assert run_matrix_in_containers(tmp_path, ["up"] * 2) == (1, {})


def test_matrix_does_not_repeat_a_row_that_has_started(tmp_path: Path) -> None:
    command = "fail() { :; }; rm $FAULTS/once || exit 4; echo getent: db; exit 3"
    (tmp_path / "once").touch()
    results = {"Containers": "ok", "checked": "FAILED (3)"}
    assert run_matrix_in_containers(tmp_path, [], command) == (1, results)


# --- the CI workflow


def workflow_jobs() -> dict[str, dict[str, Any]]:
    jobs: dict[str, dict[str, Any]] = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    return jobs


def test_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"^ *(?:- )?uses: (.*)$", read(".github/workflows/ci.yml"), re.MULTILINE)
    steps = [step for job in workflow_jobs().values() for step in job["steps"] if "uses" in step]
    assert len(used) == len(steps) > 0
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_every_job_has_a_time_limit_and_few_permissions() -> None:
    for name, job in workflow_jobs().items():
        assert 0 < job["timeout-minutes"] <= 40, name
        written = {scope for scope, kind in job.get("permissions", {}).items() if kind == "write"}
        assert not written or name == "image"


def test_workflow_calls_existing_targets() -> None:
    steps = [step for job in workflow_jobs().values() for step in job["steps"]]
    called = {word for step in steps for word in re.findall(r"make (\w+)", step.get("run", ""))}
    assert called
    assert called <= set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))


def test_screenshots_are_artifacts() -> None:
    steps = [step for job in workflow_jobs().values() for step in job["steps"]]
    uploads = [step for step in steps if "actions/upload-artifact@" in step.get("uses", "")]
    (upload,) = uploads
    assert PROJECT_DIR / upload["with"]["path"] == SCREENSHOTS
    assert upload["with"]["include-hidden-files"]
    assert upload["if"] == "${{ !cancelled() }}"
