"""Questions about digits: true answers, the same every time."""

from collections import Counter

import pytest

from datasets.digit_questions import DigitQuestions
from tests.datasets.folders import load


def test_answers_about_digits_are_true(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load("DigitQuestions", "")
    assert [len(part) for part in (data.train_x, data.val, data.test)] == [1400, 400, 1794]
    assert not {x.impath for x in data.train_x} & {x.impath for x in data.test}
    from sklearn.datasets import load_digits

    digits = load_digits().target
    task = data.space.tasks[0]
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    strokes = dict.fromkeys((0, 3, 6, 8, 9), "curved") | dict.fromkeys((1, 4, 7), "straight")
    strokes |= dict.fromkeys((2, 5), "both")
    loops = {0: "one", 4: "one", 6: "one", 9: "one", 8: "two"}
    right, agreed, asked = 0, 0, Counter()
    for item in data.test:
        digit = digits[int(item.impath.rpartition("/")[2].removesuffix(".png"))]
        question = task.questions[task.question[item.label]]
        count = loops.get(digit, "no")
        truth = {
            "what digit is it?": words[digit],
            "is it odd or even?": "odd" if digit in (1, 3, 5, 7, 9) else "even",
            "how many loops does it have?": f"{count} loop{'' if count == 'one' else 's'}",
            "is it even?": "yes" if digit in (0, 2, 4, 6, 8) else "no",
            "is it less than five or not?": "less than five" if digit < 5 else "at least five",
            "is it curved or straight?": strokes[digit],
        }[question]
        right += task.answers[task.target[item.label]] == truth
        agreed += task.votes[item.label].get(task.answers.index(truth), 0)
        asked[question] += 1
    assert right >= 0.99 * len(data.test)  # the most frequent answer is the true one
    assert agreed / (10 * len(data.test)) == pytest.approx(0.9, abs=0.01)
    assert len(asked) == 6 and max(asked.values()) < 1.2 * min(asked.values())


def test_people_answer_the_same_every_time():
    parts = [DigitQuestions.read(None, None)[1] for _ in range(2)]
    assert parts[0] == parts[1]
