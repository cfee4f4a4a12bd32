"""What presets of the tiny backbone reach on images that they have not learned from."""

import train


def mean_value(folder, method, preset, data, name, seeds, opts=()):
    """Mean over seeds of the suite's value on the test part, in percent.

    Args:
        data: dataset config that says how images are read; ``name``: the registered dataset.
        opts: KEY VALUE words.
    """
    values = []
    for seed in seeds:
        words = [
            *("--trainer", method, "--quiet", "--seed", seed),
            *("--config-file", train.CONFIGS / f"trainers/{preset}.yaml"),
            *("--dataset-config-file", train.CONFIGS / f"datasets/{data}.yaml"),
            *("--output-dir", folder / f"{method}-{name}-{seed}", "DATASET.NAME", name),
            *opts,
        ]
        content = train.main(train.parse_args([*map(str, words)]))
        values.append(content["suite"]["value"])
    return sum(values) / len(values)


def values_of(folder, method, preset, data, name, shuffled, seeds=(1,), epochs=None):
    """Zero-shot, the method, and the method on the dataset whose training texts are shuffled.

    Args:
        seeds: of the method on true texts; docs/retrieval.md has three of each.
        epochs: of the method on true texts; None: the preset's. On shuffled ones it trains for 5.
    """
    opts = () if epochs is None else ("OPTIM.MAX_EPOCH", epochs)
    return (
        mean_value(folder, "ZeroshotCLIP", "ZeroShot/tiny", data, name, (1,)),
        mean_value(folder, method, preset, data, name, seeds, opts),
        mean_value(folder, method, preset, data, shuffled, (1,), ("OPTIM.MAX_EPOCH", 5)),
    )
