#!/bin/sh
# Tests what main_mtcoop_base2new_train.sh learned on the other half of every task's classes.
. "$(dirname "$0")/_run.sh"
arguments "$SOFTCPT" "$@"
shift 11
folder="output/base2new/$DATASET/MTCoOp/$(softcpt_variant)_loss"
for seed in $SEEDS; do
    tried softcpt run_once "$folder/new/seed$seed" --protocol base_to_new --seed "$seed" \
        --eval-only --model-dir "$folder/base/seed$seed" DATASET.SUBSAMPLE_CLASSES new \
        TEST.METRIC per_task "$@"
done
exit "$failed"
