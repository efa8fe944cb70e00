"""Taggers and classifiers on a pretrained encoder. This file is copied into exported model repositories.

Letters in shapes: those of `modeling_bilstm_crf`, with the hidden size H of the encoder.
"""

import os
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_encoder import EncoderClassifierConfig, EncoderCRFConfig
from .forward_arguments import takes_standard_arguments
from .modeling_bilstm_crf import BiLSTMCRFOutput, BiLSTMCRFPreTrainedModel
from .sequences import BiLSTMLayer, LockedDropout, Sequences, check_inputs, sequence_tokens


class EncoderPreTrainedModel(BiLSTMCRFPreTrainedModel):
    """Base class of models with any encoder from `AutoModel` that takes `input_ids` and `attention_mask`."""

    auto_map: dict[str, str] = {}  # `save_pretrained` adds the classes of the model and its configuration
    base_model_prefix = "encoder"
    # The encoder itself refuses what it does not support.
    supports_gradient_checkpointing = _supports_sdpa = _supports_flash_attn = True

    @classmethod
    def from_encoder(
        cls, encoder: str | os.PathLike, tokenizer: PreTrainedTokenizerBase, *, trust_remote_code=False, **config
    ) -> "EncoderPreTrainedModel":
        """Create a model with a new head on a pretrained encoder, a model on the Hub or a folder, and its tokenizer.

        Further keywords are fields of the configuration of the model.
        """
        body = AutoModel.from_pretrained(encoder, trust_remote_code=trust_remote_code)
        body.config.name_or_path = ""  # otherwise it would be saved with the configuration
        model = cls(cls.config_class(encoder_config=body.config, **cls._token_fields(tokenizer), **config))
        state = {name: value for name, value in body.state_dict().items() if name in model.encoder.state_dict()}
        model.encoder.load_state_dict(state)
        return model

    @staticmethod
    def _token_fields(tokenizer: PreTrainedTokenizerBase) -> dict:
        return {"pad_token_id": tokenizer.pad_token_id}

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Set the token embeddings of the encoder, and the size of its vocabulary."""
        self.encoder.set_input_embeddings(value)
        self.config.encoder_config.vocab_size = value.num_embeddings

    def attended(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return the attention mask, (B, S), after a check. If none is given, it is 1 on all tokens but padding."""
        check_inputs(input_ids, attention_mask)
        if attention_mask is not None:
            return attention_mask
        if self.config.pad_token_id is None:
            return torch.ones_like(input_ids)
        return (input_ids != self.config.pad_token_id).long()

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None = None,
        recorded: dict[str, tuple[Tensor, ...]] | None = None,
        **options: Any,
    ):
        """Return the output of the encoder. It gets `token_type_ids` only if it has embeddings for them.

        Args:
            recorded: dictionary that gets the `hidden_states` and `attentions` of the output.
            options: further arguments of the encoder, which does not get those that are None or false.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "return_dict": True}
        inputs |= {name: value for name, value in options.items() if value is not None and value is not False}
        if token_type_ids is not None and getattr(self.config.encoder_config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = token_type_ids
        output = self.encoder(**inputs)
        if recorded is not None:
            recorded |= {name: output.get(name) for name in ("hidden_states", "attentions")}
        return output


class EncoderCRFForTokenClassification(EncoderPreTrainedModel):
    """A tagger: an encoder, optional BiLSTM layers, a linear layer for the emissions and a constrained CRF."""

    config_class = EncoderCRFConfig
    _auto_class = "AutoModelForTokenClassification"
    _token_fields = staticmethod(sequence_tokens)

    def __init__(self, config: EncoderCRFConfig) -> None:
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.encoder_config)
        self.encoder.pooler = None  # unused: its weights would never get a gradient
        self.dropout = LockedDropout(config.dropout)
        widths = [config.encoder_config.hidden_size] + [config.lstm_hidden_size] * config.num_lstm_layers
        self.lstm_layers = nn.ModuleList(BiLSTMLayer((width, width), config.lstm_hidden_size) for width in widths[:-1])
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.crf = self.new_crf()
        self.post_init()

    def emissions(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Sequences]:
        attention_mask = self.attended(input_ids, attention_mask)
        sequences = self.sequences(input_ids, attention_mask)
        hidden = self.encode(input_ids, attention_mask, token_type_ids, **options)[0]  # (B, S, H)
        x = self.dropout(sequences.pack(hidden))
        for layer in self.lstm_layers:
            x = self.dropout(layer((x, x), sequences))
        return self.classifier(x), sequences

    @takes_standard_arguments
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        output_logits: bool = True,
    ) -> BiLSTMCRFOutput:
        """Tag a batch of sentences; see [`BiLSTMCRFForTokenClassification`] for the arguments.

        The encoder gets the last three, and its hidden states and attentions are those of the output.
        """
        options = {
            "position_ids": position_ids,
            "output_hidden_states": output_hidden_states,
            "output_attentions": output_attentions,
        }
        recorded: dict[str, tuple[Tensor, ...]] = {}
        emissions, sequences = self.emissions(input_ids, attention_mask, token_type_ids, recorded=recorded, **options)
        return self.crf_output(emissions, sequences, labels, output_logits, **recorded)


class EncoderForSequenceClassification(EncoderPreTrainedModel):
    """A classifier of texts: an encoder with the head of the tutorial that classifies emotions with KoBERT."""

    config_class = EncoderClassifierConfig
    _auto_class = "AutoModelForSequenceClassification"
    _keep_in_fp32_modules_strict = None

    def __init__(self, config: EncoderClassifierConfig) -> None:
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.encoder_config)
        if config.pooling == "mean":
            self.encoder.pooler = None
        elif getattr(self.encoder, "pooler", None) is None:
            raise ValueError(f"{type(self.encoder).__name__} has no pooler: choose pooling='mean'")
        width = config.encoder_config.hidden_size
        self.classifier = nn.Sequential(
            nn.Dropout(config.classifier_dropout),
            nn.LayerNorm(width),
            nn.Linear(width, config.classifier_hidden_size),
            nn.ReLU(),
            nn.Dropout(config.classifier_dropout),
            nn.Linear(config.classifier_hidden_size, config.num_labels),
        )
        self.post_init()

    @takes_standard_arguments
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> SequenceClassifierOutput:
        """Compute the logits (B, K); see `BiLSTMForSequenceClassification` for the arguments."""
        attention_mask = self.attended(input_ids, attention_mask)
        options = {
            "position_ids": position_ids,
            "output_hidden_states": output_hidden_states,
            "output_attentions": output_attentions,
        }
        recorded: dict[str, tuple[Tensor, ...]] = {}
        output = self.encode(input_ids, attention_mask, token_type_ids, recorded, **options)
        if self.config.pooling == "mean":
            attended = attention_mask[..., None]
            pooled = (output[0] * attended).sum(1) / attended.sum(1).clamp(min=1)
        else:
            pooled = output[1]
        return self.classifier_output(self.classifier(pooled), labels, **recorded)
