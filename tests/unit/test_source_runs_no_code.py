"""No code of a file that we only read is run: the calls that could do it, found in the source."""

import ast
import re

import pytest
import yaml
from conftest import PROJECT

from crossfilter_inference.cli.workflow import UniqueBaseLoader
from crossfilter_inference.config import UniqueSafeLoader

LIBRARY = PROJECT / "workflow" / "crossfilter_inference"
SOURCES = sorted([*LIBRARY.rglob("*.py"), *(PROJECT / "scripts").glob("*.py")])
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# The only places that may do it, and what makes each safe.
ALLOWED = {
    ("map/pickled.py", "import pickle"),  # it only writes
    ("map/model.py", "import pickle"),  # load_umap_model, after the digest, and only the parts of a model
    ("encoders/registry.py", "exec"),  # the backend that the configuration names
    ("encoders/registry.py", "import_module"),  # a built-in backend
    ("__init__.py", "import_module"),  # names of this package
}


def calls_that_run_code(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {f"import {alias.name}" for alias in names if alias.name.split(".")[0] in UNPICKLERS}
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLERS:
                found.add(f"import {module}")
            case ast.Call(func=ast.Name(id="eval" | "exec" | "__import__" as name)):
                found.add(name)
            case ast.Call(func=ast.Attribute(attr="import_module" | "run_path" | "run_module" as name)):
                found.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=keywords):
                if not any(key.arg == "weights_only" and ast.unparse(key.value) == "True" for key in keywords):
                    found.add("torch.load")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr="load" | "unsafe_load" | "full_load")):
                if not re.search(r"\b(Unique)?(Base|Safe)Loader\)$", ast.unparse(node)):
                    found.add("yaml.load")
            case ast.keyword(arg="allow_pickle" | "trust_remote_code" as name, value=value):
                if ast.unparse(value) != "False":
                    found.add(name)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_module_runs_no_code_of_a_file_that_it_reads(path):
    name = str(path.relative_to(LIBRARY)) if path.is_relative_to(LIBRARY) else path.name
    allowed = {call for file, call in ALLOWED if file == name}
    assert calls_that_run_code(path.read_text()) <= allowed


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from joblib import load", "eval('1')", "exec(code)", "importlib.import_module(name)"),
        *("torch.load(path)", "torch.load(path, weights_only=False)", "yaml.load(text, yaml.Loader)"),
        *("yaml.load(text, yaml.UnsafeLoader)", "yaml.load(text)"),
        *("numpy.load(path, allow_pickle=True)", "AutoModel.from_pretrained(x, trust_remote_code=True)"),
    ],
)
def test_such_a_call_is_found(source):
    assert calls_that_run_code(source)


def test_the_loaders_of_yaml_of_this_package_make_plain_values_only():
    assert issubclass(UniqueSafeLoader, yaml.SafeLoader)
    assert issubclass(UniqueBaseLoader, yaml.BaseLoader)
    assert UniqueSafeLoader.yaml_constructors == yaml.SafeLoader.yaml_constructors
