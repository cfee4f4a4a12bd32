#!/bin/sh
# SoftCPT. The variants' arguments, from CLASS_N_CTX to CSC:
#   NATA 0 False 4 False 16 False    CATA 4 False 4 False 16 True    CSTA 4 True 4 False 16 True
#   NATS 0 False 4 True 16 False     CATS 4 False 4 True 16 True     CSTS 4 True 4 True 16 True
. "$(dirname "$0")/_run.sh"
arguments "$SOFTCPT" "$@"
shift 11
softcpt every_seed "output/$DATASET/MTCoOp/$(softcpt_variant)_loss" "$@"
