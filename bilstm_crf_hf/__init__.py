"""BiLSTM-CRF taggers as Hugging Face models."""

__version__ = "0.1.0"

import transformers

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .configuration_encoder import EncoderClassifierConfig, EncoderCRFConfig
from .crf import LinearChainCRF
from .inference.predictors import load_pipeline
from .modeling_bilstm_crf import (
    BiLSTMCRFForTokenClassification,
    BiLSTMCRFModel,
    BiLSTMCRFPreTrainedModel,
    BiLSTMForSequenceClassification,
)
from .modeling_character_encoder import CharacterEncoderConfig, CharacterEncoderForTokenClassification
from .modeling_encoder import EncoderCRFForTokenClassification, EncoderForSequenceClassification
from .modeling_pretraining import BiLSTMForPreTraining
from .pipeline_bilstm_crf import BiLSTMCRFTokenClassificationPipeline, render_entities

__all__ = [
    "BiLSTMCRFConfig",
    "BiLSTMCRFForTokenClassification",
    "BiLSTMCRFModel",
    "BiLSTMCRFPreTrainedModel",
    "BiLSTMCRFTokenClassificationPipeline",
    "BiLSTMForPreTraining",
    "BiLSTMForSequenceClassification",
    "CharacterEncoderConfig",
    "CharacterEncoderForTokenClassification",
    "EncoderCRFConfig",
    "EncoderCRFForTokenClassification",
    "EncoderClassifierConfig",
    "EncoderForSequenceClassification",
    "LinearChainCRF",
    "load_pipeline",
    "render_entities",
]

for model_class in (
    BiLSTMCRFModel,
    BiLSTMForPreTraining,
    BiLSTMCRFForTokenClassification,
    BiLSTMForSequenceClassification,
    EncoderCRFForTokenClassification,
    EncoderForSequenceClassification,
    CharacterEncoderForTokenClassification,
):
    config_class = model_class.config_class
    transformers.AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    getattr(transformers, model_class._auto_class).register(config_class, model_class)
