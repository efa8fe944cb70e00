"""Train a tagger on gold sentences and on what teachers say of raw text: python recipes/distill.py [config.yaml] [...]

Takes the arguments of recipes/ner.py beside --teachers and --unlabeled_file. The teachers' answers stay in the output
folder, for further students over the same tokens: --soft_labels_file outputs/distilled/soft_labels.parquet in place of
the two. With --num_train_epochs 0 nothing else is done.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForTokenClassification, AutoTokenizer, set_seed

from ..alignment import IGNORED
from ..data.augmentation import with_other_names
from ..data.encoding import EncodedCorpus
from ..data.morphology import similar_names
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from ..training.arguments import CardArguments
from ..training.distillation import DistillationTrainer, SoftLabels, Teacher, student_fingerprint, with_soft_labels
from ..training.loading import ModelArguments
from ..training.ner import DataArguments, build, collator, fit, piece_tokenizer, scoring
from ..training.teachers import TeacherArguments, load_soft_labels
from ..training.trainer import TaggerTrainingArguments, configure_logging, parse_arguments
from . import sample_files

logger = logging.getLogger("distill")


@dataclass
class DistillationArguments(TeacherArguments):
    """`TeacherArguments`, and which names variants of the training sentences have."""

    dictionary: bool = field(
        default=False,
        metadata={"help": "Whether half of the names in variants come from Kiwi: of their cluster or class."},
    )


def load_teacher(name: str, labels: list[str], training: TaggerTrainingArguments, trust_remote_code: bool) -> Teacher:
    options = {"trust_remote_code": trust_remote_code}
    model = AutoModelForTokenClassification.from_pretrained(name, **options).to(training.device)
    tokenizer, pieces = AutoTokenizer.from_pretrained(name, **options), piece_tokenizer(model, name, **options)
    return Teacher(model, BiLSTMCRFProcessor(tokenizer, model.config, pieces), labels, training.bf16)


def texts_to_label(arguments: DistillationArguments, corpus: EncodedCorpus, seed: int) -> list[str]:
    """Raw texts, and training sentences with other names."""
    texts, names = arguments.texts(seed), {}
    if arguments.dictionary and arguments.variants:
        names = similar_names({text[s:e] for text, spans in zip(corpus.texts, corpus.spans) for s, e, _ in spans})
    for variant in range(arguments.variants):
        texts += with_other_names(corpus.texts, corpus.spans, names, seed + variant)
    return texts


def ask(
    teachers: list[Teacher],
    texts: list[str],
    corpus: EncodedCorpus,
    batch_size: int,
) -> Dataset:
    """Rows of `soft_labels` for the texts in which the teachers see an entity: a corpus has no others.

    The first of several teachers, which should be the fastest, says which texts the others are shown.
    """
    outside = {IGNORED, corpus.labels.index("O")}

    def answer(texts: Dataset, teachers: list[Teacher], description: str) -> Dataset:
        """Rows of `text`, and what is said of each, where an entity is."""
        label = SoftLabels(teachers, corpus.processor, corpus.labels)
        rows = texts.map(lambda batch: label(batch["text"]), batched=True, batch_size=batch_size, desc=description)
        rows = rows.filter(lambda row: not outside.issuperset(row["labels"]))
        if not len(rows):
            raise ValueError(f"the teachers see no entity in any of {len(texts)} texts: there is nothing to learn from")
        return rows

    found = Dataset.from_dict({"text": sorted(texts, key=len)})
    if len(teachers) > 1:
        found = answer(found, teachers[:1], "Search").select_columns("text")
    found = answer(found, teachers, "Teachers")
    logger.info("the teachers see entities in %d of %d texts", len(found), len(texts))
    return found.remove_columns("text")


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    *settings, arguments = parse_arguments(
        (ModelArguments, DataArguments, DistillationArguments, CardArguments, TaggerTrainingArguments), argv
    )
    model_arguments, data_arguments, distillation_arguments, _ = settings
    configure_logging(arguments)
    set_seed(arguments.seed)
    tokenizer, model, corpora = build(model_arguments, data_arguments, sample_files("ner", "txt", recipes))
    corpus = corpora["train"]

    def ask_teachers() -> Dataset:
        texts = texts_to_label(distillation_arguments, corpus, arguments.seed)
        names, trust = distillation_arguments.teachers, model_arguments.trust_remote_code
        teachers = [load_teacher(name, corpus.labels, arguments, trust) for name in names]
        return ask(teachers, texts, corpus, arguments.per_device_eval_batch_size)

    student = student_fingerprint(corpus.processor, corpus.labels)
    soft = load_soft_labels(distillation_arguments, student, arguments, ask_teachers)
    if arguments.num_train_epochs == 0:
        return
    gold = with_soft_labels(corpus.inputs, len(corpus.labels))
    arguments.remove_unused_columns = False  # the model does not know soft labels
    trainer = DistillationTrainer(
        model,
        arguments,
        data_collator=collator(tokenizer, data_arguments),
        train_dataset=concatenate_datasets([gold, soft.cast(gold.features)]),
        processing_class=tokenizer,
        **scoring(corpora),
    )
    fit(trainer, corpora, settings)
