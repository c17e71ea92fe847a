"""`gan-ray heads`: which score suits a bundle, by held-out normals and the unlabeled mix alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any


def command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Run the verb; gives the exit code.

    Raises:
        ConfigError: the data have no unlabeled mix or are others than those of the training, or a
            head cannot work.
        ArtifactError: the bundle is damaged.
    """
    parser.add_argument("bundle", help="its folder")
    parser.add_argument("--root", default="", help="where its training data are now")
    about = "name[,smooth=2][,top=0.01] … (default: all scores that it can feed)"
    parser.add_argument("--heads", nargs="+", default=[], metavar="HEAD", help=about)
    options = parser.parse_args(arguments)
    found = rank(options.bundle, options.heads, root=options.root)
    print(json.dumps({"heads": found}, indent=1)) if options.json else _show(found)
    return 0


def rank(bundle: str, texts: Sequence[str] = (), *, root: str = "") -> list[dict[str, Any]]:
    """Give the AUCp of the bundle's score and of each head, highest first; see `command`."""
    from dataclasses import replace

    from gan_ray.artifacts.bundle import load_bundle
    from gan_ray.config import ScoreConfig
    from gan_ray.data.sources import load_training
    from gan_ray.errors import ConfigError
    from gan_ray.scoring.heads import aucp_of_heads, head_name, make_heads
    from gan_ray.scoring.scorer import Scorer
    from gan_ray.scoring.scores import make_score, offered, settings_read

    loaded = load_bundle(bundle)
    own, detector = loaded.score, loaded.detector
    if not texts:
        names = (ScoreConfig(name=name) for name in offered(detector))
        texts = [n.name for n in names if own.scales or "scales" not in settings_read(n, detector)]
    heads = {head_name(own, detector): make_score(own, detector)}
    heads |= make_heads(texts, own, detector)
    settings = loaded.experiment.data
    data = load_training(replace(settings, root=root or settings.root))
    if data.fingerprint != loaded.manifest.data_fingerprint:
        raise ConfigError(
            f"{loaded.manifest.reference} was trained on other data (fingerprint "
            f"{loaded.manifest.data_fingerprint}, here {data.fingerprint}): its held-out normals "
            "are not known. Give the images of its training (--root)."
        )
    if data.mix is None:
        raise ConfigError(
            "heads are chosen by AUCp, held-out normals against an unlabeled mix, and these data "
            "have none (train/unlabeled). Keep the paper's score; `gan-ray evaluate --heads` "
            "describes others on the test split, which is no choice."
        )
    scorer = Scorer.from_bundle(loaded, heads=heads)
    found = aucp_of_heads(scorer, data.select, data.mix)
    rows = [{"head": name, **asdict(one)} for name, one in found.items()]
    return sorted(rows, key=lambda row: -row["aucp"])


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    width = max(len(row["head"]) for row in rows)
    for row in rows:
        doubt = "" if row["valid"] else f"  not valid: {row['reason']}"
        figure = f"AUCp {row['aucp']:.4f} ± {row['standard_error']:.4f}"
        print(f"{row['head']:{width}}  {figure}{doubt}")
    print("± is a standard error; held-out normals against the unlabeled mix, no label was read.")
    print("Take one: gan-ray export RUN -o BUNDLE --head HEAD (its threshold is set anew).")
