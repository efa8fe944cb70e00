"""Training in `bilstm-crf benchmark`: single steps, whole epochs, and where the time of a step goes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from .. import BiLSTMCRFForTokenClassification
from ..configuration_encoder import EncoderCRFConfig
from ..data.collation import TaggingCollator
from ..data.encoding import EncodedCorpus
from ..data.tokenization import build_character_tokenizer
from ..evaluation.tasks import label_maps
from ..modeling_bilstm_crf import sequence_tokens
from ..modeling_encoder import EncoderCRFForTokenClassification
from ..processing_bilstm_crf import BiLSTMCRFProcessor
from ..training.arguments import TaggerTrainingArguments
from ..training.optimization import RowAdamW, clip_gradients, use_sparse_gradients
from ..training.trainer import TaggerTrainer
from ..utils.timing import medians, synchronize
from . import benchmark_peers as peers

TUTORIAL = {
    "embedding_size": 768,
    "hidden_size": 256,
    "embedding_norm": 1.0,
    "ngrams": [],
    "jamo_embedding_size": 0,
    "locked_dropout": 0.0,
    "word_dropout": 0.0,
}
"""Configuration of the tutorial's model, as in recipes/configs/klue_ner_blog.yaml."""

MAX_LENGTH = 128
"""Limit in tokens of a sentence, as in the tutorial."""

PROFILED_STEPS = 30
"""Training steps that are profiled."""


class SoftmaxTagger(BiLSTMCRFForTokenClassification):
    """The default model with a softmax in place of the CRF."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the mean cross entropy of `labels` (B, S)."""
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        emissions = self.classifier(self.bilstm.encode(input_ids, sequences))
        tags = sequences.pack(labels).masked_fill(~sequences.inside, -100)
        return {"loss": nn.functional.cross_entropy(emissions.flatten(0, 1), tags.flatten())}


class TrainingBenchmark:
    """Models, tokenizers and batches that the tables of training share.

    Args:
        data: sentences to train on, with `text` and character `tags`.
        labels: names of the tags.
        pieces: WordPiece tokenizer of the tutorial's model and of BERT; None for characters.
        device: `cpu` or `cuda`.
        folder: output folder of `Trainer`.
    """

    def __init__(
        self,
        data: Dataset,
        labels: list[str],
        pieces: PreTrainedTokenizerBase | None,
        device: str,
        folder: Path,
    ) -> None:
        self.labels, self.device, self.folder = labels, device, folder
        self.characters = build_character_tokenizer(data["text"], 2)
        self.pieces = pieces or self.characters
        self.corpora = {
            id(t): EncodedCorpus(data, BiLSTMCRFProcessor(t), labels, MAX_LENGTH)
            for t in (self.characters, self.pieces)
        }

    def tagger(
        self, tokenizer: PreTrainedTokenizerBase, model_class: type = BiLSTMCRFForTokenClassification, **config
    ) -> PreTrainedModel:
        """Return a new BiLSTM tagger, on the device, with the fields of its configuration as keywords."""
        return model_class.from_tokenizer(tokenizer, **label_maps(self.labels), **config).to(self.device)

    def bert_crf(self) -> EncoderCRFForTokenClassification:
        """Return a CRF on a random encoder of BERT-base's shape."""
        config = EncoderCRFConfig(
            encoder_config=BertConfig(vocab_size=len(self.pieces)),
            **sequence_tokens(self.pieces),
            **label_maps(self.labels),
        )
        return EncoderCRFForTokenClassification(config)

    def batches(
        self, tokenizer: PreTrainedTokenizerBase, count: int, pad_to: int | None = None
    ) -> list[dict[str, Tensor]]:
        """Return batches of 32 sentences of similar length, evenly over all lengths; or at random, padded to `pad_to`.

        Args:
            count: number of batches.
        """
        inputs = self.corpora[id(tokenizer)].inputs  # sorted by length
        order = torch.randperm(len(inputs)).tolist() if pad_to else range(len(inputs))
        starts = [int((n + 0.5) / count * (len(order) - 32)) for n in range(count)]
        collator = TaggingCollator(tokenizer, padding="max_length" if pad_to else True, max_length=pad_to)
        batches = [collator([inputs[i] for i in order[start : start + 32]]) for start in starts]
        return [{name: values.to(self.device) for name, values in batch.items()} for batch in batches]

    def trainer(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: int | None, **options
    ) -> TaggerTrainer:
        """Return a trainer over the first `sentences` (None: all) in random order, without evaluation.

        Args:
            options: training arguments. Default: an epoch, in bfloat16 off the CPU.
        """
        accelerated = self.device != "cpu"
        options = {
            "num_train_epochs": 1,
            "eval_strategy": "no",
            "save_strategy": "no",
            "load_best_model_at_end": False,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": not accelerated,
            "bf16": accelerated,
        } | options
        rows = self.corpora[id(tokenizer)].inputs.shuffle(seed=0)
        return TaggerTrainer(
            model,
            TaggerTrainingArguments(str(self.folder), **options),
            columns={},
            data_collator=TaggingCollator(tokenizer),
            train_dataset=rows if sentences is None else rows.select(range(min(sentences, len(rows)))),
            processing_class=tokenizer,
        )

    def step_rows(self, steps: int, rounds: int) -> Iterator[dict]:
        """Yield the time of a step of 32 sentences of each model and of the tutorial's loop, in float32."""
        characters, pieces = self.characters, self.pieces
        sentences = min(len(self.corpora[id(characters)].inputs), 4 * 32 * steps)  # some of Trainer's work is per run
        default = self.tagger(characters)
        tutorial = peers.TutorialTagger(len(pieces), len(self.labels)).to(self.device)
        trainers = {
            "tutorial's model, Trainer": self.trainer(self.tagger(pieces, **TUTORIAL), pieces, sentences, bf16=False),
            "default model, Trainer": self.trainer(self.tagger(characters), characters, sentences, bf16=False),
        }
        batches = self.batches(characters, steps)
        softmax = self.tagger(characters, SoftmaxTagger)
        candidates = {
            "tutorial's loop": peers.tutorial_steps(tutorial, self.batches(pieces, steps, pad_to=MAX_LENGTH)),
            "tutorial's model": our_steps(self.tagger(pieces, **TUTORIAL), self.batches(pieces, steps)),
            "default model": our_steps(default, batches),
            "default model, softmax": our_steps(softmax, batches),
            "default model, LSTM kernels": lstm_steps(default, batches),
        }
        seconds = medians(candidates | {name: trainer.train for name, trainer in trainers.items()}, rounds)
        step = {name: 32 * value / (sentences if name in trainers else 32 * steps) for name, value in seconds.items()}
        for name, value in step.items():
            yield {
                "what": name,
                "sentences a second": 32 / value,
                "ms a step of 32": 1e3 * value,
                "times the tutorial's loop": step["tutorial's loop"] / value,
                "of the default model's step": value / step["default model"] if "default" in name else None,
            }

    def epoch_rows(self, sentences: int | None) -> Iterator[dict]:
        """Yield the time of an epoch by `Trainer` of each model and of BERT-base, in bfloat16 off the CPU.

        The second epoch of two is timed: the first one also loads kernels.

        Args:
            sentences: number of sentences that are trained on, from which the time of all is estimated; None for all.
        """
        characters, pieces = self.characters, self.pieces
        candidates = {
            "BERT-base, token head": (lambda: peers.bert_base(pieces, self.labels), pieces, {}),
            "BERT-base, CRF": (self.bert_crf, pieces, {}),
            "tutorial's model": (lambda: self.tagger(pieces, **TUTORIAL), pieces, {}),
            "default model": (lambda: self.tagger(characters), characters, {}),
            "default model, float32": (lambda: self.tagger(characters), characters, {"bf16": False}),
        }
        bert = None
        for name, (build, tokenizer, options) in candidates.items():
            trainer = self.trainer(build(), tokenizer, sentences, num_train_epochs=2, **options)
            trainer.train()
            steps = trainer.state.max_steps / 2
            seconds = trainer.epoch_report.seconds[-1] * len(self.corpora[id(tokenizer)].inputs)
            seconds /= len(trainer.train_dataset)
            bert = bert or seconds
            yield {
                "what": name,
                "seconds an epoch": seconds,
                "steps a second": steps / trainer.epoch_report.seconds[-1],
                "times BERT-base with a token head": bert / seconds,
            }

    def profile_rows(self) -> Iterator[dict]:
        """Yield where the time of a step by `Trainer` goes; write the whole tables to profile.txt."""
        accelerated = self.device != "cpu"
        by = "self_device_time_total" if accelerated else "self_cpu_time_total"
        candidates = {"default model": (lambda: self.tagger(self.characters), self.characters, {})}
        if accelerated:
            bert = lambda: peers.bert_base(self.pieces, self.labels)  # noqa: E731
            candidates["default model, no CUDA graphs"] = (*candidates["default model"][:2], {"cuda_graphs": False})
            candidates["BERT-base, token head"] = (bert, self.pieces, {})
        tables = []
        for name, (build, tokenizer, options) in candidates.items():
            profiled = ProfiledSteps(accelerated)
            trainer = self.trainer(build(), tokenizer, None, max_steps=profiled.end, **options)
            trainer.add_callback(profiled)
            trainer.train()
            events = profiled.profiler.key_averages()
            tables += [name]
            tables += [events.table(sort_by=key, row_limit=50) for key in dict.fromkeys((by, "self_cpu_time_total"))]
            busy = sum(getattr(event, by) for event in events if accelerated == (event.device_type.name == "CUDA"))
            yield {
                "what": name,
                "ms a step by Trainer": 1e3 * profiled.seconds / PROFILED_STEPS,
                f"ms of {self.device} busy": busy / 1e3 / PROFILED_STEPS,
                "launches": sum(event.count for event in events if "Launch" in event.key) / PROFILED_STEPS,
            }
        (self.folder / "profile.txt").write_text("\n".join(tables), encoding="utf-8")


class ProfiledSteps(TrainerCallback):
    """A callback that times `PROFILED_STEPS` steps, and profiles as many, once the first steps have loaded kernels.

    Attributes:
        end: the step at which it is done.
        seconds: time of the steps without profiling.
    """

    def __init__(self, accelerated: bool) -> None:
        self.warm_up = 150 if accelerated else 5
        self.end = self.warm_up + 2 * PROFILED_STEPS
        self.profiler = profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * accelerated)
        self.seconds = 0.0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Start and stop the clock, then the profiler."""
        if state.global_step == self.warm_up:
            synchronize()
            self.seconds -= time.perf_counter()
        elif state.global_step == self.warm_up + PROFILED_STEPS:
            synchronize()
            self.seconds += time.perf_counter()
            self.profiler.start()
        elif state.global_step == self.end:
            synchronize()
            self.profiler.stop()


def our_steps(model: nn.Module, batches: list[dict[str, Tensor]]) -> Callable[[], None]:
    """Return training steps as `TaggerTrainer` takes them, without what `Trainer` does around them."""
    if model.device.type == "cpu":
        use_sparse_gradients(model)
    optimizer = RowAdamW(model.parameters(), lr=1e-3, fused=True)
    model.train()

    def steps() -> None:
        for batch in batches:
            model(**batch)["loss"].backward()
            clip_gradients(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()

    return steps


def lstm_steps(model: BiLSTMCRFForTokenClassification, batches: list[dict[str, Tensor]]) -> Callable[[], None]:
    """Return the LSTM kernels of the same steps alone, forward and backward."""
    shapes = [model.bilstm.sequences(batch["input_ids"], batch["attention_mask"]).inside.shape for batch in batches]
    layers = [lstm for layer in model.bilstm.layers for lstm in layer.children()]

    def steps() -> None:
        for timesteps, size in shapes:
            for lstm in layers:
                x = torch.randn(timesteps, size, lstm.input_size, device=model.device, requires_grad=True)
                lstm(x)[0].sum().backward()

    return steps
