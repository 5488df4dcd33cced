r"""Measure the map: speed, memory, quality and updates, against umap-learn as it is, on the sphere and in the plane.

Stock is umap-learn's own layout on the sphere, as the original tool calls it (a sphere of radius 1), or with our radius
(`a * R**(2b)`, `learning_rate = 1 / R**2`). Prints tables, and writes them to SPHERE.md beside this file.

Example:
    make bench
    PYTHONPATH=workflow .venv/bin/python benchmarks/sphere.py --only quality
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from material import load_digits, load_emoji, make_clusters

from crossfilter_inference.map import fit as placement
from crossfilter_inference.map import layout, neighbours
from crossfilter_inference.map import model as umap_model
from crossfilter_inference.map.fuzzy_graph import fuzzy_graph
from crossfilter_inference.map.quality import measure
from crossfilter_inference.map.sphere import degrees_between, spherical_mean, unit_vectors_from_angles

N_CORES = os.cpu_count()
N_SEEDS = 5
SETTINGS = {"n_neighbors": 15, "min_dist": 0.1, "random_state": 42}
RADIUS = layout.default_radius(100_000)
CURVE = umap_model.make_curve(SETTINGS, RADIUS)
RADII = (1, 2, 3, 4, 5, 6, 8)
FIGURES = ("trustworthiness", "neighbours_kept", "label_purity", "sphere_share")
ORIGINAL = """
import sys, numpy, umap
rows = numpy.load(sys.argv[1])
model = umap.UMAP(n_components=2, metric="cosine", output_metric="haversine", random_state=42).fit(rows)
"""
OURS = """
import sys, numpy, os
from crossfilter_inference import placement, umap_model
rows = numpy.load(sys.argv[1])
curve = umap_model.make_curve({"n_neighbors": 15, "min_dist": 0.1, "random_state": 42}, 4)
uuids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(len(rows))]
places = placement.fit(uuids, rows, curve, os.cpu_count(), None)
places.row_digests = umap_model.row_digests(rows)
print(len(umap_model.to_pickle(places, curve, 0.1)))
"""
DESCENT = """
import sys, numpy, time
from crossfilter_inference import neighbours
rows, start = numpy.load(sys.argv[1]), time.perf_counter()
neighbours._descend(rows, 15)
print(time.perf_counter() - start)
"""
# Of this process alone: what the system reports to the parent begins with the parent's own.
PEAK_MEMORY = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
lines: list[str] = []


def say(line: str = "") -> None:
    print(line, flush=True)
    lines.append(line)


def in_turns(n_rounds: int, **works: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Do each in turn; return the medians of wall and CPU time in seconds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(n_rounds):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: tuple(map(statistics.median, zip(*pairs, strict=True))) for name, pairs in times.items()}


def run(program: str, rows: Path) -> tuple[float, float, list[str]]:
    """Run a program from the start of its process; return seconds, peak memory in MB, and what it printed."""
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", program + PEAK_MEMORY, rows]
    *printed, kilobytes = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    return time.perf_counter() - start, int(kilobytes) / 1024, printed


def stock(rows: np.ndarray, places: placement.Places, seed: int, radius: float | None) -> np.ndarray:
    """Lay the same neighbours out by umap-learn: on the sphere, or, without a radius, in the plane."""
    import umap

    options = {} if radius is None else {"output_metric": "haversine"}
    if radius not in (None, 1):
        options |= {"a": CURVE.a * radius ** (2 * CURVE.b), "b": CURVE.b, "learning_rate": 1 / radius**2}
    knn = places.indices.astype(np.int64), places.distances
    model = umap.UMAP(metric="cosine", random_state=seed, n_jobs=1, precomputed_knn=knn, **options).fit(rows)
    return model.embedding_ if radius is None else unit_vectors_from_angles(*model.embedding_.T)


def ours(rows: np.ndarray, places: placement.Places, seed: int, radius: float) -> np.ndarray:
    shape = CURVE.a, CURVE.b, radius, seed
    n_epochs = layout.default_n_epochs(len(rows))
    return layout.lay_out(layout.first_places(rows), places.graph, *shape, N_CORES, n_epochs)


def graph_of(rows: np.ndarray) -> placement.Places:
    indices, distances = neighbours.all_neighbours(rows, SETTINGS["n_neighbors"], N_CORES)
    return placement.Places([], np.empty((0, 2)), indices, distances, fuzzy_graph(indices, distances))


def measure_speed(folder: Path) -> None:
    from umap.distances import haversine_grad
    from umap.layouts import optimize_layout_euclidean, optimize_layout_generic

    say("## Layout, ms per epoch")
    say()
    say("CPU time on one core; 20 epochs, without compilation; medians of 3 in turns.")
    say()
    say("| photos | stock haversine | stock euclidean | ours | haversine / ours | ours, wall, 1 thread / 2 threads |")
    say("|---|---|---|---|---|---|")
    for n_images in (10_000, 100_000):
        rows, _ = make_clusters(n_images)
        places = graph_of(rows)
        start, n_epochs = layout.first_places(rows), 20
        coo = places.graph.tocoo()
        coo.data[coo.data < coo.data.max() / layout.default_n_epochs(n_images)] = 0
        coo.eliminate_zeros()
        each = (coo.data.max() / coo.data).astype(np.float64)
        state = np.array([1, 2, 3], np.int64)
        angles = np.ascontiguousarray(
            np.column_stack([np.arccos(start[:, 2]), np.arctan2(start[:, 1], start[:, 0])]), np.float32
        )

        def generic(n: int = n_epochs, a=angles, c=coo, e=each, s=state, k=n_images) -> None:
            optimize_layout_generic(
                *(a.copy(), a.copy(), c.row, c.col, n, k, e, CURVE.a, CURVE.b, s),
                output_metric=haversine_grad,
                move_other=True,
            )

        def euclidean(n: int = n_epochs, a=angles, c=coo, e=each, s=state, k=n_images) -> None:
            optimize_layout_euclidean(a.copy(), a.copy(), c.row, c.col, n, k, e, CURVE.a, CURVE.b, s, move_other=True)

        def sphere(n_threads: int = 1, p=places, s=start, n=n_epochs) -> None:
            shape = CURVE.a, CURVE.b, CURVE.radius, 42
            layout.lay_out(s, p.graph, *shape, n_threads, n)

        sphere()
        # Both of umap-learn's are compiled at every call: the time of a call of one epoch is taken off.
        times = in_turns(
            3,
            generic=generic,
            generic_1=lambda: generic(1),
            euclidean=euclidean,
            euclidean_1=lambda: euclidean(1),
            ours=sphere,
            ours_2=lambda: sphere(2),
        )
        haversine = (times["generic"][1] - times["generic_1"][1]) / (n_epochs - 1)
        plane = (times["euclidean"][1] - times["euclidean_1"][1]) / (n_epochs - 1)
        one = times["ours"][1] / n_epochs
        say(
            f"| {n_images:,} | {haversine * 1e3:.1f} | {plane * 1e3:.1f} | {one * 1e3:.1f} | {haversine / one:.1f} "
            f"| {times['ours'][0] / times['ours_2'][0]:.2f} |"
        )
    say()


def measure_whole_fit(folder: Path) -> None:
    say(f"## Whole fit, from the start of the process, {N_CORES} cores, 768 dimensions")
    say()
    say("| photos | seconds | peak memory, MB | model, MB |")
    say("|---|---|---|---|")
    for n_images in (10_000, 30_000, 100_000):
        rows = folder / f"rows-{n_images}.npy"
        np.save(rows, make_clusters(n_images)[0])
        results = [run(OURS, rows) for _ in range(3 if n_images <= 30_000 else 1)]
        seconds = statistics.median(result[0] for result in results)
        say(f"| {n_images:,} | {seconds:.1f} | {results[0][1]:.0f} | {int(results[0][2][0]) / 1e6:.1f} |")
        if n_images == 10_000:
            ours_seconds = seconds
    original, memory, _ = run(ORIGINAL, folder / "rows-10000.npy")
    say(f"| 10,000, the original's call | {original:.1f} | {memory:.0f} | |")
    say()
    say(f"The original's call / ours at 10,000: {original / ours_seconds:.1f}.")
    say()


def measure_neighbours(folder: Path) -> None:
    say(f"## Nearest neighbours, seconds ({N_CORES} cores, 768 dimensions)")
    say()
    rows, _ = make_clusters(80_000)
    np.save(folder / "rows-1000.npy", rows[:1000])
    compilation = float(run(DESCENT, folder / "rows-1000.npy")[2][0])
    say(f"NN-descent is compiled in every process, which comes to its time: {compilation:.1f} s.")
    say()
    say("| photos | exact | NN-descent | recall |")
    say("|---|---|---|---|")
    neighbours._descend(rows[:1000], 15)
    for n_images in (10_000, 40_000, 60_000, 80_000):
        part, found = rows[:n_images], {}
        own = np.arange(n_images)

        def exact(part=part, own=own, found=found) -> None:
            found["exact"] = neighbours.nearest(part, part, 15, N_CORES, own)[0]

        def descent(part=part, found=found) -> None:
            found["descent"] = neighbours._refined(part, neighbours._descend(part, 15), 15, N_CORES)[0]

        times = in_turns(1, exact=exact, descent=descent)
        pairs = zip(found["exact"], found["descent"], strict=True)
        recall = np.mean([len(np.intersect1d(*pair)) / 15 for pair in pairs])
        say(f"| {n_images:,} | {times['exact'][0]:.1f} | {times['descent'][0]:.1f} | {recall:.4f} |")
    say()


def labelled_sets(folder: Path) -> dict[str, tuple[np.ndarray, list[str]]]:
    sets = {"digits": load_digits(), "emoji": load_emoji(folder), "clusters of 3,000": make_clusters(3_000)}
    return {name: (rows, [str(label) for label in labels]) for name, (rows, labels) in sets.items()}


def mean_figures(rows: np.ndarray, labels: list[str], make: Callable[[int], np.ndarray]) -> list[str]:
    figures = [measure(rows, make(seed), N_CORES, labels) for seed in range(N_SEEDS)]
    return [f"{np.mean([f[name] for f in figures]):.4f}" if name in figures[0] else "" for name in FIGURES]


def measure_quality(folder: Path) -> None:
    radius = round(RADIUS)
    say(f"## Quality, means over {N_SEEDS} seeds")
    say()
    say("All from the same neighbours. The last column is the share of the sphere in use.")
    say()
    say("| set | layout | trustworthiness@15 | neighbours kept | label purity | share |")
    say("|---|---|---|---|---|---|")
    for name, (rows, labels) in labelled_sets(folder).items():
        places = graph_of(rows)
        layouts: dict[str, Callable[[int], np.ndarray]] = {
            "stock, R = 1": lambda seed, r=rows, p=places: stock(r, p, seed, 1),
            f"stock, R = {radius}": lambda seed, r=rows, p=places: stock(r, p, seed, radius),
            "stock, plane": lambda seed, r=rows, p=places: stock(r, p, seed, None),
            **{f"ours, R = {R}": lambda seed, r=rows, p=places, R=R: ours(r, p, seed, R) for R in RADII},
        }
        for label, make in layouts.items():
            say(f"| {name} | {label} | " + " | ".join(mean_figures(rows, labels, make)) + " |")
    say()


def measure_radius(folder: Path) -> None:
    say(f"## The radius for few photos, means over {N_SEEDS} seeds")
    say()
    say("Samples of the labelled sets; the default for their number of photos comes last.")
    say()
    say("| set | photos | R | trustworthiness@15 | neighbours kept | label purity | share |")
    say("|---|---|---|---|---|---|---|")
    for n_images in (62, 200, 600):
        for name, (rows, labels) in list(labelled_sets(folder).items())[:2]:
            chosen = np.random.default_rng(1).permutation(len(rows))[:n_images]
            part, named = rows[chosen], [labels[index] for index in chosen]
            places = graph_of(part)
            for radius in (1, 1.5, 2, 3, 4, layout.default_radius(n_images)):
                figures = mean_figures(part, named, lambda seed, r=part, p=places, R=radius: ours(r, p, seed, R))
                say(f"| {name} | {n_images} | {radius:.1f} | " + " | ".join(figures) + " |")
    say()


def measure_updates(folder: Path) -> None:
    say("## Updates, 1 % new photos")
    say()
    say(f"Means over {N_SEEDS} choices of the new photos: drift of the old ones in degrees, trustworthiness@15 and")
    say("neighbours kept; the last two columns place a tenth of the photos among the others.")
    say()
    say("| set | align: drift | T, kept after align | after place | after a refit | > 30 degrees | purity, place |")
    say("|---|---|---|---|---|---|---|")
    sets = labelled_sets(folder)
    rows, labels = make_clusters(10_000)
    sets["clusters of 10,000"] = rows, [str(label) for label in labels]
    for name, (rows, labels) in sets.items():
        results = []
        for seed in range(N_SEEDS):
            order = np.random.default_rng(seed).permutation(len(rows))
            x, y = rows[order], np.array(labels)[order]
            uuids = [f"{number:06d}" for number in range(len(x))]
            n_old = len(x) - len(x) // 100
            curve = umap_model.make_curve({**SETTINGS, "random_state": seed}, layout.default_radius(len(x)))
            old = placement.fit(uuids[:n_old], x[:n_old], curve, N_CORES, None)
            parts = []
            for improve in (True, False):
                new = placement.update(uuids, x, np.arange(n_old), curve, N_CORES, old, improve=improve)
                parts.append((new.record["drift_degrees"], measure(x, new.unit_vectors, N_CORES)))
            refit = measure(x, placement.fit(uuids, x, curve, N_CORES, None).unit_vectors, N_CORES)
            tenth = len(x) // 10
            base = placement.fit(uuids[:-tenth], x[:-tenth], curve, N_CORES, None).unit_vectors
            placed = placement.place(x[-tenth:], x[:-tenth], base, N_CORES)
            near, _ = neighbours.nearest(x[-tenth:], x[:-tenth], 15, N_CORES)
            far = degrees_between(placed, spherical_mean(base[near], np.ones(near.shape))) > 30
            beside = np.argsort(-(placed @ base.T), axis=1)[:, :15]
            purity = (y[:-tenth][beside] == y[-tenth:, None]).mean()
            quality = [f[key] for f in (parts[0][1], parts[1][1], refit) for key in FIGURES[:2]]
            results.append([parts[0][0], *quality, far.mean(), purity])
        drift, *quality, far, purity = np.mean(results, axis=0)
        pairs = [f"{t:.4f}, {kept:.4f}" for t, kept in zip(quality[::2], quality[1::2], strict=True)]
        say(f"| {name} | {drift:.2f} | " + " | ".join(pairs) + f" | {far:.4f} | {purity:.3f} |")
    say()
    rows, _ = make_clusters(101_000)
    uuids = [f"{number:06d}" for number in range(len(rows))]
    start = time.perf_counter()
    old = placement.fit(uuids[:100_000], rows[:100_000], CURVE, N_CORES, None)
    fitted = time.perf_counter() - start
    start = time.perf_counter()
    placement.place(rows[100_000:], rows[:100_000], old.unit_vectors, N_CORES)
    placed = time.perf_counter() - start
    start = time.perf_counter()
    placement.update(uuids, rows, np.arange(100_000), CURVE, N_CORES, old, improve=True)
    aligned = time.perf_counter() - start
    say(f"100,000 photos fitted in {fitted:.1f} s; 1,000 placed among them in {placed:.1f} s ({placed / fitted:.3f}),")
    say(f"placed and aligned in {aligned:.1f} s.")
    say()


PARTS = {
    "speed": measure_speed,
    "fit": measure_whole_fit,
    "neighbours": measure_neighbours,
    "quality": measure_quality,
    "radius": measure_radius,
    "updates": measure_updates,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="parts to measure")
    options.add_argument("--folder", type=Path, help="where material is kept; default: a temporary folder")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        say("# The map, measured")
        say()
        packages = ", ".join(f"{name} {version(name)}" for name in ("umap-learn", "numba", "numpy"))
        say(f"`make bench` on {N_CORES} cores of an {platform.processor() or platform.machine()}; {packages}.")
        say()
        for part in arguments.only:
            PARTS[part](folder)
    if set(arguments.only) == set(PARTS):
        Path(__file__).with_name("SPHERE.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
