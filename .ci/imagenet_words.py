"""Write the words of ImageNet's classes: `python .ci/imagenet_words.py SYNSETS WORDNET OUTPUT`.

SYNSETS lists the synset of each class, such as timm's `data/_info/imagenet_synsets.txt`. WORDNET is a folder of
WordNet 3.0, such as /usr/share/wordnet of Debian's package wordnet-base. OUTPUT is
`workflow/crossfilter_inference/encoders/imagenet_words.tsv`.
"""

import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

# Such words, of half of all classes or more, say nothing of a photo: entity, object, artifact.
MOST_CLASSES = 450


class Synset(NamedTuple):
    """A meaning: its lemmas, each with the key of its sense, and the synsets above it."""

    lemmas: list[tuple[str, str]]
    above: list[str]


def main(synsets: str, wordnet: str, output: str) -> None:
    """Collect the lemmas of all classes and of what is above them; the most familiar words come first."""
    notice, meanings = read_meanings(Path(wordnet, "data.noun"))
    counts = read_counts(Path(wordnet, "cntlist.rev"))
    classes_of, familiarity = defaultdict(set), defaultdict(int)
    for number, synset in enumerate(Path(synsets).read_text().split()):
        for offset in above(meanings, synset.removeprefix("n")):
            for lemma, sense in meanings[offset].lemmas:
                classes_of[lemma].add(number)
                familiarity[lemma] = max(familiarity[lemma], counts.get(sense, 0))
    words = {word: found for word, found in classes_of.items() if len(found) < MOST_CLASSES}
    ordered = sorted(words, key=lambda word: (-familiarity[word], len(word), word))
    lines = [f"{word}\t{ranges(words[word])}\n" for word in ordered]
    Path(output).write_text("".join(f"# {line}".rstrip() + "\n" for line in notice) + "".join(lines))


def read_meanings(path: Path) -> tuple[list[str], dict[str, Synset]]:
    """Read the licence and the nouns of WordNet; see its manual page wndb(5)."""
    notice, meanings = [], {}
    for line in path.read_text().splitlines():
        if line.startswith("  "):
            notice.append(line.split(maxsplit=1)[1] if len(line.split(maxsplit=1)) > 1 else "")
            continue
        offset, file, _, n_lemmas, *fields = line.split(" | ")[0].split()
        n = int(n_lemmas, 16)
        lemmas = [
            (lemma.replace("_", " ").lower(), f"{lemma.lower()}%1:{file}:{int(number, 16):02d}::")
            for lemma, number in zip(fields[: 2 * n : 2], fields[1 : 2 * n : 2], strict=True)
        ]
        pointers = fields[2 * n + 1 :]
        above = [target for kind, target in zip(pointers[::4], pointers[1::4], strict=False) if kind in ("@", "@i")]
        meanings[offset] = Synset(lemmas, above)
    return notice, meanings


def read_counts(path: Path) -> dict[str, int]:
    """Read how often each sense occurs in WordNet's texts."""
    return {sense: int(count) for sense, _, count in map(str.split, path.read_text().splitlines())}


def above(meanings: dict[str, Synset], offset: str) -> set[str]:
    """Return a synset and all that are above it."""
    return {offset}.union(*(above(meanings, parent) for parent in meanings[offset].above))


def ranges(numbers: set[int]) -> str:
    """Write a set of numbers, such as `0-6,389`."""
    starts = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number for number in numbers if number + 1 not in numbers)
    return ",".join(f"{start}-{end}" if end > start else f"{start}" for start, end in zip(starts, ends, strict=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
