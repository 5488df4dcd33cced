"""Hostile photos, names, files and disks: good photos are embedded, bad ones have one outcome, and the run succeeds."""

import csv
import os
import shlex
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile_files
import pytest
from conftest import DEMO

PHOTO = DEMO / "fish" / "5237ab3d-4df8-52aa-ae37-fa74dffefb1a.jpg"
TRY_AGAIN = {
    "missing",
    "unreadable",
    "changed",
    "out of memory",
}  # temporary reasons: the next run tries again


def name(number, suffix=".jpg"):
    return f"00000000-0000-4000-8000-{number:012x}{suffix}"


def check(collection, output, *, embedded, failures=(), rejected=(), **how):
    """Check the outcome of each file: embedded, or failed or rejected for a reason."""
    assert "Traceback" not in output
    assert collection.embeddings().keys() == {Path(photo).stem for photo in embedded}
    found = collection.sql("SELECT UUID, REASON FROM {T}_FAILURES ORDER BY UUID")
    assert found == sorted((Path(photo).stem, reason) for photo, reason in dict(failures).items())
    assert dict(rejected).items() == rejected_files(collection).items()
    if not TRY_AGAIN & set(dict(failures).values()):
        assert collection.dry_run(**how) == {}


def rejected_files(collection):
    with (collection.state / "rejected.tsv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    assert len({row[0] for row in rows}) == len(rows)
    return {os.path.relpath(path, collection.folder / "photos"): reason.split(" (")[0] for path, reason in rows}


def run(collection, **how):
    done = collection.snakemake(**how)
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def test_every_strange_photo_is_embedded_and_every_hostile_one_has_its_reason(make_collection):
    collection = make_collection(2, max_failed_share=1)
    photos = collection.folder / "photos"
    embedded = [path.name for path in photos.iterdir()]
    failures = {}
    for number, data in enumerate(hostile_files.STRANGE.values(), 0xA00):
        (photos / name(number)).write_bytes(data)
        embedded.append(name(number))
    for number, (data, reason) in enumerate(hostile_files.BAD.values(), 0xB00):
        (photos / name(number)).write_bytes(data)
        failures[name(number)] = reason
    os.truncate(photos / name(0xB00), 2**40)  # a terabyte of nothing behind it
    output = run(collection)
    assert output.count("too large (1,099,511,627,776 bytes, more than the 268") == 1
    check(collection, output, embedded=embedded, failures=failures)


def test_any_name_of_a_folder_or_file_is_accepted(make_collection):
    collection = make_collection(1, max_failed_share=1)
    photos = collection.folder / "photos"
    embedded, failures, rejected = [next(photos.iterdir()).name], {}, {}
    strange = [b"it's", b'"quoted"', b"new\nline", b"tab\t", b"carriage\r", b"caf\xe9", "café".encode(), b"\xff\xfe"]
    strange += [
        b" ",
        b"-rf",
        b"{shard}",
        b"{{",
        b"$(touch x)",
        b"`touch x`",
        b"%s",
        b"a;b|c&d",
        b"*?[a]",
        b"\\",
        b"#",
        b"~",
    ]
    for number, folder in enumerate(map(os.fsdecode, strange)):
        (photos / folder).mkdir()
        shutil.copy(PHOTO, photos / folder / name(2 * number))
        (photos / folder / name(2 * number + 1)).write_text("no photo")
        shutil.copy(PHOTO, photos / folder / f"{folder}.jpg")
        embedded.append(name(2 * number))
        failures[name(2 * number + 1)] = "not an image"
        rejected[f"{folder}/{folder}.jpg"] = "not a UUID"
    check(collection, run(collection), embedded=embedded, failures=failures, rejected=rejected)
    assert not list(collection.folder.rglob("x"))


@pytest.mark.slow
def test_links_out_of_the_folder_are_followed(make_collection, tmp_path):
    collection = make_collection(1)
    photos = collection.folder / "photos"
    outside = tmp_path / "outside"
    outside.mkdir()
    embedded = [next(photos.iterdir()).name, name(1), name(2), name(3)]
    shutil.copy(PHOTO, outside / "IMG_1.JPG")
    shutil.copy(PHOTO, outside / name(2))
    (photos / name(1)).symlink_to(outside / "IMG_1.JPG")
    (photos / "album").symlink_to(outside)
    (photos / "to-itself").symlink_to("to-itself")
    (photos / name(3)).symlink_to("link")
    (photos / "link").symlink_to("../../outside/IMG_1.JPG")
    (photos / name(4)).symlink_to(name(4))
    (photos / name(5)).symlink_to("/nowhere/at/all.jpg")
    (outside / "back").symlink_to(photos)
    rejected = {"album/IMG_1.JPG": "not a UUID", name(4): "unreadable", name(5): "unreadable"}
    check(collection, run(collection), embedded=embedded, rejected=rejected)


@pytest.mark.slow
def test_only_regular_files_are_opened(make_collection, monkeypatch):
    collection = make_collection(1)
    photos = collection.folder / "photos"
    embedded = [path.name for path in photos.iterdir()]
    os.mkfifo(photos / name(1))
    monkeypatch.chdir(photos)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(name(2))
    (photos / name(3)).symlink_to("/dev/zero")
    (photos / name(4)).mkdir()
    special = [name(1), name(2), name(3)]
    if os.getuid() == 0:
        os.mknod(photos / name(5), 0o600 | 0o020000, os.makedev(1, 5))  # another /dev/zero
        special.append(name(5))
    check(collection, run(collection), embedded=embedded, rejected=dict.fromkeys(special, "not a regular file"))


def test_unreadable_files_are_rejected(make_collection, as_user):
    collection = make_collection(1)
    photos = collection.folder / "photos"
    embedded = [path.name for path in photos.iterdir()]
    shutil.copy(PHOTO, photos / name(1)).chmod(0)
    for folder, mode in (("locked", 0), ("listed", 0o400)):
        (photos / folder).mkdir()
        shutil.copy(PHOTO, photos / folder / name(2 + mode))
        (photos / folder).chmod(mode)
    try:
        rejected = {name(1): "unreadable", "locked": "unreadable folder", f"listed/{name(2 + 0o400)}": "unreadable"}
        check(collection, run(collection, **as_user), embedded=embedded, rejected=rejected, **as_user)
    finally:
        (photos / "locked").chmod(0o700)
        (photos / "listed").chmod(0o700)


@pytest.mark.slow
def test_photos_that_turn_bad_between_scan_and_embedding_have_their_reason(make_collection, tmp_path):
    collection = make_collection(3)
    photos = collection.folder / "photos"
    embedded = [path.name for path in photos.iterdir()]
    for number in range(1, 6):
        shutil.copy(PHOTO, photos / name(number))
    pause = tmp_path / "resolve"
    pause.touch()

    def turn_bad():
        deadline = time.monotonic() + 200
        while not (tmp_path / "resolve-reached").exists():
            assert time.monotonic() < deadline, "no sign of resolve"
            time.sleep(0.01)
        for number in range(1, 6):
            (photos / name(number)).unlink()
        os.mkfifo(photos / name(2))
        (photos / name(3)).mkdir()
        (photos / name(4)).symlink_to("/dev/zero")
        (photos / name(5)).symlink_to(name(5))
        pause.unlink()

    with ThreadPoolExecutor() as pool:
        turned = pool.submit(turn_bad)
        output = run(collection, env={**os.environ, "COLOUR_ENCODER_PAUSE": str(tmp_path)})
        turned.result()
    failures = {name(1): "missing", **{name(number): "unreadable" for number in range(2, 6)}}
    check(collection, output, embedded=embedded, failures=failures)
    for number in range(2, 6):
        (photos / name(number)).rmdir() if number == 3 else (photos / name(number)).unlink()
    for number in range(1, 6):
        shutil.copy(PHOTO, photos / name(number))
    check(collection, run(collection), embedded=[*embedded, *map(name, range(1, 6))])


@pytest.mark.slow
def test_the_folder_of_photos_may_be_read_only(make_collection, as_user):
    collection = make_collection(3)
    photos = collection.folder / "photos"
    embedded = [path.name for path in photos.iterdir()]
    photos.chmod(0o500)
    check(collection, run(collection, **as_user), embedded=embedded, **as_user)
    photos.chmod(0o700)


def run_with_mount(collection, mount):
    """Run Snakemake with a mount on the folder of photos; skip if mounting is not allowed."""
    as_root = [] if os.getuid() == 0 else ["--map-root-user"]
    # In a namespace of its own a process that serves a mount ends with it.
    unshare = ["unshare", *as_root, "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec"]
    program = mount.replace("{photos}", shlex.quote(str(collection.folder / "photos")))
    if not shutil.which("unshare") or (tried := subprocess.run([*unshare, program], capture_output=True)).returncode:
        reason = tried.stderr.decode().split("\n")[0] if shutil.which("unshare") else "no unshare"
        pytest.skip(f"no such mount here ({reason}); root may mount, with ntfs-3g")
    program += f"\n{shlex.join(collection.command())} 2>&1; {shlex.join(collection.command('-n'))} 2>&1"
    done = subprocess.run([*unshare, program], capture_output=True, text=True, timeout=280, cwd=collection.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing to be done" in done.stdout
    return done.stdout


@pytest.mark.slow
def test_the_disk_of_photos_may_be_read_only(make_collection):
    collection = make_collection(3)
    embedded = [path.name for path in (collection.folder / "photos").iterdir()]
    mount = "mount --bind {photos} {photos}; mount -o remount,bind,ro {photos}; ! touch {photos}/x 2>/dev/null"
    check(collection, run_with_mount(collection, mount), embedded=embedded)


@pytest.mark.slow
def test_the_disk_of_photos_may_ignore_case(make_collection):
    collection = make_collection(1)
    (collection.folder / "photos").rename(collection.folder / "origin")
    (collection.folder / "photos").mkdir()
    [photo] = (collection.folder / "origin").iterdir()
    disk, album = shlex.quote(str(collection.folder / "disk")), "{photos}/Album"
    mount = f"""
        if mount -t tmpfs -o casefold tmpfs {{photos}}; then
            mkdir {album}; chattr +F {album}
        else
            truncate -s 16M {disk}; mkntfs -q -F -f {disk}; lowntfs-3g -o ignore_case {disk} {{photos}}; mkdir {album}
        fi
        cp -p {shlex.quote(str(photo))} {album}
        test -e {album}/{photo.name.upper()}"""
    output = run_with_mount(collection, mount)
    assert "Traceback" not in output
    assert collection.embeddings().keys() == {photo.stem}
