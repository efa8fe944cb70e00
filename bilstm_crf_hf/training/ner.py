"""Training of a tagger: the data, the model and the scores of a finished run."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.hf_argparser import HfArg

from ..alignment import render
from ..data.collation import TaggingCollator
from ..data.encoding import EncodedCorpus, best_labels
from ..data.ner import CorpusArguments, labels_of, load_ner_datasets
from ..data.splits import SourceArguments, load_splits
from ..evaluation.markdown import one_line
from ..evaluation.metrics import EntityScorer
from ..evaluation.runs import ENCODER_TOKENIZER
from ..evaluation.tasks import TAGGING
from ..modeling_character_encoder import CharacterEncoderForTokenClassification
from ..models import model_path
from ..processing_bilstm_crf import BiLSTMCRFProcessor, usable_positions
from .arguments import ModelArguments, TaggerArguments, TaggerTrainingArguments
from .distillation import DistillationTrainer, with_own_posteriors
from .loading import load_model, load_tokenizer
from .new_labels import types_without_entity
from .trainer import TaggerTrainer

logger = logging.getLogger(__name__)


@dataclass
class DataArguments(SourceArguments, CorpusArguments):
    """Arguments that name the sentences, and how they are read, split and padded."""

    pad_to_max_length: bool = HfArg(default=False, help="Pad to max_seq_length, not to the longest of a batch.")
    stride: int | None = HfArg(
        default=None, help="The number of tokens that neighbouring parts of a split sentence share. Default: up to 32."
    )
    num_examples: int = HfArg(default=5, help="The number of tagged validation sentences that are printed at the end.")


def prepare_tagging(
    model_arguments: ModelArguments, data_arguments: DataArguments, sample: Mapping[str, Path]
) -> tuple[PreTrainedModel, dict[str, EncodedCorpus]]:
    """Load the model, and encode the sentences of each split: those in the files of `sample` if no data are named.

    Raises:
        ValueError: if the data cannot be read, or the training sentences have no entity.
    """
    datasets = load_splits(load_ner_datasets, data_arguments, sample, **data_arguments.options)
    texts = datasets["train"]["text"]
    tokenizer = load_tokenizer(model_arguments, texts)
    model = load_model(model_arguments, tokenizer, labels_of(datasets["train"]), texts=texts)
    tokenizer.model_max_length = usable_positions(tokenizer, model.config)  # which is saved with the model
    pieces = load_piece_tokenizer(
        model,
        model_arguments.model_name_or_path,
        subfolder="" if model_arguments.head else ENCODER_TOKENIZER,
        trust_remote_code=model_arguments.trust_remote_code,
    )
    labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
    processor = BiLSTMCRFProcessor(tokenizer, model.config, pieces)
    limits, corpora = (data_arguments.max_seq_length, data_arguments.stride), {}
    known = set(datasets["train"]["text"])
    for split, dataset in datasets.items():
        corpora[split] = corpus = EncodedCorpus(dataset, processor, labels, *limits)
        logger.info("%s: %d sentences, %d of them split", split, len(dataset), corpus.split_sentences)
        entities = Counter(span.label for spans in corpus.spans for span in spans)
        logger.info("%s: entities %s", split, ", ".join(f"{label} {entities[label]}" for label in sorted(entities)))
        if split != "train" and (repeated := sum(text in known for text in corpus.texts)):
            logger.warning("%s: %d of its sentences are in train, too", split, repeated)
    if not any(corpora["train"].spans):  # the corpus has some, see `load_ner_datasets`
        raise ValueError(f"the {len(datasets['train'])} training sentences have no entity: raise max_train_samples")
    return model, corpora


def training_rows(
    model: PreTrainedModel,
    corpora: Mapping[str, EncodedCorpus],
    model_arguments: TaggerArguments,
    arguments: TaggerTrainingArguments,
) -> tuple[Dataset, type[TaggerTrainer]]:
    """Return the rows to train a tagger on, with what it holds on to if it is asked to, and the trainer for them.

    Raises:
        ValueError: see [`with_own_posteriors`].
    """
    corpus, share = corpora["train"], model_arguments.distill_from_self
    missing = ", ".join(types_without_entity(corpus))
    if not share:
        if missing and model_arguments.model_name_or_path and not model_arguments.head:
            remedy = "give --distill_from_self 1.0 if they are not annotated"
            logger.warning("train: no entity of %s: the model forgets what it knows of them, %s", missing, remedy)
        return corpus.inputs, TaggerTrainer
    rows = with_own_posteriors(model.to(arguments.device), corpus, share, arguments.per_device_eval_batch_size)
    logger.info("train: no entity of %s, which the model holds on to", missing)
    if unseen := ", ".join(types_without_entity(corpora["validation"])):
        remedy = "choose the best epoch by the F1 of a type, with --metric_for_best_model TYPE_f1"
        logger.warning("validation: no entity of %s: those that the model finds count as errors, %s", unseen, remedy)
    arguments.remove_unused_columns = False  # soft labels are not an input of the model
    return rows, DistillationTrainer


def load_piece_tokenizer(
    model: PreTrainedModel, name: str | None, subfolder: str = ENCODER_TOKENIZER, **options: Any
) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of the encoder in the tagger of characters `name`; return None for any other model."""
    if not isinstance(model, CharacterEncoderForTokenClassification):
        return None
    return AutoTokenizer.from_pretrained(name and model_path(name), subfolder=subfolder, **options)


def train_tagger(
    model: PreTrainedModel,
    corpora: dict[str, EncodedCorpus],
    rows: Dataset,
    settings: Sequence[Any],
    arguments: TaggerTrainingArguments,
    trainer_class: type[TaggerTrainer] = TaggerTrainer,
) -> TaggerTrainer:
    """Train a tagger, save the finished run, print its scores and examples, and return the trainer.

    Args:
        model: the tagger.
        corpora: the encoded sentences of each split.
        rows: the rows to train on: those of `corpora["train"]`, and further ones.
        settings: the argument dataclasses of the run without those of the training; the second are `DataArguments`.
        arguments: the arguments of the training.
        trainer_class: the class of the trainer.
    """
    data_arguments, validation, padding = settings[1], corpora["validation"], {}
    tokenizer = validation.processor.tokenizer
    if data_arguments.pad_to_max_length:
        padding = {"padding": "max_length", "max_length": validation.limit}
    scorers = {split: EntityScorer(corpus) for split, corpus in corpora.items()}
    trainer = trainer_class(
        model,
        arguments,
        data_collator=TaggingCollator(tokenizer, **padding),
        train_dataset=rows,
        eval_dataset=validation.inputs,
        processing_class=tokenizer,
        compute_metrics=scorers["validation"],
        preprocess_logits_for_metrics=best_labels,
        columns=TAGGING.columns,
        choices=asdict(settings[0]),
    )
    pieces = validation.processor.piece_tokenizer
    inputs = {split: corpus.inputs for split, corpus in corpora.items()}
    final, results = trainer.train_and_score(inputs, scorers, {} if pieces is None else {ENCODER_TOKENIZER: pieces})
    results |= {f"{split}_sentences": len(corpus.texts) for split, corpus in corpora.items()}
    if trainer.is_world_process_zero():
        entities = scorers["validation"].entities(final.predictions)
        trainer.finish(settings, results, zip(validation.texts, validation.spans, entities, strict=True))
        print("\nValidation sentences, tagged by the saved model:")
        for text, spans in zip(validation.texts[: data_arguments.num_examples], entities):
            print(" ", one_line(render(text, spans)))
    return trainer
