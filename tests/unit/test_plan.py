import random

import pytest

from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.scan import ImageFile, RejectedFile
from crossfilter_inference.shards import plan


def image(number, *, size=100, mtime_ns=5, folder="photos"):
    uuid = f"00000000-0000-4000-8000-{number:012d}"
    return ImageFile(uuid, f"{folder}/{uuid}.jpg", size, mtime_ns)


def identities(*images):
    return {(image.uuid, image.size, image.mtime_ns) for image in images}


def owners(planned):
    return {image.uuid: image.shard for image in planned.images}


def test_new_images_fill_shards_in_order_of_uuid():
    planned = plan.make_plan({}, [image(n) for n in (3, 1, 2, 5, 4)], [], 2)
    assert planned.new_shards == ["000001", "000002", "000003"]
    assert list(owners(planned).values()) == ["000001", "000001", "000002", "000002", "000003"]
    assert [each.uuid for each in planned.images] == sorted(each.uuid for each in planned.images)


def test_nothing_new_makes_no_shard():
    images = [image(n) for n in range(5)]
    planned = plan.make_plan({"000001": identities(*images)}, images, [], 2)
    assert planned.new_shards == []
    assert set(owners(planned).values()) == {"000001"}


def test_photos_of_another_collection_cause_a_warning():
    old = {"000001": identities(image(1), image(2))}

    def warning(*numbers, shards=old):
        return plan.make_plan(shards, [image(number) for number in numbers], [], 10).strangers(shards)

    assert warning(3, 4, 5).startswith(
        "warning: none of the 2 photos of the last run is in input_dir; their rows are kept"
    )
    assert warning(2, 3) == warning() == warning(1, shards={}) == ""


def test_a_changed_image_goes_into_a_new_shard_and_a_moved_one_stays():
    old = [image(1), image(2), image(3)]
    now = [image(1, size=7), image(2, folder="album"), image(3, mtime_ns=6)]
    planned = plan.make_plan({"000001": identities(*old)}, now, [], 10)
    assert list(owners(planned).values()) == ["000002", "000001", "000002"]


def test_the_newest_shard_that_lists_an_image_owns_it():
    shards = {"000001": identities(image(1)), "000002": identities(image(1, size=7)), "000003": identities(image(1))}
    assert list(owners(plan.make_plan(shards, [image(1)], [], 1)).values()) == ["000003"]
    assert list(owners(plan.make_plan(shards, [image(1, size=7)], [], 1)).values()) == ["000002"]


def test_recompute_gives_every_image_to_a_new_shard():
    shards = {"000001": identities(image(1), image(2))}
    planned = plan.make_plan(shards, [image(1), image(2)], [], 1, recompute=True)
    assert planned.new_shards == ["000002", "000003"]


def test_every_image_is_in_exactly_one_shard_over_a_random_history(tmp_path):
    rng = random.Random(0)
    for history in range(20):
        folder = tmp_path / str(history)
        images = {}
        for _ in range(10):
            for number in rng.sample(range(40), 8):
                images[number] = image(number, size=rng.randrange(3), folder=f"folder{rng.randrange(2)}")
            for number in rng.sample(sorted(images), 3):
                del images[number]
            before = plan.read_shard_lists(folder)
            planned = plan.make_plan(before, list(images.values()), [], rng.randrange(1, 9))
            plan.write_plan(folder / "plan.tsv", planned)
            written = plan.write_manifest(
                folder / "plan.tsv", folder / "manifest.tsv", folder / "rejected.tsv", folder / "shards"
            )
            assert written == planned
            after = plan.read_shard_lists(folder)
            assert {shard: after[shard] for shard in before} == before
            assert after.keys() - before.keys() == set(planned.new_shards)
            for each in planned.images:
                assert each.identity in after[each.shard]
                assert all(each.identity not in after[shard] for shard in after if shard > each.shard)
            again = plan.make_plan(after, list(images.values()), [], 3)
            assert again.images == planned.images
            assert again.digest() == planned.digest()


def test_a_run_resumes_from_half_written_lists(tmp_path):
    images = [image(n) for n in range(6)]
    first = plan.make_plan({}, images, [], 2)
    plan.write_plan(tmp_path / "plan.tsv", first)
    paths = [tmp_path / "plan.tsv", tmp_path / "manifest.tsv", tmp_path / "rejected.tsv", tmp_path / "shards"]
    plan.write_manifest(*paths)
    (tmp_path / "shards" / "000002.tsv").unlink()
    second = plan.make_plan(plan.read_shard_lists(tmp_path), images, [], 2)
    assert second.new_shards == ["000004"]
    assert list(owners(second).values()) == ["000001"] * 2 + ["000004"] * 2 + ["000003"] * 2


def test_rejected_files_reach_the_manifest(tmp_path):
    rejected = [RejectedFile("photos/a\tb.jpg", "not a UUID")]
    plan.write_plan(tmp_path / "plan.tsv", plan.make_plan({}, [image(1)], rejected, 1))
    assert plan.read_plan(tmp_path / "plan.tsv")[1] == rejected
    paths = [tmp_path / name for name in ("plan.tsv", "manifest.tsv", "rejected.tsv", "shards")]
    assert plan.write_manifest(*paths).rejected == rejected
    assert (tmp_path / "rejected.tsv").read_text() == 'PATH\tREASON\n"photos/a\tb.jpg"\tnot a UUID\n'


def test_the_digest_follows_paths_and_rejected_files():
    one = plan.make_plan({}, [image(1)], [], 1)
    assert one.digest() != plan.make_plan({}, [image(1, folder="album")], [], 1).digest()
    assert one.digest() != plan.make_plan({}, [image(1)], [RejectedFile("x", "empty")], 1).digest()


def test_a_damaged_shard_list_is_not_taken_for_an_empty_one(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "000001.tsv").write_text("")
    with pytest.raises(InputError, match=r"000001\.tsv' is damaged; delete it, and the next run rebuilds it"):
        plan.read_shard_lists(tmp_path)
