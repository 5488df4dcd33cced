import pytest
import yaml
from conftest import PROJECT

from crossfilter_inference.cli.workflow import snakemake_command
from crossfilter_inference.config import Config, PageSettings, UmapSettings, check_config, read_config, read_config_file
from crossfilter_inference.errors import InputError

LEAST = {"input_dir": "photos", "output_embeddings_db": "photos.sqlite"}


def check(**config):
    return check_config({**LEAST, **config})


def test_defaults_are_the_originals():
    config = check()
    assert config.embedding_type == "SIGLIP2"
    assert config.batch_size == "auto"
    assert config.recompute_existing_embeddings is False
    assert config.reproject_umap_embeddings is True
    assert config.umap.model_dump() == {
        "n_neighbors": 15,
        "min_dist": "auto",
        "radius": "auto",
        "repulsion": "auto",
        "update": "align",
        "refit_share": 0.2,
        "compare_with_plane": False,
        "random_state": 42,
    }
    assert config.encoders["SIGLIP2"].model == "google/siglip2-base-patch16-224"


def test_the_shipped_configuration_names_every_option_with_a_comment_and_its_default():
    text = (PROJECT / "config.yaml").read_text()
    shipped = yaml.safe_load(text)
    assert shipped.keys() == Config.model_fields.keys()
    assert shipped["umap"].keys() == UmapSettings.model_fields.keys()
    defaults = check()
    for key in shipped.keys() - {"input_dir", "output_embeddings_db", "embedding_type", "encoders"}:
        assert getattr(check(**{key: shipped[key]}), key) == getattr(defaults, key), key
    lines = text.splitlines()
    assert shipped["page"].keys() == PageSettings.model_fields.keys()
    for key in [*shipped, *shipped["umap"], *shipped["page"]]:
        [index] = [n for n, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
        assert lines[index - 1].strip().startswith("#") or key in ("umap", "page"), key


def test_encoders_of_the_user_are_added_to_the_shipped_ones():
    config = check(encoders={"MINE": {"backend": "siglip", "model": "folder"}})
    assert config.encoders.keys() == {"MINE", "SIGLIP2", "EFFICIENTNET_LITE0"}
    assert config.encoders["MINE"].model_dump() == {
        "backend": "siglip",
        "model": "folder",
        "revision": "main",
        "dtype": "auto",
        "runtime": "torch",
    }


def test_an_empty_section_means_its_defaults():
    assert check(umap=None, encoders=None) == check()


def test_values_may_be_text_as_on_the_command_line():
    config = check(recompute_existing_embeddings="true", umap={"n_neighbors": "7", "min_dist": "0.5"})
    assert config.recompute_existing_embeddings is True
    assert config.umap == UmapSettings(n_neighbors=7, min_dist=0.5)


def test_the_file_of_labels_must_exist(tmp_path):
    with pytest.raises(InputError, match=r"labels: 'missing\.csv' does not exist; name a CSV file"):
        check(labels="missing.csv")
    (tmp_path / "labels.csv").touch()
    assert check(labels=str(tmp_path / "labels.csv")).labels == str(tmp_path / "labels.csv")


def test_home_is_expanded_in_paths():
    config = check(
        input_dir="~/a", output_embeddings_db="~/b", encoders={"MINE": {"backend": "~/c.py", "model": "~/d"}}
    )
    paths = [
        config.output_embeddings_db,
        *config.input_dir,
        config.encoders["MINE"].model,
        config.encoders["MINE"].backend,
    ]
    assert not any("~" in path for path in paths)


def test_one_folder_and_several_are_a_list():
    assert check().input_dir == ("photos",)
    assert check(input_dir=["a", "b"]).input_dir == ("a", "b")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bach_size": 3}, "bach_size: unknown key (value 3); did you mean batch_size?"),
        ({"umap": {"mindist": 0.5}}, "umap.mindist: unknown key (value 0.5); did you mean min_dist?"),
        ({"zzz": None}, "zzz: unknown key (value null); the keys are "),
        ({"batch_size": 0}, "batch_size: 0 is out of bounds; it must be from 1 to 4096"),
        ({"batch_size": "ten"}, 'batch_size: "ten" is not a whole number or auto'),
        ({"batch_size": 1.5}, "batch_size: 1.5 is not a whole number or auto"),
        ({"umap": {"n_neighbors": 1}}, "umap.n_neighbors: 1 is out of bounds; it must be from 2 to 1000"),
        ({"umap": {"min_dist": -0.1}}, "umap.min_dist: -0.1 is out of bounds; it must be from 0 to 1"),
        ({"umap": 3}, "umap: 3 is not a section of keys"),
        ({"missing_images": "kep"}, 'missing_images: "kep" is not allowed; choose keep or delete; did you mean keep?'),
        ({"input_dir": 3}, "input_dir: 3 is not a string or a list"),
        ({"input_dir": []}, "input_dir: [] is empty"),
        ({"input_dir": ""}, 'input_dir: "" is empty'),
        (
            {"image_extensions": ["jpg"]},
            'image_extensions: "jpg" is not allowed; it must be a dot and an extension',
        ),
        *(
            (
                {"image_extensions": [".jpg", extension]},
                f'image_extensions: "{extension}" is not allowed; it must be a ',
            )
            for extension in (
                "jpg ",
                " .JPG",
                ".jpg ",
                ". jpg",
                ".j pg",
                ".jpg\N{NO-BREAK SPACE}",
                ".",
                "..jpg",
                ".tar.gz",
            )
        ),
        ({"recompute_existing_embeddings": "perhaps"}, '"perhaps" is not true or false'),
        ({"output_embeddings_db": "a{b}"}, 'output_embeddings_db: "a{b}" is not allowed; it must be a path without'),
        (
            {"embedding_type": "siglip"},
            "embedding_type: 'siglip' is not configured; did you mean SIGLIP2?; choose one of ",
        ),
        ({"embedding_type": "siglip"}, "EFFICIENTNET_LITE0, SIGLIP2, or add it under encoders:"),
        ({"batch_size": 0, "shard_size": 0}, "batch_size: 0 is out of bounds; it must be from 1 to 4096: Photos per "),
        ({"batch_size": 0, "shard_size": 0}, " (1 of 2 mistakes)"),
        ({"umap": {"n_neighbors": "1"}}, "umap.n_neighbors: 1 is out of bounds; it must be from 2 to 1000"),
        ({"encoders": {"mine": {"backend": "siglip"}}}, 'encoders.mine: "mine" is not allowed; it must be capital let'),
        (
            {"encoders": {"MINE": {"model": "x"}}},
            "encoders.MINE.backend: missing; give it a value (Built-in back",
        ),
        (
            {"encoders": {"MINE": {"backend": "clap"}}},
            'encoders.MINE.backend: "clap" is not allowed; it must be ',
        ),
        (
            {"encoders": {"MINE": {"backend": "clip"}}},
            "encoders.MINE: model: missing; the backend clip needs a checkpoint: its name on the Hugging Face Hub, or ",
        ),
        (
            {"encoders": {"MINE": {"backend": "dino", "model": None, "pooling": "mean"}}},
            "encoders.MINE: model: missing; the backend dino needs a checkpoint",
        ),
        (
            {"encoders": {"MINE": {"backend": "transformers", "model": "x", "pooling": "mena"}}},
            'encoders.MINE.pooling: "mena" is not allowed; choose cls or mean or pooler; did you mean mean?',
        ),
        (
            {"encoders": {"MINE": {"backend": "siglip", "modle": "x"}}},
            'encoders.MINE.modle: unknown key (value "x"); di',
        ),
        ({"umap": {"n_neighbors": 2.0}}, "umap.n_neighbors: 2.0 is not a whole number"),
        ({"umap": {"n_neighbors": True}}, "umap.n_neighbors: true is not a whole number"),
        ({"umap": {"min_dist": float("nan")}}, "umap.min_dist: NaN is not a number or auto"),
        ({"max_megapixels": float("inf")}, "max_megapixels: Infinity is not a number"),
        ({"umap": {"radius": "nan"}}, 'umap.radius: "nan" is not a number or auto'),
        ({"output_embeddings_db": "a\nb"}, "output_embeddings_db: "),
        ({"embedding_type": ""}, 'embedding_type: "" is empty'),
        ({"encoders": {"MINE": {"backend": "siglip", "revision": "a\r"}}}, "encoders.MINE.revision: "),
        ({"image_extensions": "jpg"}, 'image_extensions: "jpg" is not auto or a list'),
        ({"missing_images": ["keep"]}, 'missing_images: ["keep"] is not allowed; choose keep or delete'),
        ({"encoders": 3}, "encoders: 3 is not a section of keys"),
        ({"encoders": {"MINE": 3}}, "encoders.MINE: 3 is not a section of keys"),
        ({"labels": 3}, "labels: 3 is not a string"),
    ],
)
def test_a_mistake_is_named_with_its_value_and_what_is_allowed(config, message):
    with pytest.raises(InputError) as raised:
        check(**config)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", LEAST)
def test_a_missing_key_is_named(key):
    with pytest.raises(InputError, match=f"{key}: missing; give it a value"):
        check_config({k: v for k, v in LEAST.items() if k != key})


def test_later_files_change_keys_of_earlier_ones(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "input_dir: a\noutput_embeddings_db: a.sqlite\numap: {n_neighbors: 7, min_dist: 0.3}"
    )
    (tmp_path / "b.yaml").write_text("input_dir: [b]\numap: {n_neighbors: 8}")
    files = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    config = read_config(files, {"embedding_type": "EFFICIENTNET_LITE0", "device": None})
    assert (config.input_dir, config.output_embeddings_db, config.device) == (("b",), "a.sqlite", "auto")
    assert (config.umap.n_neighbors, config.umap.min_dist) == (8, 0.3)
    assert config.embedding_type == "EFFICIENTNET_LITE0"


@pytest.mark.parametrize("text", [None, "a: [", "[]", "\xff"])
def test_a_file_of_settings_that_cannot_be_read_is_one_line(tmp_path, text):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"^--configfile: '.*mine\.yaml' .*$"):
        read_config([str(path)], {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size: 3\numap: {}\nbatch_size: 4\n", r"sets 'batch_size' twice \(lines 1 and 3\)"),
        ("umap:\n  min_dist: 1\n  radius: 2\n  min_dist: 1\n", r"sets 'min_dist' twice \(lines 2 and 4\)"),
        ("encoders:\n  A: {backend: siglip}\n  A: {backend: siglip}\n", r"sets 'A' twice \(lines 2 and 3\)"),
        ("encoders:\n  A: {backend: siglip, 'backend': x}\n", r"sets 'backend' twice \(lines 2 and 2\)"),
        ('{"umap": {"radius": 1,\n "radius": 2}}', r"sets 'radius' twice \(lines 1 and 2\)"),
        ('{"input_dir": "a",\n\n "input_dir": "a"}', r"sets 'input_dir' twice \(lines 1 and 3\)"),
    ],
)
def test_a_key_that_is_set_twice_is_refused_with_its_lines(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^--configfile: '{path}' {message}; remove one of them. Nothing was changed"):
        read_config_file(path)
    with pytest.raises(InputError, match="twice"):
        snakemake_command([path], LEAST)


def test_a_key_that_is_set_twice_on_the_command_line_is_refused():
    with pytest.raises(InputError, match=r"^--config: 'umap=\{radius: 1, radius: 2\}' sets 'radius' twice"):
        snakemake_command([], LEAST, ["--config", "umap={radius: 1, radius: 2}"])


def test_merged_and_nested_keys_are_not_set_twice(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("umap: {radius: 1}\nencoders:\n  A: &a {backend: x, model: y}\n  B:\n    <<: *a\n    model: z\n")
    encoders = {"A": {"backend": "x", "model": "y"}, "B": {"backend": "x", "model": "z"}}
    assert read_config_file(path) == {"umap": {"radius": 1}, "encoders": encoders}
