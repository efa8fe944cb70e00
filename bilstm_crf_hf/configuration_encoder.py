"""Configurations of the models on a pretrained encoder. This file is copied into exported model repositories."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, BertConfig, PreTrainedConfig

from .configuration_bilstm_crf import check_number_of_labels, check_special_tokens, check_temperature


@strict
class EncoderConfig(PreTrainedConfig):
    """Base configuration of the models on an encoder.

    Args:
        encoder_config: configuration of the encoder, or a dictionary of its fields. Default: BERT's.
        temperature: see [`BiLSTMCRFConfig`].
    """

    _auto_class = "AutoConfig"  # makes `save_pretrained` copy the code
    sub_configs = {"encoder_config": AutoConfig}

    encoder_config: dict | PreTrainedConfig | None = None
    temperature: float | int = 1.0

    def __post_init__(self, **kwargs):
        check_number_of_labels(kwargs)
        if isinstance(self.encoder_config, dict):
            check_number_of_labels(self.encoder_config)
        if self.encoder_config is None:
            self.encoder_config = BertConfig()
        elif isinstance(self.encoder_config, dict):
            self.encoder_config = AutoConfig.for_model(**self.encoder_config)
        super().__post_init__(**kwargs)

    def validate_temperature(self) -> None:
        """Check the temperature; `@strict` calls this."""
        check_temperature(self.temperature)

    @property
    def max_position_embeddings(self) -> int:
        """Return the number of positions of the encoder; an AttributeError if it has no limit."""
        return self.encoder_config.max_position_embeddings


@strict
class EncoderCRFConfig(EncoderConfig):
    """Configuration of [`EncoderCRFForTokenClassification`].

    Args:
        num_lstm_layers: number of BiLSTM layers between the encoder and the CRF.
        lstm_hidden_size: width of the output of a BiLSTM layer, both directions together.
        dropout: variational dropout on the output of the encoder and of each BiLSTM layer.
        special_token_ids: ids of the tokens that are not in the chain of the CRF (`[CLS]`, `[SEP]`, ...).
    """

    model_type = "encoder_crf"
    keys_to_ignore_at_inference = ["predictions", "path_log_probs"]

    num_lstm_layers: int = 0
    lstm_hidden_size: int = 256
    dropout: float = 0.1
    pad_token_id: int | None = 0
    special_token_ids: list[int] | None = None

    def validate_sizes(self) -> None:
        """Check the fields; `@strict` calls this."""
        if self.num_lstm_layers < 0:
            raise ValueError(f"num_lstm_layers must not be negative, got {self.num_lstm_layers}")
        if self.lstm_hidden_size <= 0 or self.lstm_hidden_size % 2:
            raise ValueError(f"lstm_hidden_size must be even and positive, got {self.lstm_hidden_size}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        check_special_tokens(self.special_token_ids)


@strict
class EncoderClassifierConfig(EncoderConfig):
    """Configuration of [`EncoderForSequenceClassification`].

    Args:
        pooling: representation of a text: the output of the encoder's `pooler`, or the `mean` of its hidden states.
        classifier_hidden_size: width of the output of the first of two linear layers.
        classifier_dropout: dropout before each of them.
    """

    model_type = "encoder_classifier"

    pooling: str = "pooler"
    classifier_hidden_size: int = 256
    classifier_dropout: float = 0.3

    def validate_head(self) -> None:
        """Check the fields; `@strict` calls this."""
        if self.pooling not in ("pooler", "mean"):
            raise ValueError(f"pooling must be 'pooler' or 'mean', got {self.pooling!r}")
        if self.classifier_hidden_size < 1:
            raise ValueError(f"classifier_hidden_size must be at least 1, got {self.classifier_hidden_size}")
        if not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"classifier_dropout must be in [0, 1), got {self.classifier_dropout}")
