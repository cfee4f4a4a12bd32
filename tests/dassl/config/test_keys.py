"""Types and ranges of configuration keys: one table refuses what no run can use."""

import math
import pickle
import warnings

import pytest
import yaml

from dassl.config import CfgNode, Key, expand_home, get_cfg_default
from dassl.config.node import read_yaml
from dassl.utils.command_line import SECTIONS, SINGLE_KEYS, Parser
from dassl.utils.errors import UserError

REFUSED = [
    ("OPTIM.LR", -0.1, "at least 0"),
    ("OPTIM.LR", math.nan, "at least 0"),
    ("OPTIM.LR", math.inf, "at least 0"),
    ("OPTIM.LABEL_SMOOTHING", 1.5, "at least 0 and at most 1"),
    ("OPTIM.LABEL_SMOOTHING", -0.1, "at least 0 and at most 1"),
    ("OPTIM.MOMENTUM", -0.9, "at least 0"),
    ("OPTIM.WEIGHT_DECAY", -math.inf, "at least 0"),
    ("OPTIM.ADAM_BETA2", 1.0, "below 1"),
    ("OPTIM.GAMMA", math.inf, "at least 0"),
    ("OPTIM.WARMUP_EPOCH", -2, "at least -1"),
    ("OPTIM.STEPSIZE", (20, -5), "at least -1"),
    ("OPTIM.MAX_EPOCH", -1, "whole number of at least 0"),
    ("OPTIM.NAME", "sdg", "sgd, adam, adamw"),
    ("INPUT.COLORJITTER_H", 0.6, "at most 0.5"),
    ("INPUT.RRCROP_SCALE", (0.0, 1.0), "above 0"),
    ("INPUT.RRCROP_SCALE", ("a", "b"), "above 0"),
    ("INPUT.PIXEL_MEAN", [math.nan, 0.5, 0.5], "at least 0"),
    ("INPUT.PIXEL_STD", [1.0, 0.0, 1.0], "above 0"),
    ("INPUT.INTERPOLATION", "cubic", "bilinear, bicubic, nearest"),
    ("DATASET.NUM_SHOTS", 0, "at least -1 and not 0 (training images per class"),
    ("DATASET.SPLIT", "zhu", "auto, zhou, dk, own"),
    ("DATALOADER.NUM_WORKERS", -1, "at least 0"),
    ("DATALOADER.TRAIN_X.BATCH_SIZE", 0, "at least 1"),
    ("TRAIN.PRINT_FREQ", 0, "at least 1"),
    ("SEED", 2**63, "at most 9223372036854775807"),
    ("SEED", 10**400, "at most 9223372036854775807"),
    ("FEATURES.LIMIT_GB", 0.0, "above 0"),
    ("FEATURES.MODE", "on", "off, test, full"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), REFUSED)
def test_a_value_out_of_range_is_refused(key, value, allowed):
    """By every way in: the command line, a YAML file, and an attribute."""
    cfg = get_cfg_default()
    with pytest.raises(UserError) as merged:
        cfg.merge_from_list([key, value])
    *path, last = key.split(".")
    node = cfg
    for part in path:
        node = node[part]
    node[last] = value
    with pytest.raises(UserError) as set_by_hand:
        cfg.check()
    for caught in (merged, set_by_hand):
        message = str(caught.value)
        assert message.startswith(f"{key} takes ") and allowed in message
        assert f"; got {value!r}" in message


def test_a_file_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("OPTIM: {LR: .inf}")
    with pytest.raises(UserError, match=r"a\.yaml: OPTIM\.LR takes .*; got inf"):
        get_cfg_default().merge_from_file(tmp_path / "a.yaml")


def numeric(node, name=""):
    for key, value in node.items():
        full = f"{name}.{key}" if name else key
        if isinstance(value, CfgNode):
            yield from numeric(value, full)
        elif isinstance(value, float):
            yield full


@pytest.mark.parametrize("key", [*numeric(get_cfg_default())])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_may_be_infinite(key, value):
    with pytest.raises(UserError, match=f"{key} takes"):
        get_cfg_default().merge_from_list([key, value])


@pytest.mark.parametrize(
    ("default", "value", "kind"),
    [
        (2, "two", "a whole number such as 2; got 'two'"),
        (2, 2.5, "a whole number such as 2; got 2.5"),
        (0.1, "fast", "a number such as 0.1; got 'fast'"),
        (False, "maybe", "True or False; got 'maybe'"),
        (False, 1, "True or False; got 1"),
        ("a", [1], "text such as 'a'; got [1]"),
        ((), "x", "a list; got 'x'"),
    ],
)
def test_a_value_of_another_type_is_refused(default, value, kind):
    with pytest.raises(UserError) as caught:
        CfgNode({"A": default}).merge_from_list(["A", value])
    assert str(caught.value) == f"A takes {kind}"


@pytest.mark.parametrize(
    ("default", "value", "expected"),
    [
        (0.1, 1, 1.0),
        ((1,), [2, 3], (2, 3)),
        ("x", None, ""),
        ("x", "None", ""),  # as yacs reads both
        ("x", 3, "3"),
        ("x", "no", "no"),
    ],
)
def test_values_that_are_converted(default, value, expected):
    cfg = CfgNode({"A": default})
    cfg.merge_from_list(["A", value])
    assert expected == cfg.A and type(cfg.A) is type(expected)


def test_a_text_is_not_read_as_python():
    cfg = CfgNode({"WORDS": ""})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cfg.merge_from_list(["WORDS", "32in x"])
    assert cfg.WORDS == "32in x"


def test_a_bias_is_a_number_or_auto():
    cfg = get_cfg_default()
    for value, expected in (("auto", "auto"), ("-2", -2.0), ("auto", "auto"), (0, 0.0)):
        cfg.merge_from_list(["OPTIM.LOGIT_BIAS", value])
        assert expected == cfg.OPTIM.LOGIT_BIAS
        cfg.check()
    for value in ("inf", "aut", True, None):
        with pytest.raises(UserError, match="LOGIT_BIAS takes"):
            cfg.merge_from_list(["OPTIM.LOGIT_BIAS", value])


def test_a_range_goes_with_its_node():
    """Copies, pickles and nodes inside of nodes keep the ranges; the values are plain."""
    cfg = CfgNode({"A": {"B": Key(0.5, least=0, most=1, about="share")}})
    assert cfg.A.B == 0.5 and yaml.safe_load(cfg.dump()) == {"A": {"B": 0.5}}
    for copy in (cfg.clone(), pickle.loads(pickle.dumps(cfg)), CfgNode({"C": cfg}).C):
        with pytest.raises(UserError, match=r"A\.B takes .* at most 1 \(share\); got 2"):
            copy.merge_from_list(["A.B", "2"])


def test_defaults_are_in_range():
    get_cfg_default().check()


def test_the_command_line_knows_the_first_word_of_every_key():
    whole = get_cfg_default()
    sections = [name for name, value in whole.items() if isinstance(value, CfgNode)]
    assert sorted(SECTIONS) == sorted(sections)
    assert sorted(SINGLE_KEYS) == sorted(set(whole) - set(sections))


@pytest.mark.parametrize(
    ("words", "folders"),
    [
        (("a", "b", "USE_CUDA", "False"), ["a", "b"]),
        (("a", "TRAINER.COOP.N_CTX", "4"), ["a"]),
        (("runs", "2024.01", "2024.02"), ["runs", "2024.01", "2024.02"]),
        (("OLD.RUN", "MODEL", "SEED", "1"), ["OLD.RUN", "MODEL"]),
    ],
)
def test_keys_after_a_flag_with_several_values(words, folders):
    parser = Parser()
    parser.add_argument("--init-from", nargs="+")
    parser.add_overrides("")
    args = parser.parse_args(["--init-from", *words])
    assert args.init_from == folders and args.opts == list(words[len(folders) :])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: 5", "_BASE_ takes a path or a list of paths; got 5"),
        ("_BASE_:", "_BASE_ takes .* got None"),
        ("_BASE_: [[a.yaml]]", r"_BASE_ takes .* got \['a.yaml'\]"),
        ("DATASET: {NAME: 2020-13-45}", "is not valid YAML: month must be in 1..12"),
        ("SEED: !!int x", "is not valid YAML"),
        ("OPTIM: {LR: 1}\nSEED: 2\nOPTIM: {NAME: sgd}", "the key OPTIM is given twice.*line 3"),
        (f"OPTIM: {{LR: 1{'0' * 400}}}", "OPTIM.LR takes .* got inf"),
        ("[" * 3000, "is not valid YAML"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^{path}.*{message}"):
        get_cfg_default().merge_from_file(path)


def test_folders_to_start_from_are_text():
    cfg = get_cfg_default()
    cfg.merge_from_list(["MODEL.INIT_FROM", "[5]"])
    with pytest.raises(UserError, match=r"MODEL.INIT_FROM.* 5"):
        expand_home(cfg)


def test_a_key_may_replace_that_of_an_anchor(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1, y: 3}\nb: {<<: *a, x: 2}\n")
    assert read_yaml(path)["b"] == {"x": 2, "y": 3}
