"""Photos with any names: the same photo keeps its UUID, whatever happens to its file."""

import operator
import random

import pytest

from crossfilter_inference.photos.identify import KnownPhoto, identify
from crossfilter_inference.photos.scan import ImageFile

ROOT = "/p"
PATH = operator.attrgetter("path")


def file(path, size=100, mtime_ns=5):
    return ImageFile("", f"{ROOT}/{path}", size, mtime_ns)


def by_name(files, known=(), contents=(), roots=(ROOT,), taken=()):
    """Identify files; return UUIDs by path within the root."""
    same = set(contents)
    images = sorted(identify(files, known, roots, lambda new, old: (new.path, old.path) in same, taken), key=PATH)
    assert [image.path for image in images] == sorted(one.path for one in files)
    assert len({image.uuid for image in images}) == len(images)
    return {image.path.removeprefix(f"{ROOT}/"): image.uuid for image in images}


def known(files, **how):
    uuids = by_name(files, **how)
    return [KnownPhoto(uuids[one.path.removeprefix(f"{ROOT}/")], *one[1:4]) for one in files]


@pytest.fixture
def photos():
    return [file("a/1.jpg"), file("a/2.jpg", 200, 6), file("b/3.jpg", 300, 7)]


def test_a_new_photo_has_the_same_uuid_on_another_machine(photos):
    here = by_name(photos)
    there = identify([one._replace(path=f"/disk{one.path}") for one in photos], [], ["/disk/p"], lambda *_: False)
    assert [image.uuid for image in sorted(there, key=PATH)] == [*here.values()]
    composed, decomposed = by_name([file("caf\u00e9.jpg")]), by_name([file("cafe\u0301.jpg")])
    assert [*composed.values()] == [*decomposed.values()]


@pytest.mark.parametrize(
    ("now", "before"),
    [
        pytest.param([file("c/1.jpg")], ["a/1.jpg"], id="moved"),
        pytest.param([file("a/x.jpg")], ["a/1.jpg"], id="renamed"),
        pytest.param([file("a/1.jpg", 101, 9)], ["a/1.jpg"], id="edited"),
        pytest.param([file("c/1.jpg"), file("c/2.jpg", 200, 6)], ["a/1.jpg", "a/2.jpg"], id="a renamed folder"),
        pytest.param([file("a/2.jpg"), file("a/1.jpg", 200, 6)], ["a/1.jpg", "a/2.jpg"], id="swapped"),
        pytest.param([file("a/2.jpg")], ["a/1.jpg"], id="moved over another"),
    ],
)
def test_a_photo_keeps_its_uuid(photos, now, before):
    uuids = by_name(photos)
    after = by_name(now, known(photos))
    assert [after[one.path.removeprefix("/p/")] for one in now] == [uuids[path] for path in before]


def test_a_photo_with_a_new_time_and_name_is_recognised_by_its_contents(photos):
    copied = file("c/x.jpg", 100, 99)
    assert by_name([copied], known(photos)) != {"c/x.jpg": by_name(photos)["a/1.jpg"]}
    contents = [(copied.path, "/p/a/1.jpg")]
    assert by_name([copied], known(photos), contents) == {"c/x.jpg": by_name(photos)["a/1.jpg"]}


def test_contents_decide_between_photos_of_one_size_and_time():
    twins = [file("a.jpg"), file("b.jpg")]
    before = by_name(twins)
    contents = [("/p/x.jpg", "/p/b.jpg"), ("/p/y.jpg", "/p/a.jpg")]
    after = by_name([file("x.jpg"), file("y.jpg")], known(twins), contents)
    assert after == {"x.jpg": before["b.jpg"], "y.jpg": before["a.jpg"]}


def test_two_copies_are_two_photos_and_stay_so():
    copies = [file("a/1.jpg"), file("b/1.jpg")]
    before = by_name(copies)
    moved = [file("c/1.jpg"), file("d/1.jpg")]
    assert [*by_name(moved, known(copies)).values()] == [*before.values()]
    one = by_name([file("b/1.jpg"), file("c/1.jpg")], known(copies))
    assert one == {"b/1.jpg": before["b/1.jpg"], "c/1.jpg": before["a/1.jpg"]}


def test_a_new_file_under_the_path_of_a_moved_photo_gets_another_uuid(photos):
    uuids = by_name(photos)
    after = by_name([file("c/1.jpg"), file("a/1.jpg", 500, 50)], known(photos))
    assert after["c/1.jpg"] == uuids["a/1.jpg"]
    assert after["a/1.jpg"] not in uuids.values()


def test_a_uuid_in_use_is_not_given_again(photos):
    [uuid] = by_name([file("a/1.jpg")]).values()
    assert by_name([file("a/1.jpg")], taken=[uuid.upper()]) != {"a/1.jpg": uuid}
    assert by_name([file("a/1.jpg")], known(photos), taken=[uuid]) != {"a/1.jpg": uuid}


def test_files_of_two_folders_with_the_same_names_are_two_photos():
    images = identify([file("a/1.jpg"), file("b/1.jpg")], [], ["/p/a", "/p/b"], lambda *_: False)
    assert len({image.uuid for image in images}) == 2


def test_the_order_of_the_files_does_not_matter(photos):
    many = [file(f"{number % 5}/{number}.jpg", number % 7, number % 3) for number in range(60)]
    now = [file(f"new/{number}.jpg", number % 7, number % 3) for number in range(0, 60, 2)]
    shuffled = random.Random(1).sample(now, len(now))
    assert by_name(shuffled, known(many)) == by_name(now, known(many)[::-1])


def test_an_overwritten_photo_does_not_take_the_path_from_the_one_that_is_there(photos):
    first, second, _ = known(photos)
    moved_over = second._replace(path=first.path)
    for order in ([moved_over, first._replace(is_missing=True)], [first._replace(is_missing=True), moved_over]):
        assert by_name([file("a/1.jpg", 200, 6)], order) == {"a/1.jpg": second.uuid}
        assert by_name([file("a/1.jpg", 201, 8)], order) == {"a/1.jpg": second.uuid}, "edited"
        assert by_name([file("a/1.jpg")], order) == {"a/1.jpg": first.uuid}, "restored"
        unknown_status = [photo._replace(is_missing=False) for photo in order]  # as the database has it
        assert by_name([file("a/1.jpg", 200, 6)], unknown_status) == {"a/1.jpg": second.uuid}


def test_of_two_equal_photos_at_one_path_it_is_not_the_one_that_was_missing(photos):
    there, other, _ = known(photos)
    missing = other._replace(path=there.path, size=there.size, mtime_ns=there.mtime_ns, is_missing=True)
    for order in ([there, missing], [missing, there]):
        assert by_name([file("a/1.jpg")], order) == {"a/1.jpg": there.uuid}
