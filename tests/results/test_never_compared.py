"""No run is compared with a published number of other conditions."""

import random

import pytest
import yaml

from results.aggregate import aggregate
from results.compare import base_and_new
from results.published import GENERAL10
from results.published_coop import published_on_sets
from results.published_softcpt import compare
from results.read import make_run
from results.rendering import Table
from tests._records import record

PLANTS = [f"plant {i}" for i in range(6)]
SOFTCPT = {"suite": "Plant6", "method": "SoftCPT-NATA", "backbone": "RN50", "tasks": "all"}
SOFTCPT |= {"classes": "all", "selection": "last_step", "metric_rule": "per_task", "shots": 4}
ON_SETS = {"suite": "General10", "method": "KgCoOp", "backbone": "ViT-B/16", "tasks": "all"}
ON_SETS |= {"selection": "last_step", "metric_rule": "overall_acc", "shots": 16}
# Conditions of a run, by key of the protocol or of the configuration, that no published number has.
OTHER = {
    "name": ("cross_dataset", "domain_generalization", "leave_one_task_out", "transfer", "mine"),
    "init_from": ("ImageNet 16 shots 0123abcd",),
    "trained_on": ("ImageNet", "task0", "base classes", "4 shots"),
    "selection": ("best_val", "best_val, C on val"),
    "tasks": ("task0", "base", "not_task1"),
    "TEST.SPLIT": ("val",),
    "test_subset": ({"items": 5, "of": 10, "unit": "images"},),
    "shots": (3, 32, -1),
}
OF_SOFTCPT = {
    "backbone": ("ViT-B/16", "RN101", "RN50/yfcc15m", "tiny"),
    "metric_rule": ("overall_acc",),
    "classes": ("base", "new"),
    "DATASET.METRIC": ("overall_acc",),
    "suite": ("General10", "RS8", "Fashion20", "digits7"),
    "method": ("SoftCPT-CATA", "CoOp-MT (per task)", "SoftCPT-NATA, depth 9", "KgCoOp+DePT"),
}
OF_SETS = {
    "backbone": ("RN50", "ViT-B/32", "ViT-L/14", "ViT-B-16/laion2b_s34b_b88k"),
    "metric_rule": ("per_task",),
    "suite": ("Plant6", "digits7"),
}


def draws(other, seed, count=60):
    """Conditions of runs: one, two or three changes of the published ones."""
    rng = random.Random(seed)
    single = [{key: value} for key, values in other.items() for value in values]
    mixed = [rng.sample(list(other), rng.randint(2, 3)) for _ in range(count)]
    return [*single, *({key: rng.choice(other[key]) for key in keys} for keys in mixed)]


def runs(folder, conditions, names):
    """Complete runs of three seeds under conditions by key."""
    conditions = dict(conditions)
    subset = conditions.pop("test_subset", None)
    config = {}
    for key in [key for key in conditions if "." in key]:
        node, name = key.split(".")
        config.setdefault(node, {})[name] = conditions.pop(key)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config or {"TEST": {"SPLIT": "test"}}))
    found = []
    for seed in (1, 2, 3):
        content = record(tasks=[(name, "", 70.0) for name in names], seed=seed)
        content["protocol"] |= conditions
        content["data"] = {"test_subset": subset} if subset else {}
        found.append(make_run(folder, content))
    return found


def test_softcpts_table(tmp_path):
    assert [c.difference for c in compare(aggregate(runs(tmp_path / "as", SOFTCPT, PLANTS)))]
    for i, changes in enumerate(draws({**OTHER, **OF_SOFTCPT}, seed=0)):
        rows = aggregate(runs(tmp_path / str(i), {**SOFTCPT, **changes}, PLANTS))
        assert all(c.difference is None and c.why_not for c in compare(rows)), changes


def on_sets(folder, base, new, names=GENERAL10):
    """Whether runs on base and on new classes are shown beside published numbers."""
    sides = [
        run
        for classes, conditions in (("base", base), ("new", new))
        for run in runs(folder / classes, {**ON_SETS, "classes": classes, **conditions}, names)
    ]
    parts = published_on_sets([], base_and_new(sides))
    return any(isinstance(part, Table) for part in parts)


def test_base_to_new_on_the_datasets_of_coop(tmp_path):
    assert on_sets(tmp_path / "as", {}, {})
    assert not on_sets(tmp_path / "nine", {}, {}, GENERAL10[:9])
    for i, changes in enumerate(draws({**OTHER, **OF_SETS}, seed=1)):
        sides = ({}, changes) if i % 2 and "shots" not in changes else (changes, changes)
        assert not on_sets(tmp_path / str(i), *sides), changes


def test_few_shot_on_the_datasets_of_coop(tmp_path):
    def shown(folder, changes):
        rest = {**ON_SETS, "classes": "all", **changes}
        found = runs(folder / "ten", rest, GENERAL10)
        found += runs(
            folder / "one", {**ON_SETS, "classes": "all", "suite": "ImageNet"}, ["object"]
        )
        parts = published_on_sets(aggregate(found), [])
        return any(isinstance(part, Table) for part in parts)

    assert shown(tmp_path / "as", {})
    other = {**OTHER, **OF_SETS, "classes": ("base", "new"), "method": ("SoftCPT-NATA", "CoOp-MT")}
    for i, changes in enumerate(draws(other, seed=2)):
        assert not shown(tmp_path / str(i), changes), changes


@pytest.mark.parametrize("method", ["KgCoOp", "zero-shot"])
def test_general_10_is_ten_of_the_datasets(tmp_path, method):
    conditions = {**ON_SETS, "method": method}
    sides = [
        run
        for classes in ("base", "new")
        for run in runs(tmp_path / classes, {**conditions, "classes": classes}, GENERAL10)
    ]
    table = published_on_sets([], base_and_new(sides))[0]
    shown = {row[0].text for row in table.rows if row[2].text == "ours"}
    assert shown == set(GENERAL10)


def test_own_words_and_settings_are_named(tmp_path):
    conditions = {**SOFTCPT, "DATASET.TEMPLATE": "a {}.", "options": {"N_CTX": 8}}
    (found,) = compare(aggregate(runs(tmp_path / "as", conditions, PLANTS)))
    assert found.difference is not None
    assert {"DATASET.TEMPLATE a {}.", "N_CTX 8 (published: 16)"} <= set(found.differs)
