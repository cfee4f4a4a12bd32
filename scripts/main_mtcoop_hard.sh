#!/bin/sh
# CoOp's contexts trained on all tasks together: one for all (CSC False TSC False), one per task
# (TSC True) or one per class (CSC True).
. "$(dirname "$0")/_run.sh"
arguments "DATASET CFG SHOTS NCTX CSC TSC" "$@"
shift 6
every_seed "output/$DATASET/MTCoOpHard/${CFG}_${SHOTS}shots/nctx${NCTX}_csc${CSC}_tsc${TSC}" \
    --trainer MTCoOpHard \
    --config-file "configs/trainers/MTCoOpHard/$CFG.yaml" \
    --dataset-config-file "configs/datasets/$DATASET.yaml" \
    DATASET.NUM_SHOTS "$SHOTS" TRAINER.MTCOOPH.N_CTX "$NCTX" \
    TRAINER.MTCOOPH.CSC "$CSC" TRAINER.MTCOOPH.TSC "$TSC" "$@"
