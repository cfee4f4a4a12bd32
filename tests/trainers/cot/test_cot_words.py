"""CoT's second form: what its steps say, how they are joined, and the contrast in the batch."""

import pytest
import torch

from clip import load_backbone
from dassl.data import Task, TaskSpace
from dassl.utils import UserError
from prompting.prompter import ModelOutput
from tests.conftest import TASKS
from tests.reference import cot as naive
from tests.trainers._chains import NAMES, chains_of, check, make, widen
from trainers.cot.step_texts import step_texts
from trainers.cot.trainer import batch_contrast

RULE = ("GENERATOR", "rule", "TEMPLATES", "('a photo of {}', '{task}: {}.', 'own')")
WORDS = [  # what RULE says of the classes of the toy suite's last task
    ["a photo of flat", "a photo of upright stripes", "a photo of level stripes"],
    ["stripes: flat", "stripes: upright stripes", "stripes: level stripes"],
    ["a photo of a flat", "a photo of a upright stripes", "a photo of a level stripes"],
]
WORDS = [[*step, step[0].replace("flat", "checks")] for step in WORDS]


def naive_steps(trainer, leaves, batch, words, token_ids, naive_model, step):
    """z_i of every image and class (B, C, e)."""
    chains = chains_of(batch["feat"].double(), leaves, trainer.cfg.TRAINER.COT)
    contexts = [chain[step] for chain in chains]
    m = trainer.model.prompter.chain.ctx.shape[1]
    return naive.text_features(contexts, token_ids(words, m), "end", naive_model)


@pytest.mark.parametrize("aggregator", ["last", "linear", "attention"])
@pytest.mark.parametrize("generator", ["learned", "rule"])
def test_equations(build, one_task, naive_model, token_ids, close, generator, aggregator):
    more = RULE if generator == "rule" else ()
    trainer = make(build, "N_CTX", 2, "CHUNK", 3, "AGGREGATOR", aggregator, *more)
    leaves = widen(trainer)
    words = WORDS if generator == "rule" else [list(NAMES)] * 3
    steps = [
        naive_steps(trainer, leaves, one_task, words[i], token_ids, naive_model, i)
        for i in range(3)
    ]
    query = leaves["query"][0] if aggregator == "attention" else None
    text = torch.stack(
        [
            torch.stack([naive.aggregate(aggregator, zs, query) for zs in zip(*rows, strict=True)])
            for rows in zip(*steps, strict=True)
        ]
    )
    check(trainer, one_task, text, leaves, close)


def test_the_query_starts_from_the_task(build):
    trainer = make(build, "AGGREGATOR", "attention")
    feature = trainer.clip.text_tower.encode_text(["stripes."])
    expected = torch.nn.functional.normalize(feature, dim=-1)
    torch.testing.assert_close(trainer.model.prompter.query.detach(), expected)


def test_attention_of_equal_products_is_the_mean(build, one_task):
    linear = make(build, "AGGREGATOR", "linear")
    attention = make(build, "AGGREGATOR", "attention")
    attention.model.prompter.chain.load_state_dict(linear.model.prompter.chain.state_dict())
    with torch.no_grad():
        attention.model.prompter.query.zero_()
    a, b = (t.forward({"global": one_task["feat"]}).logits for t in (linear, attention))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_contrast_in_the_batch(build, one_task, weight):
    trainer = make(build, "BATCH_CONTRAST", weight)
    logits = trainer.forward({"global": one_task["feat"]}).logits
    losses = trainer.compute_loss(ModelOutput(logits), one_task)
    assert set(losses) == ({"loss", "batch"} if weight else {"loss"})
    if weight:
        scores, labels = logits.double(), one_task["label"].tolist()
        expected = weight * naive.batch_contrast(scores, labels, [0] * 5, [4])
        torch.testing.assert_close(losses["batch"].double(), expected, rtol=1e-5, atol=0)


def test_contrast_stays_within_tasks():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64).requires_grad_()
    labels, tasks, starts = [0, 1, 2, 0, 1, 1], [0, 1, 1, 0, 0, 1], [0, 2]
    column = torch.tensor([starts[t] + y for y, t in zip(labels, tasks, strict=True)])
    found = batch_contrast(logits, column, torch.tensor(tasks))
    expected = naive.batch_contrast(logits, labels, tasks, [2, 3])
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*grads)


def test_words_of_a_suite(build):
    options = make(build, *RULE).cfg.TRAINER.COT
    text = load_backbone("tiny/random").text_tower
    steps = step_texts(options, TaskSpace(TASKS), text, 4)
    assert [step[1] for step in steps] == [
        "a photo of grass green",
        "kind of colour: grass green",
        "a grass green picture",
    ]
    assert [step[-4:] for step in steps] == WORDS


def test_whole_runs_of_the_second_form(run, tmp_path):
    single = ("DATASET.SUBSAMPLE_TASKS", "task1", "TRAINER.COT.BATCH_CONTRAST", 0.5)
    form = ("TRAINER.COT.GENERATOR", "rule", "TRAINER.COT.AGGREGATOR", "attention")
    content = run("CoT", *single, *form)
    assert content["protocol"]["method"] == "CoT (rule, attention)"
    assert " batch " in (tmp_path / "run" / "log.txt").read_text()


def test_prompts_are_shown(build):
    lines = make(build, *RULE, "AGGREGATOR", "linear").show_prompts()
    assert "  [4] stripes: level stripes." in lines
    heads = [line for line in lines if line.startswith("step ")]
    sources = ["'a photo of {}'", "'{task}: {}.'", "'own'"]
    assert heads == [f"step {i} of 3 says {source}:" for i, source in enumerate(sources, 1)]
    assert make(build, *RULE).show_prompts()[0] == "step 3 of 3 says 'own':"
    same = ("TEMPLATES", "('own', '{task}: {}', 'own')", "AGGREGATOR", "linear")
    lines = make(build, "GENERATOR", "rule", *same).show_prompts()
    assert lines[0] == "step 1, 3 of 3 says 'own':" and len(lines) == 2 + 2 * 4
    middle = make(build, "CLASS_TOKEN_POSITION", "middle", "N_CTX", 3).show_prompts()
    assert "  [1] level stripes [2]." in middle
    assert middle[0] == "step 3 of 3 says the name alone:"
    whole = make(build, "AGGREGATOR", "linear").show_prompts()
    assert whole[0] == "step 1, 2, 3 of 3 says the name alone:" and len(whole) == 1 + 4
    assert build("CoT").show_prompts()[0] == "task 0 (kind_of colour)"
    zero_shot = build("ZeroshotCLIP").show_prompts()
    assert zero_shot[:2] == ["kind_of colour:", "  a red picture."]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("GENERATOR", "rules"), "TRAINER.COT.GENERATOR .*got 'rules'; did you mean rule"),
        (("GENERATOR", "rule", "TEMPLATES", "()"), "needs TEMPLATES, one per step"),
        (("GENERATOR", "rule", "TEMPLATES", "('a photo',)"), "'a photo' of TRAINER.COT.TEMPLATES"),
        (("GENERATOR", "rule", "TEMPLATES", "('{} {}',)"), r"'\{\} \{\}' of TRAINER.COT.TEMPLATES"),
        (("GENERATOR", "rule", "TEMPLATES", "('{x} {}',)"), "TRAINER.COT.TEMPLATES"),
        (("AGGREGATOR", "mean"), "TRAINER.COT.AGGREGATOR .*got 'mean'"),
        (("BATCH_CONTRAST", -1.0), "BATCH_CONTRAST .*got"),
        (("GENERATOR", "neural", "LM_TOKENS", 0), "LM_TOKENS .*got 0"),
        (("GENERATOR", "neural", "LM", "./none"), "TRAINER.COT.LM ./none"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, *options)


def test_a_suite_of_long_rules_is_refused(build):
    long = " ".join(["word"] * 80)
    with pytest.raises(UserError, match="tokens"):
        make(build, "GENERATOR", "rule", "TEMPLATES", f"('{long} {{}}',)")


def test_class_names_with_braces(build):
    options = make(build, *RULE).cfg.TRAINER.COT
    space = TaskSpace((Task("t{", ("a {} b", "c")),))
    steps = step_texts(options, space, load_backbone("tiny/random").text_tower, 4)
    assert [step[0] for step in steps] == ["a photo of a {} b", "t{: a {} b", "a photo of a a {} b"]
