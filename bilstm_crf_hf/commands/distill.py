"""Train a tagger on gold sentences and on soft labels: bilstm-crf distill [config.yaml] [--argument value ...]

--teachers names taggers, which label the texts of --unlabeled_file and variants of the training sentences. The other
arguments are those of `bilstm-crf ner`. The soft labels stay in the output folder: further students with the same
tokens and labels read them with --soft_labels_file outputs/distilled/soft_labels.parquet instead of asking the
teachers. With --num_train_epochs 0 the command only writes the soft labels.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import generate_random_fingerprint
from transformers import AutoModelForTokenClassification, AutoTokenizer
from transformers.hf_argparser import HfArg

from ..alignment import IGNORED
from ..data.augmentation import read_names, with_other_names
from ..data.encoding import EncodedCorpus
from ..data.morphology import similar_names
from ..evaluation.metrics import EntityScorer
from ..models import model_path
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from ..training.arguments import CardArguments, ModelArguments, TaggerTrainingArguments
from ..training.checks import check_arguments
from ..training.distillation import DistillationTrainer, SoftLabels, Teacher, student_fingerprint, with_soft_labels
from ..training.ner import DataArguments, load_piece_tokenizer, prepare_tagging, train_tagger
from ..training.teachers import TeacherArguments, load_soft_labels
from . import sample_config, sample_files
from .training_steps import publish_if_asked, start_training

logger = logging.getLogger(__name__)


@dataclass
class DistillationArguments(TeacherArguments):
    """Arguments that name teachers and texts, and the names in variants of the training sentences."""

    dictionary: bool = HfArg(default=False, help="Also take names for variants from Kiwi's dictionaries.")
    names_file: str | None = HfArg(
        default=None, help="Further names for variants: a file with the columns name and label."
    )


def load_teacher(name: str, labels: list[str], training: TaggerTrainingArguments, trust_remote_code: bool) -> Teacher:
    """Load a teacher for a student with these labels."""
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    name = model_path(name)
    model = AutoModelForTokenClassification.from_pretrained(name, **options).to(training.device)
    tokenizer, pieces = AutoTokenizer.from_pretrained(name, **options), load_piece_tokenizer(model, name, **options)
    return Teacher(model, BiLSTMCRFProcessor(tokenizer, model.config, pieces), labels, training.bf16)


def texts_to_label(arguments: DistillationArguments, corpus: EncodedCorpus, seed: int) -> list[str]:
    """Return the raw texts, and variants of the training sentences with other names."""
    texts, parts_of, names = arguments.texts(seed), {}, {}
    if arguments.dictionary and arguments.variants:
        parts_of = similar_names({text[s:e] for text, spans in zip(corpus.texts, corpus.spans) for s, e, _ in spans})
    if arguments.names_file is not None:
        names = read_names(arguments.names_file, {label for spans in corpus.spans for *_, label in spans})
    for variant in range(arguments.variants):
        texts += with_other_names(corpus.texts, corpus.spans, parts_of, names, seed + variant)
    return texts


def label_texts(teachers: list[Teacher], texts: list[str], corpus: EncodedCorpus, batch_size: int) -> Dataset:
    """Return rows with soft labels for the texts in which the teachers find an entity.

    Texts without entities are left out, since the sentences of a corpus have some. If there are several teachers, the
    first one, which should be the fastest, selects the texts for the others.

    Raises:
        ValueError: if the teachers find no entity in any text.
    """
    outside = {IGNORED, corpus.labels.index("O")}

    def label(texts: Dataset, teachers: list[Teacher], description: str) -> Dataset:
        soft_labels = SoftLabels(teachers, corpus.processor, corpus.labels)
        rows = texts.map(
            lambda batch: soft_labels(batch["text"]),
            batched=True,
            batch_size=batch_size,
            desc=description,
            new_fingerprint=generate_random_fingerprint(),  # else the weights of all teachers would be hashed
        )
        rows = rows.filter(lambda row: not outside.issuperset(row["labels"]))
        if not len(rows):
            raise ValueError(f"the teachers find no entity in any of the {len(texts)} texts: give other texts")
        return rows

    found = Dataset.from_dict({"text": sorted(texts, key=len)})
    if len(teachers) > 1:
        found = label(found, teachers[:1], "Search").select_columns("text")
    found = label(found, teachers, "Teachers")
    logger.info("the teachers find entities in %d of %d texts", len(found), len(texts))
    return found.remove_columns("text")


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    with start_training(
        (ModelArguments, DataArguments, DistillationArguments, CardArguments, TaggerTrainingArguments),
        argv,
        __doc__,
        sample_config("sample.yaml", recipes),
    ) as (*settings, arguments):
        model_arguments, data_arguments, teacher_arguments, _ = settings
        model, corpora = prepare_tagging(model_arguments, data_arguments, sample_files("ner", "txt", recipes))
        corpus = corpora["train"]
        validation = corpora["validation"]
        check_arguments(arguments, model, corpus.inputs, EntityScorer(validation), validation.inputs)
        if getattr(model, "crf", None) is None:
            raise ValueError(f"{model_arguments.model_name_or_path} has no CRF, which the loss is for: give --head crf")

        def label() -> Dataset:
            texts, trust = texts_to_label(teacher_arguments, corpus, arguments.seed), model_arguments.trust_remote_code
            teachers = [load_teacher(name, corpus.labels, arguments, trust) for name in teacher_arguments.teachers]
            return label_texts(teachers, texts, corpus, arguments.per_device_eval_batch_size)

        student = student_fingerprint(corpus.processor, corpus.labels)
        soft = load_soft_labels(teacher_arguments, student, arguments, label)
        if arguments.num_train_epochs == 0:
            return
        gold = with_soft_labels(corpus.inputs, len(corpus.labels))
        arguments.remove_unused_columns = False  # soft labels are not an input of the model
        if missing := set(gold.column_names) - set(soft.column_names):
            raise ValueError(f"the soft labels have no {', '.join(sorted(missing))}: label the texts for this student")
        rows = concatenate_datasets([gold, soft.select_columns(gold.column_names).cast(gold.features)])
        publish_if_asked(train_tagger(model, corpora, rows, settings, arguments, DistillationTrainer))
