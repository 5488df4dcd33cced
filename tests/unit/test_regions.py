"""Regions of a map, and their names."""

import numpy as np

from crossfilter_inference.map.regions import describe_regions, find_labelled_regions, find_regions, name_by_words
from crossfilter_inference.map.sphere import latitude_longitude, unit_vectors_from_latitude_longitude

CENTRES = [(0, 0), (0, 90), (60, -120), (-50, 170)]


def groups(sizes, spread=6.0, seed=0):
    """Draw photos around some points of the sphere; return unit vectors and the group of each."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    positions = np.array(CENTRES)[group] + spread * random.normal(size=(len(group), 2))
    return unit_vectors_from_latitude_longitude(*positions.T), group


def agree(region_of, group):
    """Return whether two groupings are equal except for their numbers."""
    return len({*zip(region_of.tolist(), group.tolist(), strict=True)}) == len({*group.tolist()})


def test_separate_groups_are_regions_with_the_largest_first():
    unit_vectors, group = groups([300, 60, 150, 90])
    region_of = find_regions(unit_vectors)
    assert agree(region_of, group)
    assert np.bincount(region_of).tolist() == [300, 150, 90, 60]


def test_one_group_is_one_region_and_a_few_photos_are_none():
    assert {*find_regions(groups([400])[0]).tolist()} == {0}
    assert find_regions(groups([2, 1])[0]).tolist() == [-1] * 3
    assert find_regions(np.empty((0, 3))).tolist() == []
    assert find_regions(np.tile([1.0, 0, 0], (30, 1))).tolist() == [0] * 30


def test_a_single_photo_is_not_a_region():
    unit_vectors, _ = groups([2000, 1000])
    alone = unit_vectors_from_latitude_longitude(np.array([-80.0]), np.array([-60.0]))
    region_of = find_regions(np.vstack([unit_vectors, alone]))
    assert region_of.max() == 1
    assert np.bincount(region_of[region_of >= 0])[0] >= 2000


def test_clustered_labels_are_regions_and_scattered_labels_are_not():
    unit_vectors, group = groups([20, 20, 20])
    random = np.random.default_rng(1)
    labels = np.array(["a", "b", "c"])[group].tolist()
    for row in random.choice(60, 12, replace=False):
        labels[row] = "everywhere"
    labels[0] = None
    region_of, names = find_labelled_regions(unit_vectors, labels)
    assert sorted(names) == ["a", "b", "c"]
    assert all(labels[row] == names[number] for row, number in enumerate(region_of) if number >= 0)
    assert region_of[0] == -1


def test_a_label_that_all_photos_have_is_not_a_region():
    unit_vectors, _ = groups([30, 30])
    assert find_labelled_regions(unit_vectors, ["photos"] * 60)[1] == []


def test_the_middle_of_a_region_is_among_its_photos():
    unit_vectors, group = groups([50, 40], spread=2)
    regions = describe_regions(unit_vectors, group, ["one", ""])
    assert [region.name for region in regions] == ["one", ""]
    for region, (latitude, longitude) in zip(regions, CENTRES, strict=False):
        assert abs(region.latitude - latitude) < 1.5
        assert abs(region.longitude - longitude) < 1.5
    for region in regions:
        middle = unit_vectors_from_latitude_longitude(np.array([region.latitude]), np.array([region.longitude]))
        assert np.allclose(latitude_longitude(middle), ([region.latitude], [region.longitude]))


def test_regions_are_named_after_their_distinctive_content():
    axes = np.eye(4, dtype=np.float32)
    common = axes[3]  # the direction that all images share, and a word for it
    embeddings = np.vstack([common + 0.5 * axes[0]] * 10 + [common + 0.5 * axes[1]] * 30)
    words = ["cat", "dog", "fish", "photo"]
    assert name_by_words(np.repeat([0, 1], [10, 30]), embeddings, words, axes) == ["cat", "dog"]


def test_of_almost_equal_words_the_most_familiar_one_is_chosen():
    axes = np.eye(4, dtype=np.float32)
    embeddings = np.vstack([axes[0] + 0.9 * axes[1] + 0.5 * axes[2]] * 10 + [axes[3]] * 30)
    words = ["wolf\ncanis lupus", "fish\nfishes", "teleost", "rock"]
    region_of = np.repeat([0, -1], [10, 30])
    one = axes[[2, 1, 0, 3]]
    assert name_by_words(region_of, embeddings, words, one, prefer_first=True) == ["fish"]
    assert name_by_words(region_of, embeddings, words, one) == ["teleost"]
    assert name_by_words(region_of, embeddings, words[:1], one[:1]) == ["wolf"]
