"""BiLSTM-CRF taggers as Hugging Face models."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .configuration_encoder import EncoderClassifierConfig, EncoderCRFConfig
from .crf import LinearChainCRF
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
    "render_entities",
]

__version__ = "0.1.0"

AutoConfig.register("bilstm_crf", BiLSTMCRFConfig)
AutoModel.register(BiLSTMCRFConfig, BiLSTMCRFModel)
AutoModelForPreTraining.register(BiLSTMCRFConfig, BiLSTMForPreTraining)
AutoModelForTokenClassification.register(BiLSTMCRFConfig, BiLSTMCRFForTokenClassification)
AutoModelForSequenceClassification.register(BiLSTMCRFConfig, BiLSTMForSequenceClassification)
AutoConfig.register("encoder_crf", EncoderCRFConfig)
AutoModelForTokenClassification.register(EncoderCRFConfig, EncoderCRFForTokenClassification)
AutoConfig.register("encoder_classifier", EncoderClassifierConfig)
AutoModelForSequenceClassification.register(EncoderClassifierConfig, EncoderForSequenceClassification)
AutoConfig.register("character_encoder", CharacterEncoderConfig)
AutoModelForTokenClassification.register(CharacterEncoderConfig, CharacterEncoderForTokenClassification)
