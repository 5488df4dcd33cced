"""Functions as commands: options from signatures, help from docstrings, errors in one line."""

import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from conftest import PROJECT
from hostile_names import NAMES

from crossfilter_inference import __version__
from crossfilter_inference.cli import commands, options
from crossfilter_inference.cli.workflow import snakemake_command
from crossfilter_inference.config import check_config, read_config
from crossfilter_inference.db.state import state_folder
from crossfilter_inference.errors import InputError


@dataclass(frozen=True)
class Where:
    """Where.

    Parameters
    ----------
    house_number : int, optional
        Number of the house.
    """

    house_number: int | None = None


def bake(
    names: list[str] | None = None,
    *rest: str,
    n: Annotated[int, {"min": 1}] = 3,
    oven: Path,
    is_hot: bool = False,
    with_salt: bool = True,
    settings: dict[str, int] | None = None,
    where: Where,
) -> str:
    """Bake some cakes.

    Parameters
    ----------
    names : list of str
        Names of cakes.
    *rest : str
        All else.
    n : int
        Number of cakes.
    oven : Path
        The oven.
    is_hot : bool
        Take a hot one.
    with_salt : bool
        Use salt.
    settings : dict
        As JSON.

    Examples
    --------
        crossfilter-inference bake --oven big
    """
    return "done"


def parsed(*words, functions=(bake,), **more):
    call, _ = options.parse([*functions], [*words], **more)
    return call


def test_a_signature_becomes_options():
    call = parsed(
        "plain", "--oven", "big", "--no-with_salt", "--house_number", "5", "--settings", '{"a": 1}', "--", "-x"
    )
    assert call.func is bake
    assert call.args == (["plain"], "-x")
    assert call.keywords == {
        "n": 3,
        "oven": Path("big"),
        "is_hot": False,
        "with_salt": False,
        "settings": {"a": 1},
        "where": Where(5),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "missing option '--oven'"),
        (("--oven", "x", "--owen", "y"), "no such option: --owen"),
        (("--oven", "x", "--n", "0"), "invalid value for '--n'"),
        (("--oven", "x", "--n", "many"), "invalid value for '--n'"),
        (("--oven", "x", "--settings", "{"), "invalid value for '--settings'"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message):
    with pytest.raises(options.UsageError, match=message) as caught:
        parsed(*words)
    assert "\n" not in str(caught.value)
    assert "; for help: crossfilter-inference" in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_is_finite(value):
    with pytest.raises(options.UsageError, match="least_cosine"):
        parsed("--least_cosine", value, functions=(commands.duplicates,))


@pytest.mark.parametrize("value", ["-3", "nan", "1.5", "many"])
def test_a_sample_is_a_number_of_photos(value):
    with pytest.raises(options.UsageError, match="invalid value for '--sample'"):
        parsed("--sample", value, functions=(commands.verify,))


def test_help_has_the_docstring(capsys):
    assert options.parse([bake], ["--help"]) is None
    output = capsys.readouterr().out
    for text in ("Bake some cakes.", "crossfilter-inference bake --oven big", "Number of the house.", "Use salt."):
        assert text in output


def test_list_options_take_several_values_as_snakemake_does():
    call = parsed("--configfile", "a", "b", "--sample", "3", "--configfile", "c", functions=(commands.verify,))
    assert call.keywords["collection"].configfile == [Path("a"), Path("b"), Path("c")]
    assert call.keywords["sample"] == 3


def test_a_command_refuses_surplus_arguments():
    with pytest.raises(options.UsageError, match="this command takes nothing after --"):
        parsed("--", "x", functions=(commands.export,))


@pytest.mark.parametrize("function", [commands.run, *commands.COMMANDS])
def test_every_command_has_help(function, capsys):
    assert options.parse([*commands.COMMANDS], [function.__name__, "--help"], about="All.") is None
    assert f"crossfilter-inference {function.__name__} " in capsys.readouterr().out


def run(program, *words, **options):
    text = (
        f"import sys; sys.argv = ['x.py', *sys.argv[1:]]; sys.path.insert(0, {str(PROJECT / 'workflow')!r})\n{program}"
    )
    return subprocess.run(
        [sys.executable, "-c", text, *words], capture_output=True, text=True, timeout=60, check=False, **options
    )


@pytest.mark.parametrize(
    ("body", "code", "last"),
    [
        ("return 'all done'", 0, "all done"),
        ("raise InputError('x: wrong')", 1, "error: x: wrong"),
        (
            "raise OSError(28, 'No space left on device', 'y')",
            1,
            "error: 'y': No space left on device; fix this and ",
        ),
        ("open('/')", 1, "error: '/': Is a directory; fix this and run the same command again"),
        ("open('x' * 300)", 1, "error: 'xxxxx"),
        ("raise KeyboardInterrupt", 130, "interrupted; finished work is kept"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", 143, ""),
        ("return 1 / 0", 70, "ZeroDivisionError: division by zero"),
        ("sys.exit(3)", 3, ""),
    ],
)
def test_a_command_ends_with_its_exit_code_and_its_line(body, code, last, tmp_path):
    program = (
        "import os, signal, time\nfrom crossfilter_inference.cli.command import run_job\n"
        "from crossfilter_inference.errors import InputError\n"
        f"def main() -> str:\n    'Do it.'\n    {body}\nrun_job(main)"
    )
    done = run(program, "--log", tmp_path / "logs" / "x.log", "--stamp", tmp_path / "kind-1")
    assert (done.returncode, (tmp_path / "kind-1").exists()) == (code, code == 0), done.stderr
    assert (done.stderr.splitlines() or [""])[-1].startswith(last)
    assert (tmp_path / "logs" / "x.log").read_text() == done.stderr


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_a_signal_after_the_work_is_done_does_not_make_it_a_failure(signal):
    program = (
        "import os, signal\nfrom crossfilter_inference.cli.command import run_job\n"
        "def main() -> str:\n    'Do it.'\n    return 'all done'\nrun_job(main)\n"
        f"os.kill(os.getpid(), signal.{signal})"
    )
    assert run(program).returncode == 0


def test_an_option_of_snakemake_without_the_dashes_is_refused_with_a_hint():
    with pytest.raises(options.UsageError, match=r"no such option: --dry-run; put Snakemake options after --;"):
        options.parse([*commands.COMMANDS], ["run", "photos", "--dry-run"], about="All.")
    with pytest.raises(options.UsageError, match=r"no such option: --dry-run; for help"):
        options.parse([*commands.COMMANDS], ["verify", "--dry-run"], about="All.")


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([], None),
        (["EFFICIENTNET_LITE0"], "EFFICIENTNET_LITE0"),
        (["SIGLIP2"], None),
        (["MINE"], None),
        (["EFFICIENTNET_LITE0", "SIGLIP2"], None),
    ],
)
def test_a_collection_keeps_its_embedding_type(tmp_path, types, expected):
    for name in types:
        (tmp_path / "x" / name).mkdir(parents=True)
        (tmp_path / "x" / name / "config.json").write_text("{}")
    if types:
        (tmp_path / "x" / ".lock").touch()
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / f"{uuid.UUID(int=1)}.jpg").touch()
    given = {"input_dir": str(photos), "output_embeddings_db": str(tmp_path / "x.sqlite")}
    assert chosen([], given)["embedding_type"] == (expected or "SIGLIP2")
    assert chosen([], {**given, "embedding_type": "SIGLIP2"})["embedding_type"] == "SIGLIP2"


def chosen(files, changes, options=()):
    """Return the settings that `run` gives to Snakemake."""
    command = snakemake_command(files, changes, options, defaults=commands._choose)
    return yaml.safe_load("\n".join(entry.replace("=", ": ", 1) for entry in command[command.index("--config") + 1 :]))


WAYS = {
    "options": lambda folder, given: ([], given, []),
    "a file": lambda folder, given: ([written(folder, given)], {}, []),
    "folder as an option": lambda folder, given: (
        [written(folder, {"output_embeddings_db": given["output_embeddings_db"]})],
        {"input_dir": given["input_dir"]},
        [],
    ),
    "database as an option": lambda folder, given: (
        [written(folder, {"input_dir": given["input_dir"]})],
        {"output_embeddings_db": given["output_embeddings_db"]},
        [],
    ),
    "Snakemake's --configfile": lambda folder, given: ([], {}, ["--configfile", written(folder, given)]),
    "Snakemake's --config": lambda folder, given: ([], {}, ["--config", *(f"{key}={given[key]}" for key in given)]),
}


def written(folder, settings):
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "mine.yaml")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("last", [None, "any", "uuid"])
def test_names_are_chosen_wherever_folder_and_database_are_given(tmp_path, way, last):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "IMG_0001.JPG").touch()
    if last:
        (tmp_path / "x" / "SIGLIP2").mkdir(parents=True)
        (tmp_path / "x" / ".lock").touch()
        (tmp_path / "x" / "SIGLIP2" / "config.json").write_text(json.dumps({"names": last}))
    given = {"input_dir": str(tmp_path / "photos"), "output_embeddings_db": str(tmp_path / "x.sqlite")}
    assert chosen(*WAYS[way](tmp_path, given))["names"] == (last or "any")
    if "as an option" not in way:
        assert chosen(*WAYS[way](tmp_path, {**given, "names": "uuid"}))["names"] == "uuid"


def test_the_version_is_shown(capsys):
    assert options.parse([*commands.COMMANDS], ["--version"], about="All.") is None
    assert capsys.readouterr().out == f"crossfilter-inference {__version__}\n"


@pytest.mark.parametrize("words", [["verify", "--help"], ["--help"], ["export", "--parquet"]])
def test_commands_work_without_docstrings(words):
    program = "from crossfilter_inference.cli.commands import main\nmain()"
    done = run(program, *words, env={**os.environ, "PYTHONOPTIMIZE": "2"})
    assert "Traceback" not in done.stderr
    if "--help" in words:
        assert "verify" in done.stdout
        assert "--help" in done.stdout
    else:
        assert done.stderr.startswith("error: option '--parquet' requires an argument; for help: ")


def test_the_command_starts_without_heavy_imports():
    program = (
        "from crossfilter_inference.cli.commands import main\nmain()\n"
        "print({'numpy', 'sqlalchemy', 'torch', 'pydantic', 'yaml', 'snakemake', 'rich'} & set(sys.modules))"
    )
    assert run(program).stdout.splitlines()[-1] == "set()"


def config_of(command):
    return dict(entry.split("=", 1) for entry in command[command.index("--config") + 1 :])


def test_the_workflow_reads_the_same_configuration(tmp_path, monkeypatch):
    from snakemake.cli import parse_config

    monkeypatch.chdir(tmp_path)
    folders = ["föld er", *(name for name in NAMES if not {*"\n\r"} & {*name})]
    database = os.fsdecode("😀 \u2028\x7f'q'café.sqlite'".encode())
    for folder in folders:
        (tmp_path / folder).mkdir()
    (tmp_path / "mine.yaml").write_text("umap: {n_neighbors: 7, radius: 2}\nencoders: {OWN: {backend: own.py}}\n")
    given = snakemake_command(
        ["mine.yaml"],
        {
            "input_dir": folders,
            "output_embeddings_db": database,
            "embedding_type": "OWN",
            "batch_size": None,
        },
        [
            "-n",
            "--config",
            "umap={min_dist: 0.5}",
            "labels=",
            "-C",
            "retry_failures=true",
            "--set-threads",
            "embed_shard=1",
        ],
    )
    config = check_config(parse_config(given[given.index("--config") + 1 :]))
    assert config.input_dir == tuple(str(tmp_path / folder) for folder in folders)
    (tmp_path / "config.json").write_text(config.to_json())
    assert read_config([tmp_path / "config.json"], {}) == config
    assert config.output_embeddings_db == str(tmp_path / database)
    assert config.encoder.backend == str(tmp_path / "own.py")
    assert (config.umap.n_neighbors, config.umap.radius, config.umap.min_dist) == (7, 2, 0.5)
    assert (config.retry_failures, config.batch_size, config.labels) == (True, "auto", "")
    assert given[given.index("--config") - 3 : given.index("--config")] == ["-n", "--set-threads", "embed_shard=1"]
    assert "rules" not in given, "a dry run shows its jobs"
    assert given[given.index("--directory") + 1] == state_folder(str(tmp_path / database))


def test_config_must_have_keys_and_values():
    with pytest.raises(InputError, match="--config: 'x' is not KEY=VALUE"):
        snakemake_command([], {"input_dir": "a", "output_embeddings_db": "b"}, ["--config", "x"])


def test_an_export_without_pyarrow_names_the_package_to_install(monkeypatch):
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"run pip install 'crossfilter-inference\[parquet\]'"):
        commands.export(parquet=Path("x.parquet"), collection=commands.CollectionOptions())


def test_a_run_is_refused_before_snakemake_starts(monkeypatch):
    monkeypatch.setattr(os, "execv", pytest.fail)
    with pytest.raises(InputError, match="embedding_type: 'SIGLIP3' is not configured; did you mean SIGLIP2"):
        commands.run(["photos"], output_embeddings_db=Path("x.sqlite"), embedding_type="SIGLIP3")
