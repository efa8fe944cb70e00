"""Teachers, soft labels and what is learnt from them, against loops over characters and over all paths."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LABELS, SENTENCES, new_tagger
from corpora import read_corpus
from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.testing import assert_close
from transformers import (
    BertConfig,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
)

from bilstm_crf_hf import BiLSTMCRFConfig
from bilstm_crf_hf.commands import distill
from bilstm_crf_hf.data.collation import TaggingCollator
from bilstm_crf_hf.data.encoding import EncodedCorpus
from bilstm_crf_hf.data.tokenization import SPECIAL_TOKENS, build_character_tokenizer
from bilstm_crf_hf.evaluation.tasks import label_maps
from bilstm_crf_hf.hub.model_card import render_card
from bilstm_crf_hf.processing_bilstm_crf import BiLSTMCRFProcessor
from bilstm_crf_hf.training.arguments import TaggerTrainingArguments
from bilstm_crf_hf.training.distillation import (
    DistillationTrainer,
    SoftLabels,
    Teacher,
    student_fingerprint,
    with_own_posteriors,
    with_soft_labels,
)
from bilstm_crf_hf.training.new_labels import with_labels
from bilstm_crf_hf.training.teachers import TeacherArguments, _read

RECIPES = Path(__file__).parents[2] / "recipes"
NO_DROPOUT = dict.fromkeys(("embedding_dropout", "locked_dropout", "ngram_dropout", "word_dropout"), 0.0)
FEW = ["B-LC", "I-LC", "B-PS", "I-PS", "O"]


@pytest.fixture(scope="module")
def wordpiece():
    """Words of some of the sentences, others are unknown as a whole; ☆ is dropped."""
    words = ["손흥민", "##은", "서울", "##로", "춘천", "##에서", "##에", "김연아", "##는", "지난해", "."]
    tokens = [*SPECIAL_TOKENS.values(), *words]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace("☆", "")
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **SPECIAL_TOKENS)


def new_encoder(tokenizer, labels, seed=0) -> BertForTokenClassification:
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **shape, **label_maps(labels)))
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    return model.eval()


def probabilities(model, tokenizer, text) -> tuple[list[dict[str, float]], list[tuple[int, int]]]:
    """Of each token of a text by itself, special ones left out: the probability of each label by name; its offsets."""
    encoded = tokenizer(text, return_offsets_mapping=True, return_tensors="pt", truncation=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        rows = model(**encoded).logits[0].softmax(-1).tolist()
    names = [model.config.id2label[i] for i in range(len(rows[0]))]
    return [dict(zip(names, row)) for row in rows[1:-1]], offsets[1:-1]


class FixedTeacher:
    """A teacher that returns given soft labels of texts."""

    def __init__(self, **soft_labels: list[list[float]]) -> None:
        self.soft_labels = {text: np.array(rows, np.float32) for text, rows in soft_labels.items()}

    def __call__(self, texts):
        return [self.soft_labels[text] for text in texts]


def random_teacher(texts, num_labels, seed) -> FixedTeacher:
    generator = np.random.default_rng(seed)
    return FixedTeacher(**{text: generator.dirichlet(np.full(num_labels, 0.5), len(text)).tolist() for text in texts})


# ---------------------------------------------------------------- teachers


@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1]], ids=["the same order", "another order"])
def test_characters_have_the_marginals_of_their_tokens(tagger, tokenizer, texts, labels):
    """Also in batches, and when the teacher numbers its labels in another way than the student."""
    found = Teacher(tagger, BiLSTMCRFProcessor(tokenizer), labels)(texts)
    for text, rows in zip(texts, found, strict=True):
        expected = np.zeros((len(text), len(labels)))
        for of_token, (start, end) in zip(*probabilities(tagger, tokenizer, text), strict=True):
            assert end - start == 1
            expected[start] = [of_token[label] for label in labels]
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        visible = [not character.isspace() for character in text]
        np.testing.assert_allclose(rows.sum(-1), visible, atol=1e-5)


@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1]], ids=["the same order", "another order"])
def test_characters_behind_the_first_of_a_token_continue_what_it_begins(wordpiece, texts, labels):
    """What is B- with a probability is I- with that and its own behind; a word that is unknown is one token."""
    model = new_encoder(wordpiece, LABELS)
    found = Teacher(model, BiLSTMCRFProcessor(wordpiece), labels)(texts)
    lengths = set()
    for text, rows in zip(texts, found, strict=True):
        expected = np.zeros((len(text), len(labels)))
        for of_token, (start, end) in zip(*probabilities(model, wordpiece, text), strict=True):
            lengths.add(end - start)
            for i in range(start, end):
                for k, label in enumerate(labels):
                    begins = of_token.get(f"B-{label[2:]}", 0)
                    first = i == start
                    inner = {"B": 0.0, "I": of_token[label] + begins, "O": of_token["O"]}[label[0]]
                    expected[i, k] = of_token[label] if first else inner
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert max(lengths) > 2


def test_a_teacher_of_other_labels_is_refused(tagger, tokenizer):
    with pytest.raises(ValueError, match=r"has the labels B-DT, .*, not B-LC, I-LC"):
        Teacher(tagger, BiLSTMCRFProcessor(tokenizer), FEW)


# ---------------------------------------------------------------- soft labels


def columns_of(teachers, tokenizer, texts, labels) -> list[tuple[list[int], list[int], np.ndarray]]:
    """Of each text the ids, the labels and the soft labels (S, K)."""
    columns = SoftLabels(teachers, BiLSTMCRFProcessor(tokenizer), labels)(texts)
    assert columns["attention_mask"] == [[1] * len(ids) for ids in columns["input_ids"]]
    soft = [np.reshape(row, (-1, len(labels))) for row in columns["soft_labels"]]
    return list(zip(columns["input_ids"], [list(row) for row in columns["labels"]], soft, strict=True))


def test_probabilities_of_two_teachers_are_averaged(tagger, tokenizer, wordpiece, texts):
    teachers = [
        Teacher(tagger, BiLSTMCRFProcessor(tokenizer), LABELS),
        Teacher(new_encoder(wordpiece, LABELS[::-1]), BiLSTMCRFProcessor(wordpiece), LABELS),
    ]
    each = [teacher(texts) for teacher in teachers]
    for n, (text, (ids, _, soft)) in enumerate(zip(texts, columns_of(teachers, tokenizer, texts, LABELS), strict=True)):
        assert ids == tokenizer(text).input_ids
        visible = [i for i, character in enumerate(text) if not character.isspace()]
        said = [(each[0][n][i] + each[1][n][i]) / 2 if each[1][n][i].any() else each[0][n][i] for i in visible]
        np.testing.assert_allclose(soft[1:-1], said, atol=1e-3)  # float16
        assert not soft[[0, -1]].any()


def is_valid(path: list[str]) -> bool:
    return all(
        tag[0] != "I" or (before[0] in "BI" and before[2:] == tag[2:]) for before, tag in zip(["O", *path], path)
    )


def test_best_paths_are_those_of_all_valid_ones():
    """K^T of them, scored as if characters were independent; for one text, the independent best is not valid."""
    texts = ["서울", "춘천에서", "부산", "간 날", "봉준호가"]
    tokenizer = build_character_tokenizer(texts)
    teacher = random_teacher(texts, len(FEW), seed=1)
    greedy = []
    for text, (_, labels, _) in zip(texts, columns_of([teacher], tokenizer, texts, FEW), strict=True):
        rows = teacher.soft_labels[text][[i for i, c in enumerate(text) if c != " "]]
        paths = [p for p in itertools.product(range(len(FEW)), repeat=len(rows)) if is_valid([FEW[i] for i in p])]
        best = max(paths, key=lambda path: sum(np.log(row[i] + 1e-6) for row, i in zip(rows, path)))
        assert labels == [-100, *best, -100]
        greedy.append(is_valid([FEW[i] for i in rows.argmax(-1)]))
    assert set(greedy) == {True, False}


def test_a_student_of_words_has_the_labels_of_first_characters():
    """An entity that a teacher begins within a word does not go on in the next one, which the chain rules out."""
    text, names = "ab cd", ["B-X", "I-X", "O"]
    tokenizer = build_character_tokenizer([text], unit="words")
    config = BiLSTMCRFConfig(unit="words")
    teacher = FixedTeacher(**{text: np.eye(3)[[2, 0, 2, 1, 1]].tolist()})  # O B-X, I-X I-X
    soft_labels = SoftLabels([teacher], BiLSTMCRFProcessor(tokenizer, config), names)
    columns = soft_labels([text])
    labels = columns["labels"][0].tolist()
    assert [label == -100 for label in labels] == [True, False, True, False, True, True]
    assert [labels[1], labels[3]] in ([2, 2], [0, 1])
    assert np.reshape(columns["soft_labels"][0], (-1, 3))[[1, 3]].tolist() == [[0, 0, 1], [0, 1, 0]]
    characters = BiLSTMCRFProcessor(tokenizer)
    assert student_fingerprint(soft_labels.processor, names) != student_fingerprint(characters, names)


def test_what_no_teacher_reads_is_unknown(tokenizer, wordpiece):
    """☆, which the tokenizer of one drops, and what is behind the limit of its length."""
    text = "손흥민☆은 춘천에서 " + "서울 " * 12 + "김연아"
    student = build_character_tokenizer([text])
    teacher = Teacher(new_encoder(wordpiece, LABELS), BiLSTMCRFProcessor(wordpiece), LABELS)
    ((ids, labels, soft),) = columns_of([teacher], student, [text], LABELS)
    unread = [i for i, token in enumerate(student.convert_ids_to_tokens(ids)) if token == "##☆"]
    unread += range(len(ids) - 4, len(ids) - 1)
    for i in range(1, len(ids) - 1):
        assert (labels[i] == -100) == (not soft[i].any())
    assert {i for i in range(1, len(ids) - 1) if labels[i] == -100} >= set(unread)
    other = random_teacher([text], len(LABELS), seed=0)
    ((_, labels, soft),) = columns_of([teacher, other], student, [text], LABELS)
    assert -100 not in labels[1:-1]
    np.testing.assert_allclose(soft[1:-1].sum(-1), 1, atol=5e-3)
    np.testing.assert_allclose(soft[unread[0]], other.soft_labels[text][3], atol=1e-3)


def test_a_text_without_a_token_has_no_labels(tokenizer, wordpiece):
    teacher = random_teacher(["☆", "서울"], len(FEW), seed=0)
    first, second = columns_of([teacher], wordpiece, ["☆", "서울"], FEW)
    assert first[1] == [-100, -100]
    assert second[1][1] != -100


def test_soft_labels_name_their_student(tokenizer):
    name = student_fingerprint(BiLSTMCRFProcessor(tokenizer), LABELS)
    tokenizer("서울", truncation=True, max_length=3)  # which changes its state, but not its vocabulary
    assert student_fingerprint(BiLSTMCRFProcessor(tokenizer), LABELS) == name
    assert student_fingerprint(BiLSTMCRFProcessor(build_character_tokenizer(["서울"])), LABELS) != name
    assert student_fingerprint(BiLSTMCRFProcessor(tokenizer), LABELS[::-1]) != name


# ---------------------------------------------------------------- collator and loss


@pytest.fixture(scope="module")
def gold(tokenizer, tmp_path_factory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "sentences.txt"
    path.write_text("\n".join(SENTENCES), encoding="utf-8")
    return EncodedCorpus(read_corpus(path), BiLSTMCRFProcessor(tokenizer), LABELS).inputs


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("options", [{}, {"padding": "max_length", "max_length": 48}], ids=["longest", "max_length"])
def test_soft_labels_stand_where_the_labels_do(gold, tokenizer, side, options):
    tokenizer.padding_side = side
    rows = [with_soft_labels(gold, len(LABELS))[i] for i in (0, 3, 7)]
    batch = TaggingCollator(tokenizer, **options)(rows)
    tokenizer.padding_side = "right"
    assert batch["soft_labels"].shape == (*batch["labels"].shape, len(LABELS))
    assert options == {} or batch["labels"].shape[1] == 48
    assert batch["soft_labels"].sum(-1).equal((batch["labels"] >= 0).float())
    assert batch["soft_labels"].argmax(-1).equal(batch["labels"].clamp(min=0))
    plain = DataCollatorForTokenClassification(tokenizer)(list(gold.select([0, 3, 7])))
    assert TaggingCollator(tokenizer)(list(gold.select([0, 3, 7]))).keys() == plain.keys()


def loss_of(model, tokenizer, rows, folder, soft=None):
    """Loss and emissions, with their gradient, by `DistillationTrainer.compute_loss`."""
    arguments = TaggerTrainingArguments(
        str(folder), use_cpu=True, eval_strategy="no", load_best_model_at_end=False, remove_unused_columns=False
    )
    trainer = DistillationTrainer(model.train(), arguments, data_collator=TaggingCollator(tokenizer), columns={})
    batch = trainer.data_collator(rows)
    if soft is not None:
        batch["soft_labels"] = soft
    emissions = []
    hook = model.classifier.register_forward_hook(lambda _, __, output: emissions.append(output))
    loss, outputs = trainer.compute_loss(model, batch, return_outputs=True)
    hook.remove()
    (gradient,) = torch.autograd.grad(loss, emissions[0], retain_graph=True)
    loss.backward()
    return loss, emissions[0], gradient, outputs


def test_for_gold_rows_it_is_the_models_own_loss(gold, tokenizer, tmp_path):
    """With the same gradient of all weights."""
    model = new_tagger(tokenizer, **NO_DROPOUT)
    rows = list(with_soft_labels(gold, len(LABELS)))
    batch = DataCollatorForTokenClassification(tokenizer)(list(gold))
    expected = model.train()(**batch).loss
    expected.backward()
    gradients = {name: weights.grad.clone() for name, weights in model.named_parameters()}
    model.zero_grad()
    loss, *_ = loss_of(model, tokenizer, rows, tmp_path)
    assert_close(loss, expected)
    for name, weights in model.named_parameters():
        assert_close(weights.grad, gradients[name], atol=1e-5, rtol=1e-4)


def test_gradient_of_emissions_is_the_difference_of_marginals(tokenizer, texts, tmp_path):
    """Those of the student's CRF less the teachers', by the number of sentences."""
    model = new_tagger(tokenizer, **NO_DROPOUT)
    teacher = random_teacher(texts, len(LABELS), seed=2)
    rows = list(Dataset.from_dict(SoftLabels([teacher], BiLSTMCRFProcessor(tokenizer), LABELS)(texts)))
    _, emissions, gradient, _ = loss_of(model, tokenizer, rows, tmp_path)
    for n, (text, row) in enumerate(zip(texts, rows, strict=True)):
        length = len(row["input_ids"]) - 2
        marginals = model.crf.marginals(emissions[:length, n : n + 1])[:, 0]
        said = torch.tensor(row["soft_labels"]).view(-1, len(LABELS))[1:-1]
        assert_close(gradient[:length, n], (marginals - said) / len(texts), atol=1e-6, rtol=1e-4)
        assert not gradient[length:, n].any()
        assert length == len(text.replace(" ", ""))


def test_loss_is_the_cross_entropy_to_a_distribution_over_paths(tmp_path):
    """Enumerated: soft labels are the marginals of a distribution over all valid paths of three characters; the
    transitions' part, which the loss takes from the labels, is put in their place."""
    tokenizer = build_character_tokenizer(["서울에"])
    torch.manual_seed(0)
    model = new_tagger(tokenizer, **NO_DROPOUT, **label_maps(FEW))
    paths = [p for p in itertools.product(range(len(FEW)), repeat=3) if is_valid([FEW[i] for i in p])]
    weights = torch.rand(len(paths), dtype=torch.float64).square()
    weights /= weights.sum()
    soft = torch.zeros(5, len(FEW), dtype=torch.float64)
    for path, weight in zip(paths, weights):
        for t, label in enumerate(path):
            soft[1 + t, label] += weight
    hard = paths[int(weights.argmax())]
    row = {"input_ids": tokenizer("서울에").input_ids, "attention_mask": [1] * 5, "labels": [-100, *hard, -100]}
    loss, emissions, *_ = loss_of(model, tokenizer, [row], tmp_path, soft.float()[None])

    start, steps, end = (
        p.detach().double() for p in (model.crf.start_transitions, model.crf.transitions, model.crf.end_transitions)
    )
    scores = emissions[:, 0].detach().double()
    of_emissions = torch.stack([sum(scores[t, label] for t, label in enumerate(path)) for path in paths])
    of_steps = torch.stack([start[a] + steps[a, b] + steps[b, c] + end[c] for a, b, c in paths])
    log_probs = (of_emissions + of_steps).log_softmax(0)
    cross_entropy = -(weights * log_probs).sum()
    excess = (weights * of_steps).sum() - of_steps[paths.index(hard)]
    assert loss.item() == pytest.approx((cross_entropy + excess).item(), rel=1e-5)


def test_an_unknown_label_is_summed_over(tokenizer, texts, tmp_path):
    """A character that no teacher read: its soft labels are 0, and the loss is the model's own without it."""
    model = new_tagger(tokenizer, **NO_DROPOUT)
    labels = [LABELS.index("O")] * len(tokenizer(texts[0], add_special_tokens=False).input_ids)
    row = {"input_ids": tokenizer(texts[0]).input_ids, "attention_mask": [1] * (len(labels) + 2)}
    row["labels"] = [-100, *labels[:4], -100, *labels[5:], -100]
    soft = with_soft_labels(Dataset.from_list([row]), len(LABELS))[0]
    loss, *_ = loss_of(model, tokenizer, [soft], tmp_path)
    assert_close(loss, model(**DataCollatorForTokenClassification(tokenizer)([row])).loss)


# ---------------------------------------------------------------- what the model itself says


def corpus_of(sentences, tokenizer, labels, folder) -> EncodedCorpus:
    path = folder / "corpus.txt"
    path.write_text("\n".join(sentences), encoding="utf-8")
    return EncodedCorpus(read_corpus(path), BiLSTMCRFProcessor(tokenizer), labels)


def enumerated_marginals(tagger, text_ids, allowed) -> torch.Tensor:
    """Compute the probabilities (T, K) of the labels of a tagger from all paths of `allowed` labels."""
    with torch.no_grad():
        emissions = tagger.emissions(torch.tensor([text_ids]))[0][:, 0].double()
    crf = tagger.crf.double()
    start, steps, end = crf.start_transitions.detach(), crf.transitions.detach(), crf.end_transitions.detach()
    paths, scores = [], []
    for path in itertools.product(*allowed):
        tags = ["O", *(LABELS[i] for i in path)]
        if any(b[0] == "I" and a[2:] != b[2:] for a, b in zip(tags, tags[1:])):
            continue
        score = start[path[0]] + end[path[-1]] + sum(emissions[t, i] for t, i in enumerate(path))
        paths.append(path)
        scores.append(score + sum(steps[i, j] for i, j in zip(path, path[1:])))
    weights = torch.stack(scores).softmax(0)
    marginals = torch.zeros(len(allowed), len(LABELS), dtype=torch.float64)
    for path, weight in zip(paths, weights):
        marginals[range(len(path)), path] += weight
    return marginals


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_soft_labels_are_the_old_models_posterior_given_the_new_entities(share, tokenizer, tmp_path):
    """The corpus has OG, which is new, and PS. DT and LC, which it lacks, may be anywhere else.

    The old model has no OG: it reads O there."""
    sentences = ["<부산:OG>에 <김:PS>은", "서울<로:OG>"]
    tagger = new_tagger(tokenizer, seed=5)
    new = ["B-OG", "I-OG"]
    labels = LABELS + new
    corpus = corpus_of(sentences, tokenizer, labels, tmp_path)
    rows = with_own_posteriors(with_labels(tagger, new), corpus, share, batch_size=2)
    plain = corpus.inputs
    assert rows["input_ids"][:] == plain["input_ids"][:]
    free = [LABELS.index(label) for label in ("B-DT", "I-DT", "B-LC", "I-LC", "O")]
    for row, gold in zip(rows, plain["labels"][:], strict=True):
        gold_names = [labels[i] for i in gold[1:-1]]
        allowed = [free if name == "O" else [LABELS.index("O" if name in new else name)] for name in gold_names]
        expected = torch.zeros(len(gold_names), len(labels), dtype=torch.float64)
        expected[:, :7] = enumerated_marginals(tagger, row["input_ids"], allowed)
        for t, name in enumerate(gold_names):
            if name in new:
                expected[t] = torch.nn.functional.one_hot(torch.tensor(labels.index(name)), len(labels))
        expected *= share
        expected[range(len(gold_names)), gold[1:-1]] += 1 - share
        soft = torch.tensor(row["soft_labels"]).view(-1, len(labels))
        assert_close(soft[1:-1].double(), expected, atol=1e-3, rtol=0)  # float16
        assert not soft[[0, -1]].any()
        assert row["labels"][0] == row["labels"][-1] == -100
        for name, label in zip(gold_names, row["labels"][1:-1], strict=True):
            assert labels[label] == name or name == "O" and label in free


def test_a_corpus_with_all_types_and_a_model_without_a_crf_are_refused(tagger, tokenizer, tmp_path):
    corpus = corpus_of(SENTENCES, tokenizer, LABELS, tmp_path)
    with pytest.raises(ValueError, match=r"they have some of all types of the model \(DT, LC, PS\): leave it out"):
        with_own_posteriors(tagger, corpus, 1.0, 8)
    with pytest.raises(ValueError, match="taggers with a CRF, which BertForTokenClassification lacks"):
        with_own_posteriors(new_encoder(tokenizer, LABELS), corpus, 1.0, 8)


# ---------------------------------------------------------------- the recipe


KLUE_LABELS = [f"{prefix}-{label}" for label in ("DT", "LC", "OG", "PS", "QT", "TI") for prefix in "BI"] + ["O"]
SMALL = (
    *("--max_train_samples", "32", "--max_eval_samples", "8", "--num_train_epochs", "1", "--use_cpu", "true"),
    *(
        "--config_overrides",
        '{"embedding_size": 16, "hidden_size": 16, "ngram_buckets": 256, "ngram_embedding_size": 8}',
    ),
)


def run_recipe(folder: Path, *arguments: str) -> dict:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, RECIPES / "distill.py", *SMALL, *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    output = folder / arguments[arguments.index("--output_dir") + 1]
    return json.loads((output / "trainer_state.json").read_text()) | {"printed": result.stdout + result.stderr}


@pytest.mark.slow
def test_the_recipe_asks_teachers_once(wordpiece, texts, tmp_path):
    """Two untrained teachers, one with its labels in another order; then a student of what they said."""
    tokenizer = build_character_tokenizer(texts)
    for name, model, own in (
        ("tagger", new_tagger(tokenizer, **label_maps(KLUE_LABELS)), tokenizer),
        ("encoder", new_encoder(wordpiece, KLUE_LABELS[::-1]), wordpiece),
    ):
        model.save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
    (tmp_path / "raw.txt").write_text("\n".join([*texts, "가" * 300]), encoding="utf-8")
    asked = ("--teachers", "tagger", "encoder", "--unlabeled_file", "raw.txt", "--output_dir", "first")
    state = run_recipe(tmp_path, *asked)
    soft_labels = Dataset.from_parquet(str(tmp_path / "first" / "soft_labels.parquet"))
    assert 0 < len(soft_labels) <= len(texts)  # those in which an entity is; not the long one
    assert f"the teachers find entities in {len(soft_labels)} of " in state["printed"]
    assert state["global_step"] == -(-(32 + len(soft_labels)) // 16)  # the batches of the sample's settings
    results = json.loads((tmp_path / "first" / "all_results.json").read_text())
    assert results["train_soft_sentences"] == len(soft_labels)
    card = render_card(tmp_path / "first", "me/first", "v1")
    assert f"Further {len(soft_labels)} texts had the probabilities of a teacher as labels." in card.text
    again = run_recipe(tmp_path, "--soft_labels_file", "first/soft_labels.parquet", "--output_dir", "second")
    losses = [[entry["loss"] for entry in run["log_history"] if "loss" in entry] for run in (state, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert (tmp_path / "second" / "all_results.json").is_file()
    assert not (tmp_path / "second" / "soft_labels.parquet").exists()


def test_labels_alone_are_made_without_training(texts, tmp_path):
    tokenizer = build_character_tokenizer(texts)
    for part in (new_tagger(tokenizer, **label_maps(KLUE_LABELS)), tokenizer):
        part.save_pretrained(tmp_path / "tagger")
    (tmp_path / "raw.txt").write_text("\n".join(texts), encoding="utf-8")
    asked = ["--teachers", str(tmp_path / "tagger"), "--unlabeled_file", str(tmp_path / "raw.txt")]
    distill.main([*SMALL, *asked, "--num_train_epochs", "0", "--output_dir", str(tmp_path / "labels")], RECIPES)
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["soft_labels.parquet"]
    assert len(Dataset.from_parquet(str(tmp_path / "labels" / "soft_labels.parquet"))) > 0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"teachers": ["a"]},
        {"unlabeled_file": ["a.txt"]},
        {"variants": 2},
    ],
)
def test_teachers_and_texts_or_soft_labels_are_wanted(fields):
    with pytest.raises(ValueError, match="give teachers and texts .*, or soft_labels_file"):
        distill.DistillationArguments(**fields)


def test_damaged_soft_labels_are_refused_by_name_and_a_name_is_no_pattern(tmp_path):
    for folder, label in (("v1", 1.0), ("v[12]", 0.5)):
        (tmp_path / folder).mkdir()
        Dataset.from_dict({"soft_labels": [[label]], "student": ["a"]}).to_parquet(tmp_path / folder / "a.parquet")
    path = tmp_path / "v[12]" / "a.parquet"
    assert _read(str(path), "a")["soft_labels"][:] == [[0.5]]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file that can be read"):
        _read(str(path), "a")


def test_long_texts_that_are_left_out_are_counted(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("가\n나나\n다다다\n", encoding="utf-8")
    arguments = distill.DistillationArguments(
        teachers=["a"], unlabeled_file=[str(tmp_path / "a.txt")], max_unlabeled_characters=1
    )
    assert arguments.texts(seed=0) == ["가"]
    assert "dropped 2 texts of more than 1 characters (max_unlabeled_characters)" in caplog.text


@pytest.mark.parametrize("student", [None, "another"])
def test_soft_labels_for_another_student_are_refused(tmp_path, student):
    path = str(tmp_path / "soft_labels.parquet")
    rows = {"input_ids": [[1]], "soft_labels": [[1.0]]} | ({} if student is None else {"student": [student]})
    Dataset.from_dict(rows).to_parquet(path)
    with pytest.raises(ValueError, match="made for another tokenizer or other labels"):
        distill.main(["--soft_labels_file", path, *SMALL, "--output_dir", str(tmp_path / "out")], RECIPES)


def test_files_of_soft_labels_take_the_place_of_teachers():
    for more in ({"teachers": ["a"]}, {"unlabeled_file": ["a.txt"]}, {"variants": 1}):
        with pytest.raises(ValueError, match="soft_labels_file takes the place of teachers"):
            TeacherArguments(soft_labels_file=["soft.parquet"], **more)


def test_a_teacher_whose_weights_are_not_finite_is_refused(tokenizer):
    model = new_tagger(tokenizer)
    model.classifier.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="the weight classifier.bias holds NaN"):
        Teacher(model, BiLSTMCRFProcessor(tokenizer), LABELS)
