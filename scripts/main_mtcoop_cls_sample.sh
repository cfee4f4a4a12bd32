#!/bin/sh
# SoftCPT whose steps score the classes of the batch and a fraction CSR of the others.
. "$(dirname "$0")/_run.sh"
arguments "$SOFTCPT CSR" "$@"
shift 12
softcpt every_seed "output/$DATASET/MTCoOp/$(softcpt_variant)_csr$CSR" \
    TRAINER.MTCOOP.CLS_SAMPLE_RATE "$CSR" "$@"
