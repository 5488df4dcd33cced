import os

import pytest

from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.names import canonical_uuid
from crossfilter_inference.photos.scan import scan_folders

UUID = "0123abcd-4567-89ab-cdef-0123456789ab"


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def scan(*folders, extensions=(".jpg", ".jpeg")):
    return scan_folders([str(folder) for folder in folders], list(extensions))


@pytest.mark.parametrize(
    "name",
    [f"{UUID}.jpg", f"{UUID.upper()}.JPG", f"{UUID.replace('-', '')}.jpeg", f"deep/down/{UUID}.JpEg"],
)
def test_a_uuid_is_found_in_every_spelling_and_folder(tmp_path, name):
    make(tmp_path, name)
    [image] = scan(tmp_path).images
    assert image.path == str(tmp_path / name)
    assert image.uuid == os.path.splitext(os.path.basename(name))[0]
    assert canonical_uuid(image.uuid) == UUID
    status = (tmp_path / name).stat()
    assert (image.size, image.mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize(
    "name",
    [
        "holiday",
        UUID[:-1],
        f"{UUID}0",
        f"{{{UUID}}}",
        f"urn:uuid:{UUID}",
        UUID.replace("-", "", 1),
        f"{UUID} ",
        UUID.replace("0", "\N{DEVANAGARI DIGIT ZERO}"),
        f"._{UUID}",
    ],
)
def test_another_name_is_rejected(tmp_path, name):
    make(tmp_path, f"{name}.jpg")
    found = scan(tmp_path)
    assert found.images == []
    assert [file.reason for file in found.rejected] == ["not a UUID"]


def test_of_one_uuid_the_first_path_in_byte_order_is_the_image(tmp_path):
    make(tmp_path, f"b/{UUID}.jpg", f"a/{UUID.upper()}.jpg", f"c/{UUID.replace('-', '')}.jpeg")
    found = scan(tmp_path)
    assert [image.path for image in found.images] == [f"{tmp_path}/a/{UUID.upper()}.jpg"]
    assert len(found.rejected) == 2
    assert {file.reason for file in found.rejected} == {f"the same UUID as {tmp_path}/a/{UUID.upper()}.jpg"}


def test_the_first_path_wins_whatever_the_order_of_the_folders(tmp_path):
    make(tmp_path, f"a/{UUID}.jpg", f"b/{UUID}.jpg")
    assert scan(tmp_path / "a", tmp_path / "b").images == scan(tmp_path / "b", tmp_path / "a").images


def test_a_loop_of_links_ends_and_a_linked_folder_is_walked_once(tmp_path):
    make(tmp_path, f"photos/{UUID}.jpg", f"elsewhere/{UUID[:-1]}c.jpg")
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "one").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "two").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / f"{UUID[:-1]}d.jpg").symlink_to(f"{UUID[:-1]}d.jpg")
    found = scan(tmp_path / "photos")
    assert [os.path.relpath(image.path, tmp_path) for image in found.images] == [
        f"photos/{UUID}.jpg",
        f"photos/one/{UUID[:-1]}c.jpg",
    ]
    assert [file.reason for file in found.rejected] == ["unreadable (Too many levels of symbolic links)"]


def test_other_extensions_are_counted(tmp_path):
    make(tmp_path, f"{UUID}.jpg", "a.png", "b.PNG", "notes.txt", "README")
    assert scan(tmp_path).n_others == {".png": 2, ".txt": 1, "": 1}
    expected = "rejected files: 0; other files, ignored: 4 (2 .png, 1 .txt, 1 without extension)"
    assert scan(tmp_path).summary() == expected


def test_extensions_can_be_chosen(tmp_path):
    make(tmp_path, f"{UUID}.png", f"{UUID[:-1]}c.jpg")
    assert [image.uuid for image in scan(tmp_path, extensions=[".PNG"]).images] == [UUID]


def test_a_folder_without_photos_is_refused_with_an_example(tmp_path):
    make(tmp_path, "holiday.jpg")
    with pytest.raises(InputError, match=r"no <uuid>\.jpg photos in .*photos' \(rejected files: 1 \(1 not a UUID\).*"):
        scan(tmp_path).check(["photos"])


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"input_dir: cannot read the folder .*No such file"):
        scan(tmp_path / "nowhere")
