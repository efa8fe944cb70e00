"""A tagger of characters on a BiLSTM and an encoder. This file is copied into exported model repositories.

Letters in shapes: those of `modeling_bilstm_crf`, where tokens are characters; P pieces: tokens of the encoder's
tokenizer, most of them parts of words.
"""

import os
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .configuration_encoder import EncoderConfig
from .forward_arguments import takes_standard_arguments
from .modeling_bilstm_crf import BiLSTMCRFModel, BiLSTMCRFOutput
from .modeling_encoder import EncoderPreTrainedModel
from .sequences import BiLSTMLayer, LockedDropout, Sequences


@strict
class CharacterEncoderConfig(EncoderConfig):
    """Configuration of [`CharacterEncoderForTokenClassification`].

    Args:
        lstm_hidden_size: width of the output of the last BiLSTM layer, both directions together.
        dropout: variational dropout on the hidden states of the encoder and of the last BiLSTM layer.
    """

    model_type = "character_encoder"
    keys_to_ignore_at_inference = ["predictions", "path_log_probs"]
    sub_configs = {"encoder_config": AutoConfig, "bilstm_config": BiLSTMCRFConfig}

    bilstm_config: dict | BiLSTMCRFConfig | None = None
    lstm_hidden_size: int = 384
    dropout: float = 0.3

    def __post_init__(self, **kwargs):
        if self.bilstm_config is None:
            self.bilstm_config = BiLSTMCRFConfig()
        elif isinstance(self.bilstm_config, dict):
            self.bilstm_config = BiLSTMCRFConfig(**self.bilstm_config)
        super().__post_init__(**kwargs)

    @property
    def read_morphemes(self) -> bool:
        """Return whether the BiLSTM reads morphemes beside its characters."""
        return self.bilstm_config.read_morphemes

    def validate_sizes(self) -> None:
        """Check the fields; `@strict` calls this."""
        if self.bilstm_config.unit != "characters":
            raise ValueError(f'unit of bilstm_config must be "characters", got {self.bilstm_config.unit!r}')
        if self.lstm_hidden_size <= 0 or self.lstm_hidden_size % 2:
            raise ValueError(f"lstm_hidden_size must be even and positive, got {self.lstm_hidden_size}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class CharacterEncoderForTokenClassification(EncoderPreTrainedModel):
    """A tagger of characters that combines the hidden states of a BiLSTM and of a pretrained encoder.

    The hidden state of each character is concatenated with that of the piece that covers it; a BiLSTM layer and a CRF
    follow. The encoder knows words, and the characters give exact boundaries: a fifth of the entities in KLUE-NER begin
    or end inside a piece, so that a tagger of pieces cannot find them. The model is large and serves as a teacher
    for distillation. Its tokenizer is that of the characters; `piece_inputs` computes the inputs of the encoder.
    """

    config_class = CharacterEncoderConfig
    _auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: CharacterEncoderConfig) -> None:
        super().__init__(config)
        self.bilstm = BiLSTMCRFModel(config.bilstm_config)
        self.encoder = AutoModel.from_config(config.encoder_config)
        self.encoder.pooler = None  # unused: its weights would never get a gradient
        width = config.encoder_config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.dropout = LockedDropout(config.dropout)
        width += config.bilstm_config.hidden_size
        self.layer = BiLSTMLayer((width, width), config.lstm_hidden_size)
        self.classifier = nn.Linear(config.lstm_hidden_size, config.num_labels)
        self.crf = self.new_crf()
        self.post_init()

    @classmethod
    def from_encoder(
        cls,
        encoder: str | os.PathLike,
        tokenizer: PreTrainedTokenizerBase,
        *,
        trust_remote_code=False,
        characters: BiLSTMCRFModel | None = None,
        **config,
    ) -> "CharacterEncoderForTokenClassification":
        """Create a tagger as [`EncoderPreTrainedModel.from_encoder`] does, on a pretrained BiLSTM too.

        The tokenizer is that of the BiLSTM `characters`, which by default is loaded from its `name_or_path`.
        """
        if characters is None:
            characters = BiLSTMCRFModel.from_pretrained(tokenizer.name_or_path)
        characters.config.name_or_path = ""  # otherwise it would be saved with the configuration
        config |= {"bilstm_config": characters.config}
        model = super().from_encoder(encoder, tokenizer, trust_remote_code=trust_remote_code, **config)
        model.bilstm.load_state_dict(characters.state_dict())
        return model

    def get_input_embeddings(self) -> nn.Embedding:
        return self.bilstm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Set the embeddings of the characters."""
        self.bilstm.set_input_embeddings(value)

    @staticmethod
    def _token_fields(tokenizer: PreTrainedTokenizerBase) -> dict:
        return {}  # `bilstm_config` has those of the characters

    def emissions(
        self,
        input_ids: Tensor,
        piece_ids: Tensor,
        piece_mask: Tensor,
        piece_index: Tensor,
        attention_mask: Tensor | None = None,
        morpheme_ids: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Sequences]:
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        characters = self.bilstm.encode(input_ids, sequences, morpheme_ids=morpheme_ids)  # (T, B, ...)
        pieces = self.norm(self.encode(piece_ids, piece_mask, **options)[0])  # (B, P, H)
        covering = sequences.pack(pieces.gather(1, piece_index[..., None].expand(-1, -1, pieces.shape[-1])))
        x = torch.cat([characters, self.dropout(covering)], -1)
        hidden = self.dropout(self.layer((x, x), sequences))
        return self.classifier(hidden), sequences

    @takes_standard_arguments
    def forward(
        self,
        input_ids: Tensor,
        piece_ids: Tensor,
        piece_mask: Tensor,
        piece_index: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        output_logits: bool = True,
        morpheme_ids: Tensor | None = None,
    ) -> BiLSTMCRFOutput:
        """Tag a batch of sentences; see [`BiLSTMCRFForTokenClassification`] for the other arguments.

        Args:
            input_ids: (B, S), ids of the characters.
            piece_ids: (B, P), ids of the pieces, the input of the encoder.
            piece_mask: (B, P), attention mask of the pieces.
            piece_index: (B, S), the index, from 0 to P - 1, of the piece that covers each character.
            output_hidden_states: whether to return the hidden states of the encoder, (B, P, H) each.
            output_attentions: whether to return its attentions.
        """
        options = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        recorded: dict[str, tuple[Tensor, ...]] = {}
        emissions, sequences = self.emissions(
            input_ids, piece_ids, piece_mask, piece_index, attention_mask, morpheme_ids, recorded=recorded, **options
        )
        return self.crf_output(emissions, sequences, labels, output_logits, **recorded)
