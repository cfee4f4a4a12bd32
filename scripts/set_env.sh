# Defaults of every script here; variables already set in the environment win.
: "${YOUR_DATA_PATH:=}"  # folder of the datasets, train.py's --root; Digits7 needs none
: "${SEEDS:=1 2 3}"
