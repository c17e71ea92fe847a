#!/bin/sh
# Searches, chooses without labels and publishes. The same call goes on after any end.
# Further words go to `gan-ray sweep`, such as --train.images 200000.
set -eu
: "${DATA:?where the images are, such as s3://hospital/chest}"
: "${OUT:?where the sweep is kept, such as s3://hospital/sweeps/chest}"
: "${REGISTRY:?where the bundle is published, such as s3://models}"
gan-ray sweep "${SYSTEMS:-brainomaly,ganomaly}" --study "${STUDY:-weights}" \
  --samples "${SAMPLES:-20}" --data.root "$DATA" --out "$OUT" "$@"
exec gan-ray select "$OUT" --publish "$REGISTRY"
