#!/bin/sh
# Trains one system on several workers. The same call goes on from the last checkpoint.
# Further words go to `gan-ray train`, such as --train.use-gpu.
set -eu
: "${DATA:?where the images are, such as s3://hospital/chest}"
: "${OUT:?the run folder, such as s3://hospital/runs/chest}"
exec gan-ray train "${SYSTEM:-brainomaly}" --data.root "$DATA" --out "$OUT" \
  --train.workers "${WORKERS:-2}" "$@"
