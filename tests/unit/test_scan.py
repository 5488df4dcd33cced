import os
import subprocess
import time

import pytest

from crossfilter_inference.config import Config
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.missing import MissingPhotoSearch
from crossfilter_inference.photos.names import canonical_uuid
from crossfilter_inference.photos.scan import excluding, scan_folders, size_and_time

UUID = "0123abcd-4567-89ab-cdef-0123456789ab"
EXCLUDED = Config.model_fields["exclude"].default


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def scan(*folders, extensions=(".jpg", ".jpeg"), exclude=()):
    return scan_folders([str(folder) for folder in folders], list(extensions), exclude)


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


OTHER = f"{UUID[:-1]}c"


def relative(paths, folder):
    return [os.path.relpath(path, folder) for path in paths]


@pytest.mark.parametrize(
    "folder",
    [
        *(
            ".picasaoriginals",
            "#recycle",
            "@eaDir",
            ".Trash-1000",
            ".Trashes",
            "$RECYCLE.BIN",
            "$Recycle.bin",
            ".dtrash",
        ),
        *("[Originals]", ".Recycle.Bin/photos", ".local/share/Trash/files", ".sync/Archive", ".globalTrash"),
        *("Backups.backupdb/a/b", "~snapshot/daily.0", ".DocumentRevisions-V100", "Network Trash Folder", ".recycle"),
        *(".tmp.drivedownload", ".dropbox.cache", ".xvpics", ".Thumbnails", "$recycle.bin/S-1-5-18", ".~tmp~"),
        *(".dtrash", "Library.lrdata", ".stversions", "deep/@Recycle/2020", "@eaDir/a.jpg", ".snapshots/7/snapshot"),
    ],
)
def test_trash_and_caches_of_other_programs_are_counted_not_taken(tmp_path, folder):
    make(tmp_path, f"{folder}/{UUID}.jpg", f"{folder}/x.txt", f"z/{UUID}.jpg", f"{folder}/{OTHER}.jpg", f"._{UUID}.jpg")
    found = scan(tmp_path, exclude=EXCLUDED)
    assert relative([image.path for image in found.images], tmp_path) == [f"z/{UUID}.jpg"]
    assert found.rejected == []
    assert found.n_excluded.total() == 3
    assert "excluded files: 3 (2 " in found.summary()


@pytest.mark.parametrize("folder", ["Originals", "lost+found", "Library.photoslibrary/originals/A", ".hidden", "Local"])
def test_folders_that_may_hold_the_only_copy_are_taken(tmp_path, folder):
    make(tmp_path, f"{folder}/{UUID}.jpg")
    assert len(scan(tmp_path, exclude=EXCLUDED).images) == 1


def test_own_patterns_exclude_files_and_folders_at_any_depth_in_any_case(tmp_path):
    make(tmp_path, f"a/Private/b/{UUID}.jpg", f"a/{OTHER}.JPG", f"a/{UUID[:-1]}d.jpg")
    found = scan(tmp_path, exclude=["private", "*c.jpg"])
    assert [image.uuid[-1] for image in found.images] == ["d"]
    assert found.n_excluded == {"private": 1, "*c.jpg": 1}


def test_a_folder_of_input_dir_is_scanned_whatever_its_name(tmp_path):
    make(tmp_path, f"#recycle/{UUID}.jpg")
    assert len(scan(tmp_path / "#recycle", exclude=EXCLUDED).images) == 1
    found = scan(tmp_path, tmp_path / "#recycle", exclude=EXCLUDED)
    assert (len(found.images), found.n_excluded.total()) == (1, 0)


@pytest.mark.parametrize("album", ["a", "z"])
def test_of_one_uuid_the_file_in_the_open_wins_over_a_hidden_one(tmp_path, album):
    make(tmp_path, f".h/{UUID}.jpg", f"{album}/{UUID}.jpg", f".h/{OTHER}.jpg", f".a/{OTHER}.jpg")
    found = scan(tmp_path)
    assert sorted(relative([image.path for image in found.images], tmp_path)) == [
        f".a/{OTHER}.jpg",
        f"{album}/{UUID}.jpg",
    ]


@pytest.mark.parametrize("link", ["@eaDir", ".a", "a"])
def test_a_link_to_a_folder_does_not_hide_it(tmp_path, link):
    make(tmp_path, f"album/{UUID}.jpg")
    (tmp_path / link).symlink_to(tmp_path / "album")
    found = scan(tmp_path, exclude=EXCLUDED)
    assert relative([image.path for image in found.images], tmp_path) == [f"album/{UUID}.jpg"]


def test_folders_with_the_same_inode_number_are_all_scanned(tmp_path, monkeypatch):
    names = [f"{n}/{n}/{UUID[:-1]}{n}.jpg" for n in range(5)]
    make(tmp_path, *names)
    (tmp_path / "loop").symlink_to(tmp_path)
    stat = os.stat

    def same_inode(path, *arguments, **options):
        status = stat(path, *arguments, **options)
        return os.stat_result((status[0], 0, 0, *status[3:]))

    monkeypatch.setattr(os, "stat", same_inode)
    assert relative([image.path for image in scan(tmp_path).images], tmp_path) == names


@pytest.mark.parametrize("name", ["d", "d" * 100])
def test_folders_may_be_nested_a_thousand_deep(tmp_path, name):
    make(tmp_path, f"{UUID}.jpg")
    here, depth = os.getcwd(), 1100
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            os.mkdir(name)
            os.chdir(name)
        with open(f"{OTHER}.jpg", "w") as file:
            file.write("x")
    finally:
        os.chdir(here)
    found = scan(tmp_path)
    if len(name) == 1:
        assert len(found.images) == 2
    else:
        assert len(found.images) == 1
        assert [file.reason for file in found.rejected] == ["unreadable folder (File name too long)"]
    subprocess.run(["rm", "-rf", tmp_path / name], check=True)


@pytest.mark.parametrize("year", ["1500-01-01", "1677-01-01", "2300-01-01", "2262-04-12", "9999-12-31"])
def test_a_time_stamp_beyond_64_bits_is_kept_within_them(tmp_path, year):
    make(tmp_path, f"{UUID}.jpg")
    if subprocess.run(["touch", "-d", year, tmp_path / f"{UUID}.jpg"], check=False, capture_output=True).returncode:
        pytest.skip("this file system knows no such time")
    [image] = scan(tmp_path).images
    assert -(2**63) <= image.mtime_ns < 2**63
    status = os.stat(image.path)
    assert size_and_time(status) == (image.size, image.mtime_ns)


def test_a_status_time_that_the_file_system_does_not_keep_is_unknown(tmp_path, monkeypatch):
    make(tmp_path, f"{UUID}.jpg")
    [image] = scan(tmp_path).images
    assert image.ctime_ns == (tmp_path / f"{UUID}.jpg").stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: image.ctime_ns)  # a scan within the same moment
    assert scan(tmp_path).images[0].ctime_ns == 0


def test_extensions_that_are_no_text_and_odd_files_are_counted(tmp_path):
    make(tmp_path, f"{UUID}.jpg")
    for name in (b"a.\xff\xfe", b"b.\x1b[31m", b"c.jpg\n"):
        with open(os.path.join(os.fsencode(tmp_path), name), "w") as file:
            file.write("x")
    os.mkfifo(tmp_path / f"{OTHER}.jpg")
    (tmp_path / f"{UUID[:-1]}d.jpg").symlink_to("nowhere")
    make(tmp_path, f"{UUID[:-1]}e.jpg/{UUID[:-1]}f.jpg")
    found = scan(tmp_path)
    assert [image.uuid[-1] for image in found.images] == ["b", "f"]
    assert [file.reason for file in found.rejected] == ["not a regular file", "unreadable (No such file or directory)"]
    assert found.summary().isprintable()
    found.summary().encode()


class TestSearch:
    """What is known about a missing photo."""

    @pytest.fixture
    def look(self, tmp_path, monkeypatch):
        make(tmp_path, f"photos/a/{OTHER}.jpg")
        (tmp_path / "other").mkdir()
        self.unreadable = set()
        for name in ("scandir", "listdir"):
            function = getattr(os, name)

            def read(path, function=function):
                if str(path) in self.unreadable:
                    raise PermissionError(13, "Permission denied")
                return function(path)

            monkeypatch.setattr(os, name, read)

        def doubt(path, *folders, exclude=(), extensions=(".jpg",)):
            folders = [str(tmp_path / folder) for folder in folders or ["photos"]]
            found = scan_folders(folders, list(extensions), exclude)
            return MissingPhotoSearch(folders, found, excluding(exclude)).doubt(
                UUID, str(tmp_path / path) if path else ""
            )

        doubt.folder = tmp_path
        return doubt

    def test_a_file_that_is_not_in_its_folder_is_removed(self, look):
        assert look(f"photos/a/{UUID}.jpg") == ""

    def test_a_folder_that_is_not_in_its_parent_is_removed(self, look):
        assert look(f"photos/gone/deep/{UUID}.jpg") == ""

    @pytest.mark.parametrize("name", ["photos/a", "photos/b"])
    def test_an_unreadable_folder_is_no_knowledge(self, look, name):
        make(look.folder, f"photos/b/{UUID}.jpg")
        self.unreadable.add(str(look.folder / name))
        assert "Permission denied" in look(f"{name}/{UUID}.jpg")
        assert "Permission denied" in look(f"{name}/deeper/{UUID}.jpg")

    @pytest.mark.parametrize("kind", ["empty", "link", "loop", "folder", "fifo"])
    def test_a_file_of_another_kind_is_no_knowledge(self, look, kind):
        path = look.folder / "photos" / "a" / f"{UUID}.jpg"
        match kind:
            case "empty":
                path.touch()
            case "link":
                path.symlink_to("nowhere")
            case "loop":
                path.symlink_to(path)
            case "folder":
                path.mkdir()
            case "fifo":
                os.mkfifo(path)
        assert "is there" in look(f"photos/a/{UUID}.jpg")

    def test_a_file_of_this_name_elsewhere_is_no_knowledge(self, look):
        (look.folder / "photos" / f"{UUID.upper()}.JPG").touch()
        assert look(f"photos/a/{UUID}.jpg") == "the file is there, but empty"

    @pytest.mark.parametrize("rest", [[], [".hidden", "@eaDir/x"]])
    def test_an_empty_folder_is_no_knowledge(self, look, rest):
        (look.folder / "photos" / "disk").mkdir()
        make(look.folder / "photos" / "disk", *rest)
        for path in (f"photos/disk/{UUID}.jpg", f"photos/disk/album/{UUID}.jpg"):
            assert "empty" in look(path, exclude=["@eaDir"])
        assert "empty" in look(f"other/{UUID}.jpg", "photos", "other")

    def test_a_broken_link_to_a_folder_is_no_knowledge(self, look):
        (look.folder / "photos" / "disk").symlink_to("/no/disk")
        assert "is there" in look(f"photos/disk/album/{UUID}.jpg")

    def test_an_excluded_file_is_no_knowledge(self, look):
        make(look.folder, f"photos/Trash/{UUID}.jpg")
        assert "left out by exclude" in look(f"photos/Trash/{UUID}.jpg", exclude=["trash"])

    def test_outside_of_the_folders_all_of_them_must_be_readable(self, look):
        make(look.folder, f"other/{OTHER}.jpg")
        for path in ("", f"other/{UUID}.jpg"):
            assert look(path) == ""
        make(look.folder, f"other/{UUID}.jpg")
        assert "outside input_dir" in look(f"other/{UUID}.jpg")
        self.unreadable.add(str(look.folder / "photos" / "a"))
        for path in ("", f"gone/{UUID}.jpg", f"other/{UUID[:-1]}d.jpg"):
            assert "unreadable or empty" in look(path)

    @pytest.mark.parametrize("folder", ["unplugged", "media/disk", "other"])
    def test_a_folder_taken_out_of_input_dir_must_be_there_and_not_empty(self, look, folder):
        make(look.folder, f"media/another disk/{OTHER}.jpg")
        path = f"{folder}/album/{UUID}.jpg"
        assert look(path) == "its folder is missing, and outside input_dir"
        (look.folder / folder / "album").mkdir(parents=True)
        assert "empty" in look(path)
        make(look.folder, f"{folder}/album/{OTHER}.jpg")
        assert look(path) == ""
        self.unreadable.add(str(look.folder / folder / "album"))
        assert "Permission denied" in look(path)

    def test_an_old_folder_that_is_a_link_to_the_new_one_gives_its_photos_free(self, look):
        (look.folder / "old").symlink_to(look.folder / "photos")
        assert look(f"old/a/{UUID}.jpg") == ""

    @pytest.mark.parametrize("extensions", [[".jpeg"], [".png", ".JPEG"]])
    def test_a_file_whose_extension_is_not_named_any_more_is_no_knowledge(self, look, extensions):
        make(look.folder, f"photos/a/{UUID}.jpg", f"photos/a/{OTHER}.jpeg")
        for path in (f"photos/a/{UUID}.jpg", ""):
            assert "image_extensions" in look(path, extensions=extensions)
        assert look(f"photos/a/{UUID[:-1]}d.jpg", extensions=extensions) == ""

    @pytest.mark.parametrize("pattern", ["Trash", "*ab.jpg", "a", "[0-9]*"])
    def test_a_file_that_is_excluded_now_is_no_knowledge(self, look, pattern):
        make(look.folder, f"photos/a/trash/{UUID.upper()}.jpg", "photos/b/x.jpg")
        for path in (f"photos/a/trash/{UUID.upper()}.jpg", ""):
            assert "left out by exclude" in look(path, exclude=[pattern])

    def test_a_folder_whose_name_begins_like_another_is_outside(self, look):
        make(look.folder, f"photos-old/{UUID}.jpg")
        assert "outside input_dir" in look(f"photos-old/{UUID}.jpg")
