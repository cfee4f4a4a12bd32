"""CoT's words on the image, from its zero-shot top classes."""

import json

import pytest
import torch

import trainers.cot.language_model
from dassl.utils import UserError
from tests.conftest import TASKS
from tests.reference import cot as naive
from tests.reference import prompts
from tests.trainers._chains import Parrot, chains_of, check, make, widen
from trainers.cot.language_model import continue_texts

SHOWN = [name.replace("_", " ") for name in TASKS[2].classnames]
RULE = ("GENERATOR", "rule", "TEMPLATES", "('a photo of {}', 'own')")
STEPS = [[f"{begin} {name}" for name in SHOWN] for begin in ("a photo of", "a photo of a")]


@pytest.fixture
def parrot(cache, monkeypatch):
    """A model that always says the same; the sentences that it was asked to go on with."""
    asked, says = [], Parrot(" in the rain. And so on")
    ask = trainers.cot.language_model._generate
    monkeypatch.setattr("trainers.cot.language_model._load", lambda model: (says, says))
    monkeypatch.setattr(
        "trainers.cot.language_model._generate",
        lambda m, texts, n: asked.extend(texts) or ask(m, texts, n),
    )
    return asked


def naive_sets(images, naive_model, token_ids, count=2):
    """The top classes of every image by the task's own template."""
    names = token_ids([f"a photo of a {name}" for name in SHOWN], 0)
    none = torch.zeros(0, naive_model["weights"]["token_embedding.weight"].shape[1]).double()
    texts = prompts.features(names, [none] * len(names), "end", **naive_model)
    return [naive.top_classes(image, texts, count) for image in images]


@pytest.mark.parametrize("class_mask", [None, torch.tensor([True, False, True, True])])
@pytest.mark.parametrize("aggregator", ["last", "linear", "attention"])
@pytest.mark.parametrize(
    ("position", "count", "template"),
    [
        ("end", 2, "it may be {image}"),
        ("middle", 1, "{task}, perhaps {image}."),
        ("front", 3, "{image}"),
    ],
)
def test_equations(
    build,
    one_task,
    naive_model,
    token_ids,
    close,
    aggregator,
    position,
    count,
    template,
    class_mask,
):
    """Whole sentences, image by image and tokenized in one piece."""
    options = ("CLASS_TOKEN_POSITION", position, "IMAGE_TEMPLATE", template, "CHUNK", 1)
    options += ("TOP_CLASSES", count, "AGGREGATOR", aggregator, "N_CTX", 3)
    trainer = make(build, *RULE, *options)
    leaves = widen(trainer)
    if class_mask is not None:
        there = class_mask[one_task["label"]]
        one_task = {key: value[there] for key, value in one_task.items()}
    images = one_task["feat"].double()
    sets = naive_sets(images, naive_model, token_ids, count)
    chains = chains_of(images, leaves, trainer.cfg.TRAINER.COT)
    query = leaves["query"][0] if aggregator == "attention" else None
    text = []
    for classes, chain in zip(sets, chains, strict=True):
        said = " or ".join(SHOWN[c] for c in classes)
        said = template.rstrip(".").replace("{task}", "stripes").replace("{image}", said)
        steps = []
        for context, step in zip(chain, STEPS, strict=True):
            ids = token_ids([f"{said}, {words}" for words in step], 3)
            steps.append(naive.text_features([context], ids, position, naive_model)[0])
        rows = zip(*steps, strict=True)
        text.append(torch.stack([naive.aggregate(aggregator, zs, query) for zs in rows]))
    assert len(set(map(tuple, sets))) > 1
    check(trainer, one_task, torch.stack(text), leaves, close, class_mask)


def test_more_top_classes_than_classes(build, one_task):
    words = make(build, *RULE, "TOP_CLASSES", 9).model.prompter.image_words
    assert words.top_classes(one_task["feat"]) == [(0, 1, 2, 3)] * 5


def test_the_language_model_goes_on_with_the_sentence(
    build, language_model, cache, one_task, naive_model, token_ids
):
    model = ("GENERATOR", "neural", "LM", str(language_model), "LM_TOKENS", 3)
    trainer = make(build, *model, "TOP_CLASSES", 2)
    trainer.forward({"global": one_task["feat"]})
    sets = naive_sets(one_task["feat"].double(), naive_model, token_ids)
    begun = [f"it may be {SHOWN[a]} or {SHOWN[b]}" for a, b in sets]
    said = [f"{text.rstrip(' ,;:.')}," for text in continue_texts(str(language_model), begun, 3)]
    words = trainer.model.prompter.image_words
    assert words.sentences == dict(zip(map(tuple, sets), said, strict=True))
    assert all(text.startswith(start) for text, start in zip(said, begun, strict=True))


@pytest.mark.parametrize("features", ["off", "test", "full"])
def test_training_and_test_images_alike(run, parrot, cache, tmp_path, features, monkeypatch):
    """Every set is asked once, whether image features are stored; a later run asks nothing."""
    options = ("TRAINER.COT.GENERATOR", "neural", "FEATURES.MODE", features)
    options += ("TRAINER.COT.TOP_CLASSES", 2)
    content = run("CoT", *options)
    written = [text for text in parrot if text.startswith("it may be")]
    assert 3 <= len(written) == len(set(written)) <= 3 + 1 + 6  # pairs of a task's classes
    (path,) = cache.glob("*.json")
    kept = json.loads(path.read_text())["texts"]
    assert all(kept[text] == f"{text} in the rain" for text in written)
    monkeypatch.setattr("trainers.cot.language_model._load", None)
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    again = run("CoT", *options, output=tmp_path / "again", flags=flags)
    assert again["tasks"] == content["tasks"]


def test_sentences_are_shown_and_corrected(build, parrot, cache, monkeypatch):
    options = ("GENERATOR", "neural", "TOP_CLASSES", 2)
    lines = make(build, *options).show_prompts()
    assert "28 training and test images" in lines[0]
    sentences = [line.split(" x ") for line in lines[1 : lines.index(next_step(lines))]]
    assert sum(int(count) for count, _ in sentences) == 28
    assert all(text.endswith(" in the rain,") for _, text in sentences)
    assert next_step(lines) == "step 3 of 3 says 'own', continued by gpt2:"
    (path,) = cache.glob("*.json")
    path.write_text(path.read_text().replace(" in the rain", " at night"))
    corrected = make(build, *options).show_prompts()
    assert corrected == [line.replace(" in the rain", " at night") for line in lines]


def next_step(lines):
    return next(line for line in lines if line.startswith("step"))


def test_too_long_sentences_are_cut_and_counted(build, cache, monkeypatch, capsys, one_task):
    says = Parrot(" very" * 100)
    monkeypatch.setattr("trainers.cot.language_model._load", lambda model: (says, says))
    options = ("GENERATOR", "neural", "TOP_CLASSES", 1, "TEMPLATES", "('own',)")
    monkeypatch.setattr(
        "trainers.cot.step_texts.continue_texts", lambda model, texts, n: texts
    )  # short words of classes, long ones of images
    trainer = make(build, *options)
    logits = trainer.forward({"global": one_task["feat"]}).logits
    assert logits.isfinite().all()
    assert "texts were too long for the text tower and are cut" in capsys.readouterr().out
    text, prompter = trainer.clip.text_tower, trainer.model.prompter
    longest = max(f"a photo of a {name}." for name in SHOWN)
    for sentence in prompter.image_words.sentences.values():
        whole = text.tokenize([f"{sentence} {longest}"])
        assert int(whole.argmax()) + 1 + 4 <= text.context_length


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("TOP_CLASSES", -1), "TOP_CLASSES .*got -1"),
        (("TOP_CLASSES", 2), "TOP_CLASSES.*GENERATOR rule"),
        (
            (*RULE, "TOP_CLASSES", 4, "IMAGE_TEMPLATE", "so " * 45 + "{image}", "N_CTX", 16),
            r"no room is left for 'so so .* in front of prompts of \d+ tokens: the text tower",
        ),
        (("IMAGE_TEMPLATE", "a photo"), r"IMAGE_TEMPLATE.*\{image\}"),
        (("IMAGE_TEMPLATE", "{image} {image}"), r"IMAGE_TEMPLATE.*\{image\}"),
        (("IMAGE_TEMPLATE", "{image} {}"), r"IMAGE_TEMPLATE.*\{task\}"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, *options)
