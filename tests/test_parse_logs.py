"""Folders that hold only logs, as CoOp, SoftCPT and their relatives write them."""

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.logs import parse_log
from tests._command_line import parse
from tests._records import write

# Written here after the published formats; the numbers are invented.
HEAD = """\
***************
** Arguments **
***************
backbone: {backbone}
eval_only: {eval_only}
seed: {seed}
************
** Config **
************
DATASET:
  NAME: {dataset}
  NUM_SHOTS: {shots}
  SUBSAMPLE_CLASSES: all
MODEL:
  BACKBONE:
    NAME: RN50
OPTIM:
  LR: 0.002
OUTPUT_DIR: output/somewhere/seed{seed}
SEED: {seed}
TRAINER:
  COOP:
    CSC: False
    N_CTX: 16
  MTCOOP:
    TASK_N_CTX: 4
  MTCOOPH:
    TSC: False
  NAME: {trainer}
Collecting env info ...
** System info **
OS: a system
Loading trainer: {trainer}
epoch [1/50][5/7]\ttime 0.2 (0.3)\tdata 0.0 (0.1)\teta 0:01:00\tloss 1.2 (1.4)\tlr 2.000000e-03
"""
ABOUT = dict(backbone="", eval_only="False", dataset="OxfordPets", shots=4, seed=1, trainer="CoOp")
VAL = "Do evaluation on val set\n=> result\n* total: 148\n* correct: 140\n* accuracy: 94.59%\n"
COOP_RESULT = """\
Do evaluation on test set
=> result
* total: 3,669
* correct: 3,210
* accuracy: {value}%
* error: 12.51%
* macro_f1: 87.10%
Elapsed: 0:05:01
"""
SOFTCPT_RESULT = """\
Do evaluation on test set
=> result
* total: 4,000
* overall_metric: {value}%
=> per-task result
* task: 0 (caltech)\ttotal: 2,465\tmetric: 90.50%
* task: 1 (textures (dtd))\ttotal: 1,535\tmetric: {second}%
* average: {value}%
Elapsed: 0:05:01
"""


def log(result="", end="Finish training\n", before="", **about):
    return HEAD.format(**{**ABOUT, **about}) + before + end + result


def seed(folder, number, text, name="log.txt"):
    (folder / f"seed{number}").mkdir(exist_ok=True, parents=True)
    (folder / f"seed{number}" / name).write_text(text)


VALUES = (87.49, 88.0, 86.5)


def coop_seeds(folder, **about):
    for i, value in enumerate(VALUES, 1):
        seed(folder, i, log(COOP_RESULT.format(value=value), before=VAL, seed=i, **about))
    return folder


def test_coop(tmp_path, capsys):
    code, lines, _ = parse(capsys, coop_seeds(tmp_path))
    mean, std = statistics.mean(VALUES), statistics.pstdev(VALUES)
    assert code == 0 and f"* overall_metric: {mean:.2f}% +- {std:.2f}%" in lines
    assert "n = 3" in lines
    code, lines, _ = parse(capsys, tmp_path, "--keyword", "accuracy")
    assert code == 0 and f"* accuracy: {mean:.2f}% +- {std:.2f}%" in lines
    code, lines, _ = parse(capsys, tmp_path, "--keyword", "macro_f1")
    assert code == 0 and "* macro_f1: 87.10% +- 0.00%" in lines
    code, _, err = parse(capsys, tmp_path, "--keyword", "macro_f2")
    assert code == 2 and "did you mean macro_f1?" in err


def test_softcpt(tmp_path, capsys):
    for i, (value, second) in enumerate([(70.25, 50.0), (71.25, 52.0)], 1):
        text = log(
            SOFTCPT_RESULT.format(value=value, second=second),
            end="Finished training\n",
            trainer="MTCoOp",
            dataset="General10",
            seed=i,
        )
        seed(tmp_path, i, text)
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 0 and "* overall_metric: 70.75% +- 0.50%" in lines
    assert "* task: 0 (caltech) metric: 90.50% +- 0.00%" in lines
    assert "* task: 1 (textures (dtd)) metric: 51.00% +- 1.00%" in lines
    assert (
        "* textures (dtd): 51.00% +- 1.00%"
        in parse(capsys, tmp_path, "--keyword", "textures (dtd)")[1]
    )


def test_a_training_that_did_not_end_is_named(tmp_path, capsys):
    coop_seeds(tmp_path)
    seed(tmp_path, 2, log(end="", before=VAL, seed=2))
    seed(tmp_path, 3, log(seed=3))  # it ended, but its test is not there
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 1 and f"* overall_metric: {VALUES[0]:.2f}% +- 0.00%" in lines
    unfinished = "no results.json, and a log without an end"
    assert f"n = 1 of 3; not complete: seed2 ({unfinished}), seed3 ({unfinished})" in lines


def test_later_launches_have_logs_of_their_own(tmp_path, capsys):
    seed(tmp_path, 1, log(end="", before=VAL))
    again = log(COOP_RESULT.format(value=81.0))
    seed(tmp_path, 1, again, name="log.txt-2022-10-08-10-00-00")
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 0 and "* overall_metric: 81.00% +- 0.00%" in lines
    seed(tmp_path, 1, log(end=""), name="log.txt-2022-10-09-10-00-00")
    last = log(COOP_RESULT.format(value=82.0))
    seed(tmp_path, 1, last, name="log.txt-2022-10-08-11-00-00")
    assert "* overall_metric: 82.00% +- 0.00%" in parse(capsys, tmp_path)[1]


def test_launches_in_one_file(tmp_path, capsys):
    """The last launch counts; a value of an earlier one is not its own."""
    done = log(COOP_RESULT.format(value=81.0))
    seed(tmp_path, 1, done + log(COOP_RESULT.format(value=83.0)))
    assert "* overall_metric: 83.00% +- 0.00%" in parse(capsys, tmp_path)[1]
    seed(tmp_path, 1, done + log(end=""))
    assert parse(capsys, tmp_path)[0] == 2


def test_evaluations(tmp_path, capsys):
    text = log(COOP_RESULT.format(value=60.5), end="", eval_only="True", trainer="ZeroshotCLIP")
    seed(tmp_path / "told", 1, text)
    assert "* overall_metric: 60.50% +- 0.00%" in parse(capsys, tmp_path / "told")[1]
    bare = COOP_RESULT.format(value=60.5)
    seed(tmp_path / "bare", 1, bare)
    assert parse(capsys, tmp_path / "bare")[0] == 2
    code, lines, _ = parse(capsys, tmp_path / "bare", "--test-log")
    assert code == 0 and "* overall_metric: 60.50% +- 0.00%" in lines


def test_seeds_come_from_the_folders_if_the_logs_do_not_tell(tmp_path, capsys):
    for i, value in enumerate(VALUES, 1):
        seed(tmp_path, i, "Finish training\n" + COOP_RESULT.format(value=value))
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 0 and f"* overall_metric: {statistics.mean(VALUES):.2f}%" in lines[-3]


def test_other_settings_are_not_averaged(tmp_path, capsys):
    coop_seeds(tmp_path)
    seed(tmp_path, 4, log(COOP_RESULT.format(value=1.0), seed=4).replace("N_CTX: 16", "N_CTX: 4"))
    code, _, err = parse(capsys, tmp_path)
    assert code == 2 and "N_CTX is 16 in seed1, 4 in seed4" in err
    seed(tmp_path, 4, log(COOP_RESULT.format(value=1.0), seed=4, shots=8))
    assert "shots is 4 in seed1, 8 in seed4" in parse(capsys, tmp_path)[2]


def test_settings_of_other_trainers_do_not_matter(tmp_path, capsys):
    coop_seeds(tmp_path)
    text = log(COOP_RESULT.format(value=87.0), seed=4).replace("TASK_N_CTX: 4", "TASK_N_CTX: 8")
    seed(tmp_path, 4, text)
    assert "n = 4" in parse(capsys, tmp_path)[1]


def test_many_experiments_and_a_table_beside_records(tmp_path, capsys):
    coop_seeds(tmp_path / "a", shots=1)
    coop_seeds(tmp_path / "b")
    write(tmp_path / "c" / "seed1", suite="OxfordPets")
    code, lines, _ = parse(capsys, tmp_path, "--multi-exp")
    assert code == 0 and "Average performance (n = 3 of 3 experiments)" in lines
    code, lines, _ = parse(capsys, tmp_path, "--table", "md")
    mean, std = statistics.mean(VALUES), statistics.pstdev(VALUES)
    assert code == 0
    for shots in (1, 4):
        row = f"| CoOp | {shots} | 3 | {mean:.1f} ± {std:.1f} |"
        assert any(row in line.replace("**", "") for line in lines)
    assert any("| CoOp-CA | 4 | 1 | 70.0 |" in line for line in lines)


def test_a_single_folder_with_a_log(tmp_path, capsys):
    coop_seeds(tmp_path)
    code, lines, _ = parse(capsys, tmp_path / "seed2")
    assert code == 0 and "* overall_metric: 88.00% +- 0.00%" in lines


def test_a_record_is_believed_before_a_log(tmp_path, capsys):
    coop_seeds(tmp_path)
    write(tmp_path / "seed1", status="failed", seed=1)
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 1 and "n = 2 of 3; not complete: seed1 (failed)" in lines


def test_progress_bars_and_numbers_that_are_none(tmp_path, capsys):
    result = COOP_RESULT.format(value=50.0).replace(
        "=> result", "100%|#####| 37/37 [00:05<00:00]\r=> result"
    )
    seed(tmp_path, 1, log(result + "* accuracy: e-.%\n* macro_f1: nan%\n"))
    assert "* overall_metric: 50.00% +- 0.00%" in parse(capsys, tmp_path)[1]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=30),
            st.sampled_from(
                [*log(SOFTCPT_RESULT).splitlines(), "  : a", "a:", "TRAINER:", "  .: 1", "NAME: x"]
            ),
        ),
        max_size=30,
    ),
    st.booleans(),
)
def test_any_lines_can_be_read(lines, test_log):
    found = parse_log(lines, test_log)
    found.options()
    assert all(isinstance(value, float) for value in found.values.values())
    assert found.finished or not found.values


@pytest.mark.parametrize("value", ["nan", "924.5", "-1.0"])
def test_a_seed_without_a_percentage_is_named(tmp_path, capsys, value):
    coop_seeds(tmp_path)
    seed(tmp_path, 2, log(COOP_RESULT.format(value=value), before=VAL, seed=2))
    code, lines, _ = parse(capsys, tmp_path)
    assert code == 1 and "n = 2 of 3; without a value from 0 to 100: seed2" in lines
    code, _, err = parse(capsys, tmp_path, "--table", "text")
    assert code == 1 and "seed2 has no value from 0 to 100" in err


@pytest.mark.parametrize("config", ["OPTIM:\n  LR: 0.5\n", "INPUT:\n  SIZE: (1, 1)\n"])
def test_every_setting_of_a_log_is_compared(tmp_path, capsys, config):
    coop_seeds(tmp_path)
    text = log(COOP_RESULT.format(value=1.0), seed=4)
    seed(tmp_path, 4, text.replace("OPTIM:\n  LR: 0.002\n", config))
    code, _, err = parse(capsys, tmp_path)
    assert code == 2 and "not seeds of one experiment: " in err and "in seed4" in err


def test_what_a_log_does_not_tell_is_said(tmp_path, capsys):
    _, _, err = parse(capsys, coop_seeds(tmp_path))
    assert "not compared: a log does not tell the images, their labels and the weights" in err
