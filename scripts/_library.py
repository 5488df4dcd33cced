"""Find the library that belongs to these scripts: import this module before `crossfilter_inference`.

In a clone, its own code takes precedence over an installed package. In an installation, the scripts are inside the
package. A job's conda environment lacks the package, or has only an empty folder of its name. It must not see the other
packages next to the library, so this module loads the library by its path.
"""

import importlib.util
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

if (PROJECT / "workflow" / "crossfilter_inference").is_dir():
    sys.path.insert(0, str(PROJECT / "workflow"))
elif (_found := importlib.util.find_spec("crossfilter_inference")) is None or _found.origin is None:
    _spec = importlib.util.spec_from_file_location("crossfilter_inference", PROJECT.parent / "__init__.py")
    assert _spec and _spec.loader
    _library = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_library)
