"""Methods on questions about images: logits, loss and gradients, and whole runs."""

import json

import pytest
import torch

from benchmarks.question_controls import AmongAll
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, Step, build_trainer
from dassl.utils import UserError
from prompting.prompter import ModelOutput
from tests.clip._families import make_family
from tests.reference import cocoop
from tests.reference import questions as naive
from tests.trainers._asked import ANSWERS, QUESTIONS, toy_questions
from tests.trainers._chains import chains_of, widen
from tests.trainers._compare import naive_leaf, same_gradients, wide
from tests.trainers._held_out import values_of

PAIRED = [name for name in TRAINER_REGISTRY.registered_names() if TRAINER_REGISTRY.get(name).pairs]


@pytest.fixture
def batch():
    """Five training items with three questions, one of them twice in a row, one twice apart."""
    generator = torch.Generator().manual_seed(0)
    label = torch.tensor([0, 11, 1, 7, 12])
    return {"feat": torch.randn(5, 64, generator=generator), "label": label, "task": label * 0}


def prompts_of(trainer, batch, token_ids, m):
    """Token ids of every item's question with every answer, tokenized as one sentence."""
    about = trainer.dm.space.tasks[0]
    texts = [about.questions[about.question[i]] for i in batch["label"].tolist()]
    return [token_ids([f"question: {q} answer: {a}" for a in about.answers], m) for q in texts]


def check(trainer, batch, scores, leaves, close):
    """Logits, loss and gradients against naive scores (B, C)."""
    assert trainer.choose_classes(batch, Step(0, 0, 2)) is None
    logits = trainer.forward(trainer.image_features(batch)).logits
    close(logits, scores)
    loss = trainer.compute_loss(ModelOutput(logits), batch)["loss"]
    targets = [trainer.dm.space.tasks[0].target[i] for i in batch["label"].tolist()]
    wanted = naive.loss(scores, targets)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    same_gradients(trainer.model.prompter, loss, wanted, leaves, close)


@pytest.mark.parametrize(
    ("position", "chunk"), [("end", 0), ("middle", 0), ("front", 0), ("end", 8)]
)
def test_one_context(build, asked, batch, naive_model, token_ids, close, position, chunk):
    options = ("TRAINER.COOP.N_CTX", 3, "TRAINER.COOP.CLASS_TOKEN_POSITION", position)
    trainer = build("CoOp", *options, "MODEL.TEXT_CHUNK", chunk, dataset="ToyQuestions")
    assert trainer.dm.space.classnames == ANSWERS  # all are given to two training questions
    wide(trainer.model.prompter.prompts.ctx)
    leaf = naive_leaf(trainer.model.prompter.prompts.ctx)
    names = prompts_of(trainer, batch, token_ids, 3)
    images, scale = batch["feat"].double(), trainer.clip.logit_scale.double()
    scores = naive.scores(images, [leaf] * 5, names, position, naive_model, scale)
    check(trainer, batch, scores, {"prompts.ctx": leaf}, close)


def test_a_context_per_image(build, asked, batch, naive_model, token_ids, close):
    options = ("TRAINER.COCOOP.N_CTX", 2, "TRAINER.COCOOP.CHUNK", 1, "MODEL.TEXT_CHUNK", 16)
    trainer = build("CoCoOp", *options, dataset="ToyQuestions")
    leaves = widen(trainer)
    ctx, *meta = leaves.values()
    names = prompts_of(trainer, batch, token_ids, 2)
    images, scale = batch["feat"].double(), trainer.clip.logit_scale.double()
    rows = []
    for image, own in zip(images, names, strict=True):
        text = cocoop.text_features(naive_model, own, ctx, meta, image[None], "end")[0]
        rows.append(naive.logits(image[None], text, scale)[0])
    check(trainer, batch, torch.stack(rows), leaves, close)


def test_a_chain_per_image(build, asked, batch, naive_model, token_ids, close):
    options = ("TRAINER.COT.N_CTX", 2, "TRAINER.COT.CHAIN_LENGTH", 2)
    trainer = build("CoT", *options, dataset="ToyQuestions")
    leaves = widen(trainer)
    images, scale = batch["feat"].double(), trainer.clip.logit_scale.double()
    last = [chain[-1] for chain in chains_of(images, leaves, trainer.cfg.TRAINER.COT)]
    names = prompts_of(trainer, batch, token_ids, 2)
    scores = naive.scores(images, last, names, "end", naive_model, scale)
    check(trainer, batch, scores, leaves, close)


def check_sentences(trainer, batch, template):
    """Prompts without a context are sentences; tokenizers know whether a word begins one."""
    logits = trainer.forward(trainer.image_features(batch)).logits
    about, images = trainer.dm.space.tasks[0], torch.nn.functional.normalize(batch["feat"], dim=-1)
    for item, image, row in zip(batch["label"].tolist(), images, logits, strict=True):
        question = about.questions[about.question[item]]
        sentences = [template.format(answer, question=question) for answer in about.answers]
        text = torch.nn.functional.normalize(trainer.clip.text_tower.encode_text(sentences), dim=-1)
        cosine = trainer.clip.logit_scale.exp() * text @ image
        bias = 0 if trainer.clip.logit_bias is None else trainer.clip.logit_bias
        torch.testing.assert_close(row, cosine + bias)


def test_zero_shot_is_the_sentence(build, asked, batch):
    trainer = build("ZeroshotCLIP", dataset="ToyQuestions")
    check_sentences(trainer, batch, "question: {question} answer: {}.")


def test_zero_shot_is_the_sentence_of_a_tokenizer_that_sees_blanks(build, asked, batch, tmp_path):
    pytest.importorskip("transformers")
    folder = tmp_path / "siglip2"
    folder.mkdir()
    make_family(folder, "siglip2", hub=True)
    batch["feat"] = batch["feat"][:, :32]
    backbone = ("MODEL.BACKBONE.NAME", folder, "DATASET.TEMPLATE", "{question} {}")
    trainer = build("ZeroshotCLIP", *backbone, dataset="ToyQuestions")
    check_sentences(trainer, batch, "{question} {}.")


def test_less_is_kept_where_memory_is_short(build, asked, batch):
    kept = {}
    for chunk in (0, 100):  # of which the second would do for a question, but not for three
        trainer = build("CoOp", "MODEL.TEXT_CHUNK", chunk, dataset="ToyQuestions")
        features = trainer.image_features(batch)
        trainer.model.text.plan(lambda run=trainer, x=features: run.forward(x).logits)
        sizes = []

        def count(x, sizes=sizes):
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            trainer.forward(features).logits.sum()
        kept[chunk] = sum(sizes)
    assert kept[100] < kept[0] / 10


@pytest.mark.parametrize("method", PAIRED)
def test_whole_runs(run, asked, tmp_path, method):
    content = run(method, dataset="ToyQuestions")
    about = [(task["name"], task["metric"], task["total"]) for task in content["tasks"]]
    assert about == [("VQA accuracy", "VQA accuracy", 10), ("top-1", "top-1", 10)]
    assert content["suite"]["value"] == content["tasks"][0]["value"]
    assert content["tasks"][1]["correct"] < 10  # pink is no candidate
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == content
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "missed by top-1: 1 question\n" in log
    if not method.startswith("Zeroshot"):
        flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
        again = run(method, dataset="ToyQuestions", output=tmp_path / "again", flags=flags)
        assert again["tasks"] == content["tasks"]


def test_accuracies_of_a_run_are_those_of_its_logits(build, asked):
    trainer = build("CoT", dataset="ToyQuestions")
    value = trainer.test()
    items = [item for item in toy_questions("").read(None, None)[1]["test"]]
    logits = torch.cat(
        [trainer.model_inference(trainer.parse_batch_test(b)[0]) for b in trainer.test_loader]
    )
    given = [trainer.dm.space.classnames[i] for i in logits.argmax(1).tolist()]
    right = [naive.vqa_accuracy(g, item.answers) for g, item in zip(given, items, strict=True)]
    assert value == pytest.approx(10 * sum(right))


@pytest.mark.parametrize("method", ["CoOp", "CoT"])
def test_stored_features_and_a_resumed_run(run, asked, tmp_path, monkeypatch, method):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = run(method, dataset="ToyQuestions")
    stored = run(method, "FEATURES.MODE", "full", dataset="ToyQuestions", output=tmp_path / "b")
    for mine, theirs in zip(stored["tasks"], whole["tasks"], strict=True):
        assert mine["value"] == pytest.approx(theirs["value"])
    real, epochs = build_trainer, []

    def stops(cfg):
        trainer = real(cfg)
        after = trainer.after_epoch

        def once():
            after()
            epochs.append(trainer.epoch)
            if epochs == [0]:
                raise KeyboardInterrupt

        trainer.after_epoch = once
        return trainer

    monkeypatch.setattr("dassl.engine.build_trainer", stops)
    with pytest.raises(KeyboardInterrupt):
        run(method, dataset="ToyQuestions", output=tmp_path / "c")
    resumed = run(method, dataset="ToyQuestions", output=tmp_path / "c")
    assert epochs == [0, 1] and resumed["run"]["resumed"]
    assert resumed["tasks"] == whole["tasks"]


@pytest.mark.parametrize("method", PAIRED)
def test_long_questions_are_cut_and_counted(build, toy, capsys, method):
    questions = [*QUESTIONS[:2], "red " * 90 + "end?"]
    DATASET_REGISTRY.register(force=True)(toy_questions(toy, questions))
    trainer = build(method, dataset="ToyQuestions")
    batch = {"feat": torch.randn(2, 64), "label": torch.tensor([0, 17]), "task": torch.zeros(2)}
    for _ in range(2):
        assert trainer.forward(trainer.image_features(batch)).logits.isfinite().all()
    out = capsys.readouterr().out
    assert out.count("1 of 3 questions were too long for the text tower and are cut") == 1
    DATASET_REGISTRY._classes.pop("ToyQuestions")


def test_cut_questions_keep_the_template_and_the_answer(build, toy, batch):
    """As many words stay as fit: 77 tokens, of which two are SOS and EOT."""
    questions = [*QUESTIONS[:2], "red " * 90 + "end?"]
    DATASET_REGISTRY.register(force=True)(toy_questions(toy, questions))
    trainer = build("ZeroshotCLIP", dataset="ToyQuestions")
    label = torch.tensor([17])
    asked = {"feat": batch["feat"][:1], "label": label, "task": label * 0}
    logits = trainer.forward(trainer.image_features(asked)).logits
    text = trainer.clip.text_tower
    longest = max(len(text.tokenizer.encode(f"{answer}.")) for answer in ANSWERS)
    words = 77 - 2 - longest - len(text.tokenizer.encode("question: answer:"))
    sentences = [f"question: {'red ' * words} answer: {answer}." for answer in ANSWERS]
    expected = torch.nn.functional.normalize(text.encode_text(sentences), dim=-1)
    image = torch.nn.functional.normalize(batch["feat"][0], dim=-1)
    torch.testing.assert_close(logits[0], trainer.clip.logit_scale.exp() * expected @ image)
    DATASET_REGISTRY._classes.pop("ToyQuestions")


def test_a_question_of_one_endless_word_is_left_out(build, toy):
    cls = toy_questions(toy, [*QUESTIONS[:2], "x" * 2000])
    DATASET_REGISTRY.register(force=True)(cls)
    trainer = build("CoOp", "DATASET.TEMPLATE", "{question} {}", dataset="ToyQuestions")
    label = torch.tensor([17])
    batch = {"feat": torch.randn(1, 64), "label": label, "task": label * 0}
    text = trainer.model.text_features(batch["feat"])  # of the answers alone
    found = trainer.forward(trainer.image_features(batch)).logits
    image = torch.nn.functional.normalize(batch["feat"], dim=-1)
    torch.testing.assert_close(found, trainer.model.score(image, text))
    DATASET_REGISTRY._classes.pop("ToyQuestions")


def test_no_room_for_a_question(build, asked):
    with pytest.raises(UserError, match=r"use fewer context tokens, or fewer DATASET\.QUESTIONS"):
        build("CoOp", "TRAINER.COOP.N_CTX", 70, dataset="ToyQuestions")


def test_prompts_show_a_question(build, asked):
    lines = build("CoOp", dataset="ToyQuestions").show_prompts()
    assert "  [16] red." in lines
    assert lines[-1] == (
        "in front of each answer: question: what colour is it? answer: (the first of 3 questions)"
    )


def test_other_methods_are_refused(build, asked):
    with pytest.raises(UserError, match=r"ToyQuestions .*questions on images"):
        build("MTCoOp", dataset="ToyQuestions")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("TRAINER.COT.BATCH_CONTRAST", 0.5), "set it to 0 for questions on images"),
        (("TRAINER.COT.GENERATOR", "rule"), "GENERATOR rule.*questions on images"),
    ],
)
def test_options_that_mean_nothing_here(build, asked, options, message):
    with pytest.raises(UserError, match=message):
        build("CoT", *options, dataset="ToyQuestions")


@pytest.fixture
def shuffled():
    DATASET_REGISTRY.register()(AmongAll)
    yield "AmongAll"
    DATASET_REGISTRY._classes.pop("AmongAll")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["CoOp", "CoT"])
def test_learned_answers_beat_zero_shot_and_shuffled_ones_do_not(tmp_path, shuffled, method):
    """VQA accuracy on held-out digits: at least 5 points, from true answers only."""
    data = "digit_questions", "DigitQuestions", shuffled
    zero_shot, learned, misled = values_of(
        tmp_path, method, f"{method}/tiny_questions", *data, epochs=5
    )
    assert learned >= zero_shot + 5
    assert misled < zero_shot + 5
