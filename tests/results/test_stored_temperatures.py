"""Evaluations of what a training did not have use its temperatures, or are refused."""

import pytest

from dassl.config import get_cfg_default
from dassl.data import Task, TaskSpace
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError, write_json
from results.tasks_file import write_tasks
from results.unseen import stored_temperatures

FISH = "kind of fish"
BASE, NEW = (TaskSpace((Task(FISH, names),)) for names in (("cod", "eel"), ("ray", "tuna")))


def recorded(folder, space, **calibration):
    """The folder with the records of a training on the tasks of a space."""
    write_tasks(space, folder)
    write_json({"calibration": calibration} if calibration else {}, folder / "results.json")
    return str(folder)


def test_new_classes_have_the_temperature_of_their_task(tmp_path):
    cfg = get_cfg_default()
    cfg.TEST.CALIBRATION = "task"
    two = TaskSpace((Task("kind of bird", ("owl", "tit")), *BASE.tasks))
    temperatures = [{"id": 0, "temperature": 0.5}, {"id": 1, "temperature": 2.5}]
    training = recorded(tmp_path, two, by="task", tasks=temperatures)
    assert stored_temperatures(cfg, NEW, training) == {FISH: 2.5}
    assert stored_temperatures(cfg, BASE, training) == {}  # its own classes: fitted as usual
    other = TaskSpace((Task("kind of snake", ("adder", "boa")),))
    with pytest.raises(UserError, match=r"'kind of snake'.*CALIBRATION run"):
        stored_temperatures(cfg, other, training)
    training = recorded(tmp_path, two, by="run", tasks=[temperatures[0]])
    assert stored_temperatures(cfg, other, training) == {"kind of snake": 0.5}


@pytest.mark.parametrize("by", ["run", "task"])
def test_a_multi_label_task_needs_no_temperature(tmp_path, by):
    cfg = get_cfg_default()
    cfg.TEST.CALIBRATION = by
    cfg.DATASET.NUM_SHOTS = 1
    space = DATASET_REGISTRY.get("DigitLabels")(cfg).space
    trained = [task for t, task in enumerate(space.tasks) if t not in space.set_tasks]
    assert len(trained) == len(space.tasks) - 1 == 2
    temperatures = [{"id": i, "temperature": 1.5 + i * (by == "task")} for i in range(2)]
    training = recorded(tmp_path, TaskSpace(tuple(trained)), by=by, tasks=temperatures)
    expected = {
        task.name: one["temperature"] for task, one in zip(trained, temperatures, strict=True)
    }
    assert stored_temperatures(cfg, space, training) == expected


def test_a_temperature_of_the_final_model_is_not_for_another_epoch(tmp_path):
    cfg = get_cfg_default()
    cfg.TEST.CALIBRATION = "run"
    temperatures = [{"id": 0, "temperature": 0.5}]
    training = recorded(tmp_path, BASE, by="run", tasks=temperatures)
    with pytest.raises(UserError, match=r"final model.*without --load-epoch"):
        stored_temperatures(cfg, NEW, training, epoch=1)
    assert stored_temperatures(cfg, BASE, training, epoch=1) == {}  # its own: fitted as usual


def test_nothing_is_fitted_on_images_of_unseen_classes(tmp_path):
    cfg, training = get_cfg_default(), recorded(tmp_path, BASE)
    assert stored_temperatures(cfg, NEW, training) == {}
    cfg.TEST.CALIBRATION = "run"
    with pytest.raises(UserError, match=r"CALIBRATION run .*\('ray', .*empty"):
        stored_temperatures(cfg, NEW, training)
    cfg.TEST.CALIBRATION, cfg.TEST.TASK_GIVEN = "", False
    assert stored_temperatures(cfg, BASE, training) == {}
    with pytest.raises(UserError, match=r"2 classes of 'kind of fish' \('ray', .*TASK_GIVEN True"):
        stored_temperatures(cfg, NEW, training)
