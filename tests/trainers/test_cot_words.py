"""CoT's second form: what its steps say, how they are joined, and the contrast in the batch."""

import json
import sys

import pytest
import torch

from clip import load_backbone
from dassl.data import Task, TaskSpace
from dassl.utils import UserError
from tests.conftest import TASKS
from tests.reference import cot as naive
from tests.trainers._chains import NAMES, chains_of, check, make, widen
from trainers._language_model import continue_texts
from trainers._step_texts import step_texts
from trainers.cot import batch_contrast

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
    a, b = (t.compute_logits({"global": one_task["feat"]}) for t in (linear, attention))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_contrast_in_the_batch(build, one_task, weight):
    trainer = make(build, "BATCH_CONTRAST", weight)
    logits = trainer.compute_logits({"global": one_task["feat"]})
    losses = trainer.compute_loss(logits, one_task)
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
    middle = make(build, "CLASS_TOKEN_POSITION", "middle", "N_CTX", 3).show_prompts()
    assert "  [1] level stripes [2]." in middle
    assert build("CoT").show_prompts()[0] == "task 0 (kind_of colour)"
    assert build("ZeroshotCLIP").show_prompts() == [
        "ZeroshotCLIP puts no learned context beside names"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("GENERATOR", "rules"), "no TRAINER.COT.GENERATOR named 'rules'; did you mean rule"),
        (("GENERATOR", "rule", "TEMPLATES", "()"), "needs TEMPLATES, one per step"),
        (("GENERATOR", "rule", "TEMPLATES", "('a photo',)"), r"'a photo' .* must hold \{\} once"),
        (("GENERATOR", "rule", "TEMPLATES", "('{} {}',)"), r"'\{\} \{\}' .* must hold \{\} once"),
        (("GENERATOR", "rule", "TEMPLATES", "('{x} {}',)"), r"must hold \{\} once"),
        (("AGGREGATOR", "mean"), "no TRAINER.COT.AGGREGATOR named 'mean'; known"),
        (("BATCH_CONTRAST", -1.0), "BATCH_CONTRAST must be 0 or more"),
        (("GENERATOR", "neural", "LM_TOKENS", 0), "LM_TOKENS must be 1 or more; got 0"),
        (("GENERATOR", "neural", "LM", "./none"), "there is no folder ./none"),
    ],
)
def test_refused(build, options, message):
    with pytest.raises(UserError, match=message):
        make(build, *options)


def test_a_suite_of_long_rules_is_refused(build):
    long = " ".join(["word"] * 80)
    with pytest.raises(UserError, match="tokens"):
        make(build, "GENERATOR", "rule", "TEMPLATES", f"('{long} {{}}',)")


# ---------------------------------------------------------------- the language model

SENTENCES = [f"{a} {b} of a {c}." for a in ("a", "the") for b in ("photo", "kind") for c in NAMES]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A folder with a tiny GPT-2 of random weights and a tokenizer trained on a few words."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from tokenizers import ByteLevelBPETokenizer

    folder = tmp_path_factory.mktemp("gpt2")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=["<|endoftext|>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "softcpt" / "prompts"


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


def test_other_questions_are_asked_anew(language_model, cache):
    continue_texts(str(language_model), ["a photo of a flat"], 4)
    continue_texts(str(language_model), ["a photo of a flat"], 5)
    continue_texts(str(language_model), ["the kind of a flat"], 5)
    assert len(list(cache.glob("*.json"))) == 3
    assert not list(cache.glob(".tmp*"))


def test_neural_prompts_in_a_run(build, language_model, cache, one_task, capsys):
    options = ("GENERATOR", "neural", "LM", language_model, "AGGREGATOR", "linear")
    trainer = make(build, *options)
    lines = trainer.show_prompts()
    begun = [line for line in lines if line.startswith("  [4] a photo of flat")]
    assert begun and len(lines) == 3 + 3 * 4
    logits = trainer.compute_logits({"global": one_task["feat"]})
    trainer.compute_loss(logits, one_task)["loss"].backward()
    assert trainer.model.prompter.chain.ctx.grad.abs().max() > 0


class Parrot:
    """What transformers has of a model, saying one thing."""

    eos_token_id = 0

    def __init__(self, says):
        self.says = says

    def __call__(self, text):
        return {"input_ids": [1, 2]}

    def generate(self, input_ids, **how):
        return torch.cat([input_ids, torch.full((len(input_ids), 1), 3)], 1)

    def batch_decode(self, ids, **how):
        return [self.says] * len(ids)


@pytest.mark.parametrize(
    ("says", "line"),
    [
        ("", "12 of 12 prompts got an empty continuation and stay as they are"),
        (". And so on", "12 of 12 prompts got an empty continuation"),
        (" very" * 100, "12 of 12 texts were too long for the text tower and are cut"),
    ],
)
def test_empty_and_endless_answers_are_counted(build, cache, monkeypatch, capsys, says, line):
    parrot = Parrot(says)
    monkeypatch.setattr("trainers._language_model._load", lambda model: (parrot, parrot))
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
    with pytest.raises(UserError, match=r"the language model .* cannot be loaded"):
        make(build, "GENERATOR", "neural", "LM", tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"texts": 3}', '{"texts": {"x": "y"}}', "{"])
def test_damaged_answers_are_named(cache, monkeypatch, content):
    parrot = Parrot(" seen from afar")
    monkeypatch.setattr("trainers._language_model._load", lambda model: (parrot, parrot))
    assert continue_texts("a-name", ["a cat"], 4) == ["a cat seen from afar"]
    (path,) = cache.glob("*.json")
    path.write_text(content)
    with pytest.raises(UserError, match=path.name):
        continue_texts("a-name", ["a cat"], 4)


def test_class_names_with_braces(build):
    options = make(build, *RULE).cfg.TRAINER.COT
    space = TaskSpace((Task("t{", ("a {} b", "c")),))
    steps = step_texts(options, space, load_backbone("tiny/random").text_tower, 4)
    assert [step[0] for step in steps] == ["a photo of a {} b", "t{: a {} b", "a photo of a a {} b"]
