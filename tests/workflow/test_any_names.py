"""Photos with any names: each is given a UUID, and keeps it, its row and its place whatever happens to its file."""

import os
import shutil

import pytest
from conftest import DEMO_PHOTOS, Collection, jobs

NAMES = [
    "IMG_0001.JPG",
    "Urlaub 2021/Strand/IMG_0001.JPG",
    "Urlaub 2021/cafe\u0301.jpeg",
    "Urlaub 2021/\u00fcber uns.jpg",
    "Taufe/DSC 1.jpg",
    "Taufe/DSC 2.jpg",
    "a.b.c.jpg",
]
UUID_NAME = DEMO_PHOTOS[10]


@pytest.fixture
def library(make_collection):
    """A folder of photos with ordinary names, and one whose name is a UUID, after the first run."""
    collection = make_collection(0, names="any", shard_size=3)
    for name, photo in zip(NAMES, DEMO_PHOTOS, strict=False):
        path = collection.folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(photo, path)
    shutil.copy2(UUID_NAME, collection.folder / "photos")
    assert collection.run()["embed_shard"] == 3
    return collection


def uuids(collection: Collection) -> dict[str, str]:
    """Return the UUID of each photo by its path within the folder; the file is there."""
    rows = collection.sql("SELECT PATH, UUID FROM {T}_IMAGES JOIN {T}_EMBEDDINGS USING (UUID)")
    root = str(collection.folder / "photos") + os.sep
    assert all(os.path.exists(path) for path, _ in rows)
    return {path.removeprefix(root): uuid for path, uuid in rows}


def run_again(collection: Collection, n_embedded: int = 0) -> dict[str, str]:
    done = collection.snakemake()
    assert done.returncode == 0, done.stdout[-4000:]
    if jobs(done.stdout):
        assert f"embedded: {n_embedded} photo" in done.stdout, done.stdout
    assert collection.dry_run() == {}
    return uuids(collection)


def test_each_photo_is_given_a_uuid_and_photos_named_by_one_keep_theirs(library):
    found = uuids(library)
    assert found.keys() == {*NAMES, UUID_NAME.name}
    assert found[UUID_NAME.name] == UUID_NAME.stem
    assert len({*found.values()}) == len(NAMES) + 1
    assert library.dry_run() == {}


def moved(photos, old, new):
    (photos / new).parent.mkdir(parents=True, exist_ok=True)
    os.rename(photos / old, photos / new)


CHANGES = {
    "a folder is renamed": (
        [("Urlaub 2021", "Ferien")],
        {name: name.replace("Urlaub 2021", "Ferien") for name in NAMES},
    ),
    "a folder is moved": (
        [("Taufe", "Familie/Feste/Taufe")],
        {f"Taufe/DSC {n}.jpg": f"Familie/Feste/Taufe/DSC {n}.jpg" for n in (1, 2)},
    ),
    "a file is renamed": ([("a.b.c.jpg", "d.jpg")], {"a.b.c.jpg": "d.jpg"}),
    "a file takes a path that was free": ([("a.b.c.jpg", "Taufe/IMG_0001.JPG")], {"a.b.c.jpg": "Taufe/IMG_0001.JPG"}),
    "two files swap their names": (
        [("Taufe/DSC 1.jpg", "x"), ("Taufe/DSC 2.jpg", "Taufe/DSC 1.jpg"), ("x", "Taufe/DSC 2.jpg")],
        {"Taufe/DSC 1.jpg": "Taufe/DSC 2.jpg", "Taufe/DSC 2.jpg": "Taufe/DSC 1.jpg"},
    ),
    "a photo loses its UUID for a name": ([(UUID_NAME.name, "IMG_0002.jpg")], {UUID_NAME.name: "IMG_0002.jpg"}),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "lost", ["", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plan.tsv", "database", "state"))]
)
def test_moves_and_renames_change_no_uuid_and_embed_nothing(library, change, lost):
    before, rows = uuids(library), library.embeddings()
    moves, new_names = CHANGES[change]
    for old, new in moves:
        moved(library.folder / "photos", old, new)
    if lost == "plan.tsv":
        (library.state / "plan.tsv").unlink()
    elif lost == "database":
        library.database.unlink()
    elif lost == "state":
        shutil.rmtree(library.state)
    after = run_again(library)
    assert after == {new_names.get(name, name): uuid for name, uuid in before.items()}
    assert library.embeddings() == rows


def test_an_edited_photo_keeps_its_uuid(library):
    before = uuids(library)
    shutil.copy(DEMO_PHOTOS[20], library.folder / "photos" / "a.b.c.jpg")
    assert run_again(library, 1) == before


def test_a_copy_is_a_photo_of_its_own_whose_row_is_copied(library):
    before = uuids(library)
    shutil.copy2(library.folder / "photos" / "a.b.c.jpg", library.folder / "photos" / "Kopie.jpg")
    after = run_again(library)
    assert {name: after[name] for name in before} == before
    rows = library.embeddings()
    assert rows[after["Kopie.jpg"]] == rows[after["a.b.c.jpg"]]


@pytest.mark.parametrize("keeps_times", [True, False])
def test_on_another_disk_all_uuids_stay(library, keeps_times):
    before, other = uuids(library), library.folder / "other disk"
    shutil.copytree(library.folder / "photos", other, copy_function=shutil.copy2 if keeps_times else shutil.copy)
    shutil.rmtree(library.folder / "photos")
    library.configure(input_dir="other disk")
    done = library.run()
    assert done
    rows = library.sql("SELECT PATH, UUID FROM {T}_IMAGES")
    assert {path.removeprefix(f"{other}/"): uuid for path, uuid in rows} == before
    assert library.dry_run() == {}


def test_the_same_folder_has_the_same_uuids_on_another_machine(library, make_collection):
    other = make_collection(0, name="other", names="any")
    shutil.rmtree(other.folder / "photos")
    shutil.copytree(library.folder / "photos", other.folder / "photos")
    other.run()
    assert uuids(other) == uuids(library)
    assert other.embeddings() == library.embeddings()


def test_a_photo_whose_name_is_no_uuid_is_rejected_by_default(make_collection):
    collection = make_collection(2)
    shutil.copy(DEMO_PHOTOS[5], collection.folder / "photos" / "IMG_0001.jpg")
    collection.run()
    assert len(collection.embeddings()) == 2
    [[path, reason]] = [line.split("\t") for line in (collection.state / "rejected.tsv").read_text().splitlines()[1:]]
    assert (os.path.basename(path), reason) == ("IMG_0001.jpg", "not a UUID")
