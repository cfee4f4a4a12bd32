#!/bin/sh
# Linear probes on frozen image features: tasks 0 to MAX_TASK_IDX of a suite, each separately, at
# every number of images per class in SHOTS.
. "$(dirname "$0")/_run.sh"
arguments "DATASET MODEL MAX_TASK_IDX" "$@"
shift 3
case $MAX_TASK_IDX in
"" | *[!0-9]*)
    echo "error: MAX_TASK_IDX takes a number of 0 or more; got '$MAX_TASK_IDX'" >&2
    exit 2
    ;;
esac
task=0
while [ "$task" -le "$MAX_TASK_IDX" ]; do
    for shots in ${SHOTS:-1 2 4 8 16}; do
        tried every_seed "output/lpclip/$DATASET/$MODEL/$task/${shots}shots" \
            --trainer LinearProbe \
            --config-file "configs/trainers/LP/${MODEL}_val.yaml" \
            --dataset-config-file "configs/datasets/$DATASET.yaml" \
            DATASET.SUBSAMPLE_TASKS "task$task" DATASET.NUM_SHOTS "$shots" "$@"
    done
    task=$((task + 1))
done
exit "$failed"
