"""The language model that writes CoT's prompts: asked once, kept, corrected, missing, endless."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from filelock import FileLock

import trainers.cot.language_model
from dassl.utils import UserError
from prompting.prompter import ModelOutput
from tests.trainers._chains import Parrot, make
from trainers.cot.language_model import continue_texts


def test_the_model_continues_greedily_and_once(language_model, cache, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = ["a photo of a flat", "the kind of checks", "a photo of a flat"]
    found = continue_texts(str(language_model), texts, 4)
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    network = AutoModelForCausalLM.from_pretrained(language_model)
    for text, answer in zip(texts, found, strict=True):  # one token at a time, no cache
        ids = tokenizer(text)["input_ids"]
        start = len(ids)
        for _ in range(4):
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
        said = tokenizer.decode(ids[start:], skip_special_tokens=True)
        first = said.replace("!", ".").replace("?", ".").replace("\n", ".").partition(".")[0]
        whole = " ".join((text + first.replace("_", " ")).split())
        assert answer == (whole.strip().rstrip(" .") or text)
    assert found[0] == found[2]

    (path,) = cache.glob("*.json")
    content = json.loads(path.read_text())
    assert set(content["texts"]) == set(texts)
    content["texts"][texts[0]] = "corrected by hand"
    path.write_text(json.dumps(content))
    monkeypatch.setitem(sys.modules, "transformers", None)  # not needed any more
    assert continue_texts(str(language_model), texts, 4)[0] == "corrected by hand"


def test_only_new_questions_are_asked(language_model, cache, monkeypatch):
    model, asked = str(language_model), []
    ask = trainers.cot.language_model._generate
    monkeypatch.setattr(
        "trainers.cot.language_model._generate",
        lambda m, texts, n: asked.append(texts) or ask(m, texts, n),
    )
    first = continue_texts(model, ["a photo of a flat"], 4)
    continue_texts(model, ["a photo of a flat"], 5)
    again = continue_texts(model, ["the kind of a flat", "a photo of a flat"], 4)
    assert asked == [["a photo of a flat"], ["a photo of a flat"], ["the kind of a flat"]]
    assert again[1] == first[0]
    files = {
        path: json.loads(path.read_text())["texts"].keys()
        for path in cache.glob(f"{language_model.name}-*.json")
    }
    assert sorted(map(len, files.values())) == [1, 2]  # one per number of tokens
    assert not list(cache.glob(".tmp*"))


def test_asking_leaves_the_random_numbers_alone(cache, monkeypatch):
    """A run that asks starts its contexts like one that finds kept answers."""

    def ask(model, texts, tokens):
        return [f"{text} {torch.rand(1).item():.2f} of it" for text in texts]

    monkeypatch.setattr("trainers.cot.language_model._generate", ask)
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)
        continue_texts("a-name", ["a cat"], 4)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_another_run_that_asks_the_same_is_waited_for(cache, monkeypatch):
    path = trainers.cot.language_model._cache_file("a-name", 4)
    path.parent.mkdir(parents=True)
    monkeypatch.setattr("trainers.cot.language_model._load", None)  # nothing can be asked here
    with ThreadPoolExecutor(1) as pool:
        with FileLock(f"{path}.lock"):
            waiting = pool.submit(continue_texts, "a-name", ["a cat"], 4)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
            path.write_text(json.dumps({"texts": {"a cat": "a cat asleep"}}))
        assert waiting.result(10) == ["a cat asleep"]


def test_neural_prompts_in_a_run(build, language_model, cache, one_task, capsys):
    options = ("GENERATOR", "neural", "LM", str(language_model), "AGGREGATOR", "linear")
    trainer = make(build, *options)
    lines = trainer.show_prompts()
    begun = [line for line in lines if line.startswith("  [4] a photo of flat")]
    assert begun and len(lines) == 3 + 3 * 4
    logits = trainer.forward({"global": one_task["feat"]}).logits
    trainer.compute_loss(ModelOutput(logits), one_task)["loss"].backward()
    assert trainer.model.prompter.chain.ctx.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("says", "line"),
    [
        ("", "12 of 12 prompts got an empty continuation"),
        (". And so on", "12 of 12 prompts got an empty continuation"),
        (" very" * 100, "12 of 12 texts were too long for the text tower and are cut"),
    ],
)
def test_empty_and_endless_answers_are_counted(build, cache, monkeypatch, capsys, says, line):
    parrot = Parrot(says)
    monkeypatch.setattr("trainers.cot.language_model._load", lambda model: (parrot, parrot))
    trainer = make(build, "GENERATOR", "neural", "LM", "a-name", "AGGREGATOR", "linear")
    assert line in capsys.readouterr().out
    text = trainer.clip.text_tower
    longest = max(trainer.show_prompts(), key=len).strip().removeprefix("[4] ")
    assert int(text.tokenize([longest]).argmax()) + 1 + 4 <= text.context_length
    if "very" in says:
        assert int(text.tokenize([longest]).argmax()) + 1 + 4 == text.context_length


def test_without_transformers(build, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="needs the package transformers"):
        make(build, "GENERATOR", "neural", "LM", "a-name")


def test_a_folder_without_a_model(build, cache, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    with pytest.raises(UserError, match="cannot be loaded"):
        make(build, "GENERATOR", "neural", "LM", str(tmp_path))


@pytest.mark.parametrize("content", ["", "[]", '{"texts": 3}', '{"texts": {"x": 1}}', "{"])
def test_damaged_answers_are_named(cache, monkeypatch, content):
    parrot = Parrot(" seen from afar")
    monkeypatch.setattr("trainers.cot.language_model._load", lambda model: (parrot, parrot))
    assert continue_texts("a-name", ["a cat"], 4) == ["a cat seen from afar"]
    (path,) = cache.glob("*.json")
    path.write_text(content)
    with pytest.raises(UserError, match=path.name):
        continue_texts("a-name", ["a cat"], 4)


def test_a_name_without_a_network(build, cache, monkeypatch):
    pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = "nobody/none is not on .*HF_HUB_OFFLINE.*hf download nobody/none.*models--nobody--none"
    with pytest.raises(UserError, match=words):
        make(build, "GENERATOR", "neural", "LM", "nobody/none")
