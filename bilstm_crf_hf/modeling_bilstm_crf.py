"""BiLSTM-CRF models in PyTorch. This file is copied into exported model repositories.

Letters in shapes: B sentences, S tokens with padding and special tokens, T tokens of the longest sequence, K labels.
Inside, the tokens of a sentence's sequence (attended to, and not special) stand in front and tensors are time-major.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.utils import ModelOutput

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .crf import UNKNOWN, LinearChainCRF
from .input_features import InputFeatures, token_table
from .pipeline_bilstm_crf import CUSTOM_PIPELINES

AUTO_MAP = {
    "AutoConfig": "configuration_bilstm_crf.BiLSTMCRFConfig",
    "AutoModel": "modeling_bilstm_crf.BiLSTMCRFModel",
    "AutoModelForTokenClassification": "modeling_bilstm_crf.BiLSTMCRFForTokenClassification",
    "AutoModelForSequenceClassification": "modeling_bilstm_crf.BiLSTMForSequenceClassification",
}
"""Entry of a saved configuration by which the Auto classes find the code, with `trust_remote_code=True`."""


@dataclass
class BiLSTMCRFOutput(ModelOutput):
    """Output of [`BiLSTMCRFForTokenClassification`]. Positions outside of a sequence hold 0, and -100 in `predictions`.

    Args:
        loss: scalar, if labels were given: the negative log-likelihood, mean over the sentences of the batch.
        logits: (B, S, K). In evaluation the logarithm of each label's posterior probability, so that their softmax is
            that probability; in training the emissions of the CRF.
        predictions: (B, S), in evaluation: the label ids of the best path.
        path_log_probs: (B, S, 3), in evaluation: from which the exact probability of each entity on the best path
            follows, see `LinearChainCRF.posterior`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    predictions: Tensor | None = None
    path_log_probs: Tensor | None = None


class Sequences:
    """Which tokens of a padded batch make up the sequences, and the way there and back.

    The sequence of a sentence is its tokens that are attended to and not special: derived from the ids alone, it is
    the same in training and inference, on either side of padding, with and without special tokens.
    """

    def __init__(self, input_ids: Tensor, attention_mask: Tensor | None, special: Iterable[int]) -> None:
        """Args: input_ids (B, S); attention_mask (B, S) or None for all ones; special: ids that belong to none."""
        chosen = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        for token_id in special:
            chosen = chosen & (input_ids != token_id)
        self.chosen = chosen  # (B, S)
        positions = torch.arange(chosen.shape[1], device=chosen.device)
        self.order = torch.where(chosen, positions, positions + chosen.shape[1]).argsort(1)  # (B, S), chosen ones first
        self.lengths = self.chosen.sum(1)  # (B,)
        if input_ids.device.type == "cpu":  # elsewhere the host would have to wait for the length
            self.order = self.order[:, : max(1, int(self.lengths.max()))]
        steps = torch.arange(self.order.shape[1], device=input_ids.device)[:, None]
        self.inside = steps < self.lengths  # (T, B)
        sources = torch.where(self.inside, self.lengths - 1 - steps, steps)  # (T, B)
        batch = torch.arange(len(input_ids), device=input_ids.device)
        self.reversal = (sources * len(input_ids) + batch).flatten()  # of tensors seen as (T * B, D)

    @classmethod
    def of(cls, config: PreTrainedConfig, input_ids: Tensor, attention_mask: Tensor | None) -> "Sequences":
        """The sequences under a configuration with `pad_token_id` and `special_token_ids`."""
        return cls(input_ids, attention_mask, {config.pad_token_id, *(config.special_token_ids or [])} - {None})

    def front(self, values: Tensor) -> Tensor:
        """(B, S, ...) to (T, B, ...): the values of each sequence from timestep 0 on."""
        order = self.order.view(*self.order.shape, *(1,) * (values.dim() - 2))
        return values.gather(1, order.expand(*self.order.shape, *values.shape[2:])).transpose(0, 1)

    def back(self, values: Tensor, fill: float = 0) -> Tensor:
        """(T, B, ...) to (B, S, ...): each timestep where its token stands, `fill` elsewhere."""
        rank = (self.chosen.cumsum(1) - 1).clamp(min=0)  # (B, S)
        values = values.transpose(0, 1)
        trailing = (1,) * (values.dim() - 2)
        spread = values.gather(1, rank.view(*rank.shape, *trailing).expand(*rank.shape, *values.shape[2:]))
        return spread.masked_fill(~self.chosen.view(*rank.shape, *trailing), fill)

    def reverse(self, values: Tensor) -> Tensor:
        """(T, B, D) with each sequence turned round and padding left where it is."""
        return _Reversal.apply(values, self.reversal)


class _Reversal(torch.autograd.Function):
    """Rows of (T, B, D) in the order `rows`, which is its own inverse; much faster than `gather` and its gradient."""

    @staticmethod
    def forward(ctx, values: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return values.flatten(0, 1).index_select(0, rows).view(values.shape)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _Reversal.apply(grad, *ctx.saved_tensors), None


def sequence_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | list[int]]:
    """The fields of a configuration by which [`Sequences`] tells padding and special tokens; unknown ones count.

    Raises:
        ValueError: the tokenizer has no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no padding token: set tokenizer.pad_token")
    special = sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})
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
    """One bidirectional layer, (T, B, D) for either direction to (T, B, H), that pays no heed to padding.

    Sequences begin at timestep 0, so the forward direction meets the padding last. The backward one reads each
    sequence reversed in its own place. Both run at the speed of the plain padded kernel; `pack_padded_sequence` is
    several times slower to train on CPU.
    """

    def __init__(self, input_sizes: tuple[int, int], hidden_size: int) -> None:
        """`input_sizes`: D of the forward and of the backward direction."""
        super().__init__()
        self.forward_lstm = nn.LSTM(input_sizes[0], hidden_size // 2)
        self.backward_lstm = nn.LSTM(input_sizes[1], hidden_size // 2)

    def forward(self, inputs: tuple[Tensor, Tensor], sequences: Sequences) -> Tensor:
        ahead, _ = self.forward_lstm(inputs[0])
        behind, _ = self.backward_lstm(sequences.reverse(inputs[1]))
        return torch.cat([ahead, sequences.reverse(behind)], -1)


class BiLSTMCRFPreTrainedModel(PreTrainedModel):
    """Initialisation and loading common to the models."""

    config_class = BiLSTMCRFConfig
    auto_map = AUTO_MAP
    base_model_prefix = "bilstm"
    accepts_loss_kwargs = False  # the loss is a mean over sentences, which Trainer has to scale when it accumulates
    _keep_in_fp32_modules_strict = ["crf"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                if name.startswith("weight_hh"):
                    init.orthogonal_(parameter)
                elif name.startswith("weight_ih"):
                    init.xavier_uniform_(parameter)
                else:
                    # The forget gate, second of i, f, g, o, begins open (Jozefowicz et al., 2015).
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
            if self.config.morphemes:
                init.zeros_(module.morpheme_table)
        elif isinstance(module, LinearChainCRF):
            module.reset_parameters()
            module.reset_constraints()

    def new_crf(self, **options) -> LinearChainCRF:
        """A CRF over the labels of the configuration, with the arguments of [`LinearChainCRF`] as keywords."""
        labels = [self.config.id2label[i] for i in range(self.config.num_labels)]
        return LinearChainCRF(len(labels), labels=labels, **options)

    def tag(
        self, emissions: Tensor, sequences: Sequences, labels: Tensor | None, return_dict: bool | None
    ) -> BiLSTMCRFOutput | tuple:
        """What a model with a CRF makes of emissions (T, B, K)."""
        # A sentence without any token is a sequence of one unknown label: its loss is 0, and `back` drops the rest.
        mask = sequences.inside.clone()
        mask[0] = True
        output = BiLSTMCRFOutput()
        if labels is not None:
            tags = sequences.front(labels).masked_fill(~sequences.inside, UNKNOWN)
            output["loss"] = -self.crf(emissions, tags, mask, reduction="mean")
        if self.training:
            output["logits"] = sequences.back(emissions)
        else:
            log_marginals, paths, path_log_probs = self.crf.posterior(emissions, mask)
            output["logits"] = sequences.back(log_marginals)
            output["predictions"] = sequences.back(paths, fill=UNKNOWN)
            output["path_log_probs"] = sequences.back(path_log_probs)
        return output if _wants_dict(self, return_dict) else output.to_tuple()

    def classify(
        self, logits: Tensor, labels: Tensor | None, return_dict: bool | None
    ) -> SequenceClassifierOutput | tuple:
        """What a model that classifies texts makes of logits (B, K) and `labels` (B,) or (B, K)."""
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output if _wants_dict(self, return_dict) else output.to_tuple()

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, **config) -> "BiLSTMCRFPreTrainedModel":
        """A new model for the vocabulary of `tokenizer`, with the fields of [`BiLSTMCRFConfig`] as keywords.

        Raises:
            ValueError: the tokenizer has no padding token.
        """
        tokens = sequence_tokens(tokenizer)
        table = token_table(tokenizer)
        model = cls(BiLSTMCRFConfig(vocab_size=len(table), **tokens, **config))
        getattr(model, model.base_model_prefix, model).features.reset_table(table)
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args, **kwargs):
        """As every model's.

        Raises:
            OSError: there is no model at this place, or its weights are damaged.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except SafetensorError as error:
            raise OSError(
                f"the weights in {pretrained_model_name_or_path} cannot be read ({error}): "
                "model.safetensors is cut off or damaged, save or download it again"
            ) from error

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """As every model's, with the code of all models and of the pipeline.

        Files are written in a folder of their own and then moved into place, so that an interrupted save leaves those
        of an earlier one whole.
        """
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
    """Input features and BiLSTM layers without a head."""

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
        """As every model's; in a larger vocabulary, new ids are characters of their own."""
        self.features.word_embeddings = value
        self.features.resize_table(value.num_embeddings)

    def sequences(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Sequences:
        """The sequences in a batch: see [`Sequences`]."""
        return Sequences.of(self.config, input_ids, attention_mask)

    def encode(self, input_ids: Tensor, sequences: Sequences, morpheme_ids: Tensor | None = None) -> Tensor:
        """Hidden states (T, B, H) of the sequences, each from timestep 0 on; padding behind them holds anything."""
        kept = None
        if self.training and self.config.word_dropout:
            kept = torch.rand(sequences.inside.shape, device=input_ids.device) >= self.config.word_dropout

        def drop(x: Tensor) -> Tensor:
            x = self.locked_dropout(self.embedding_dropout(x))
            return x if kept is None else x * kept[..., None]

        morphemes = None if morpheme_ids is None else sequences.front(morpheme_ids)
        ahead, behind = self.features(sequences.front(input_ids), sequences.inside, morphemes)
        x = drop(ahead)
        inputs = (x, x if behind is ahead else drop(behind))
        for layer in self.layers:
            x = self.locked_dropout(layer(inputs, sequences))
            inputs = (x, x)
        return x

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple:
        """Hidden states (B, S, H) of the tokens, 0 at special and padded ones. `token_type_ids` are not used."""
        sequences = self.sequences(input_ids, attention_mask)
        hidden = sequences.back(self.encode(input_ids, sequences))
        output = BaseModelOutput(last_hidden_state=hidden)
        return output if _wants_dict(self, return_dict) else output.to_tuple()


class BiLSTMCRFForTokenClassification(BiLSTMCRFPreTrainedModel):
    """BiLSTM, linear emissions and a CRF, which the names of the labels constrain unless the configuration says no."""

    _auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bilstm = BiLSTMCRFModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.crf = self.new_crf(constrained=config.constrained)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        morpheme_ids: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BiLSTMCRFOutput | tuple:
        """
        Args:
            input_ids: (B, S).
            attention_mask: (B, S), 0 on padding. Default: everything that is not `pad_token_id`.
            token_type_ids: not used; tokenizers made for BERT pass them.
            labels: (B, S). -100 outside of the sequences; -100 within one is an unknown label, summed over.
            morpheme_ids: (B, S), see `morphemes.morpheme_ids`, for a model that reads morphemes; it tags less well
                without.
        """
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        emissions = self.classifier(self.bilstm.encode(input_ids, sequences, morpheme_ids))
        return self.tag(emissions, sequences, labels, return_dict)


class BiLSTMForSequenceClassification(BiLSTMCRFPreTrainedModel):
    """BiLSTM, the largest value of each hidden unit over the tokens of the sequence, dropout and a linear layer."""

    _auto_class = "AutoModelForSequenceClassification"
    _keep_in_fp32_modules_strict = None  # there is no CRF

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bilstm = BiLSTMCRFModel(config)
        self.dropout = nn.Dropout(config.locked_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple:
        """
        Args:
            input_ids: (B, S).
            attention_mask: (B, S), 0 on padding. Default: everything that is not `pad_token_id`.
            token_type_ids: not used; tokenizers made for BERT pass them.
            labels: (B,), or probabilities (B, K), of which the loss is the cross entropy, mean over the texts of the
                batch.

        Returns:
            `logits` (B, K). Those of a sentence without any token are the biases of the last layer.
        """
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        hidden = self.bilstm.encode(input_ids, sequences)  # (T, B, H)
        pooled = hidden.masked_fill(~sequences.inside[..., None], -torch.inf).amax(0)
        pooled = pooled.masked_fill((sequences.lengths == 0)[:, None], 0)
        return self.classify(self.classifier(self.dropout(pooled)), labels, return_dict)


def _wants_dict(model: PreTrainedModel, return_dict: bool | None) -> bool:
    return model.config.return_dict if return_dict is None else return_dict
