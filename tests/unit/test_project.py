"""The project's files agree with each other."""

import re
import tomllib

import pytest
import yaml
from conftest import PROJECT

LOCK = dict(
    line.split("==") for line in (PROJECT / "requirements.lock").read_text().splitlines() if not line.startswith("#")
)
LOCK = {name.lower().replace("_", "-"): version for name, version in LOCK.items()}
CONDA_NAMES = {"pytorch": "torch", "msgpack-python": "msgpack", "matplotlib-base": "matplotlib"}


def test_torch_is_pinned_and_torchvision_absent():
    assert LOCK["torch"] == "2.13.0"
    assert "torchvision" not in LOCK


def test_the_lock_holds_every_dependency():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    for dependency in project["project"]["dependencies"] + project["dependency-groups"]["dev"]:
        assert re.match(r"[a-z0-9-]+", dependency)[0] in LOCK, dependency


@pytest.mark.parametrize("path", sorted(PROJECT.glob("envs/*.yaml")), ids=lambda path: path.stem)
def test_conda_environments_have_the_versions_of_the_lock(path):
    environment = yaml.safe_load(path.read_text())
    for entry in environment["dependencies"]:
        for package in entry["pip"] if isinstance(entry, dict) else [entry]:
            name, _, version = package.partition("=")
            name = CONDA_NAMES.get(name.strip(), name.strip())
            if name in ("python >", "pip"):
                continue
            assert version.lstrip("=") == LOCK[name], (
                f"{path.name}: set {name} to {LOCK[name]}, as in requirements.lock"
            )


def test_every_rule_has_the_script_of_its_name_and_an_environment():
    rules = {}
    for path in PROJECT.glob("workflow/rules/*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            rules[rule.split(":")[0]] = rule
    assert len(rules) == 9
    for name, rule in rules.items():
        assert (PROJECT / "scripts" / f"{name}.py").is_file()
        assert f"/{name}.py" in rule
        [environment] = re.findall(r'"../../(envs/\w+\.yaml)"', rule)
        assert (PROJECT / environment).is_file()


def test_versions_agree():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"]
    assert f"## {project['version']} - {citation['date-released']}" in (PROJECT / "CHANGELOG.md").read_text()


DOCUMENTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(PROJECT.glob("docs/*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)(.*?)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in anchors, target
