"""What presets of the tiny backbone reach on images that they have not learned from."""

import train


def value_of(folder, method, preset, data, name, opts=()):
    """The suite's value on the test part with seed 1, in percent.

    Args:
        data: dataset config that says how images are read; ``name``: the registered dataset.
        opts: KEY VALUE words.
    """
    words = [
        *("--trainer", method, "--quiet", "--seed", 1),
        *("--config-file", train.CONFIGS / f"trainers/{preset}.yaml"),
        *("--dataset-config-file", train.CONFIGS / f"datasets/{data}.yaml"),
        *("--output-dir", folder / f"{method}-{name}", "DATASET.NAME", name),
        *opts,
    ]
    return train.main(train.parse_args([*map(str, words)]))["suite"]["value"]


def values_of(folder, method, preset, data, name, shuffled, epochs=None):
    """Zero-shot, the method, and the method on the dataset whose training texts are shuffled.

    Args:
        epochs: of the method on true texts; None: the preset's. On shuffled ones it trains for 3.
    """
    opts = () if epochs is None else ("OPTIM.MAX_EPOCH", epochs)
    return (
        value_of(folder, "ZeroshotCLIP", "ZeroShot/tiny", data, name),
        value_of(folder, method, preset, data, name, opts),
        value_of(folder, method, preset, data, shuffled, ("OPTIM.MAX_EPOCH", 3)),
    )
