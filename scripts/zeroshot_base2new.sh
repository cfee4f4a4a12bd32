#!/bin/sh
# Zero-shot CLIP on the base or new classes (CLASS) of one task of a suite, or of all.
. "$(dirname "$0")/_run.sh"
arguments "DATASET CFG TID CLASS" "$@"
shift 4
zeroshot "output/base2new/ZeroshotCLIP/$CFG/$CLASS/$DATASET-$TID" \
    --protocol base_to_new DATASET.SUBSAMPLE_CLASSES "$CLASS" TEST.METRIC per_task "$@"
