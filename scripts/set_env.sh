# Read by every script here. What the environment sets already stays as it is.
: "${YOUR_DATA_PATH:=}"  # folder of the datasets, train.py's --root; Digits7 needs none
: "${SEEDS:=1 2 3}"
