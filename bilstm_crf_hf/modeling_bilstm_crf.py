"""BiLSTM-CRF models in PyTorch. This file is copied into exported model repositories.

Letters in shapes: B sentences, S tokens with padding and special tokens, T tokens of the longest sequence without them,
H hidden size, K labels. Inside the models, tensors are time-major, see [`Sequences`].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.utils import ModelOutput

from .alignment import IGNORED, check_labels_of_parts
from .configuration_bilstm_crf import BiLSTMCRFConfig
from .crf import LinearChainCRF
from .forward_arguments import takes_standard_arguments, takes_text_inputs
from .input_features import InputFeatures
from .losses import classification_loss, crf_loss
from .processing_bilstm_crf import TEXT_INPUTS
from .saving import SavedModel
from .sequences import BiLSTMLayer, LockedDropout, Sequences, sequence_tokens
from .token_table import TOKEN_COLUMNS, TokenEmbeddings, token_table
from .words import WordFeatures


@dataclass
class BiLSTMCRFOutput(ModelOutput):
    """Output of a tagger. Positions outside of a sequence hold 0, and -100 in `predictions`."""

    loss: Tensor | None = None
    """Negative log-likelihood of the labels, if given, mean over the sentences of the batch."""
    logits: Tensor | None = None
    """(B, S, K), in training the emissions, in evaluation the log-probabilities of the labels under the CRF.

    None with `output_logits=False`."""
    predictions: Tensor | None = None
    """(B, S), label ids of the Viterbi path, in evaluation."""
    path_log_probs: Tensor | None = None
    """(B, S, 3), in evaluation: log-probabilities along the Viterbi path, see `LinearChainCRF.posterior`."""
    hidden_states: tuple[Tensor, ...] | None = None
    """The input of the first BiLSTM layer and the output of each, or those of the encoder, on request; (B, S, ...)."""
    attentions: tuple[Tensor, ...] | None = None
    """The attentions of the encoder, on request."""


@dataclass
class NBestOutput(ModelOutput):
    """Output of `nbest`, the best path first."""

    predictions: Tensor | None = None
    """(B, N, S), label ids; -100 outside of a sequence, and throughout if there are fewer than N paths."""
    probabilities: Tensor | None = None
    """(B, N), the posterior probability of each path; 0 if there is no such path, or no token."""


class BiLSTMCRFPreTrainedModel(SavedModel):
    """Base class of the models: initialisation and the outputs of their heads."""

    config_class = BiLSTMCRFConfig
    auto_map = {
        "AutoModel": "modeling_bilstm_crf.BiLSTMCRFModel",
        "AutoModelForTokenClassification": "modeling_bilstm_crf.BiLSTMCRFForTokenClassification",
        "AutoModelForSequenceClassification": "modeling_bilstm_crf.BiLSTMForSequenceClassification",
    }
    base_model_prefix = "bilstm"
    accepts_loss_kwargs = False  # the loss is a mean over sentences, which Trainer has to scale when it accumulates
    _keep_in_fp32_modules_strict: list[str] | None = ["crf"]

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels  # as in the models of transformers

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
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            bound = self.config.embedding_norm * (3 / module.embedding_dim) ** 0.5
            init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, TokenEmbeddings):
            module.initialize()
        elif isinstance(module, LinearChainCRF):
            module.reset_parameters()
            module.reset_constraints()

    def new_crf(self, **options) -> LinearChainCRF:
        """Return a CRF over the labels of the configuration; `options` are arguments of [`LinearChainCRF`]."""
        labels = self.label_names()
        return LinearChainCRF(len(labels), labels=labels, **options)

    def label_names(self) -> list[str]:
        """Return the names of the labels in the order of their ids.

        Raises:
            ValueError: if the configuration does not name each of them, or has another number of labels than the model.
        """
        labels = self.config.id2label or {}
        if "0" in labels:  # as in config.json, where keys are strings; the pipelines look up integers
            labels = self.config.id2label = {int(i) if str(i).isdigit() else i: name for i, name in labels.items()}
        names = [name for name in map(labels.get, range(len(labels))) if isinstance(name, str)]
        if len(names) != len(labels):
            raise ValueError(f"config.id2label must name the labels 0 to {len(labels) - 1}, got {labels}")
        if self.num_labels != len(names):
            raise ValueError(
                f"config has {len(names)} labels, but the model was made for {self.num_labels}: load it with "
                "from_pretrained(..., id2label=..., ignore_mismatched_sizes=True) for a new head"
            )
        return names

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
        self.update_crf()
        emissions, sequences = self.emissions(input_ids, **inputs)
        mask = sequences.mask
        paths, scores = self.crf.nbest(emissions, mask, num_paths)  # (N, T, B), (N, B)
        # The scores of two paths of a long sentence may be equal in float32; their likelihoods are not.
        likelihoods = [self.crf(emissions, path.clamp(min=0), mask, reduction="none") for path in paths]
        nothing = scores.isinf() | (sequences.lengths == 0)
        probabilities = torch.stack(likelihoods).exp().masked_fill(nothing, 0)  # (N, B)
        labels = [sequences.labels_of_tokens(sequences.unpack(path, fill=IGNORED), self.crf) for path in paths]
        predictions = torch.stack(labels, 1)  # (B, N, S)
        return NBestOutput(predictions=predictions, probabilities=probabilities.T)

    def update_crf(self) -> None:
        """Let the CRF follow the labels and the temperature of the configuration, which may have changed."""
        self.crf.set_labels(self.label_names(), getattr(self.config, "constrained", True))
        self.crf.temperature = self.config.temperature

    def crf_output(
        self,
        emissions: Tensor,
        sequences: Sequences,
        labels: Tensor | None,
        output_logits: bool,
        **recorded: Sequence[Tensor] | None,
    ) -> BiLSTMCRFOutput:
        """Return the output of a model with a CRF for emissions (T, B, K) and `labels` (B, S).

        `recorded` are further fields of the output.
        """
        self.update_crf()
        fields: dict[str, Any] = {name: tensors and tuple(tensors) for name, tensors in recorded.items()}
        if labels is not None:
            fields["loss"] = crf_loss(self.crf, emissions, labels, sequences)
        if self.training:
            return BiLSTMCRFOutput(logits=sequences.unpack(emissions), **fields)
        if output_logits:
            log_marginals, *of_paths = self.crf.posterior(emissions, sequences.mask)
            fields["logits"] = sequences.log_marginals_of_tokens(sequences.unpack(log_marginals), self.crf)
        else:
            of_paths = self.crf.path_posterior(emissions, sequences.mask)
        paths, path_log_probs = of_paths
        return BiLSTMCRFOutput(
            predictions=sequences.labels_of_tokens(sequences.unpack(paths, fill=IGNORED), self.crf),
            path_log_probs=sequences.log_probs_of_tokens(sequences.unpack(path_log_probs)),
            **fields,
        )

    def classifier_output(
        self, logits: Tensor, labels: Tensor | None, **recorded: Sequence[Tensor] | None
    ) -> SequenceClassifierOutput:
        """Return the output of a text classifier for logits (B, K) and labels, see [`classification_loss`].

        `recorded` are further fields of the output.
        """
        self.label_names()
        if not self.training:
            logits = logits / self.config.temperature
        loss = None if labels is None else classification_loss(self.config, logits, labels)
        more = {name: tensors and tuple(tensors) for name, tensors in recorded.items()}
        return SequenceClassifierOutput(loss=loss, logits=logits, **more)

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, **config) -> "BiLSTMCRFPreTrainedModel":
        """Create a model for the vocabulary of `tokenizer`, with the fields of [`BiLSTMCRFConfig`] as keywords.

        Raises:
            ValueError: if the unit is words and the tokenizer does not mark where they begin.
        """
        fields = sequence_tokens(tokenizer) | {"token_columns": list(TOKEN_COLUMNS)}
        table = token_table(tokenizer)
        model = cls(BiLSTMCRFConfig(vocab_size=len(table), **fields, **config))
        if model.config.unit == "words" and table[:, TOKEN_COLUMNS.index("word_start")].sum() < 2:
            raise ValueError(
                "the tokenizer does not mark where a word begins, as WordPiece (##) and SentencePiece (▁) do: use one "
                'of these, or data.tokenization.build_character_tokenizer, or unit "characters"'
            )
        model.base_model.features.reset_table(table)
        return model


FEATURES: dict[str, Any] = {"characters": InputFeatures, "words": WordFeatures}
"""The inputs of the first BiLSTM layer for each unit of `configuration_bilstm_crf.UNITS`."""


class BiLSTMCRFModel(BiLSTMCRFPreTrainedModel):
    """BiLSTM layers over the input features, without a head.

    With `unit="words"`, its hidden states are those of words, at their first tokens.
    """

    _auto_class = "AutoModel"  # which makes `save_pretrained` copy the code

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        self.features = FEATURES[config.unit](config)
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
        self.config.vocab_size = value.num_embeddings
        self.features.resize_table(value.num_embeddings)

    def sequences(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Sequences:
        """Return the sequences of the units in a batch: tokens, or words."""
        tokens = super().sequences(input_ids, attention_mask)
        self._check_vocabulary(input_ids)
        return self.features.units(tokens, input_ids)

    def encode(
        self,
        input_ids: Tensor,
        sequences: Sequences,
        hidden_states: list[Tensor] | None = None,
        **text_inputs: Tensor | None,
    ) -> Tensor:
        """Return the hidden states (T, B, H) of the sequences; behind the end of a sequence they are arbitrary.

        The input of the first layer and the output of each, (B, S, ...), are appended to `hidden_states`.
        """
        for name in text_inputs:
            if name not in TEXT_INPUTS:
                raise TypeError(f"{type(self).__name__}.encode() got an unexpected keyword argument {name!r}")
        kept = None
        if self.training and self.config.word_dropout:
            kept = torch.rand(sequences.inside.shape, device=input_ids.device) >= self.config.word_dropout

        def drop(x: Tensor) -> Tensor:
            x = self.locked_dropout(self.embedding_dropout(x))
            return x if kept is None else x * kept[..., None]

        def record(x: Tensor) -> Tensor:
            if hidden_states is None:
                return x
            hidden_states.append(sequences.unpack(x))
            return sequences.pack(hidden_states[-1])  # they are on the way to the output, and get gradients

        ahead, behind = self.features(input_ids, sequences, **text_inputs)
        inputs = (drop(ahead),) if behind is ahead else (drop(ahead), drop(behind))
        if hidden_states is not None:
            inputs = record(torch.cat(inputs, -1)).split([x.shape[-1] for x in inputs], -1)
        for layer in self.layers:
            inputs = (record(self.locked_dropout(layer((inputs[0], inputs[-1]), sequences))),)
        return inputs[0]

    def _check_vocabulary(self, input_ids: Tensor) -> None:
        """Raise an error for ids without an embedding; other devices than the CPU assert it themselves."""
        if input_ids.device.type != "cpu" or torch.compiler.is_compiling():
            return
        size = len(self.features.token_table)
        lowest, highest = (int(each) for each in input_ids.aminmax())
        if lowest < 0 or highest >= size:
            raise ValueError(
                f"input_ids contains {lowest if lowest < 0 else highest}, and the model has embeddings for 0 to "
                f"{size - 1}: use its own tokenizer, or resize_token_embeddings"
            )

    @takes_standard_arguments
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """Return the hidden states (B, S, H), 0 at special and padded tokens; the arguments are those of a tagger."""
        sequences = self.sequences(input_ids, attention_mask)
        recorded: list[Tensor] | None = [] if output_hidden_states else None
        hidden = self.encode(input_ids, sequences, recorded)
        last = sequences.unpack(hidden) if recorded is None else recorded[-1]
        return BaseModelOutput(last_hidden_state=last, hidden_states=recorded and tuple(recorded))


class BiLSTMCRFForTokenClassification(BiLSTMCRFPreTrainedModel):
    """A BiLSTM with linear emissions and a CRF, which the tag scheme of the labels constrains by default."""

    _auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        self.bilstm = BiLSTMCRFModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.crf = self.new_crf(constrained=config.constrained)
        if config.unit == "words":
            check_labels_of_parts(self.label_names())
        self.post_init()

    def emissions(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        hidden_states: list[Tensor] | None = None,
        **text_inputs: Tensor | None,
    ) -> tuple[Tensor, Sequences]:
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        hidden = self.bilstm.encode(input_ids, sequences, hidden_states, **text_inputs)
        return self.classifier(hidden), sequences

    @takes_standard_arguments
    @takes_text_inputs
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_logits: bool = True,
        **text_inputs: Tensor | None,
    ) -> BiLSTMCRFOutput:
        """Tag a batch of sentences.

        Args:
            input_ids: (B, S).
            attention_mask: (B, S), 0 on padding. Default: 1 on all tokens but `pad_token_id`.
            token_type_ids: not used; tokenizers made for BERT return them.
            labels: (B, S). -100 outside of the sequences; -100 within one is an unknown label, summed over.
            output_hidden_states: whether to return the hidden states. Default: the field of the configuration.
            output_logits: whether to return the probabilities of all labels in evaluation; tagging needs none of them.
            text_inputs: (B, S) each, such as `morpheme_ids`, if the configuration asks for them, see
                `processing_bilstm_crf.TEXT_INPUTS`; without them the model tags less well.

        Returns:
            The output; with `return_dict=False`, here or in the configuration, a tuple of its values.

        Raises:
            ValueError: if an input or a label is not valid, or for other arguments of the models of transformers, see
                `forward_arguments.REFUSED`.
        """
        recorded: list[Tensor] | None = [] if output_hidden_states else None
        emissions, sequences = self.emissions(input_ids, attention_mask, hidden_states=recorded, **text_inputs)
        return self.crf_output(emissions, sequences, labels, output_logits, hidden_states=recorded)


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

    @takes_standard_arguments
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> SequenceClassifierOutput:
        """Compute the logits (B, K); for a text without any token, they are the biases of the last layer.

        `labels` are those of `config.problem_type`, see [`classification_loss`]. The other arguments are those of
        [`BiLSTMCRFForTokenClassification`].
        """
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        recorded: list[Tensor] | None = [] if output_hidden_states else None
        hidden = self.bilstm.encode(input_ids, sequences, recorded)  # (T, B, H)
        pooled = hidden.masked_fill(~sequences.inside[..., None], -torch.inf).amax(0)
        pooled = pooled.masked_fill((sequences.lengths == 0)[:, None], 0)
        logits = self.classifier(self.dropout(pooled))
        return self.classifier_output(logits, labels, hidden_states=recorded)
