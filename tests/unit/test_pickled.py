"""The pickle that is written without umap-learn, as umap-learn sees it."""

import inspect
import subprocess
import sys

import umap
from conftest import PROJECT

from crossfilter_inference.map import pickled


def test_the_parameters_are_those_of_umap_learn_with_its_defaults():
    parameters = dict(inspect.signature(umap.UMAP).parameters)
    assert {name: parameter.default for name, parameter in parameters.items()} == pickled._DEFAULTS


def test_a_map_is_made_without_the_packages_that_take_long_to_import():
    program = (
        "import sys\n"
        "import crossfilter_inference.map.job\n"
        "print(*{'umap', 'pynndescent', 'sklearn', 'scipy.optimize', 'pandas', 'torch'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(PROJECT / "workflow")}, check=True
    )
    assert done.stdout.split() == []
