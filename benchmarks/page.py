"""Measure the page with 100,000 photos in headless Chromium without a GPU: size, first paint, frame time, memory.

    python benchmarks/page.py

The empty scene, a page that only clears its canvas, shows the browser's own share.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import material
import numpy as np
from PIL import Image

from crossfilter_inference.map.contents import MapContents
from crossfilter_inference.map.regions import describe_regions
from crossfilter_inference.map.sphere import latitude_longitude
from crossfilter_inference.view.page import choose_photos, make_page

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import browser

EMPTY = """<!doctype html><canvas id="sphere" style="position:fixed;inset:0;width:100%;height:100%"></canvas>
<p>No photos</p><p id="trouble" hidden></p><script>
const gl = document.getElementById("sphere").getContext("webgl2");
[gl.canvas.width, gl.canvas.height] = [innerWidth, innerHeight];
const state = { frames: 1 };
let pending = 0, flight = null, spin = null;
const originals = { nLoading: 0 }, thumbnails = { images: new Map() };
</script>"""
CLEAR = "() => { gl.clearColor(Math.random(), 0, 0, 1); gl.clear(gl.COLOR_BUFFER_BIT); }"
DRAW = "cancelAnimationFrame(pending); draw(performance.now()); }"
TURN = f"() => {{ view.longitude += 0.01; {DRAW}"
ZOOM = f"() => {{ view.zoom = view.zoom > 40 ? 1 : view.zoom * 1.05; {DRAW}"
EARTH = f"() => {{ view.earth = 1; showEarth(true); view.longitude += 0.01; {DRAW}"
BRUSH = """() => { if (elements.filters.hidden) toggleFilters();
    const [low, high] = byTime.all, start = low + Math.random() * 0.7 * (high - low);
    byTime.choose([start, start + 0.3 * (high - low)]); """
BRUSH += DRAW
LASSO = """() => { const corners = Array.from({ length: 200 }, (_, i) => (i * Math.PI) / 100), [x, y] = view.middle;
    const wave = () => (0.5 + 0.3 * Math.random()) * view.radius;
    changeSelection(photosInside(corners.flatMap((a) => [x + wave() * Math.cos(a), y + wave() * Math.sin(a)]))); """
LASSO += DRAW
FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
# The time between two frames, and the share of it that the page's script takes.
FRAMES = """async ([step, n]) => {
    const draw_once = eval(step), between = [], inside = [];
    let last = await new Promise(requestAnimationFrame);
    for (let i = 0; i < n; i++) {
        const start = performance.now();
        draw_once();
        inside.push(performance.now() - start);
        const now = await new Promise(requestAnimationFrame);
        between.push(now - last);
        last = now;
    }
    return [between, inside];
}"""


def make_contents(n_images: int) -> MapContents:
    """Make a map of 60 groups, with neighbours within the groups."""
    random = np.random.default_rng(0)
    group = np.sort(random.integers(0, 60, n_images))
    centres = random.normal(size=(60, 3))
    unit_vectors = centres[group] / np.linalg.norm(centres[group], axis=1, keepdims=True)
    unit_vectors = unit_vectors + 0.12 * random.normal(size=(n_images, 3))
    unit_vectors /= np.linalg.norm(unit_vectors, axis=1, keepdims=True)
    latitude, longitude = latitude_longitude(unit_vectors)
    uuids = [f"{number:08x}-0000-4000-8000-{number * 7919:012x}" for number in range(n_images)]
    return MapContents(
        "SIGLIP2",
        uuids,
        [f"/photos/{2000 + number % 25}/{uuid}.jpg" for number, uuid in enumerate(uuids)],
        {
            "TAKEN": [f"20{number % 25:02}-{1 + number % 12:02}-15T12:00:00" for number in range(n_images)],
            "CAMERA": [f"camera {number % 7}" for number in range(n_images)],
            "LATITUDE": random.uniform(-50, 70, n_images).tolist(),
            "LONGITUDE": random.uniform(-180, 180, n_images).tolist(),
        },
        np.zeros(n_images, bool),
        latitude,
        longitude,
        (np.arange(n_images)[:, None] + np.arange(1, 15)).astype(np.int32) % n_images,
        np.full((n_images, 14), 0.8, np.float32),
        random.uniform(size=n_images),
        group.astype(np.int32),
        describe_regions(unit_vectors, group, [f"region {number}" for number in range(60)]),
        {"trustworthiness": 0.95, "neighbours_kept": 0.3},
    )


def make_thumbnails(n: int) -> list[bytes]:
    """Make distinct thumbnails from random parts of the demo photos."""
    random, photos = np.random.default_rng(0), [Image.open(path).convert("RGB") for path in material.DEMO_PHOTOS]
    made = []
    for number in range(n):
        photo = photos[number % len(photos)]
        left, top = random.uniform(0, 0.3, 2) * photo.size
        file = io.BytesIO()
        box = (left, top, left + 0.7 * photo.width, top + 0.7 * photo.height)
        thumbnail = photo.resize((96, round(96 * photo.height / photo.width)), box=box)
        thumbnail.save(file, "JPEG", quality=80)
        made.append(file.getvalue())
    return made


def measure(chromium: object, path: Path, step: str, n_frames: int) -> dict[str, float]:
    """Open a page, draw frames, and return the measurements."""
    start = time.perf_counter()
    with browser.opened(chromium, path) as tab:
        # On a busy machine, the page's script can be at rest before Chromium shows anything.
        first = tab.wait_for_function(FIRST_PAINT).json_value()
        opened = time.perf_counter() - start
        between, inside = tab.evaluate(FRAMES, [step, n_frames])
        session = tab.context.new_cdp_session(tab)
        session.send("HeapProfiler.collectGarbage")
        heap = session.send("Runtime.getHeapUsage")["usedSize"]
    return {
        "file, MB": path.stat().st_size / 1e6,
        "first paint, s": first / 1e3,
        "open and at rest, s": opened,
        "frame, ms": statistics.median(between),
        "frame, 95th of 100, ms": statistics.quantiles(between, n=20)[-1],
        "script of a frame, ms": statistics.median(inside),
        "JavaScript heap, MB": heap / 1e6,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=100_000)
    options.add_argument("--thumbnails", type=int, default=5_000)
    options.add_argument("--frames", type=int, default=200)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name, browser.started() as chromium:
        folder = Path(name)
        contents = make_contents(arguments.photos)
        by_lot = contents.random_order()
        jpegs = make_thumbnails(arguments.thumbnails)
        start = time.perf_counter()
        text, n_shown = make_page(contents, choose_photos(by_lot), dict(zip(by_lot, jpegs, strict=False)))
        print(f"written in {time.perf_counter() - start:.1f} s, {n_shown} thumbnails")
        (folder / "map.html").write_text(text)
        (folder / "empty.html").write_text(EMPTY)
        scenes = {
            "empty scene": ("empty.html", CLEAR),
            "globe": ("map.html", TURN),
            "globe, close up": ("map.html", TURN.replace("{", "{ view.zoom = 4;", 1)),
            "flat map": ("map.html", TURN.replace("{", "{ view.flatness = 1;", 1)),
            "zoom": ("map.html", ZOOM),
            "Earth": ("map.html", EARTH),
            "brush over time": ("map.html", BRUSH),
            "lasso": ("map.html", LASSO),
        }
        figures = {
            title: measure(chromium, folder / file, step, arguments.frames) for title, (file, step) in scenes.items()
        }
    names = list(figures["globe"])
    print("| scene | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for title, row in figures.items():
        print(f"| {title} | " + " | ".join(f"{row[name]:.4g}" for name in names) + " |")


if __name__ == "__main__":
    main()
