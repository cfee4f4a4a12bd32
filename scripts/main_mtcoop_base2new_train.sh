#!/bin/sh
# SoftCPT on the first half of every task's classes; main_mtcoop_base2new_test.sh tests the others.
. "$(dirname "$0")/_run.sh"
arguments "$SOFTCPT" "$@"
shift 11
softcpt every_seed "output/base2new/$DATASET/MTCoOp/$(softcpt_variant)_loss/base" \
    --protocol base_to_new TEST.METRIC per_task "$@"
