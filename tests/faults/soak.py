r"""Play random histories of collections until enough runs are checked; resume an interrupted soak.

    python tests/faults/soak.py --snakemake 300 --in-process 20000

A failure is printed with the command that replays its history; the folder is kept.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(PROJECT / "workflow"), str(Path(__file__).resolve().parent)]

import runs  # noqa: E402
from history import History, Violation  # noqa: E402

RUNS_PER_HISTORY = {"in-process": 20, "snakemake": 6}
DISK_KB = 6_000
MOST_FAILURES = 5
_INTERRUPTED = re.compile(r"Traceback \(most recent call last\):((?!\nTraceback).)*?\nKeyboardInterrupt", re.DOTALL)


def play(mode: str, seed: int, folder: Path) -> Counter[str]:
    """Play one history, in an empty folder; count its events.

    Raises
    ------
    Violation
        With the events until then.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "results").mkdir(parents=True)
    with_small_disk = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k", "tmpfs", folder / "results"],
        check=False,
        capture_output=True,
    ).returncode
    history = History(folder, seed)
    player = runs.PLAYERS[mode](history)
    counts: Counter[str] = Counter()
    try:
        while counts["runs"] < RUNS_PER_HISTORY[mode]:
            history.happen()
            counts += _run_until_right(history, player, counts, with_small_disk=with_small_disk)
        player.end()
    except Exception as error:
        lines = traceback.format_exc() if not isinstance(error, Violation) else str(error)
        story = "\n  ".join(history.log[-40:])
        raise Violation(f"{lines}\n  {story}\n{player.output[-3000:]}") from None
    finally:
        player.stop()
        if with_small_disk:
            subprocess.run(["umount", "--lazy", folder / "results"], check=False)
    shutil.rmtree(folder, ignore_errors=True)
    return counts


def _run_until_right(
    history: History, player: runs.Player, so_far: Counter[str], *, with_small_disk: bool
) -> Counter[str]:
    """Run until a run succeeds. Faults hit the first runs; every error must name a fix, which is applied."""
    counts: Counter[str] = Counter()
    n_fixes = 0
    while True:
        history.touch_unnoticed()
        before = history.look()
        fault = history.random.choice(["none", "none", "kill", "kill", "disk" if with_small_disk else "kill"])
        if counts["runs"] > 3:
            fault = "none"
        history.log.append(f"run, fault: {fault}")
        result = player.run(fault)
        counts["runs"] += 1
        counts[fault if fault != "none" else "undisturbed"] += 1
        if result == 0 and history.is_damaged and not player.verify():
            counts["damage that verify found"] += 1
            history.must((n_fixes := n_fixes + 1) < 8, "the fixes do not help")
            history.must(player.apply_fix(), "verify names no fix")
            continue
        if result == 0:
            history.check(before)
            if history.random.randrange(10) == 0:
                history.must(player.verify(), "verify reports a correct database")
            player.check()
            return counts
        # Ctrl-C during the start of Python itself is beyond our control.
        if "Traceback (most recent call last)" in _INTERRUPTED.sub("", player.output):
            raise Violation("a traceback instead of a message")
        if result is None:  # killed
            history.check_killed(before)
        elif "input_dir: cannot read the folder" in player.output:
            counts["missing folders"] += 1
            history.log.append("the folder is brought back")
            history.remount()
        elif "disk is full" in player.output or "No space left" in player.output:
            history.must(fault == "disk", "a full disk that is not full")
            history.check_killed(before)
        else:
            counts["errors with a fix"] += 1
            n_fixes += 1
            history.must(n_fixes < 8, "the fixes do not help")
            history.must(player.apply_fix(), "an error without a fix")


def main() -> None:
    """Play histories, and report the results."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--snakemake", type=int, default=0, help="runs through Snakemake (%(default)s)")
    options.add_argument("--in-process", type=int, default=0, help="runs of the library alone (%(default)s)")
    options.add_argument("--seed", type=int, help="first seed (default: random)")
    options.add_argument("--jobs", type=int, default=os.cpu_count(), help="histories at once (%(default)s)")
    options.add_argument("--folder", type=Path, default=PROJECT / ".soak", help="where to play (%(default)s)")
    options.add_argument("--play", choices=runs.PLAYERS, help="play only the history of --seed")
    arguments = options.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if "SOAK_DISK" not in os.environ and shutil.which("unshare"):  # where small disks may be mounted
        os.environ["SOAK_DISK"] = "1"
        unshare = ["unshare", "--map-root-user", "--mount"]
        if not subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
            os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    if arguments.play:
        print(dict(play(arguments.play, arguments.seed, folder / "one")))
        return
    progress = folder / "progress.json"
    asked = {"snakemake": arguments.snakemake, "in-process": arguments.in_process}
    seed = random.SystemRandom().randrange(10**6) * 1000 if arguments.seed is None else arguments.seed
    state = {"asked": asked, "seed": seed, "next": 0, "counts": {mode: {} for mode in asked}, "seconds": 0}
    if progress.exists() and (there := json.loads(progress.read_text()))["asked"] == asked and arguments.seed is None:
        state = there
        print(f"resuming after {there['next']} histories")
    failures = _play_all(state, folder, arguments.jobs, progress)
    for mode, counts in state["counts"].items():
        if counts:
            n_runs = counts.pop("runs")
            print(f"{mode}: {n_runs} runs ({', '.join(f'{n} {what}' for what, n in sorted(counts.items()))})")
    print(f"seeds from {state['seed']}, {state['next']} histories, {state['seconds']:.0f} s, failures: {failures}")
    if not failures:
        progress.unlink(missing_ok=True)
    sys.exit(failures > 0)


def _play_all(state: dict, folder: Path, n_jobs: int, progress: Path) -> int:
    failures, start = 0, time.monotonic()
    before = state["seconds"]
    with ProcessPoolExecutor(n_jobs, get_context("spawn")) as pool:
        for mode, n_runs in state["asked"].items():
            counts = Counter(state["counts"][mode])
            under_way = {}
            while True:
                while len(under_way) < n_jobs and counts["runs"] + len(under_way) * RUNS_PER_HISTORY[mode] < n_runs:
                    seed = state["seed"] + state["next"]
                    state["next"] += 1
                    under_way[pool.submit(play, mode, seed, folder / f"{mode}-{seed}")] = seed
                if not under_way:
                    break
                done = next(as_completed(under_way))
                seed = under_way.pop(done)
                try:
                    counts += done.result()
                except Violation as error:
                    failures += 1
                    print(f"FAILED: python tests/faults/soak.py --play {mode} --seed {seed}\n{error}", flush=True)
                    counts["runs"] += 1
                state["counts"][mode] = dict(counts)
                state["seconds"] = before + time.monotonic() - start
                if not failures:
                    progress.write_text(json.dumps(state))
                if failures >= MOST_FAILURES:
                    return failures
    return failures


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        main()
