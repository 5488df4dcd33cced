"""Run the workflow as a module of another one.

Of a module, Snakemake runs no `onstart`, `onsuccess` and `onerror`, and it reads the Snakefile again for every `use
rule`. So the first reading plans the run, and the run of the outer workflow calls the hooks of its modules.

If rules of the outer workflow make the photos, it names their outputs as input of `write_manifest`. A run makes them
first. Then it starts Snakemake again, which plans for the photos that exist now.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config import Config, check_config
from ..errors import InputError, NoPhotos
from ..util.files import digest, read_json, write_json
from .prepare import Resources, Run, prepare_run
from .start import mistakes_in_one_line

_PHOTOS_MADE = "CROSSFILTER_INFERENCE_PHOTOS_MADE"  # number of the process that has made the photos and started again


@dataclass
class Module:
    """A module and its planned run.

    Attributes
    ----------
    run : Run
        If there are no photos yet, a run without photos.
    problem : NoPhotos or None
        Why there are no photos.
    modifiers : list
        Snakemake's, one for each `use rule`: they know the names that the outer workflow gives to the rules.
    is_at_work : bool
        Whether this run has jobs of the module.
    outputs : list of str
        Output of the run.
    """

    run: Run
    problem: NoPhotos | None = None
    modifiers: list[Any] = field(default_factory=list)
    is_at_work: bool = False
    outputs: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.outputs = self.run.final_output()


_modules: dict[str, Module] = {}  # by configuration


def plan_module(workflow: Any, settings: Mapping[str, object], resources: Resources) -> Module:
    """Plan the run of a module, when its Snakefile is read for the first time.

    Parameters
    ----------
    workflow : Workflow
        Snakemake's workflow object.
    settings : mapping
        The module's `config`.
    resources : Resources

    Raises
    ------
    InputError
        As `prepare_run`, except for missing photos, which rules of the outer workflow may make; if another module uses
        the same database.
    """
    config = check_config(settings)
    key = config.to_json()
    if not resources.is_main_process:
        run, recorded = prepare_run(config, resources), _outputs_file(config)
        outputs = tuple(read_json(recorded, outputs=list)["outputs"]) if recorded.exists() else ()
        return Module(replace(run, outputs=outputs))
    if key in _modules:
        _modules[key].run = replace(_modules[key].run, notes=(), warnings=())  # they have been printed
    else:
        _check_database(config.output_embeddings_db)
        try:
            _modules[key] = Module(prepare_run(config, resources))
        except NoPhotos as problem:
            empty = prepare_run(config, replace(resources, is_main_process=False))
            _modules[key] = Module(replace(empty, notes=(f"no photos yet: {problem}",)), problem)
    _modules[key].modifiers.append(workflow.modifier)
    return _modules[key]


def _check_database(path: str) -> None:
    if any(os.path.realpath(module.run.database) == os.path.realpath(path) for module in _modules.values()):
        raise InputError(
            f"module: two modules use the database {path!r}, which would be written twice at once; set another "
            "output_embeddings_db in the config of one of them. Nothing was changed"
        )


def _outputs_file(config: Config) -> Path:
    """Name the file that tells jobs of the outer workflow the output of the module, which they may have as input."""
    return Path(".snakemake", "crossfilter-inference", f"outputs-{digest(config.to_json())}.json")


def check_paths(workflow: Any, run: Run) -> None:
    """Refuse keywords of the module that move its files: Snakemake would look for them elsewhere than the jobs.

    Raises
    ------
    InputError
        If the outer workflow gives `prefix`, `replace_prefix`, or a value of `results` in `pathvars`.
    """
    is_moved = any(workflow.modifier.modify_path(path) != path for path in ("<results>", run.state, run.database))
    if is_moved or workflow.pathvars.get("results") != run.state:
        raise InputError(
            "module: prefix, replace_prefix and pathvars cannot move the files of this workflow; remove the keyword, "
            f"and set output_embeddings_db (now {run.database!r}) in the config of the module. Nothing was changed"
        )


Hook = Callable[..., None]


def add_hooks(workflow: Any, module: Module, onstart: Hook, onsuccess: Hook, onerror: Hook) -> None:
    """Call the hooks of a module in the outer workflow's run: before its own `onstart`, and after its own at the end.

    Parameters
    ----------
    workflow : Workflow
        Snakemake's workflow object.
    module : Module
    onstart, onsuccess, onerror : function
        As Snakemake calls them: with the keyword `log`.
    """
    if len(module.modifiers) > 1:  # the first `use rule` has added them
        return
    execute = workflow.execute

    def start(log: object) -> None:
        rules = {rule for modifier in module.modifiers for rule in modifier.rules}
        module.is_at_work = any(job.rule in rules for job in workflow.dag.needrun_jobs())
        if module.is_at_work:
            with mistakes_in_one_line():
                if module.problem:
                    raise module.problem
            onstart(log=log)
            file = _outputs_file(module.run.config)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"outputs": module.outputs})

    def if_at_work(hook: Hook) -> Hook:
        return lambda log: hook(log=log) if module.is_at_work else None

    def execute_with_hooks(**settings: Any) -> None:
        if module.problem or not settings["executor_plugin"].common_settings.dryrun_exec:
            _make_photos(workflow, module, execute, settings)
        workflow._onstart = _both(start, workflow._onstart)
        workflow._onsuccess = _both(workflow._onsuccess, if_at_work(onsuccess))
        workflow._onerror = _both(workflow._onerror, if_at_work(onerror))
        execute(**settings)

    workflow.execute = execute_with_hooks


def _both(first: Hook, second: Hook) -> Hook:
    def call(log: object) -> None:
        first(log)
        second(log)

    return call


def _make_photos(workflow: Any, module: Module, execute: Hook, settings: Mapping[str, Any]) -> None:
    """Run the rules that make the photos, if the outer workflow names their outputs; then start Snakemake again."""
    name, used = "write_manifest", module.modifiers
    rules = [workflow.get_rule(modifier.modify_rulename(name)) for modifier in used if modifier.avail_rulename(name)]
    photos = frozenset(str(file) for rule in rules for file in rule.expand_input({})[0])
    if not photos or os.environ.get(_PHOTOS_MADE) == str(os.getpid()):
        return
    workflow.dag_settings = replace(workflow.dag_settings, targets=photos, target_jobs=frozenset())
    execute(**settings)
    if workflow.dryrun:
        sys.exit()
    workflow.sourcecache.runtime_cache.cleanup()
    workflow.tear_down()  # which returns to the folder of the command
    sys.stdout.flush()
    os.environ[_PHOTOS_MADE] = str(os.getpid())
    os.execv(sys.executable, sys.orig_argv)
