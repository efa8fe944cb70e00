"""BiLSTM-CRF taggers as Hugging Face models."""

from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .crf import LinearChainCRF
from .modeling_bilstm_crf import BiLSTMCRFForTokenClassification, BiLSTMCRFModel, BiLSTMCRFPreTrainedModel
from .pipeline_bilstm_crf import BiLSTMCRFTokenClassificationPipeline, render_entities

__all__ = [
    "BiLSTMCRFConfig",
    "BiLSTMCRFForTokenClassification",
    "BiLSTMCRFModel",
    "BiLSTMCRFPreTrainedModel",
    "BiLSTMCRFTokenClassificationPipeline",
    "LinearChainCRF",
    "render_entities",
]

__version__ = "0.1.0"

AutoConfig.register("bilstm_crf", BiLSTMCRFConfig)
AutoModel.register(BiLSTMCRFConfig, BiLSTMCRFModel)
AutoModelForTokenClassification.register(BiLSTMCRFConfig, BiLSTMCRFForTokenClassification)
