r"""Find out what an encoder is: model, commit, digests, preprocessing, versions.

The only step that may use the network: a checkpoint that is not here yet is fetched into the cache.

Example:
    python scripts/resolve_encoder.py --name EFFICIENTNET_LITE0 --settings '{"backend": "efficientnet_lite0"}' \
        --output encoder.json
"""

import argparse
import json
from pathlib import Path

import _command
from crossfilter_inference.encoders import registry
from crossfilter_inference.shards.guard import refuse_mixture
from crossfilter_inference.util.files import read_json, write_json, write_stamp


def main(arguments: argparse.Namespace) -> str:
    before = read_json(arguments.output) if arguments.output.exists() else None
    encoder = registry.resolve_encoder(arguments.name, arguments.settings, arguments.device, before)
    if arguments.database and arguments.missing_images == "keep":
        refuse_mixture(arguments.database, arguments.plan, encoder, recompute=arguments.recompute == "yes")
    write_json(arguments.output, encoder)
    if arguments.stamp:
        write_stamp(arguments.stamp)
    return (
        f"{encoder['name']}: {encoder['model']}, {encoder['dimension']} dimensions, {encoder['dtype']} by "
        f"{encoder['runtime']}"
    )


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--name", required=True, help="embedding type")
    options.add_argument("--settings", type=json.loads, required=True, help="its entry under encoders:, as JSON")
    options.add_argument("--output", type=Path, required=True, help="encoder.json to write")
    options.add_argument("--stamp", help="empty file that names the settings")
    options.add_argument("--database", help="database whose rows of gone photos must not be mixed with new ones")
    options.add_argument("--plan", help="plan.tsv, which knows the photos that there are")
    options.add_argument("--missing_images", choices=["keep", "delete"], default="keep")
    options.add_argument("--recompute", choices=["yes", "no"], default="no", help="yes: every photo is embedded anew")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (%(default)s)")
    _command.add_log(options)
    _command.run(main, options)
