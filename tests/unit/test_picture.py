import numpy as np

from crossfilter_inference.view.picture import place_thumbnails


def overlap(middles, sizes):
    apart = np.abs(middles[:, None] - middles[None]) >= (sizes[:, None] + sizes[None]) / 2
    return ~apart.any(axis=2) & ~np.eye(len(middles), dtype=bool)


def test_thumbnails_never_overlap_and_stay_near_their_positions():
    rng = np.random.default_rng(0)
    anchors = rng.uniform(200, 800, (100, 2))
    sizes = rng.uniform(40, 80, (100, 2))
    placed = place_thumbnails(anchors, sizes, lambda corners: True, reach=120)
    rows = list(placed)
    middles = np.array([placed[row] for row in rows])
    assert len(rows) > 30
    assert not overlap(middles, sizes[rows]).any()
    assert np.linalg.norm(middles - anchors[rows], axis=1).max() <= 120


def test_a_thumbnail_with_room_is_at_its_position():
    placed = place_thumbnails(np.array([[100.0, 100], [500, 500]]), np.full((2, 2), 50.0), lambda corners: True, 99)
    assert {row: middle.tolist() for row, middle in placed.items()} == {0: [100, 100], 1: [500, 500]}


def test_thumbnails_stay_inside_the_picture():
    placed = place_thumbnails(
        np.zeros((5, 2)), np.full((5, 2), 20.0), lambda corners: bool((corners >= 0).all()), reach=60
    )
    assert placed
    assert all((middle >= 10).all() for middle in placed.values())
