"""A collection may come from a stranger: nothing that reads it runs what its files hold."""

import hashlib
import pickle
import sqlite3

import pytest
from conftest import COLOUR_ENCODER

from crossfilter_inference.util.files import read_json


class Harmful:
    """Write a file when it is unpickled."""

    def __init__(self, harm):
        self.harm = str(harm)

    def __reduce__(self):
        return (open, (self.harm, "w"))


def trap(collection, harm):
    """Put pickles that do harm wherever a collection holds numbers or a model, with the digests that belong to them."""
    blob = pickle.dumps(Harmful(harm))
    (collection.state / "umap_model.pkl").write_bytes(blob)
    digest = hashlib.sha256(blob + (collection.state / "map.tsv").read_bytes()).hexdigest()
    connection = sqlite3.connect(collection.database)
    with connection:
        connection.execute(f"UPDATE {collection.type}_UMAP_MODEL SET MODEL = ?", (blob,))
        for key, value in (("map_digest", digest), ("map_model_digest", hashlib.sha256(blob).hexdigest())):
            connection.execute(f"UPDATE {collection.type}_PROVENANCE SET VALUE = ? WHERE KEY = ?", (value, key))
    connection.close()


@pytest.mark.slow
def test_a_whole_run_and_every_command_open_no_model(make_collection, tmp_path):
    collection, harm = make_collection(20, reproject_umap_embeddings=True), tmp_path / "harm"
    collection.run()
    trap(collection, harm)
    [uuid, *_] = collection.embeddings()
    for name, *options in (
        ("search.py", "--uuid", uuid),
        ("export.py", "--npy", "x.npy"),
        ("verify.py", "--sample", "2"),
    ):
        done = collection.script(name, *options)
        assert done.returncode == 0, done.stdout + done.stderr
    collection.add_photos(2)
    assert collection.run()["fit_umap"] == 1
    assert read_json(collection.state / "map_quality.json")["action"] == "align"
    assert not harm.exists()


@pytest.mark.slow
def test_a_backend_that_the_state_names_is_not_run(make_collection, tmp_path):
    evil, harm = tmp_path / "evil.py", tmp_path / "harm"
    evil.write_text(f"open({str(harm)!r}, 'w')\n{COLOUR_ENCODER.read_text()}")
    own = {"COLOUR": {"backend": str(COLOUR_ENCODER), "model": "a"}}
    collection = make_collection(3, encoders={"COLOUR": {**own["COLOUR"], "backend": str(evil)}})
    collection.run()  # as its stranger did
    harm.unlink()
    collection.configure(encoders=own)
    image = next(collection.folder.glob("photos/*.jpg"))
    done = collection.script("search.py", "--image", str(image))
    assert done.returncode == 1
    assert "the configuration does not, so it is not run" in done.stderr.splitlines()[-1]
    assert "the configuration does not, so it is not run" in collection.script("verify.py", "--sample", "2").stdout
    collection.add_photos(1)
    collection.run()
    assert not harm.exists()
