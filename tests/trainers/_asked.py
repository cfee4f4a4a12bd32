"""Toy images with questions."""

from pathlib import Path

from datasets._core.questions import QAItem, QuestionDataset
from tests.conftest import TASKS

QUESTIONS = ["what colour is it?", "is it light or dark?", "which stripes do you see there?"]
ANSWERS = sorted(name.replace("_", " ") for task in TASKS for name in task.classnames)


def toy_questions(folder, questions=QUESTIONS):
    """Each toy image is asked the question of its task; ten people agree, or two do not."""

    def read(self, cfg):
        parts = {"train": [], "val": [], "test": []}
        for t, task in enumerate(TASKS):
            for label, name in enumerate(task.classnames):
                answer = name.replace("_", " ")
                for part, number in (("train", 0), ("train", 1), ("val", 4), ("test", 8)):
                    given = (answer,) * 8 + ("red", "nobody says so")
                    path = f"{t}_{label}_{number}.png"
                    parts[part].append(QAItem(path, questions[t], answer, given))
        parts["test"].append(
            QAItem("0_0_7.png", questions[0], "pink", ("pink",) * 8 + ("red",) * 2)
        )
        return Path(folder), parts

    fields = {"read": read, "task_name": "toys", "__doc__": "Questions about colours."}
    return type("ToyQuestions", (QuestionDataset,), fields)
