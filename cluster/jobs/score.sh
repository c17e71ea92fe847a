#!/bin/sh
# Scores every object of a prefix exactly once. The same call goes on where it stopped.
# Further words go to `gan-ray score`, such as --maps.
set -eu
: "${BUNDLE:?name@version, such as chest@1}"
: "${REGISTRY:?where bundles are published, such as s3://models}"
: "${SOURCE:?the images, such as s3://hospital/incoming}"
: "${SINK:?where the scores go, such as s3://hospital/scores}"
exec gan-ray score "$BUNDLE" "$SOURCE" "$SINK" --registry "$REGISTRY" \
  --workers "${WORKERS:-2}" "$@"
