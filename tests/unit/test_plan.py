import random

import pytest

from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.scan import ImageFile, RejectedFile
from crossfilter_inference.shards import plan


@pytest.fixture
def tmp_path(tmp_path):
    """A folder one deeper: pytest's own, with a lock and a plan, would pass for the state of a collection."""
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


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


def last_plan(folder, planned):
    plan.write_plan(folder / "plan.tsv", planned)
    return plan.read_last_plan(folder / "plan.tsv")


def test_an_image_with_another_ctime_goes_into_a_new_shard_once(tmp_path):
    shards = {"000001": identities(image(1), image(2))}
    before = [image(n)._replace(ctime_ns=7) for n in (1, 2)]
    last = last_plan(tmp_path, plan.make_plan(shards, before, [], 10))
    now = [before[0], before[1]._replace(ctime_ns=8)]
    planned = plan.make_plan(shards, now, [], 10, last=last)
    assert (planned.new_shards, planned.n_reread) == (["000002"], 1)
    assert "to be read again: 1 (new or unknown status; embedded only if the content differs)" in planned.summary()
    assert "new: 0 " in planned.summary()
    shards["000002"] = identities(image(2))
    again = plan.make_plan(shards, now, [], 10, last=last_plan(tmp_path, planned))
    assert (again.new_shards, again.n_reread) == ([], 0)
    assert again.digest() == planned.digest()


@pytest.mark.parametrize(("before", "now"), [(0, 8), (8, 0), (8, 8)])
def test_an_unknown_ctime_counts_as_unchanged(tmp_path, before, now):
    shards = {"000001": identities(image(1))}
    last = last_plan(tmp_path, plan.make_plan(shards, [image(1)._replace(ctime_ns=before)], [], 10))
    assert plan.make_plan(shards, [image(1)._replace(ctime_ns=now)], [], 10, last=last).new_shards == []


def test_a_plan_of_an_older_version_knows_paths_but_no_ctimes(tmp_path):
    (tmp_path / "plan.tsv").write_text(
        f"UUID\tPATH\tSIZE\tMTIME_NS\tSHARD\tREASON\n{image(1).uuid}\tp.jpg\t100\t5\t000001\t\n\tx\t\t\t\tempty\n"
    )
    last = plan.read_last_plan(tmp_path / "plan.tsv")
    assert [*last] == [image(1).uuid]
    shards = {"000001": identities(image(1))}
    assert plan.make_plan(shards, [image(1)._replace(ctime_ns=9)], [], 10, last=last).new_shards == []
    [missing] = plan.find_missing(shards, {}, [], last, None)
    assert missing.path == "p.jpg"


def test_a_new_shard_that_was_never_listed_or_could_not_read_an_image_is_planned_again(tmp_path):
    shards = {"000001": identities(image(1))}
    before = last_plan(tmp_path, plan.make_plan(shards, [image(1)._replace(ctime_ns=7)], [], 10))
    now = [image(1)._replace(ctime_ns=8)]
    killed = last_plan(tmp_path, plan.make_plan(shards, now, [], 10, last=before))
    assert plan.make_plan(shards, now, [], 10, last=killed).new_shards == ["000002"]
    unread = {**shards, "000002": set()}
    assert plan.make_plan(unread, now, [], 10, last=killed).new_shards == ["000003"]


def test_contents_that_changed_while_an_image_was_missing_are_noticed(tmp_path):
    shards = {"000001": identities(image(1))}
    first = last_plan(tmp_path, plan.make_plan(shards, [image(1)._replace(ctime_ns=7)], [], 10))
    missing = plan.find_missing(shards, {}, [], first, None)
    last = last_plan(tmp_path, plan.Plan([], [], [], missing))
    assert plan.make_plan(shards, [image(1)._replace(ctime_ns=7)], [], 10, last=last).new_shards == []
    assert plan.make_plan(shards, [image(1)._replace(ctime_ns=8)], [], 10, last=last).new_shards == ["000002"]


def test_missing_images_are_judged_once_and_held_back_in_doubt(tmp_path):
    shards = {"000001": identities(*map(image, range(5)))}
    stored = {image(n).uuid: f"database/{n}" for n in (1, 2, 3, 9)}
    last = last_plan(tmp_path, plan.make_plan(shards, [image(1)], [], 10))
    asked = []

    def doubt(uuid, path):
        asked.append(path)
        return "its folder is unreadable" if uuid == image(2).uuid else ""

    respelled = image(3)._replace(uuid=image(3).uuid.replace("-", ""))
    missing = plan.find_missing(shards, stored, [image(0), respelled], last, doubt)
    assert {each.uuid[-1]: each.reason for each in missing} == {
        "1": "removed",
        "2": "its folder is unreadable",
        "4": "removed",
        "9": "removed",
    }
    assert asked == [image(1).path, "database/2", "", "database/9"]
    planned = plan.Plan([], [RejectedFile("x", "removed")], [], missing)
    asked.clear()
    plan.find_missing(shards, {}, [image(0), respelled], last_plan(tmp_path, planned), doubt)
    assert asked == ["database/2"], "what was removed stays removed"
    assert plan.read_removed(tmp_path / "plan.tsv") == {image(n).uuid for n in (1, 4, 9)}


def test_files_that_are_no_shard_lists_are_ignored_and_a_broken_link_is_named(tmp_path):
    (tmp_path / "shards").mkdir()
    for name in ("000001 (copy).tsv", "1.tsv", "0000001.tsv"):
        (tmp_path / "shards" / name).touch()
    assert plan.read_shard_lists(tmp_path) == {}
    (tmp_path / "shards" / "000002.tsv").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"000002\.tsv' is damaged"):
        plan.read_shard_lists(tmp_path)


def test_images_to_retry_go_into_a_new_shard():
    shards = {"000001": identities(image(1), image(2))}
    planned = plan.make_plan(shards, [image(1), image(2)], [], 10, retry=frozenset({image(2).uuid}))
    assert owners(planned) == {image(1).uuid: "000001", image(2).uuid: "000002"}
    assert planned.n_reread == 0


def test_a_shard_whose_list_is_lost_is_taken_over_only_if_no_status_has_changed(tmp_path):
    before = [image(n)._replace(ctime_ns=7) for n in (1, 2)]
    last = last_plan(tmp_path, plan.make_plan({}, before, [], 10))
    assert plan.make_plan({}, before, [], 10, last=last, unlisted={"000001"}).new_shards == ["000001"]
    now = [before[0], before[1]._replace(ctime_ns=8)]
    killed = plan.make_plan({}, now, [], 10, last=last, unlisted={"000001"})
    assert killed.new_shards == ["000002"]
    assert {planned.shard for planned in killed.images} == {"000002"}
    again = plan.make_plan({}, now, [], 10, last=last_plan(tmp_path, killed), unlisted={"000001", "000002"})
    assert again.new_shards == ["000003"], "the database of 000001 may be there still"
    kept = {"000002": identities(image(2))}
    planned = plan.make_plan(kept, now, [], 10, last=last_plan(tmp_path, killed), unlisted={"000001"})
    assert planned.new_shards == ["000003"]


def test_a_lost_list_is_not_taken_over_by_images_that_other_shards_had(tmp_path):
    images = [image(1), image(2)]
    last = last_plan(tmp_path, plan.make_plan({"000004": identities(image(9))}, images, [], 1))
    planned = plan.make_plan({}, images, [], 1, last=last, unlisted={"000004", "000006"})
    assert planned.new_shards == ["000007", "000008"]


def test_if_the_last_plan_is_lost_every_image_is_read_again():
    shards, images = {"000001": identities(image(1), image(2))}, [image(1), image(2), image(3)]
    planned = plan.make_plan(shards, images, [], 10, last={})
    assert (planned.new_shards, planned.n_reread) == (["000002"], 2)
    assert plan.may_change_plan({}, plan.make_plan(shards, images, [], 10), set())
    first = plan.make_plan({}, images, [], 10)
    assert not plan.may_change_plan({}, first, set())
    assert plan.may_change_plan({}, first, {"000004"})
    assert plan.make_plan({}, images, [], 10, last={}, unlisted={"000004"}).new_shards == ["000005"]


def test_files_of_shards_without_a_list_are_found(tmp_path):
    assert plan.unlisted_shards(tmp_path, []) == set()
    (tmp_path / "embeddings").mkdir()
    for name in ("000001.sqlite", "000002.sqlite", ".000003.0a1b.rows", "000004.unread.tsv", "0000055.sqlite", "notes"):
        (tmp_path / "embeddings" / name).touch()
    assert plan.unlisted_shards(tmp_path, ["000002", "000009"]) == {"000001", "000003", "000004"}


def test_the_digest_of_a_plan_stays_that_of_earlier_versions():
    """Otherwise, an upgrade would write all lists again."""
    images = [
        plan.PlannedImage(f"{number:032x}", f"ph\udce9tos/{number}.jpg", 9, -1, "000001", 7) for number in range(1001)
    ]
    assert plan.Plan(images, [RejectedFile("x\ty.jpg", "empty")], ["000001"]).digest() == "915ed862fcc4d55c"
    assert plan.Plan([], [], []).digest() == "e3b0c44298fc1c14"


def test_an_image_with_its_former_size_and_time_is_read_again(tmp_path):
    """It may be another version: both shards list it, and neither says which contents it has now."""
    shards = {"000001": identities(image(1)), "000002": identities(image(1, mtime_ns=9))}
    last = last_plan(tmp_path, plan.make_plan(shards, [image(1, mtime_ns=9)], [], 10))
    planned = plan.make_plan(shards, [image(1)], [], 10, last=last)
    assert (planned.new_shards, planned.n_reread) == (["000003"], 1)


def test_an_image_that_the_last_plan_did_not_know_is_read_again(tmp_path):
    """Its UUID had another spelling then: the shard lists its size and time, but its contents may be others."""
    shards = {"000001": identities(image(1), image(2))}
    last = last_plan(tmp_path, plan.make_plan(shards, [image(2)], [], 10))
    planned = plan.make_plan(shards, [image(1), image(2)], [], 10, last=last)
    assert (planned.new_shards, planned.n_reread) == (["000002"], 1)
    assert plan.may_change_plan(last, plan.make_plan(shards, [image(1), image(2)], [], 10), set())


def test_new_images_do_not_change_the_plan(tmp_path):
    shards = {"000001": identities(image(1))}
    last = last_plan(tmp_path, plan.make_plan(shards, [image(1)], [], 10))
    assert not plan.may_change_plan(last, plan.make_plan(shards, [image(1), image(2)], [], 10), set())
