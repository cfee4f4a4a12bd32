"""sweep.py: what is run, in which order, and what is reported."""

import contextlib
import io
import sys

import yaml
from filelock import FileLock

import sweep
from dassl.engine.configuration import build_cfg
from dassl.utils import UserError, setup_logger
from results.record import Busy, OtherRun, hashed_config
from sweeps import serial
from sweeps.plan import read_sweep
from tests._records import write
from tests._sweeps import GRID, run


def test_every_run_is_made_and_reported(place, train, capsys):
    code, lines, _ = run(capsys, "OPTIM.LR", "0.1")
    assert code == 0
    assert len(train.seen) == 5
    assert train.seen[0] == [
        *("--trainer", "ZeroshotCLIP", "--config-file", "configs/zs.yaml"),
        *("--dataset-config-file", "configs/datasets/trees.yaml"),
        *("--output-dir", "out/zero-shot/trees/seed1", "--seed", "1", "--quiet"),
        *("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "5", "OPTIM.LR", "0.1"),
    ]
    last = train.seen[-1]
    assert "out/CoOp/trees_4shots/seed2" in last
    assert last[-8:] == [
        *("DATASET.NUM_SHOTS", "4", "INPUT.SIZE", "[1, 2]"),
        *("OPTIM.MAX_EPOCH", "5", "OPTIM.LR", "0.1"),
    ]
    assert lines[0] == "5 runs below out"
    assert lines[1].startswith("[1/5] zero-shot, trees ... complete in 0 s; elapsed 0:00:0")
    assert lines[3].startswith("[3/5] CoOp, trees, 1 shot, seed 2 ... complete")
    table = (place / "out" / "table.md").read_text(encoding="utf-8")
    assert "| zero-shot | 0 | 1 | 55.0 | 50.0 | 60.0 |" in table
    assert "| CoOp | 4 | 2 | 65.0 ± 0.0 | 60.0 ± 0.0 | 70.0 ± 0.0 |" in table
    assert (place / "out" / "figure.png").stat().st_size > 1000
    assert "table: out/table.md" in lines and "figure: out/figure.png" in lines


def test_finished_runs_are_left_to_train_and_take_no_time(place, train, capsys):
    run(capsys)
    code, lines, _ = run(capsys)
    assert lines[0] == "5 runs below out, 5 complete"
    assert code == 0 and lines[1].startswith("[5/5] 5 runs complete before; ")
    assert not any(line.startswith("[") for line in lines[2:])
    assert len(train.seen) == 10  # train.py itself knows whether anything is left to do


def test_a_failed_run_does_not_stop_the_sweep(place, train, capsys):
    run(capsys)  # the folder holds an older, complete run: it must not be reported
    train.fails = {
        "out/CoOp/trees_4shots/seed1": RuntimeError("out of memory\nmore"),
        "out/zero-shot/trees/seed1": OtherRun(
            "2 problems:\n- out/zero-shot/trees/seed1 is\n- full"
        ),
        "out/CoOp/trees_1shots/seed2": ValueError("bad"),
    }
    code, lines, _ = run(capsys)
    assert code == 1
    assert lines[-3:] == [
        "failed: zero-shot, trees: 2 problems: - out/zero-shot/trees/seed1 is - full",
        "failed: CoOp, trees, 1 shot, seed 2: ValueError: bad (see out/CoOp/trees_1shots/seed2)",
        "failed: CoOp, trees, 4 shots, seed 1: RuntimeError: out of memory "
        "(see out/CoOp/trees_4shots/seed1)",
    ]
    table = (place / "out" / "table.md").read_text(encoding="utf-8")
    assert "| zero-shot | 0 | 0 of 1 | n/a | n/a | n/a |" in table
    assert "| CoOp | 4 | 1 of 2 | 65.0 | 60.0 | 70.0 |" in table
    assert "- out/CoOp/trees_4shots/seed1: failed" in table


def test_a_failure_names_the_log_with_the_traceback(place, train, capsys):
    folder = place / "out/CoOp/trees_1shots/seed2"
    folder.mkdir(parents=True)
    with contextlib.suppress(KeyError), setup_logger(folder, console=False):
        raise KeyError("lost")
    with contextlib.suppress(UserError), setup_logger(place, console=False):
        raise UserError("a mistake of the user's")
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert 'raise KeyError("lost")' in log and __file__ in log
    assert (place / "log.txt").read_text(encoding="utf-8") == ""
    train.fails = {"out/CoOp/trees_1shots/seed2": KeyError("lost")}
    assert run(capsys)[1][-1].endswith("(see out/CoOp/trees_1shots/seed2/log.txt)")


def test_everything_failed(place, train, capsys):
    train.fails = {
        "out/zero-shot/trees/seed1": ValueError(),
        "out/CoOp/trees_1shots/seed1": ValueError("x"),
    }
    code, lines, _ = run(capsys, shots=[1], seeds=[1])
    assert code == 1 and "ValueError: no message" in lines[-2]
    assert "no run is complete: no report" in lines
    assert not (place / "out" / "table.md").exists()


def test_an_interruption_ends_the_sweep(place, train, capsys):
    train.fails = {"out/CoOp/trees_1shots/seed1": KeyboardInterrupt()}
    code, _, err = run(capsys)
    assert code == 130 and len(train.seen) == 2
    assert "interrupted: " in err


def test_dry_run(place, train, capsys):
    run(capsys, shots=[1])
    train.seen.clear()
    code, lines, _ = run(capsys, "--dry-run", "--output-dir", "out")
    assert code == 0 and not train.seen
    assert lines[0] == "zero-shot, trees: complete"
    assert "CoOp, trees, 4 shots, seed 2: not started" in lines
    assert "INPUT.SIZE '[1, 2]' OPTIM.MAX_EPOCH 5" in lines[-2]
    assert lines[-1] == "5 runs below out, 3 complete"


def test_optional_methods_run_when_asked_for(place, train, capsys):
    methods = {**GRID["methods"], "Slow": {**GRID["methods"]["CoOp"], "optional": True}}

    def planned(*flags):
        _, lines, _ = run(capsys, "--dry-run", *flags, shots=[1], seeds=[1], methods=methods)
        return [line.split(",")[0] for line in lines if line.endswith("not started")]

    assert planned() == ["zero-shot", "CoOp"]
    assert planned("--methods", "all") == ["zero-shot", "CoOp", "Slow"]
    assert planned("--methods", "Slow, zero-shot") == ["zero-shot", "Slow"]
    _, _, err = run(capsys, "--methods", "CoOp,Slo", methods=methods)
    assert "grid.yaml: no method named 'Slo'; did you mean Slow?" in err
    assert "no method is to be run" in run(capsys, "--methods", ",", methods=methods)[2]
    only_optional = {"Slow": methods["Slow"]}
    assert "no method is to be run; name some of Slow" in run(capsys, methods=only_optional)[2]
    assert not train.seen


def test_another_output_folder_and_negative_values(place, train, capsys):
    code, _, _ = run(capsys, "--output-dir", "other", "OPTIM.WARMUP_EPOCH", "-1", report=None)
    assert code == 0 and train.seen[0][-2:] == ["OPTIM.WARMUP_EPOCH", "-1"]
    assert (place / "other" / "CoOp" / "trees_1shots" / "seed1").is_dir()


def test_bar_on_a_terminal(place, train, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    train.fails = {"out/CoOp/trees_1shots/seed2": RuntimeError("boom [x]")}
    run(capsys)
    text = terminal.getvalue()
    assert "5/5" in text and "CoOp, trees, 4 shots, seed 2" in text
    assert "failed: out/CoOp/trees_1shots/seed2: RuntimeError: boom [x]" in text


def test_keys_by_shots(place, train, capsys):
    """They come before the method's own keys and the command line's, which win."""
    run(capsys, "OPTIM.LR", "3", shots={4: {"OPTIM.GAMMA": 9, "OPTIM.LR": 1}, 1: None})
    assert len(train.seen) == 5
    for args in train.seen:
        four_shots = args[args.index("DATASET.NUM_SHOTS") + 1] == "4"
        assert ("OPTIM.GAMMA" in args) == (four_shots and args[1] == "CoOp")
        assert args[-2:] == ["OPTIM.LR", "3"]


def test_a_part_of_the_grid(place, train, capsys):
    run(capsys, "--only", "method=CoOp,shots=1|4,seed=2")
    assert [args[args.index("--output-dir") + 1] for args in train.seen] == [
        "out/CoOp/trees_1shots/seed2",
        "out/CoOp/trees_4shots/seed2",
    ]
    for choice, message in {
        "methods=CoOp": "no key of --only named 'methods'; did you mean method?",
        "method=coop": "no method in the sweep named 'coop'; did you mean CoOp?",
        "method=zero-shot,shots=4": "no run of the sweep fits --only method=zero-shot,shots=4",
    }.items():
        code, _, err = run(capsys, "--only", choice)
        assert code == 2 and message in err


def test_the_report_covers_what_was_not_selected(place, train, capsys):
    run(capsys)
    files = [place / "out" / name for name in ("table.md", "figure.png")]
    before = [file.read_bytes() for file in files]
    write(place / "out/CoOp/birds_1shots/seed1")  # not in the plan
    for part in (("--only", "seed=1"), ("--methods", "zero-shot"), ("--only", "method=CoOp")):
        assert run(capsys, *part)[0] == 0
        assert [file.read_bytes() for file in files] == before
    folder = write(place / "out/CoOp/trees_4shots/seed2", status="failed", run={"error": "E: x"})
    assert run(capsys, "--only", "seed=1")[0] == 0
    table = files[0].read_text(encoding="utf-8")
    assert "| CoOp | 4 | 1 of 2 | 65.0 | 60.0 | 70.0 |" in table
    assert f"- {folder.relative_to(place)}: failed" in table


def test_status_and_time_left(place, train, capsys):
    """CoOp's complete run took 60 s: the three others will too."""
    run(capsys, "--only", "method=zero-shot")
    write(place / "out/CoOp/trees_1shots/seed1", run={"seconds": 60.0, "resumed": False})
    write(place / "out/CoOp/trees_1shots/seed2", status="failed", run={"error": "ValueError: x"})
    write(place / "out/CoOp/trees_4shots/seed1", status="running")
    code, lines, _ = run(capsys, "--status")
    assert code == 1 and len(train.seen) == 1
    assert lines == [
        "CoOp, trees, 1 shot, seed 2: failed: ValueError: x",
        "CoOp, trees, 4 shots, seed 1: killed; it continues from its last stored epoch",
        "CoOp, trees, 4 shots, seed 2: not started",
        "5 runs below out, 2 complete, 1 failed; about 0:03:00 left, from 1 complete run",
    ]
    with FileLock(place / "out/CoOp/trees_4shots/seed1/.lock"):
        assert "CoOp, trees, 4 shots, seed 1: running" in run(capsys, "--status")[1]


def test_a_run_of_another_configuration(place, train, capsys):
    """It is shown as such and not started; a failed one that computed nothing is repeated."""
    methods = {"CoOp": {"trainer": "CoOp", "config": "configs/coop.yaml"}}
    grid = {"methods": methods, "shots": [4], "seeds": [1, 2, 3]}
    for seed, status in ((1, "complete"), (2, "complete"), (3, "failed")):
        folder = write(place / f"out/CoOp/trees_4shots/seed{seed}", seed=seed, status=status)
        words = ["TRAINER.NAME", "CoOp", "SEED", seed, "DATASET.NUM_SHOTS", 4]
        rate = {1: 0.002, 2: 0.1, 3: 0.1}[seed]
        cfg = build_cfg([], [*words, "OPTIM.MAX_EPOCH", 5, "OPTIM.LR", rate])
        (folder / "config.yaml").write_text(yaml.safe_dump(hashed_config(cfg)))
    shown = "CoOp, trees, 4 shots, seed 2: of another configuration: OPTIM.LR was 0.1, now 0.002"
    code, lines, _ = run(capsys, "--status", **grid)
    assert code == 1 and lines[0] == shown and "seed 3: failed" in lines[1]
    assert "1 complete, 1 failed, 1 of another configuration" in lines[2]
    code, lines, _ = run(capsys, "--retry-failed", **grid)
    assert code == 1 and [value_after(args, "--seed") for args in train.seen] == ["1", "3"]
    assert "out/CoOp/trees_4shots/seed2 (OPTIM.LR was 0.1, now 0.002); delete" in lines[0]
    assert lines[-1] == lines[0] and not any(line.startswith("failed: ") for line in lines)
    assert any("out/CoOp/trees_4shots/seed2: of another configuration" in line for line in lines)
    code, lines, _ = run(capsys, "--status", "OPTIM.LR", "0.1", **grid)
    assert code == 1 and "seed 1: of another configuration" in lines[0]


def value_after(args, flag):
    return args[args.index(flag) + 1]


def test_what_has_failed_is_left_until_it_is_asked_for(place, train, capsys):
    folder = write(place / "out/CoOp/trees_1shots/seed1", status="failed", run={"error": "E: x"})
    code, lines, _ = run(capsys)
    assert code == 1 and len(train.seen) == 4
    assert lines[-1] == (
        "failed: CoOp, trees, 1 shot, seed 1: E: x; it failed before; --retry-failed runs it again "
        f"(see {folder.relative_to(place)})"
    )
    code, _, _ = run(capsys, "--retry-failed")
    assert code == 0 and len(train.seen) == 9
    assert run(capsys, "--status")[0] == 0


def test_a_run_that_another_process_is_at_comes_last(place, train, capsys, monkeypatch):
    folder = "out/CoOp/trees_1shots/seed1"
    train.fails = {folder: Busy("x")}
    monkeypatch.setattr(serial.time, "sleep", lambda _: train.fails.clear())
    code, lines, _ = run(capsys)
    assert code == 0 and len(train.seen) == 6
    assert folder in train.seen[-1] and "5/5" in lines[5]


def test_the_table_may_show_intervals(place, train, capsys):
    run(capsys, report={"table": "table.md", "spread": "interval"})
    assert "95 % interval" in (place / "out" / "table.md").read_text(encoding="utf-8")
    code, _, err = run(capsys, report={"spread": "intervall"})
    assert code == 2 and "did you mean interval" in err


def test_the_demo_is_a_valid_sweep():
    plan = read_sweep(sweep.ROOT / "configs/sweeps/demo.yaml", configs=sweep.ROOT / "configs")
    assert len(plan.runs) == 1 + 3 * 3 * 3
    methods = tuple(dict.fromkeys(planned.method for planned in plan.runs))
    assert methods == ("zero-shot", "CoOp-CA", "CoOp-MT", "SoftCPT-NATA")
    assert {key: path.name for key, path in plan.report.items()} == {
        "table": "table.md",
        "figure": "figure.png",
    }
