"""Render the manifests in deploy/kubernetes, and validate them against schemas.

    manifests.py generate                          write observe/rules.yaml from observe/rules
    manifests.py check [--crds FOLDER] [SITE ...]  render sites, and validate them

It requires the packages of .venv, and `check` requires kustomize or kubectl. Objects of Kubernetes
are validated against the schemas of VERSIONS. No package has those of custom resources:
custom_resources.py lists the fields that the manifests use. With --crds, they are also validated
against the definitions in a folder, for example those of a cluster: `kubectl get crd -o yaml`.
Rules in CEL are not evaluated.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from custom_resources import SCHEMAS

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ROOT / "deploy" / "kubernetes"
SITES = (MANIFESTS / "example", MANIFESTS / "restore")
RULES = MANIFESTS / "observe" / "rules.yaml"
VERSIONS = ("1.34", "1.37")
"""The oldest and the newest version of Kubernetes whose schemas are used."""

RULES_HEAD = """\
# Written by `scripts/manifests.py generate` from observe/rules.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pressroom
spec:
  groups:
"""
SCOPES = {"expr: up == 0": 'expr: up{job=~"backend|nginx|database"} == 0'}
"""Replacements, because this Prometheus also has targets of others."""

Manifest = dict[str, Any]


class ManifestError(Exception):
    """A site cannot be rendered, or is invalid. The message contains the reason."""


def renderer() -> Sequence[str] | None:
    """Return the command that renders a folder, or None if no program is installed."""
    if shutil.which("kustomize"):
        return ("kustomize", "build")
    return ("kubectl", "kustomize") if shutil.which("kubectl") else None


def render(site: Path) -> list[Manifest]:
    """Return the rendered objects of a site. Raises ManifestError."""
    command = renderer()
    if command is None:
        raise ManifestError("install kustomize or kubectl")
    rendered = subprocess.run([*command, site], capture_output=True, text=True, check=False)
    if rendered.returncode:
        raise ManifestError(f"{site}: {rendered.stderr.strip()}")
    return [each for each in yaml.safe_load_all(rendered.stdout) if each]


def rules() -> str:
    """Return the text of RULES: the groups of all files, indented."""
    lines = [RULES_HEAD]
    for path in sorted((ROOT / "observe" / "rules").glob("*.yml")):
        _, _, groups = path.read_text(encoding="utf-8").partition("groups:\n")
        lines += [f"  {line}" if line.strip() else line for line in groups.splitlines(True)]
    text = "".join(lines)
    for old, new in SCOPES.items():
        if old not in text:
            raise ManifestError(f"no rule has {old!r}")
        text = text.replace(old, new)
    return text


def definitions(folder: Path) -> Mapping[tuple[str, str], Any]:
    """Return the schemas in a folder by apiVersion and kind; unknown fields are errors."""
    found = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            for each in (document or {}).get("items", [document or {}]):
                if each.get("kind") == "CustomResourceDefinition":
                    group, kind = each["spec"]["group"], each["spec"]["names"]["kind"]
                    for version in each["spec"]["versions"]:
                        schema = _closed(version["schema"]["openAPIV3Schema"])
                        # The API server validates it.
                        schema["properties"]["metadata"] = {"type": "object"}
                        found[f"{group}/{version['name']}", kind] = schema
    return found


def _closed(schema: Any) -> Any:
    """Return the schema without unknown fields, where the API server would drop them."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {
        name: {key: _closed(value) for key, value in part.items()}
        if name == "properties"
        else _closed(part)
        for name, part in schema.items()
    }
    if "properties" in closed and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def problems(manifests: Iterable[Manifest], crds: Mapping[tuple[str, str], Any]) -> Iterator[str]:
    """Yield what is wrong with the objects, according to the schemas."""
    for each in manifests:
        name = f"{each['kind']} {each['metadata']['name']}"
        key = (each["apiVersion"], each["kind"])
        if key in SCHEMAS:
            schemas = [SCHEMAS[key], *([crds[key]] if key in crds else [])]
            if crds and key not in crds:
                yield f"{name}: the folder has no definition of it"
            for schema in schemas:
                for error in Draft202012Validator(schema).iter_errors(each):
                    yield f"{name}: {error.json_path}: {error.message}"
            continue
        for version in VERSIONS:
            if problem := _problem(each, version):
                yield f"{name}: {problem}"


def _problem(manifest: Manifest, version: str) -> str | None:
    """Return what is wrong with an object of Kubernetes."""
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"Kubernetes {version}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"neither Kubernetes {version} nor custom_resources.py has this kind"
    return None


def check(sites: Sequence[Path], folder: Path | None) -> int:
    """Print what is wrong with the sites. Return the exit status."""
    crds = definitions(folder) if folder else {}
    failed = False
    if not RULES.exists() or RULES.read_text(encoding="utf-8") != rules():
        print(f"{RULES} is not current: run `scripts/manifests.py generate`")
        failed = True
    for site in sites:
        manifests = render(site)
        found = list(problems(manifests, crds))
        failed = failed or bool(found)
        print(*found, sep="\n", end="\n" if found else "")
        print(f"{site.name}: {len(manifests)} objects, {len(found)} problems")
    return int(failed)


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("generate")
    checking = commands.add_parser("check")
    checking.add_argument("--crds", type=Path, metavar="FOLDER")
    checking.add_argument("sites", nargs="*", type=Path, metavar="SITE", default=SITES)
    options = parser.parse_args(arguments)
    try:
        if options.command == "generate":
            RULES.write_text(rules(), encoding="utf-8")
            return 0
        return check(options.sites, options.crds)
    except ManifestError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
