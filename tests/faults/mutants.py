# ruff: noqa: E501
"""Break the library on purpose, one line at a time, and report the mutants that its unit tests do not catch.

Each mutant is applied to a copy of the project. It is caught if one of its tests fails, and this test passes without it.
A mutant whose old text is gone is reported too: renew its entry.

    make mutants                              all of them (half an hour)
    python tests/faults/mutants.py page exif  those whose file or old text contains one of these words
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_NOT_COPIED = ".git", ".venv", ".soak", ".snakemake", "results"
PROJECT = Path(__file__).resolve().parent.parent.parent
LIBRARY = "workflow/crossfilter_inference"
# File of the library, old text, new text, files of tests (words that their names begin with); after a colon, an
# expression that selects tests by their names.
MUTANTS = [
    # What is recorded
    ("photos/exif.py", "in _TIMES:", "in reversed(_TIMES):", "exif"),
    ("photos/exif.py", "-degrees if letter == letters[1] else degrees", "degrees", "facts: spelling"),
    ("photos/exif.py", "or None in parts:", "or parts[0] is None:", "facts: spelling"),
    ("photos/exif.py", "abs(degrees) <= most", "True", "facts: impossible"),
    ("photos/exif.py", "-altitude if is_below else altitude", "altitude", "facts: altitude"),
    ("photos/facts.py", "os.path.basename(path)", "path", "facts: file_name"),
    ("embed/decode_pool.py", "if isinstance(read, Facts)", "if False", "merge: file_name"),
    ("photos/facts.py", 'if facts["latitude"] is None and', "if", "sidecars: complete"),
    ("photos/facts.py", '(place["latitude"] or place["longitude"])', "True", "sidecars: read"),
    ("photos/sidecars.py", "name + number + extension", "name + extension", "sidecars: belongs"),
    ("embed/decode_process.py", "env=os.environ | _ENVIRONMENT, process_group=0", "env=os.environ | _ENVIRONMENT", "decode_process: ctrl_c"),
    ("run/start.py", "    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:", "    if True:", "run_start: ctrl_c"),
    # Words and lists of photos
    ("encoders/class_words.py", "for name in (word, *singulars)", "for name in (word,)", "class_words: plurals"),
    ("encoders/class_words.py", "range(len(tokens), start, -1)", "range(start + 1, len(tokens) + 1)", "class_words: longest"),
    ("encoders/class_words.py", "member[row, list(classes)] = 1", "member[row, classes[0]] = 1", "class_words: classes_first"),
    ("map/words.py", "np.lexsort((rows, -values, meanings))", "np.lexsort((rows, values, meanings))", "map_words: fit"),
    ("map/words.py", "shown = own[: min(n_fitting, _MOST_FITTING) or _FEWEST]", "shown = own[:_MOST_FITTING]", "map_words: no_photo_fits"),
    ("map/words.py", "rows + start, similarity", "rows, similarity", "map_words: fit"),
    ("map/regions.py", "almost = _ALMOST if prefer_first else 0", "almost = 0", "regions: familiar"),
    ("map/contents.py", "neighbours=new_row[self.neighbours[chosen]]", "neighbours=self.neighbours[chosen]", "photo_list: exports"),
    ("search.py", "if uuid is None:", "if False:", "photo_list: refused"),
    ("run/prepare.py", "    if recorded is None and os.path.exists(path):", "    if os.path.exists(path):", "prepare: killed_is"),
    ("photos/facts.py", "chain(times, days)", "times", "facts: without_a_time"),
    ("run/prepare.py", "sum(last[uuid][1] != path for", "sum(1 for", "prepare: moved"),
    ("run/forecast.py", "n_photos = progress.n_total - n_reread - n_finished", "n_photos = progress.n_total - n_reread", "forecast: interrupted"),
    ("search.py", "if len(files) != 1:", "if not files:", "photo_list: file_name"),
    ("util/files.py", "os.fspath(path)) from None", "None) from None", "full_disk: under_the_shards"),
    ("run/start.py", "if not (line := outer_trouble(error)):", "if outer_trouble(error) or True:", "full_disk: 4096"),
    # The server
    ("serve.py", 'if headers.get("host") not in self._hosts:', "if False:", "serve: other_pages"),
    ("serve.py", 'if headers.get("origin", f"http://{headers[\'host\']}") not in', "if False and None not in", "serve: other_pages"),
    ("serve.py", "        if not (self._is_token(", "        if False and not (self._is_token(", "serve: other_pages"),
    ("serve.py", "if n_bytes > MOST_BYTES:", "if False:", "serve: huge"),
    ("serve.py", "if side is None and (kind := _kind_for_browsers(path)):", "if kind := 'image/jpeg':", "serve: leads_nowhere"),
    ("embed/batches.py", "            self._has_failed.set()\n", "", "embed_job: after_a_write"),
    ("embed/reuse.py", "return self._unpack(blob)", "return unpack_embedding(blob)", "reuse: damaged"),
    ("run/start.py", "        os._exit(128 + number)\n", "", "run_start: ctrl_c"),
    ("run/start.py", "if time.monotonic() > deadline:", "if True:", "run_start: moment"),
    ("db/connect.py", "sqlite3.DatabaseError, UnicodeDecodeError)", "sqlite3.DatabaseError)", "db: schema_that or such_a_shard"),
    ("photos/sidecars.py", "if len(base) < _SHORTENED:", "if False:", "sidecars: another"),
    ("photos/scan.py", "*(times[folder, sidecar] for sidecar in found)", "", "sidecars: status"),
    ("photos/scan.py", "sum([image.ctime_ns", "max([image.ctime_ns", "sidecars: status"),
    ("photos/raw.py", "orientation = _ORIENTATIONS.get(raw.sizes.flip, 1)", "orientation = 1", "raw: upright"),
    ("photos/raw.py", "if min(image.size) >= _FEWEST_PIXELS else None\n\n", "\n\n", "raw: small"),
    ("photos/exif.py", 'if image.format == "JXL" and', "if False and", "raw: turn"),
    ("run/prepare.py", "known = {} if config.reread_photos else last", "known = last", "prepare: read_again_on"),
    # A photo keeps its UUID
    ("photos/identify.py", "in reversed(photos.values())}", "in photos.values()}", "identify: overwritten"),
    ("photos/identify.py", 'sorted(known, key=attrgetter("is_missing"))', "known", "identify: was_missing"),
    ("view/page.py", "    room, size = most_bytes", "    room, size = 2 * most_bytes", "page_data"),
    ("view/page.py", 'if size == "auto" and len(lines)', "if len(lines)", "page_data"),
    ("photos/identify.py", "or len(candidates) == len(group) == 1", "or True", "identify"),
    ("photos/identify.py", "    while new in used:\n", "    while False:\n", "identify: in_use or new_file"),
    ("photos/identify.py", 'unicodedata.normalize("NFC", path[len(root) :]', '(path[len(root) :]', "identify: machine"),
    ("photos/heic.py", "{32,}", "{99999,}", "heic"),
    ("photos/image.py", "_REDUCED_SIDES * preprocessing.resized_side", "2 * preprocessing.resized_side", "image: reduced"),
    ("photos/image.py", "max(max_pixels, MAX_PIXELS)", "max_pixels", "image: may_be_larger"),
    ("photos/scan.py", "(time_ns + 2**63) % 2**64 - 2**63", "time_ns", "scan: time_stamp"),
    ("db/digest.py", "uuid.encode() + blob", "blob", "merge: digest_of_a_row"),
    ("db/provenance.py", "startswith(prefix, autoescape=True)", "startswith(prefix)", "merge: prefix"),
    ("embed/reuse.py", "abs(length - 1) < LENGTH_TOLERANCE", "abs(length - 1) < 0.5", "reuse"),
    ("embed/reuse.py", "if recorded in (None, provenance_digest(provenance)):", "if True:", "reuse"),
    ("embed/reuse.py", " & (images.c.DIGEST == photo.digest)", "", "reuse"),
    ("shards/plan.py", "if found is None or is_retried:", "if found is None:", "plan: retry"),
    ("shards/plan.py", "others - retired", "others", "merge: no_longer_needed"),
    ("shards/plan.py", "sorted(shards):  # the newest wins", "sorted(shards, reverse=True):", "plan: newest"),
    ("shards/merge.py", "if shard not in retired]", "]", "merge: retired"),
    ("shards/merge.py", "        merge.forget()\n", "        if not merge.n_merged:\n            return Stored()\n        merge.forget()\n", "merge: failures"),
    ("shards/journal.py", "        self._sync()\n        other.unlink", "        other.unlink", "merge: journal"),
    # The map
    ("map/layout.py", " if others[group, 3, k] != own else np.float32(0)", "", "layout: plain"),
    ("map/layout.py", "pull = two * step", "pull = step", "layout: plain"),
    ("map/layout.py", "shares[shares < 1 / n_epochs] = 0", "shares[shares < 1 / n_epochs] = 1 / n_epochs", "layout: plain"),
    ("map/fit.py", "_ALIGN_RADIUS, 1) ** 2", "_ALIGN_RADIUS, 1)", "fit: steps"),
    ("map/layout.py", "repulsion = forces.repulsion * np.minimum(", "repulsion = np.minimum(", "layout: formulas"),
    ("map/settings.py", 'settings[key] in ("auto", shape[key])', "True", "map_job: changed"),
    ("map/fit.py", "automatic = shape or {", "automatic = {", "map_job: earlier"),
    ("map/neighbours.py", "scores[:, hidden] = -np.inf", "pass", "neighbours: update"),
    ("map/neighbours.py", "nearest_first = np.argsort(indices < 0, axis=1, kind=\"stable\")", "nearest_first = np.argsort(indices < 0, axis=1)[:, ::-1]", "neighbours: update"),
    ("map/large_search.py", "_join(np.ascontiguousarray(scores[:, ~is_searched[members]].T), others, chosen, self._own, *known)", "pass", "neighbours: large_update"),
    ("map/large_search.py", "if max(map(len, parts)) == len(members):", "if False:", "neighbours: all_alike"),
    ("map/large_search.py", "nearest_possible >= similarity[query, -1]", "nearest_possible > similarity[query, 0]", "neighbours: large_search"),
    ("map/large_search.py", "members = lists[number][allowed[lists[number]]]", "members = lists[number]", "neighbours: large_update"),
    ("map/fit.py", "_N_PLACE_NEIGHBOURS = 15", "_N_PLACE_NEIGHBOURS = 14", "fit: mean_of_exactly"),
    ("map/copies.py", "groups.setdefault(digest, len(groups)) for digest in digests", "number for number, _ in enumerate(digests)", "copies: one_position"),
    ("view/page.py", "on_page[contents.neighbours[photos, :n_neighbours]]", "contents.neighbours[photos, :n_neighbours]", "page_data"),
    # Deleting needs knowledge
    ("photos/missing.py", "if reason := self._unusable.get(canonical_uuid(uuid)) or self._rejected.get(path):", "if reason := '':", "scan: knowledge"),
    ("photos/missing.py", "            if isinstance(names, str):\n                return names\n", "            if isinstance(names, str):\n                return ''\n", "scan: knowledge"),
    ("photos/missing.py", "if self._shows_nothing(folder) else", "if False else", "scan: knowledge"),
    ("photos/missing.py", "not scan.unseen and ", "", "scan: outside"),
    ("photos/missing.py", 'return f"the file or its folder is there, but {_UNNAMED}, or unreadable"', 'return ""', "scan: knowledge"),
    ("shards/plan.py", "doubt(uuid, path) or REMOVED", "REMOVED", "plan prepare: held_back"),
    ("shards/merge.py", "if spelling not in respelled} - self._deleted", "if spelling not in respelled}", "merge: deleted"),
    ("shards/plan.py", "if reason == REMOVED}", "}", "merge plan: deleted or missing"),
    ("run/start.py", "if deletions.n_deleted > max_share * deletions.n_rows:", "if False:", "run_start: deletions"),
    ("run/prepare.py", 'deletions.line("to delete:") if deletions else ""', '""', "prepare: deletions"),
    # What is scanned
    ("photos/scan.py", "pattern = folder.excluded_by or excluded_by(entry.name)", "pattern = excluded_by(entry.name)", "scan: trash or depth"),
    ("photos/scan.py", "        if is_hidden:\n", "        if False:\n", "scan: hidden"),
    ("photos/scan.py", "seen.add(folder.real)", "seen.add(os.stat(folder.path).st_ino)", "scan: inode or loop"),
    ("photos/scan.py", "if 0 < status.st_ctime_ns < started else 0", "", "scan: status_time"),
    ("shards/plan.py", "found, n_reread = None, n_reread + 1", "n_reread = n_reread + 1", "plan: ctime"),
    ("shards/plan.py", "        return is_listed or not last\n", "        return not last\n", "plan: did_not_know"),
    ("shards/plan.py", "        return is_listed or not last\n", "        return is_listed and bool(last)\n", "plan: lost"),
    ("shards/plan.py", "its_shard != shard or (ctime_ns", "(ctime_ns", "plan: former"),
    ("shards/plan.py", "if is_taken and last_unlisted > newest:", "if False:", "plan: lost"),
    ("run/start.py", "to_remove |= {*run.plan.new_shards}", "pass", "run_start: read_again"),
    ("run/start.py", "with suppress(OSError):  # a broken link", "with suppress(ValueError):  # a broken link", "run_start: links"),
    # Whether a picture is whole
    ("photos/jpeg.py", "min_height=height, strict=strict)", "min_height=height, strict=False)", "whole: lacks"),
    ("photos/jpeg.py", "            return pixels\n    except ValueError as error:", "            return pixels\n        return pixels\n    except ValueError as error:", "whole: scan"),
    ("photos/jpeg.py", "for candidate in _candidates(segments) if may_repair else ():", "for candidate in ():", "whole: whatever"),
    ("photos/jpeg.py", "data.find(_ZEROS, start) >= 0 or ", "", "whole: zeros"),
    ("photos/jpeg.py", "max(initial=0) == 0xFF)", "max(initial=0) < 0)", "whole: ones"),
    ("photos/jpeg.py", "zeros_are_flat = len(scans) > 1 or not any(", "zeros_are_flat = True or not any(", "whole: zeros"),
    ("photos/png.py", "    if is_doubtful:\n", "    if False:\n", "whole: png"),
    ("photos/exif.py", "number = directories[0].get(", "number = directories[1].get(", "exif"),
    ("photos/exif.py", "        image.info.pop(key, None)", "        image.info.get(key, None)", "exif: xmp"),
    ("photos/image.py", "to_srgb(_centre_square(image, width, height, exif, preprocessing), profile)", "_centre_square(image, width, height, exif, preprocessing).convert('RGB')", "cases"),
    ("photos/image.py", "    thumbnail.info = {}", "    pass", "whole: thumbnails"),
    ("photos/colours.py", "source.profile.xcolor_space != _SPACES.get(mode)", "False", "whole: profile"),
    ("photos/image.py", "unread or f", "f", "whole: named"),
    ("photos/image.py", "    if raw := raw_format(data):", "    if raw := '':", "whole: preview"),
    ("photos/exif.py", "if _FIRST_YEAR <= time.year <= datetime.now().year + 1 else None", "", "exif: impossible"),
    # No file holds up or ends a run
    ("photos/formats.py", "is_surplus = n_segments[kind] > _MOST_SEGMENTS", "is_surplus = False", "formats: surplus"),
    ("photos/formats.py", 'yield width * height * n_scans // 64, f"{n_scans} scans of {size}"', "yield 0, size", "image decode_process: hostile or long"),
    ("photos/image.py", "        if n_pixels > max_pixels:", "        if False:", "image: too_many"),
    ("embed/decode_process.py", "signal.setitimer(signal.ITIMER_PROF, most_seconds(max_pixels))", "signal.setitimer(signal.ITIMER_PROF, 0)", "decode_process: hangs"),
    ("embed/decode_process.py", "resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))", "pass", "decode_process: memory_is_limited"),
    ("embed/decode_process.py", "for _ in range(2):", "for _ in range(1):", "decode_process: killed"),
    # Text of others stays text
    ("util/text.py", "html.escape(printable(value), quote=True)", "printable(value)", "text: html"),
    ("util/text.py", "html.escape(printable(value), quote=True)", "html.escape(printable(value), quote=False)", "text: html"),
    ("util/text.py", '.replace("<", "\\\\u003c")', "", "text: data"),
    ("util/text.py", '.replace("{", "&#123;")', "", "text: report"),
    ("util/text.py", "_escaped(c) for c in text)", "c for c in text)", "text: printed or invisible"),
    ("util/text.py", 'return f" {text} " if isinstance(value, str) else text', "return text", "text: yaml"),
    ("util/text.py", "return _URI + quote(os.fsencode(path))", "return printable(path)", "text: stored"),
    ("util/files.py", 'text.encode("utf-8", "surrogateescape")', 'text.encode("utf-8", "replace")', "files text: name or byte"),
    ("util/text.py", "return printable(record.getMessage())", "return record.getMessage()", "text: message"),
    ("view/page.py", "data=script_json(data),", "data=Html(__import__('json').dumps(data)),", "page_script: texts"),
    ("view/page.py", 'title=f"{heading}, {contents.embedding_type}"', 'title=Html(f"{heading}, {contents.embedding_type}")', "page_script: texts"),
    ("view/contact_sheet.py", 'fill(heading=heading)', 'fill(heading=Html(heading))', "boundaries: sheet"),
    ("view/contact_sheet.py", "        path=path,\n", "        path=Html(path),\n", "boundaries: sheet"),
    ("view/contact_sheet.py", "Path(path).absolute().as_uri()", "Html(f'file://{path}')", "boundaries: sheet"),
    ("view/report.py", 'Html("<td>$text</td>").fill(text=text)', 'Html(f"<td>{text}</td>")', "boundaries: messages"),
    ("view/report.py", "rst(Html.of([_picture(state), _table(figures)]))", "Html.of([_picture(state), _table(figures)])", "boundaries: messages"),
    ("cli/command.py", "    print(printable(line), flush=True)", "    print(line, flush=True)", "boundaries: orders"),
    ("cli/command.py", "handler.setFormatter(PrintableFormatter())", "handler.setFormatter(logging.Formatter())", "boundaries: orders"),
    ("cli/workflow.py", '{yaml_text(value)}"', '{value}"', "cli: same_configuration"),
    ("view/export.py", '"PATH": [*map(stored_path, paths)],', '"PATH": [*map(printable, paths)],', "boundaries: true_path"),
    ("view/web/elements.js", "made.textContent = printable(text);", "made.innerHTML = printable(text);", "text: page_makes"),
    ("../rules/embed.smk", "--shard {input.shard:q}", "--shard {input.shard}", "text: shell"),
    # Outputs destroy nothing
    ("cli/outputs.py", "if is_within(path, state) or _is_linked_in(path, state):", "if is_within(path, state):", "outputs: hard_link"),
    ("cli/outputs.py", "            if is_within(path, folder):\n", "            if False:\n", "outputs: never_written or links"),
    ("cli/outputs.py", "if any(is_state_folder(parent) for parent in Path(path).parents):", "if False:", "outputs: never_written"),
    ("cli/outputs.py", "real = os.path.realpath(path)", "real = os.path.abspath(path)", "outputs: link"),
    ("cli/outputs.py", 'if found not in (kind, "") and not force:', 'if found not in (kind, "") and force:', "outputs: own_kind"),
    ("cli/outputs.py", "if found in _NEVER and found != kind:", "if found in _NEVER and not force:", "outputs: never_replaced"),
    ("cli/outputs.py", 'for name in ("", *subfolders):', 'for name in ("",):', "crossfilter_export: nowhere_else"),
    ("cli/outputs.py", "if kind == CROSSFILTER and any(", "if False and any(", "crossfilter_export: in_use"),
    ("db/crossfilter.py", "n_changes == 1", "n_changes", "crossfilter_export: until_another"),
    ("db/crossfilter.py", "(Tables(embedding_type).embeddings, Tables(embedding_type).images)", "(Tables(embedding_type).embeddings,)", "reuse: once"),
    ("view/previews.py", "            if not is_uuid(uuid):", "            if False:", "crossfilter_export: no_uuid"),
    ("view/previews.py", "    if own := _OWN.match(head):\n        return own[1].decode()\n    raise", "    own = _OWN.match(head)\n    return own[1].decode() if own else \"\"\n    raise", "crossfilter_export: others"),
    ("view/previews.py", "made_of == _source(image)", "made_of", "crossfilter_export: later_export"),
    ("view/crossfilter.py", "time.astimezone(UTC) if time.tzinfo else time", "time", "crossfilter_export: utc"),
    ("cli/commands.py", "check_output(option, path, kind, _protected(options, photos), force=force) if path else None", "path", "outputs: every_command"),
    ("run/database.py", "            if is_within(path, folder):\n", "            if False:\n", "outputs: others"),
    # Missing photos count as no copies; groups are confirmed in the pixels
    ("duplicates.py", "if manifest is not None and photo.uuid not in manifest:", "if False:", "duplicates: missing or renamed"),
    ("duplicates.py", 'else "changed since the last run"', 'else ""', "duplicates: changed"),
    ("duplicates.py", "        if target not in by_file or path == target:", "        target = path\n        if target not in by_file or path == target:", "duplicates: link"),
    ("duplicates.py", "and is_same_picture(images[0], images[1])", "and True", "duplicates: blank"),
    ("duplicates.py", "by_digest[photo.digest or photo.uuid]", "by_digest[photo.uuid]", "duplicates: identical"),
    ("duplicates.py", "    if similar:\n", "    if True:\n", "duplicates: asked"),
    ("duplicates.py", "                    if is_same(first, other):", "                    if is_same(group[-1], other):", "duplicates: chain"),
    ("photos/same_picture.py", "        and difference <= _MAX_DIFFERENCE\n", "", "same_picture: alike"),
    ("photos/same_picture.py", "_MIN_STRUCTURED = 12", "_MIN_STRUCTURED = 0", "same_picture duplicates: alike or blank"),
    ("photos/same_picture.py", "_MAX_COLOUR_DIFFERENCE = 24", "_MAX_COLOUR_DIFFERENCE = 255", "same_picture: alike"),
    ("search.py", "collection.is_missing(photo))", "False)", "duplicates: search"),
    ("view/page.py", "np.flatnonzero(contents.missing[photos])", "np.flatnonzero(contents.missing)", "page_data"),
    # Guards; what verify opens
    ("cli/commands.py", 'sample: Annotated[int, {"min": 0}] = 8', "sample: int = 8", "cli: sample"),
    ("verify/checks.py", 'text = f"internal error (please report this): {what}; it says nothing about your files, so delete none"', "text = f'{what}: {self._rebuild}'", "damaged_state: fault_of_this"),
    ("verify/checks.py", "columns = columns_in(connection, table)  # the user may have added others\n            if missing := [column.name for column in table.c if column.name not in columns]:", "columns = [there['name'] for there in sa.inspect(connection).get_columns(table.name)]\n            if missing := sorted({column.name for column in table.c} ^ {*columns}):", "damaged_state verify_tables: user"),
    ("verify/checks.py", "        self._rebuild += self._own_things(connection)\n", "", "damaged_state: advice"),
    ("verify/checks.py", '"thumbnails": collection.check_thumbnails,', "", "damaged_state: thumbnail"),
    ("verify/files.py", "elif not _is_intact(path, folder.name):", "elif False:", "damaged_state: every_command_that_reads"),
    ("verify/files.py", '"words.npz": lambda path: read_words(str(path)),', '"words.npz": lambda path: None,', "damaged_state: words"),
    ("verify/files.py", '"neighbours.npz": _check_neighbours,', '"neighbours.npz": lambda path: None,', "damaged_state: neighbours"),
    ("verify/files.py", '"map.html": _check_page,', '"map.html": lambda path: None,', "damaged_state: html"),
    ("verify/files.py", '".rows": check_journal,', '".rows": lambda path: None,', "damaged_state: journal"),
    ("verify/tables.py", "elif _files_digest(*files) != recorded.get(\"map_digest\"):", "elif False:", "verify_tables: files_of_the_map"),
    # Nobody's code runs
    ("map/model.py", 'if blob is None or hashlib.sha256(blob).hexdigest() != recorded.get("map_model_digest"):', "if blob is None:", "model: unpickled"),
    ("map/model.py", "        if (module, name) not in _MODEL_PARTS:", "        if False:", "model: strangers"),
    ("map/state.py", "np.load(file, allow_pickle=False) as arrays:", "np.load(file, allow_pickle=True) as arrays:", "source_runs"),
    ("encoders/registry.py", "    check_named(name, backend, backends)\n", "", "encoders: name_is_not_run or does_not_name"),
    ("encoders/registry.py", 'if hashlib.sha256(code).hexdigest() != provenance["backend_sha256"]:', "if False:", "encoders: backend_file"),
    ("encoders/registry.py", "    return _run_code(backend, code)\n", "    return _run_code(backend, Path(backend).read_bytes())\n", "encoders: digested"),
    ("encoders/hub.py", "found.result().items() <= provenance.items() and identities(folder) == before", "identities(folder) == before", "checkpoint: change"),
    ("encoders/hub.py", " and identities(folder) == before", "", "checkpoint: change"),
    ("encoders/pretrained.py", "name: weight.clone() for", "name: weight for", "checkpoint: loaded_encoder"),
    ("encoders/checkpoint.py", '"transformers_weights": "names another file of weights",', "", "checkpoint: configuration_that_asks"),
    ("encoders/checkpoint.py", 'if (folder / "adapter_config.json").exists():', "if False:", "checkpoint: adapter"),
    # Checkpoints as today's transformers saves them
    ("encoders/checkpoint.py", 'if (folder / PROCESSOR).is_file() and "image_processor" in', 'if False and "image_processor" in', "checkpoint: processor_is_read"),
    ("encoders/image_processor.py", "values[key] not in (False, None):", "False:", "checkpoint: honoured"),
    ("encoders/image_processor.py", 'if not keys.flag("do_rescale"):', "if False:", "checkpoint: honoured"),
    ("encoders/image_processor.py", 'if not keys.flag("do_normalize"):', "if False:", "checkpoint: honoured"),
    ("encoders/checkpoint.py", "    if missing:\n", "    if False:\n", "checkpoint: missing_weights"),
    ("encoders/hub.py", "    except errors.GatedRepoError:\n", "    except ZeroDivisionError:\n", "checkpoint: hub"),
    # Backends
    ("encoders/clip.py", "lower_case=False", "lower_case=True", "backends: rows_of_texts"),
    ("encoders/clip.py", '("text_model.", "text_projection."), "text_embeds"', '("text_model.", "text_projection."), "last_hidden_state"', "backends: rows_of_texts"),
    ("encoders/clip.py", "        tower.projection_dim = config.projection_dim\n", "        pass\n", "backends: rows_of_images"),
    ("encoders/dino.py", '{"pooling": "pooler", **settings}', '{"pooling": "mean", **settings}', "backends: rows_of_images"),
    ("encoders/pooling.py", "return states[:, 0]", "return states[:, 1]", "backends: pooling"),
    ("encoders/pooling.py", "self._n_before_patches(states, images) :", "0:", "backends: pooling"),
    ("encoders/pooling.py", "return pooled.flatten(1)", "return states.flatten(1)", "backends: rows_of_images"),
    ("encoders/pooling.py", " and self._has_class_token()", "", "backends: lacks"),
    ("encoders/transformers.py", "if own & {", "if not own & {", "backends: leaves_out"),
    ("encoders/transformers.py", "if not torch.isfinite(rows).all():", "if False:", "backends: damaged"),
    ("encoders/transformers.py", '_UNNAMED.get(values["model_type"], "")', '""', "backends: no_name"),
    ("encoders/pretrained.py", "nn.functional.normalize(features)", "features", "backends: rows_of_texts"),
    ("encoders/pretrained.py", "if not any(path for pattern in _VOCABULARIES for path in folder.glob(pattern)):", "if False:", "backends: without_a_tokenizer"),
    ("encoders/image_processor.py", "return resize, size\n", "return size, size\n", "backends: rows_of_images"),
    ("encoders/image_processor.py", '    "image_std": [0.26862954', '    "image_std": [0.36862954', "backends: missing_keys"),
    ("encoders/identity.py", ', "merges.txt")', ")", "backends: downloaded"),
    ("encoders/registry.py", 'if "pooling" in settings and not hasattr(backend, "POOLINGS"):', "if False:", "backends: effect"),
    ("photos/image.py", "margin = (preprocessing.resized_side - preprocessing.size) // 2", "margin = 0", "backends: pixels"),
    ("config.py", 'and self.backend != "siglip" and reads_checkpoints', "and False and reads_checkpoints", "config: mistake"),
    ("config.py", "        exclude_if=lambda pooling: pooling is None,", "", "backends: effect"),
    # Reports tell the present
    ("errors.py", "exit_code = 3", "exit_code = 1", "boundaries: code_3"),
    ("cli/commands.py", "if done.returncode not in (0, TooManyFailed.exit_code):", "if done.returncode:", "boundaries: when_too_many"),
    ("cli/commands.py", "    check_failures(str(state), read_plan(state / \"plan.tsv\")[0], config.max_failed_share)\n", "", "boundaries: when_too_many"),
    ("run/finish.py", "n_failures > max_share * n_images", "False", "boundaries: code_3"),
    # The terminal
    ("run/terminal.py", "return event not in _SILENT and not is_noise", "return True", "terminal: users_read"),
    ("run/terminal.py", "is_brief &= not any(", "is_brief |= not any(", "terminal: verbose or keeps"),
    ("run/terminal.py", "([0-9]{1,2}|130|143)", "([0-9]+)", "terminal: death"),
    ("run/terminal.py", "            self._ended.set()\n", "", "terminal: gives_way"),
    ("cli/command.py", "record.msg not in (_MISTAKE, _INTERRUPTED)", "record.msg", "terminal: problems"),
]  # fmt: skip


def judge(copy: Path, file: str, old: str, new: str, tests: str) -> str:
    """Apply a mutant to the copy, run the tests, and undo it."""
    path = copy / LIBRARY / file
    text = path.read_text()
    if text.count(old) != 1:
        return "GONE: its old text is there " + ("more than once" if old in text else "no more")
    words, _, keyword = tests.partition(":")
    names = [name for word in words.split() for name in test_files(copy, word)]
    path.write_text(text.replace(old, new))
    try:
        process = run_tests(copy, "-k", keyword.strip(), *names)
    finally:
        path.write_text(text)
    if process.returncode != 1:
        return "SURVIVED" if process.returncode == 0 else f"NOT TESTED: pytest ended with code {process.returncode}"
    name, *_ = re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", process.stdout, re.MULTILINE)
    return f"caught by {name}" if passes(copy, name) else f"FAILS WITHOUT IT: {name}"


def test_files(copy: Path, word: str) -> list[str]:
    """Return the unit tests whose names begin with a word, or else the tests of whole runs."""
    found = [sorted((copy / "tests" / folder).glob(f"test_{word}*.py")) for folder in ("unit", "workflow")]
    return [str(path) for path in found[0] or found[1]]


@cache
def passes(copy: Path, name: str) -> bool:
    """Return whether a test passes without a mutant."""
    return run_tests(copy, name).returncode == 0


def run_tests(copy: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run tests of the copy up to the first that fails."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "workflow")}
    command = [sys.executable, "-m", "pytest", "--all", "-x", "-q", "-p", "no:cacheprovider", *options]
    try:
        return subprocess.run(
            command, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True, errors="replace", timeout=300
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 3, "")  # which is not caught: a test has to fail


def main(*words: str) -> int:
    """Judge mutants; return the number of those that are not caught."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in "".join(mutant[:2]) for word in words)]
    n_missed = 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name, "project")
        shutil.copytree(PROJECT, copy, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
        for number, (file, old, new, tests) in enumerate(chosen, 1):
            verdict = judge(copy, file, old, new, tests)
            n_missed += not verdict.startswith("caught")
            print(f"{number} of {len(chosen)}: {file}: {old!r} -> {new!r}: {verdict}", flush=True)
    print(f"mutants: {len(chosen)}, not caught: {n_missed}")
    return n_missed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)
