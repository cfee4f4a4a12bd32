#!/bin/sh
# Zero-shot CLIP on one task of a suite, TID = 0, 1, ...; all evaluates the whole suite.
. "$(dirname "$0")/_run.sh"
arguments "DATASET CFG TID" "$@"
shift 3
zeroshot "output/ZeroshotCLIP/$CFG/$DATASET-$TID" "$@"
