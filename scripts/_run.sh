# Functions shared by the scripts of this folder, each of which sources it first. It changes to
# the repository, so later paths are relative to that. Plain sh.
. "$(dirname "$0")/set_env.sh"
cd "$(dirname "$0")/.." || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi

# arguments "NAME ..." "$@": assigns the script's first arguments to these variables, in order.
# The script then shifts them away and passes the rest to train.py.
arguments() {
    names=$1
    shift
    for name in $names; do
        if [ $# -eq 0 ]; then
            echo "error: no $name given; usage: sh ${0##*/} $names [MORE FOR train.py]" >&2
            exit 2
        fi
        eval "$name=\$1"
        shift
    done
}

# run_once FOLDER ARGUMENT...: one run of train.py, which leaves a complete run alone.
run_once() {
    output=$1
    shift
    echo "== $output"
    "$PYTHON" train.py ${YOUR_DATA_PATH:+--root "$YOUR_DATA_PATH"} --output-dir "$output" "$@"
}

# tried COMMAND...: stores the status of a failed run in $failed and continues with the next run;
# an interruption (130, 143) ends the script.
failed=0
tried() {
    "$@" && return
    status=$?
    case $status in 130 | 143) exit "$status" ;; esac
    if [ "$failed" -eq 0 ]; then failed=$status; fi
}

# every_seed FOLDER ARGUMENT...: one run per seed in FOLDER/seed<s>; fails if any of them failed.
every_seed() {
    above=$1
    shift
    for seed in $SEEDS; do
        tried run_once "$above/seed$seed" --seed "$seed" "$@"
    done
    return "$failed"
}

SOFTCPT="DATASET CFG SHOTS CLASS_N_CTX CLASS_CSC TASK_N_CTX TASK_CSC N_CTX CSC PG_TYPE PG_RATIO"

# softcpt_variant: the part of a folder's name that encodes the options of SoftCPT.
softcpt_variant() {
    printf %s "${CFG}_${SHOTS}shots/cnctx${CLASS_N_CTX}_ccsc${CLASS_CSC}_tnctx${TASK_N_CTX}"
    printf %s "_tcsc${TASK_CSC}_nctx${N_CTX}_csc${CSC}_type${PG_TYPE}_ratio${PG_RATIO}"
}

# softcpt RUN FOLDER ARGUMENT...: SoftCPT with the options of $SOFTCPT, by run_once or every_seed.
softcpt() {
    how=$1 into=$2
    shift 2
    "$how" "$into" --trainer MTCoOp \
        --config-file "configs/trainers/MTCoOp/$CFG.yaml" \
        --dataset-config-file "configs/datasets/$DATASET.yaml" \
        DATASET.NUM_SHOTS "$SHOTS" \
        TRAINER.MTCOOP.CLASS_N_CTX "$CLASS_N_CTX" TRAINER.MTCOOP.CLASS_CSC "$CLASS_CSC" \
        TRAINER.MTCOOP.TASK_N_CTX "$TASK_N_CTX" TRAINER.MTCOOP.TASK_CSC "$TASK_CSC" \
        TRAINER.MTCOOP.N_CTX "$N_CTX" TRAINER.MTCOOP.CSC "$CSC" \
        TRAINER.MTCOOP.PG_TYPE "$PG_TYPE" TRAINER.MTCOOP.PG_RATIO "$PG_RATIO" "$@"
}

# zeroshot FOLDER ARGUMENT...: zero-shot CLIP on task $TID: a number, task<number>, or all.
zeroshot() {
    into=$1
    shift
    case $TID in all | task*) tasks=$TID ;; *) tasks=task$TID ;; esac
    run_once "$into" --trainer ZeroshotCLIP \
        --config-file "configs/trainers/ZeroShot/$CFG.yaml" \
        --dataset-config-file "configs/datasets/$DATASET.yaml" \
        --seed 1 --eval-only DATASET.NUM_SHOTS 1 DATASET.SUBSAMPLE_TASKS "$tasks" "$@"
}
