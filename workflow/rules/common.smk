"""
Check the configuration and plan the run.

The plan is made here, when Snakemake's main process reads the Snakefile, so that a dry run shows exactly the jobs
that will run. `onstart` takes the lock and writes the plan down for the jobs; it does not run with `-n`.

A stamp is an empty file that names, by its name, the settings that another file was made with. It is an output of
the rule that makes that file and an input of `all`, so that a changed setting is noticed even where Snakemake's own
records are lost.
"""

import json
import os
import sys
import time

sys.path.insert(0, f"{workflow.basedir}/workflow")
# The rules say `python`: the one that runs Snakemake, unless a conda environment brings its own.
os.environ.update(PATH=f"{os.path.dirname(sys.executable)}{os.pathsep}{os.getenv('PATH')}")

from snakemake.logging import logger

from crossfilter_inference.config import check_config
from crossfilter_inference.errors import InputError
from crossfilter_inference.db.state import state_folder
from crossfilter_inference.encoders import identity
from crossfilter_inference.map import settings as map_settings
from crossfilter_inference.photos.scan import scan_folders
from crossfilter_inference.run import database, finish, forecast, start
from crossfilter_inference.run.progress import tell_progress
from crossfilter_inference.shards.plan import Plan, make_plan, read_shard_lists, shards_at_work
from crossfilter_inference.util.files import digest


def plan_run(shards):
    """Scan the photos and give each its shard; jobs on other nodes neither scan nor plan."""
    if not workflow.is_main_process:
        return Plan([], [], [])
    database.check_database_path(DATABASE)
    scan = scan_folders(config["input_dir"], config["image_extensions"])
    scan.check(config["input_dir"])
    plan = make_plan(
        shards,
        scan.images,
        scan.rejected,
        COST.shard_size if config["shard_size"] == "auto" else config["shard_size"],
        recompute=config["recompute_existing_embeddings"],
        retry=database.failed_photos(DATABASE, TYPE) if config["retry_failures"] else frozenset(),
    )
    logger.info(f"{plan.summary()}; {scan.summary()}")
    if config["missing_images"] == "keep" and (warning := plan.strangers(shards)):
        logger.warning(warning)
    return plan


def get_generation(receipt, key):
    """Number of the contents of the database: it rises when they are not those of the receipt."""
    return database.generation(DATABASE, f"{STATE}/{receipt}", TYPE, key) if workflow.is_main_process else 0


def get_final_output():
    """Everything that a run leaves behind."""
    final_output = [
        DATABASE,
        collect("<results>/{file}", file=["manifest.tsv", "rejected.tsv", "encoder.json", "embeddings.json"]),
        collect("<results>/shards/{shard}.tsv", shard=PLAN.new_shards),
        MANIFEST_STAMP,
        ENCODER_STAMP,
        STORE_STAMP,
        collect("<results>/embeddings/{shard}.sqlite", shard=SHARDS),
    ]
    if WITH_MAP:
        made = "map.html map.png map.svg map.tsv map_quality.json map_stored.json neighbours.npz umap_model.pkl"
        final_output += [UMAP_STAMP, MAP_STAMP, *collect("<results>/{file}", file=made.split())]
    return final_output


try:
    config = check_config(config, f"{workflow.basedir}/workflow/schemas/config.schema.yaml")
    TYPE = config["embedding_type"]
    DATABASE = config["output_embeddings_db"]
    ENCODER = config["encoders"][TYPE]
    STARTED = time.time()
    ON_CLUSTER = workflow.resource_settings.nodes is not None or not workflow.is_main_process
    SCRIPTS = f"{workflow.basedir}/scripts"
    STATE = f"{state_folder(DATABASE)}/{TYPE}"
    SHARES = forecast.share_out(
        None if ON_CLUSTER else workflow.cores,
        workflow.resource_settings.nodes,
        workflow.global_resources.get("gpu").value,
        may_use_gpu=identity.may_use_gpu(ENCODER, config["device"]),
    )
    COST = forecast.embedding_cost(STATE, ENCODER["backend"], SHARES)
    OLD_SHARDS = read_shard_lists(STATE) if workflow.is_main_process else {}
    PLAN = plan_run(OLD_SHARDS)
    SHARDS = shards_at_work(PLAN, OLD_SHARDS, STATE)
    SHARD_SIZES = PLAN.shard_sizes()
    WITH_MAP = config["reproject_umap_embeddings"]
    WITH_WORDS = not config["labels"] and identity.may_understand_texts(ENCODER)
    line = forecast.forecast(STATE, COST, SHARES, SHARD_SIZES, SHARDS, with_map=WITH_MAP, with_words=WITH_WORDS)
    if workflow.is_main_process and (line := line or finish.page_line(STATE)):
        logger.info(line)
    STORE_GENERATION = get_generation("embeddings.json", "embeddings_digest")
    MAP_GENERATION = get_generation("map_stored.json", "map_digest")
    ENCODER_STAMP = f"<results>/settings/encoder-{identity.settings_digest(TYPE, ENCODER)}"
except InputError as error:
    sys.exit(f"{error}")


pathvars:
    results=STATE,
    logs=f"{STATE}/logs",
    benchmarks=f"{STATE}/benchmarks",


MANIFEST_STAMP = f"<results>/settings/manifest-{PLAN.digest()}"
STORE_STAMP = f"<results>/settings/store-{digest([config['missing_images'], STORE_GENERATION])}"
UMAP_STAMP = f"<results>/settings/umap-{map_settings.settings_digest(config['umap'], config['labels'])}"
MAP_STAMP = f"<results>/settings/map-{MAP_GENERATION}"


wildcard_constraints:
    shard=r"\d{6}",


onstart:
    try:
        start.start_run(
            *(DATABASE, STATE, TYPE, OLD_SHARDS, SHARDS, PLAN),
            config["max_deleted_share"] if config["missing_images"] == "delete" else None,
        )
    except InputError as error:
        sys.exit(f"{error}")
    start.pass_on_sigterm()
    tell_progress(STATE, SHARD_SIZES, logger.info)


onsuccess:
    logger.info("\n".join(finish.closing_lines(DATABASE, STATE, STARTED)))
    try:
        finish.check_failures(STATE, PLAN, config["max_failed_share"])
    except InputError as error:
        sys.exit(f"{error}")


onerror:
    for line in finish.last_errors(STATE, STARTED):
        logger.error(line)
