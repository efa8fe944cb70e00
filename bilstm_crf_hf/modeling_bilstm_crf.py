"""BiLSTM-CRF models in PyTorch. This file is copied into exported model repositories.

Letters in shapes: B sentences, S tokens with padding and special tokens, T tokens of the longest sequence without them,
H hidden size, K labels. Inside the models, tensors are time-major, see [`Sequences`].
"""

import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.utils import ModelOutput, can_return_tuple

from .alignment import IGNORED
from .configuration_bilstm_crf import BiLSTMCRFConfig
from .crf import LinearChainCRF
from .input_features import TOKEN_COLUMNS, InputFeatures, token_table
from .pipeline_bilstm_crf import CUSTOM_PIPELINES
from .processing_bilstm_crf import TEXT_INPUTS


@dataclass
class BiLSTMCRFOutput(ModelOutput):
    """Output of a tagger. Positions outside of a sequence hold 0, and -100 in `predictions`."""

    loss: Tensor | None = None
    """Negative log-likelihood of the labels, if given, mean over the sentences of the batch."""
    logits: Tensor | None = None
    """(B, S, K), in training the emissions, in evaluation the log-probabilities of the labels under the CRF."""
    predictions: Tensor | None = None
    """(B, S), label ids of the Viterbi path, in evaluation."""
    path_log_probs: Tensor | None = None
    """(B, S, 3), in evaluation: log-probabilities along the Viterbi path, see `LinearChainCRF.posterior`."""


@dataclass
class NBestOutput(ModelOutput):
    """Output of `nbest`, the best path first."""

    predictions: Tensor | None = None
    """(B, N, S), label ids; -100 outside of a sequence, and throughout if there are fewer than N paths."""
    probabilities: Tensor | None = None
    """(B, N), the posterior probability of each path; 0 if there is no such path, or no token."""


class Sequences:
    """The sequences in a padded batch: the tokens of each sentence that are attended to and not special.

    They are derived from the ids alone, so that they are the same in training and in inference, on either side of
    padding, with and without special tokens. Each sequence is moved to the timesteps from 0 on.

    Attributes:
        chosen: (B, S), true for the tokens of the sequences.
        inside: (T, B), true for the timesteps of the sequences.
        mask: (T, B), for the CRF, in which a sentence without tokens has one timestep, since none may be empty.
        lengths: (B,), numbers of tokens of the sequences.
    """

    def __init__(self, input_ids: Tensor, attention_mask: Tensor | None, special: Iterable[int]) -> None:
        chosen = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        for token_id in special:
            chosen = chosen & (input_ids != token_id)
        self.chosen = chosen
        positions = torch.arange(chosen.shape[1], device=chosen.device)
        self.order = torch.where(chosen, positions, positions + chosen.shape[1]).argsort(1)  # (B, S), chosen ones first
        self.lengths = chosen.sum(1)
        # Elsewhere the host would have to wait for the length; in an exported graph it would depend on the data.
        if input_ids.device.type == "cpu" and not torch.compiler.is_compiling():
            self.order = self.order[:, : max(1, int(self.lengths.max()))]
        steps = torch.arange(self.order.shape[1], device=input_ids.device)[:, None]
        self.inside = steps < self.lengths
        self.mask = self.inside | (steps == 0)
        sources = torch.where(self.inside, self.lengths - 1 - steps, steps)  # (T, B)
        batch = torch.arange(len(input_ids), device=input_ids.device)
        self.reversal = (sources * len(input_ids) + batch).flatten()  # of tensors seen as (T * B, D)

    def pack(self, values: Tensor) -> Tensor:
        """Move the values (B, S, ...) of each sequence to the timesteps from 0 on, (T, B, ...)."""
        return values.gather(1, _broadcast(self.order, values)).transpose(0, 1)

    def unpack(self, values: Tensor, fill: float = 0) -> Tensor:
        """Move the values (T, B, ...) back to the places of their tokens, (B, S, ...), with `fill` elsewhere."""
        rank = (self.chosen.cumsum(1) - 1).clamp(min=0)  # (B, S)
        spread = values.transpose(0, 1).gather(1, _broadcast(rank, values))
        return spread.masked_fill(_broadcast(~self.chosen, values), fill)

    def reverse(self, values: Tensor) -> Tensor:
        """Return (T, B, D) with each sequence reversed in its place; padding stays where it is."""
        return _Reversal.apply(values, self.reversal)


def _broadcast(matrix: Tensor, values: Tensor) -> Tensor:
    """Expand `matrix` by the dimensions of `values` from the third on; `torch.export` fails in `take_along_dim`."""
    return matrix.view(*matrix.shape, *(1,) * (values.dim() - 2)).expand(*matrix.shape, *values.shape[2:])


class _Reversal(torch.autograd.Function):
    """Permutation of the rows of (T, B, D) by `rows`, its own inverse; much faster than `gather` and its gradient."""

    @staticmethod
    def forward(ctx, values: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return values.flatten(0, 1).index_select(0, rows).view(values.shape)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _Reversal.apply(grad, *ctx.saved_tensors), None


def sequence_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | list[int]]:
    """Return the fields of a configuration that tell [`Sequences`] the padding and special tokens.

    Raises:
        ValueError: if the tokenizer has no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no padding token: set tokenizer.pad_token")
    special = sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})  # an unknown token is one of the text
    return {"pad_token_id": tokenizer.pad_token_id, "special_token_ids": special}


class LockedDropout(nn.Module):
    """Dropout with one mask for all timesteps of a sequence, over (T, B, D)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * nn.functional.dropout(torch.ones_like(x[:1]), self.p)


class BiLSTMLayer(nn.Module):
    """One bidirectional LSTM layer, (T, B, D) for either direction to (T, B, H), that padding does not change.

    Sequences begin at timestep 0, so the forward direction meets the padding last. The backward direction reads each
    sequence reversed in its place. Both run at the speed of the plain padded kernel; `pack_padded_sequence` is several
    times slower to train on CPU. The two `input_sizes` are D; H, `hidden_size`, is that of both directions together.
    """

    def __init__(self, input_sizes: tuple[int, int], hidden_size: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(input_sizes[0], hidden_size // 2)
        self.backward_lstm = nn.LSTM(input_sizes[1], hidden_size // 2)

    def forward(self, inputs: tuple[Tensor, Tensor], sequences: Sequences) -> Tensor:
        ahead, _ = self.forward_lstm(inputs[0])
        behind, _ = self.backward_lstm(sequences.reverse(inputs[1]))
        return torch.cat([ahead, sequences.reverse(behind)], -1)


def takes_text_inputs(forward: Callable) -> Callable:
    """Name the inputs of `TEXT_INPUTS` in the signature of `forward`: `Trainer` drops columns that it does not name."""
    signature = inspect.signature(forward)
    *parameters, keywords = signature.parameters.values()
    parameters += [keywords.replace(name=name, kind=keywords.KEYWORD_ONLY, default=None) for name in TEXT_INPUTS]
    forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by `inspect`
    return forward


class BiLSTMCRFPreTrainedModel(PreTrainedModel):
    """Base class of the models: initialisation, loading, saving, and the outputs of their heads."""

    config_class = BiLSTMCRFConfig
    auto_map = {
        "AutoModel": "modeling_bilstm_crf.BiLSTMCRFModel",
        "AutoModelForTokenClassification": "modeling_bilstm_crf.BiLSTMCRFForTokenClassification",
        "AutoModelForSequenceClassification": "modeling_bilstm_crf.BiLSTMForSequenceClassification",
    }
    """Classes that load a saved model with `trust_remote_code=True`, beside its own and that of its configuration."""
    base_model_prefix = "bilstm"
    accepts_loss_kwargs = False  # the loss is a mean over sentences, which Trainer has to scale when it accumulates
    _keep_in_fp32_modules_strict: list[str] | None = ["crf"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                if name.startswith("weight_hh"):
                    init.orthogonal_(parameter)
                elif name.startswith("weight_ih"):
                    init.xavier_uniform_(parameter)
                else:
                    # Open the forget gate, the second of i, f, g, o (Jozefowicz et al., 2015).
                    forget = torch.zeros(4, module.hidden_size)
                    forget[1] = name.startswith("bias_ih")
                    init.copy_(parameter, forget.flatten())
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            bound = self.config.embedding_norm * (3 / module.embedding_dim) ** 0.5
            init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, InputFeatures):
            module.reset_table()
            if self.config.kiwi_version:
                init.zeros_(module.morpheme_table)
        elif isinstance(module, LinearChainCRF):
            module.reset_parameters()
            module.reset_constraints()

    def new_crf(self, **options) -> LinearChainCRF:
        """Return a CRF over the labels of the configuration; `options` are arguments of [`LinearChainCRF`]."""
        labels = [self.config.id2label[i] for i in range(self.config.num_labels)]
        return LinearChainCRF(len(labels), labels=labels, **options)

    def sequences(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Sequences:
        """Return the sequences in a batch."""
        special = {self.config.pad_token_id, *(self.config.special_token_ids or [])} - {None}
        return Sequences(input_ids, attention_mask, special)

    def emissions(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Sequences]:
        """Return the emissions (T, B, K) for the CRF and their sequences; the arguments are those of `forward`."""
        raise NotImplementedError(f"{type(self).__name__} has no CRF")

    @torch.no_grad()
    def nbest(self, input_ids: Tensor, num_paths: int = 5, **inputs: Tensor | None) -> NBestOutput:
        """Return the `num_paths` most probable paths of each sentence with their exact probabilities."""
        emissions, sequences = self.emissions(input_ids, **inputs)
        mask = sequences.mask
        paths, scores = self.crf.nbest(emissions, mask, num_paths)  # (N, T, B), (N, B)
        # The scores of two paths of a long sentence may be equal in float32; their likelihoods are not.
        likelihoods = [self.crf(emissions, path.clamp(min=0), mask, reduction="none") for path in paths]
        nothing = scores.isinf() | (sequences.lengths == 0)
        probabilities = torch.stack(likelihoods).exp().masked_fill(nothing, 0)  # (N, B)
        predictions = torch.stack([sequences.unpack(path, fill=IGNORED) for path in paths], 1)  # (B, N, S)
        return NBestOutput(predictions=predictions, probabilities=probabilities.T)

    def crf_output(self, emissions: Tensor, sequences: Sequences, labels: Tensor | None) -> BiLSTMCRFOutput:
        """Return the output of a model with a CRF for emissions (T, B, K) and `labels` (B, S)."""
        # A sentence without any token is a sequence of one unknown label: its loss is 0, `unpack` drops the rest.
        output = BiLSTMCRFOutput()
        if labels is not None:
            tags = sequences.pack(labels).masked_fill(~sequences.inside, IGNORED)
            output["loss"] = -self.crf(emissions, tags, sequences.mask, reduction="mean")
        if self.training:
            output["logits"] = sequences.unpack(emissions)
        else:
            log_marginals, paths, path_log_probs = self.crf.posterior(emissions, sequences.mask)
            output["logits"] = sequences.unpack(log_marginals)
            output["predictions"] = sequences.unpack(paths, fill=IGNORED)
            output["path_log_probs"] = sequences.unpack(path_log_probs)
        return output

    def classifier_output(self, logits: Tensor, labels: Tensor | None) -> SequenceClassifierOutput:
        """Return the output of a text classifier for logits (B, K) and `labels`, ids (B,) or probabilities (B, K)."""
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, **config) -> "BiLSTMCRFPreTrainedModel":
        """Return a new model for the vocabulary of `tokenizer`, with the fields of [`BiLSTMCRFConfig`] as keywords."""
        fields = sequence_tokens(tokenizer) | {"token_columns": list(TOKEN_COLUMNS)}
        table = token_table(tokenizer)
        model = cls(BiLSTMCRFConfig(vocab_size=len(table), **fields, **config))
        model.base_model.features.reset_table(table)
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args, **kwargs):
        """Load a model as `PreTrainedModel` does; damaged weights are an OSError, like a missing model."""
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise OSError(
                f"the weights in {pretrained_model_name_or_path} cannot be read ({error}): "
                "model.safetensors is cut off or damaged, save or download it again"
            ) from error

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save the model as `PreTrainedModel` does, with the code, so that an interrupted save leaves files intact."""
        self.config.auto_map = dict(self.auto_map)
        is_classifier = self._auto_class == "AutoModelForSequenceClassification"  # which the stock pipeline suits
        self.config.custom_pipelines = {} if is_classifier else CUSTOM_PIPELINES
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        for interrupted in directory.glob(".saving-*"):
            shutil.rmtree(interrupted)
        kwargs.setdefault("repo_id", directory.name)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=directory) as folder:
            super().save_pretrained(folder, **kwargs)
            for file in Path(folder).iterdir():
                file.replace(directory / file.name)


class BiLSTMCRFModel(BiLSTMCRFPreTrainedModel):
    """BiLSTM layers over the input features, without a head."""

    _auto_class = "AutoModel"  # which makes `save_pretrained` copy the code

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        self.features = InputFeatures(config)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.locked_dropout = LockedDropout(config.locked_dropout)
        widths = [self.features.widths] + [(config.hidden_size, config.hidden_size)] * (config.num_hidden_layers - 1)
        self.layers = nn.ModuleList(BiLSTMLayer(width, config.hidden_size) for width in widths)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.features.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Set the token embeddings; in a larger vocabulary, each new id is a different character."""
        self.features.word_embeddings = value
        self.features.resize_table(value.num_embeddings)

    def encode(self, input_ids: Tensor, sequences: Sequences, **text_inputs: Tensor | None) -> Tensor:
        """Return the hidden states (T, B, H) of the sequences; behind the end of a sequence they are arbitrary."""
        for name in text_inputs:
            if name not in TEXT_INPUTS:
                raise TypeError(f"{type(self).__name__}.encode() got an unexpected keyword argument {name!r}")
        kept = None
        if self.training and self.config.word_dropout:
            kept = torch.rand(sequences.inside.shape, device=input_ids.device) >= self.config.word_dropout

        def drop(x: Tensor) -> Tensor:
            x = self.locked_dropout(self.embedding_dropout(x))
            return x if kept is None else x * kept[..., None]

        text_inputs = {name: sequences.pack(ids) for name, ids in text_inputs.items() if ids is not None}
        ahead, behind = self.features(sequences.pack(input_ids), sequences.inside, **text_inputs)
        x = drop(ahead)
        inputs = (x, x if behind is ahead else drop(behind))
        for layer in self.layers:
            x = self.locked_dropout(layer(inputs, sequences))
            inputs = (x, x)
        return x

    @can_return_tuple
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> BaseModelOutput:
        """Return the hidden states (B, S, H), 0 at special and padded tokens; the arguments are those of a tagger."""
        sequences = self.sequences(input_ids, attention_mask)
        return BaseModelOutput(last_hidden_state=sequences.unpack(self.encode(input_ids, sequences)))


class BiLSTMCRFForTokenClassification(BiLSTMCRFPreTrainedModel):
    """A BiLSTM with linear emissions and a CRF, which the tag scheme of the labels constrains by default."""

    _auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        self.bilstm = BiLSTMCRFModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.crf = self.new_crf(constrained=config.constrained)
        self.post_init()

    def emissions(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **text_inputs: Tensor | None,
    ) -> tuple[Tensor, Sequences]:
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        return self.classifier(self.bilstm.encode(input_ids, sequences, **text_inputs)), sequences

    @can_return_tuple
    @takes_text_inputs
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **text_inputs: Tensor | None,
    ) -> BiLSTMCRFOutput:
        """Tag a batch of sentences.

        Args:
            input_ids: (B, S).
            attention_mask: (B, S), 0 on padding. Default: 1 on all tokens but `pad_token_id`.
            token_type_ids: not used; tokenizers made for BERT return them.
            labels: (B, S). -100 outside of the sequences; -100 within one is an unknown label, summed over.
            text_inputs: (B, S) each, such as `morpheme_ids`, if the configuration asks for them, see
                `processing_bilstm_crf.TEXT_INPUTS`; without them the model tags less well.

        Returns:
            The output; with `return_dict=False`, here or in the configuration, a tuple of its values.
        """
        return self.crf_output(*self.emissions(input_ids, attention_mask, **text_inputs), labels)


class BiLSTMForSequenceClassification(BiLSTMCRFPreTrainedModel):
    """A BiLSTM, maximum pooling over the tokens of the sequence, dropout and a linear layer."""

    _auto_class = "AutoModelForSequenceClassification"
    _keep_in_fp32_modules_strict = None  # there is no CRF

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        self.bilstm = BiLSTMCRFModel(config)
        self.dropout = nn.Dropout(config.locked_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Compute the logits (B, K); for a text without any token, they are the biases of the last layer.

        `labels` are ids (B,) or probabilities (B, K): the loss is the cross entropy, mean over the texts of the batch.
        The other arguments are those of [`BiLSTMCRFForTokenClassification`].
        """
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        hidden = self.bilstm.encode(input_ids, sequences)  # (T, B, H)
        pooled = hidden.masked_fill(~sequences.inside[..., None], -torch.inf).amax(0)
        pooled = pooled.masked_fill((sequences.lengths == 0)[:, None], 0)
        return self.classifier_output(self.classifier(self.dropout(pooled)), labels)
