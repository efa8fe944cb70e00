"""BiLSTM-CRF taggers as Hugging Face models."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .configuration_encoder import EncoderClassifierConfig, EncoderCRFConfig
from .crf import LinearChainCRF
from .modeling_bilstm_crf import (
    BiLSTMCRFForTokenClassification,
    BiLSTMCRFModel,
    BiLSTMCRFPreTrainedModel,
    BiLSTMForSequenceClassification,
)
from .modeling_encoder import EncoderCRFForTokenClassification, EncoderForSequenceClassification
from .pipeline_bilstm_crf import BiLSTMCRFTokenClassificationPipeline, render_entities

__all__ = [
    "BiLSTMCRFConfig",
    "BiLSTMCRFForTokenClassification",
    "BiLSTMCRFModel",
    "BiLSTMCRFPreTrainedModel",
    "BiLSTMCRFTokenClassificationPipeline",
    "BiLSTMForSequenceClassification",
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
AutoModelForTokenClassification.register(BiLSTMCRFConfig, BiLSTMCRFForTokenClassification)
AutoModelForSequenceClassification.register(BiLSTMCRFConfig, BiLSTMForSequenceClassification)
AutoConfig.register("encoder_crf", EncoderCRFConfig)
AutoModelForTokenClassification.register(EncoderCRFConfig, EncoderCRFForTokenClassification)
AutoConfig.register("encoder_classifier", EncoderClassifierConfig)
AutoModelForSequenceClassification.register(EncoderClassifierConfig, EncoderForSequenceClassification)
