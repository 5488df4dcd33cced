r"""Measure speed, memory, quality and updates of the map, and compare them with umap-learn.

*Stock* is umap-learn's own layout on the sphere, with the original tool's radius of 1 or with 4 (`a * R**(2b)`,
`learning_rate = 1 / R**2`). It prints tables; if it has measured all parts, it writes them to SPHERE.md next to this
file.

Example:
    make bench
    PYTHONPATH=workflow .venv/bin/python benchmarks/sphere.py --only quality
"""

import argparse
import functools
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numba
import numpy as np
from material import N_CORES, load_digits, load_emoji, load_fashion, make_clusters

from crossfilter_inference.map import layout, neighbours
from crossfilter_inference.map.fit import SphereMap, fit, fit_parameters, place, update
from crossfilter_inference.map.fuzzy_graph import fuzzy_graph
from crossfilter_inference.map.quality import measure
from crossfilter_inference.map.sphere import degrees_between, spherical_mean, unit_vectors_from_angles

SETTINGS = {"n_neighbors": 15, "min_dist": "auto", "radius": "auto", "repulsion": "auto", "random_state": 42}
STOCK_RADIUS = 4
STOCK = fit_parameters({**SETTINGS, "min_dist": 0.1, "radius": STOCK_RADIUS}, 2_000, None).forces
FIGURES = ("trustworthiness", "neighbours_kept", "label_purity", "sphere_share")
ORIGINAL = """
import sys, numpy, umap
rows = numpy.load(sys.argv[1])
model = umap.UMAP(n_components=2, metric="cosine", output_metric="haversine", random_state=42).fit(rows)
"""
OURS = """
import sys, numpy
from dataclasses import replace
from crossfilter_inference.map.fit import fit, fit_parameters
from crossfilter_inference.map.pickled import to_pickle
from crossfilter_inference.map.rows import row_digests
rows, n_threads = numpy.load(sys.argv[1]), int(sys.argv[2])
settings = {"n_neighbors": 15, "min_dist": "auto", "radius": "auto", "repulsion": "auto", "random_state": 42}
parameters = fit_parameters(settings, len(rows), None)
uuids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(len(rows))]
fitted = fit(uuids, rows, parameters, n_threads, None)
print(len(to_pickle(replace(fitted, row_digests=row_digests(rows)), parameters)))
"""
# Of this process alone: the system's figure for a child starts at the memory of its parent.
PEAK_MEMORY = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
lines: list[str] = []
compile_once = functools.cache(numba.njit)  # umap-learn compiles some layouts at every call


def say(line: str = "") -> None:
    print(line, flush=True)
    lines.append(line)


def time_in_turns(n_rounds: int, **functions: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Call each function in turn; return the medians of wall and CPU time in seconds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(n_rounds):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: tuple(map(statistics.median, zip(*pairs, strict=True))) for name, pairs in times.items()}


def run(program: str, rows: Path) -> tuple[float, float, list[str]]:
    """Run a program in a process of its own; return seconds, peak memory in MB, and its output."""
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", program + PEAK_MEMORY, rows, str(N_CORES)]
    *printed, kilobytes = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    return time.perf_counter() - start, int(kilobytes) / 1024, printed


def lay_out_stock(rows: np.ndarray, graph: SphereMap, seed: int, radius: float | None) -> np.ndarray:
    """Lay out the same neighbours with umap-learn: on a sphere or, without a radius, in a plane."""
    import umap

    options = {} if radius is None else {"output_metric": "haversine"}
    if radius not in (None, 1):
        options |= {"a": STOCK.a * radius ** (2 * STOCK.b), "b": STOCK.b, "learning_rate": 1 / radius**2}
    knn = graph.neighbours.indices.astype(np.int64), graph.neighbours.distances
    with patch.object(numba, "njit", compile_once):
        model = umap.UMAP(metric="cosine", random_state=seed, n_jobs=1, precomputed_knn=knn, **options).fit(rows)
    return model.embedding_ if radius is None else unit_vectors_from_angles(*model.embedding_.T)


def forces_for(n_images: int) -> layout.Forces:
    return fit_parameters(SETTINGS, n_images, None).forces


def lay_out_ours(rows: np.ndarray, graph: SphereMap, seed: int, forces: layout.Forces) -> np.ndarray:
    n_epochs = layout.default_n_epochs(len(rows))
    return layout.lay_out(layout.initial_positions(rows), graph.graph, forces, seed, N_CORES, n_epochs)


def make_graph(rows: np.ndarray) -> SphereMap:
    """Return a map without positions: neighbours and graph alone."""
    found = neighbours.all_neighbours(rows, SETTINGS["n_neighbors"], N_CORES)
    return SphereMap([], np.empty((0, 2)), found, fuzzy_graph(*found))


def measure_speed(options: argparse.Namespace) -> None:
    from umap.distances import haversine_grad
    from umap.layouts import optimize_layout_euclidean, optimize_layout_generic

    say("## Layout, ms per epoch")
    say()
    say(f"CPU time on one core for 20 epochs, without compilation. Medians of {options.rounds} runs in turns.")
    say()
    say("| photos | stock haversine | stock euclidean | ours | haversine / ours | ours, wall, 1 thread / 2 threads |")
    say("|---|---|---|---|---|---|")
    for n_images in (10_000 // options.divide, 100_000 // options.divide):
        rows, _ = make_clusters(n_images)
        graph = make_graph(rows).graph
        start, n_epochs = layout.initial_positions(rows), 20
        coo = graph.tocoo()
        coo.data[coo.data < coo.data.max() / layout.default_n_epochs(n_images)] = 0
        coo.eliminate_zeros()
        each = (coo.data.max() / coo.data).astype(np.float64)
        state = np.array([1, 2, 3], np.int64)
        angles = np.ascontiguousarray(
            np.column_stack([np.arccos(start[:, 2]), np.arctan2(start[:, 1], start[:, 0])]), np.float32
        )

        def generic(n: int = n_epochs, a=angles, c=coo, e=each, s=state, k=n_images) -> None:
            with patch.object(numba, "njit", compile_once):
                optimize_layout_generic(
                    *(a.copy(), a.copy(), c.row, c.col, n, k, e, STOCK.a, STOCK.b, s),
                    output_metric=haversine_grad,
                    move_other=True,
                )

        def euclidean(n: int = n_epochs, a=angles, c=coo, e=each, s=state, k=n_images) -> None:
            optimize_layout_euclidean(a.copy(), a.copy(), c.row, c.col, n, k, e, STOCK.a, STOCK.b, s, move_other=True)

        forces = forces_for(n_images)

        def sphere(n_threads: int = 1, g=graph, s=start, n=n_epochs, f=forces) -> None:
            layout.lay_out(s, g, f, 42, n_threads, n)

        functions = {"generic": generic, "euclidean": euclidean, "ours": sphere, "ours_2": lambda: sphere(2)}
        time_in_turns(1, **functions)  # compiles them
        times = time_in_turns(options.rounds, **functions)
        haversine, plane, one = (times[name][1] / n_epochs for name in ("generic", "euclidean", "ours"))
        say(
            f"| {n_images:,} | {haversine * 1e3:.1f} | {plane * 1e3:.1f} | {one * 1e3:.1f} | {haversine / one:.1f} "
            f"| {times['ours'][0] / times['ours_2'][0]:.2f} |"
        )
    say()


def measure_whole_fit(options: argparse.Namespace) -> None:
    say(f"## Whole fit, including the start of the process ({N_CORES} cores, 768 dimensions)")
    say()
    say("| photos | seconds | peak memory, MB | model, MB |")
    say("|---|---|---|---|")
    smallest, *larger = (n // options.divide for n in (10_000, 30_000, 100_000))
    for n_images in (smallest, *larger):
        rows = options.folder / f"rows-{n_images}.npy"
        np.save(rows, make_clusters(n_images)[0])
        results = [run(OURS, rows) for _ in range(options.rounds if n_images <= 30_000 else 1)]
        seconds = statistics.median(result[0] for result in results)
        say(f"| {n_images:,} | {seconds:.1f} | {results[0][1]:.0f} | {int(results[0][2][0]) / 1e6:.1f} |")
        if n_images == smallest:
            ours_seconds = seconds
    original, memory, _ = run(ORIGINAL, options.folder / f"rows-{smallest}.npy")
    say(f"| {smallest:,}, the original's call | {original:.1f} | {memory:.0f} | |")
    say()
    say(f"The original's call / ours at {smallest:,}: {original / ours_seconds:.1f}.")
    say()


def measure_neighbours(options: argparse.Namespace) -> None:
    say("## Nearest neighbours, CPU seconds (one thread, 15 neighbours)")
    say()
    say("Recall is that of 1,000 rows. NN-descent is pynndescent's, which umap-learn uses; it was compiled before.")
    say()
    say("| rows | exact | ours | recall | NN-descent | recall |")
    say("|---|---|---|---|---|---|")
    for name, rows in large_sets(options.divide).items():
        own, found = np.arange(len(rows)), {}
        sample = own[:: max(1, len(own) // 1000)]
        expected = neighbours.nearest(rows[sample], rows, 15, N_CORES, sample).indices

        def exact(rows=rows, own=own) -> None:
            neighbours.nearest(rows, rows, 15, 1, own)

        def ours(rows=rows, found=found) -> None:
            with patch.object(neighbours, "EXACT_UP_TO", 0):
                found["ours"] = neighbours.all_neighbours(rows, 15, 1).indices

        def descent(rows=rows, found=found) -> None:
            from pynndescent import NNDescent

            index = NNDescent(rows, metric="dot", n_neighbors=16, random_state=0, n_jobs=1, max_candidates=60)
            found["descent"] = index.neighbor_graph[0]

        times = time_in_turns(1, exact=exact, ours=ours, descent=descent)
        recall = {
            key: np.mean([len(np.intersect1d(*pair)) / 15 for pair in zip(indices[sample], expected, strict=True)])
            for key, indices in found.items()
        }
        say(
            f"| {name} | {times['exact'][1]:.1f} | {times['ours'][1]:.1f} | {recall['ours']:.4f} "
            f"| {times['descent'][1]:.1f} | {recall['descent']:.4f} |"
        )
    say()


def large_sets(divide: int) -> dict[str, np.ndarray]:
    """Return real rows where they are installed (Debian: dataset-fashion-mnist), and clusters."""
    sets = {}
    if (fashion := load_fashion()) is not None:
        for n_images in (10_000, 20_000, 40_000, 70_000):
            sets[f"Fashion-MNIST, {n_images // divide:,}"] = fashion[0][: n_images // divide]
    for n_images in (20_000, 80_000):
        sets[f"clusters, {n_images // divide:,}"] = make_clusters(n_images // divide)[0]
    return sets


def labelled_sets(folder: Path) -> dict[str, tuple[np.ndarray, list[str]]]:
    sets = {"digits": load_digits(), "emoji": load_emoji(folder), "clusters of 3,000": make_clusters(3_000)}
    return {name: (rows, [str(label) for label in labels]) for name, (rows, labels) in sets.items()}


def mean_figures(rows: np.ndarray, labels: list[str], n_seeds: int, make: Callable[[int], np.ndarray]) -> list[str]:
    figures = [measure(rows, make(seed), N_CORES, labels) for seed in range(n_seeds)]
    return [f"{np.mean([f[name] for f in figures]):.4f}" if name in figures[0] else "" for name in FIGURES]


def measure_quality(options: argparse.Namespace) -> None:
    radius = STOCK_RADIUS
    say(f"## Quality, means over {options.seeds} seeds")
    say()
    say("All layouts use the same neighbours. The last column is the share of the sphere that the map uses.")
    say()
    say("| set | layout | trustworthiness@15 | neighbours kept | label purity | share |")
    say("|---|---|---|---|---|---|")
    for name, (rows, labels) in labelled_sets(options.folder).items():
        graph = make_graph(rows)
        layouts: dict[str, Callable[[int], np.ndarray]] = {
            "stock, R = 1": lambda seed, r=rows, g=graph: lay_out_stock(r, g, seed, 1),
            f"stock, R = {radius}": lambda seed, r=rows, g=graph: lay_out_stock(r, g, seed, radius),
            "stock, plane": lambda seed, r=rows, g=graph: lay_out_stock(r, g, seed, None),
            "ours": lambda seed, r=rows, g=graph: lay_out_ours(r, g, seed, forces_for(len(r))),
        }
        for label, make in layouts.items():
            say(f"| {name} | {label} | " + " | ".join(mean_figures(rows, labels, options.seeds, make)) + " |")
    say()


def measure_shape(options: argparse.Namespace) -> None:
    say(f"## Radius and repulsion, means over {options.seeds} seeds")
    say()
    say(
        "Samples of the labelled sets. The first line of each is the default for its number of photos; R is the radius,"
    )
    say("g the repulsion.")
    say()
    say("| set | photos | R | g | trustworthiness@15 | neighbours kept | label purity | share |")
    say("|---|---|---|---|---|---|---|---|")
    sets = list(labelled_sets(options.folder).items())[:2]
    sizes = {name: (62, 200, 600, len(rows)) for name, (rows, _) in sets}
    if (fashion := load_fashion()) is not None:
        sets.append(("Fashion-MNIST", fashion))
        sizes["Fashion-MNIST"] = (2_000, 10_000 // options.divide, 30_000 // options.divide)
    for name, (rows, labels) in sets:
        for n_images in sizes[name]:
            chosen = np.random.default_rng(1).permutation(len(rows))[:n_images]
            part, named = rows[chosen], [str(labels[index]) for index in chosen]
            graph, usual = make_graph(part), forces_for(n_images)
            for wider, stronger in ((1, 1), (0.6, 1), (1.6, 1), (1, 0.4), (1, 2.5)):
                forces = replace(usual, radius=usual.radius * wider, repulsion=usual.repulsion * stronger)

                def make(seed: int, r=part, g=graph, f=forces) -> np.ndarray:
                    return lay_out_ours(r, g, seed, f)

                figures = mean_figures(part, named, options.seeds, make)
                shape = f"{forces.radius:.1f} | {forces.repulsion:.2f}"
                say(f"| {name} | {n_images:,} | {shape} | " + " | ".join(figures) + " |")
    say()


def measure_updates(options: argparse.Namespace) -> None:
    say("## Updates, 1 % new photos")
    say()
    say(f"Means over {options.seeds} choices of the new photos. Drift is that of the old photos, in degrees; T is")
    say("trustworthiness@15, kept is the share of neighbours kept. The last two columns place a tenth of the photos.")
    say()
    say("| set | align: drift | T, kept after align | after place | after a refit | > 30 degrees | purity, place |")
    say("|---|---|---|---|---|---|---|")
    sets = labelled_sets(options.folder)
    rows, labels = make_clusters(10_000 // options.divide)
    sets[f"clusters of {len(rows):,}"] = rows, [str(label) for label in labels]
    for name, (rows, labels) in sets.items():
        results = []
        for seed in range(options.seeds):
            order = np.random.default_rng(seed).permutation(len(rows))
            x, y = rows[order], np.array(labels)[order]
            uuids = [f"{number:06d}" for number in range(len(x))]
            n_old = len(x) - len(x) // 100
            parameters = fit_parameters({**SETTINGS, "random_state": seed}, len(x), None)
            old = fit(uuids[:n_old], x[:n_old], parameters, N_CORES, None)
            parts = []
            for improve in (True, False):
                new = update(uuids, x, np.arange(n_old), parameters, N_CORES, old, improve=improve)
                parts.append((new.drift_degrees, measure(x, new.unit_vectors, N_CORES)))
            refit = measure(x, fit(uuids, x, parameters, N_CORES, None).unit_vectors, N_CORES)
            tenth = len(x) // 10
            base = fit(uuids[:-tenth], x[:-tenth], parameters, N_CORES, None).unit_vectors
            placed = place(x[-tenth:], x[:-tenth], base, N_CORES)
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
    n_old = 100_000 // options.divide
    rows, _ = make_clusters(n_old + n_old // 100)
    uuids = [f"{number:06d}" for number in range(len(rows))]
    parameters = fit_parameters(SETTINGS, len(rows), None)
    start = time.perf_counter()
    old = fit(uuids[:n_old], rows[:n_old], parameters, N_CORES, None)
    fitted = time.perf_counter() - start
    start = time.perf_counter()
    place(rows[n_old:], rows[:n_old], old.unit_vectors, N_CORES)
    placed = time.perf_counter() - start
    start = time.perf_counter()
    update(uuids, rows, np.arange(n_old), parameters, N_CORES, old, improve=True)
    aligned = time.perf_counter() - start
    say(f"With {n_old:,} photos, the fit takes {fitted:.1f} s. Placing {n_old // 100:,} more takes {placed:.1f} s")
    say(f"({placed / fitted:.3f} of it), and placing with align {aligned:.1f} s.")
    say()


PARTS = {
    "speed": measure_speed,
    "fit": measure_whole_fit,
    "neighbours": measure_neighbours,
    "quality": measure_quality,
    "shape": measure_shape,
    "updates": measure_updates,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="parts to measure")
    options.add_argument("--folder", type=Path, help="folder for test material; default: a temporary folder")
    options.add_argument("--seeds", type=int, default=5, help="seeds to take the means of (%(default)s)")
    options.add_argument("--rounds", type=int, default=3, help="runs to take the median time of (%(default)s)")
    options.add_argument("--divide", type=int, default=1, help="divide the numbers of photos (%(default)s)")
    options.add_argument("--output", type=Path, default=Path(__file__).with_name("SPHERE.md"))
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        arguments.folder = arguments.folder or Path(temporary)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        say("# Map benchmarks")
        say()
        packages = ", ".join(f"{name} {version(name)}" for name in ("umap-learn", "numba", "numpy"))
        say(f"`make bench` on {N_CORES} cores of an {platform.processor() or platform.machine()}; {packages}.")
        say()
        for part in arguments.only:
            PARTS[part](arguments)
    if set(arguments.only) == set(PARTS):
        arguments.output.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
