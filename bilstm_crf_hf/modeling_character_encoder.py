"""A tagger of characters that reads a BiLSTM's and an encoder's states. This file is copied into exported repositories.

Letters in shapes: B sentences, S tokens with padding and special tokens, T tokens of the longest sequence, P pieces of
the encoder's tokenizer, H the width of the encoder, K labels.
"""

import os

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .configuration_encoder import EncoderConfig
from .modeling_bilstm_crf import BiLSTMCRFModel, BiLSTMCRFOutput, BiLSTMLayer, LockedDropout, Sequences
from .modeling_encoder import EncoderPreTrainedModel


@strict
class CharacterEncoderConfig(EncoderConfig):
    """Configuration of [`CharacterEncoderForTokenClassification`].

    Args:
        bilstm_config: configuration of the BiLSTM over characters, or its fields.
        lstm_hidden_size: width of the output of the BiLSTM layer on the states of both, both directions together.
        dropout: variational dropout on the states of the encoder and on those of that layer.
    """

    model_type = "character_encoder"
    keys_to_ignore_at_inference = ["path_log_probs"]
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


class CharacterEncoderForTokenClassification(EncoderPreTrainedModel):
    """A BiLSTM layer and a CRF over characters, on the states of a BiLSTM and of an encoder's pieces that cover them.

    What the encoder knows of words meets the exact edges of characters: a fifth of the entities in KLUE-NER begin or
    end inside a piece, and no tagger of pieces can find these. The model is large, and a teacher of small ones. Its
    tokenizer is that of characters; what the pieces are, `tagging.piece_columns` says.
    """

    config_class = CharacterEncoderConfig
    auto_map = {
        "AutoConfig": "modeling_character_encoder.CharacterEncoderConfig",
        "AutoModelForTokenClassification": "modeling_character_encoder.CharacterEncoderForTokenClassification",
    }
    _auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: CharacterEncoderConfig) -> None:
        super().__init__(config)
        self.bilstm = BiLSTMCRFModel(config.bilstm_config)
        self.encoder = AutoModel.from_config(config.encoder_config)
        self.encoder.pooler = None  # of BERT and its kind: weights that would never get a gradient
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
        cls, encoder: str | os.PathLike, tokenizer: PreTrainedTokenizerBase, *, trust_remote_code=False, **config
    ) -> "CharacterEncoderForTokenClassification":
        """A new tagger on a pretrained encoder and BiLSTM, with the fields of the configuration as keywords.

        Args:
            encoder: name of a model on the Hub, or its folder.
            tokenizer: that of the BiLSTM, loaded from where the BiLSTM is, too.
        """
        characters = BiLSTMCRFModel.from_pretrained(tokenizer.name_or_path)
        characters.config.name_or_path = ""  # which would get into the saved configuration
        config |= {"bilstm_config": characters.config}
        model = super().from_encoder(encoder, tokenizer, trust_remote_code=trust_remote_code, **config)
        model.bilstm.load_state_dict(characters.state_dict())
        return model

    @classmethod
    def _token_fields(cls, tokenizer: PreTrainedTokenizerBase) -> dict:
        return {}  # those of the characters are in `bilstm_config`

    def emissions(
        self,
        input_ids: Tensor,
        piece_ids: Tensor,
        piece_mask: Tensor,
        piece_index: Tensor,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Sequences]:
        """Return the emissions (T, B, K) and their sequences; the arguments are those of `forward`."""
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        characters = self.bilstm.encode(input_ids, sequences)  # (T, B, ...)
        pieces = self.norm(self.encode(piece_ids, piece_mask, None)[0])  # (B, P, H)
        covering = sequences.pack(pieces.gather(1, piece_index[..., None].expand(-1, -1, pieces.shape[-1])))
        x = torch.cat([characters, self.dropout(covering)], -1)
        hidden = self.dropout(self.layer((x, x), sequences))
        return self.classifier(hidden), sequences

    def forward(
        self,
        input_ids: Tensor,
        piece_ids: Tensor,
        piece_mask: Tensor,
        piece_index: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BiLSTMCRFOutput | tuple:
        """
        Args:
            input_ids: (B, S), of the characters.
            piece_ids: (B, P), input of the encoder.
            piece_mask: (B, P), its attention mask.
            piece_index: (B, S), from 0 to P - 1: the piece that covers the character.
            attention_mask, labels: (B, S), as those of [`BiLSTMCRFForTokenClassification`]; so is the output.
        """
        emissions, sequences = self.emissions(input_ids, piece_ids, piece_mask, piece_index, attention_mask)
        return self.crf_output(emissions, sequences, labels, return_dict)
