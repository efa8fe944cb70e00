"""Pretraining of the BiLSTM on raw text. This file is copied into exported model repositories.

Letters in shapes: those of `modeling_bilstm_crf`, V tokens of the vocabulary, N predicted tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad
from transformers.utils import ModelOutput

from .alignment import IGNORED
from .configuration_bilstm_crf import BiLSTMCRFConfig
from .forward_arguments import takes_standard_arguments
from .input_features import direction_windows
from .losses import check_ids
from .modeling_bilstm_crf import BiLSTMCRFModel, BiLSTMCRFPreTrainedModel
from .sequences import Sequences

HEAD_SIZE = 128
"""Width of the layer between the BiLSTM and the output vocabulary."""

PREDICTED_SHARE = 0.5
"""Number of tokens that a batch predicts, relative to its size with padding: more take longer and teach little more."""


@dataclass
class BiLSTMForPreTrainingOutput(ModelOutput):
    """Output of [`BiLSTMForPreTraining`]; `tag_loss` and `logits` if labels are given."""

    loss: Tensor | None = None
    """Sum of the two losses."""
    cloze_loss: Tensor | None = None
    """Mean cross entropy of the predicted tokens, over the whole vocabulary on accelerators, over the tokens that the
    batch predicts on the CPU: the two are not comparable."""
    tag_loss: Tensor | None = None
    """Mean cross entropy of the tags."""
    logits: Tensor | None = None
    """(B, S, K), those of the tags; 0 outside a sequence."""
    hidden_states: tuple[Tensor, ...] | None = None
    """The input and the output of the BiLSTM layer, (B, S, ...), on request."""


class BiLSTMForPreTraining(BiLSTMCRFPreTrainedModel):
    """A BiLSTM that learns to predict tokens from their context and, if labels are given, to tag them.

    Each token is predicted from the nearest forward state before it and the nearest backward state after it that have
    not read the token itself; with bigrams as inputs, these are two tokens away. No token is masked, so that the inputs
    are the same as in fine-tuning and every token can be predicted. This is a bidirectional language model like ELMo
    (Peters et al., 2018), but both directions predict together, as in Baevski et al. (2019). Tags, such as those of
    morphemes, are predicted by a linear layer that a fine-tuned tagger does not reuse.
    """

    _auto_class = "AutoModelForPreTraining"
    _keep_in_fp32_modules_strict = None  # there is no CRF

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        if config.num_hidden_layers != 1:  # a second layer would read the predicted token; fine-tuning can add layers
            raise ValueError(f"num_hidden_layers must be 1 in pretraining, got {config.num_hidden_layers}")
        if config.unit != "characters":
            raise ValueError(f'unit must be "characters" in pretraining, got {config.unit!r}')
        self.bilstm = BiLSTMCRFModel(config)
        self.transform = nn.Sequential(nn.Linear(config.hidden_size, HEAD_SIZE), nn.GELU(), nn.LayerNorm(HEAD_SIZE))
        self.vocabulary = nn.Linear(HEAD_SIZE, config.vocab_size)
        self.tag_classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @takes_standard_arguments
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> BiLSTMForPreTrainingOutput:
        """Compute the losses, and the logits of the tags; the arguments are those of a tagger."""
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        recorded: list[Tensor] | None = [] if output_hidden_states else None
        hidden = self.bilstm.encode(input_ids, sequences, recorded)  # (T, B, H)
        loss = cloze_loss = self.cloze_loss(hidden, sequences.pack(input_ids), sequences)
        tag_loss = logits = None
        if labels is not None:
            check_ids(labels, tuple(input_ids.shape), "(B, S) as input_ids")
            logits = sequences.unpack(self.tag_classifier(hidden))
            tag_loss = cross_entropy(logits.flatten(0, 1).float(), labels.long().flatten(), ignore_index=IGNORED)
            loss = cloze_loss + tag_loss
        states = tuple(recorded) if recorded else None
        return BiLSTMForPreTrainingOutput(
            loss=loss, cloze_loss=cloze_loss, tag_loss=tag_loss, logits=logits, hidden_states=states
        )

    def get_output_embeddings(self) -> nn.Linear:
        return self.vocabulary

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.vocabulary = value

    def cloze_loss(self, hidden: Tensor, tokens: Tensor, sequences: Sequences) -> Tensor:
        """Return the mean cross entropy of randomly drawn `tokens` (T, B), predicted from `hidden` (T, B, H)."""
        states = self.context_states(hidden, sequences).flatten(0, 1)  # (T * B, H)
        drawn = torch.randint(len(states), (max(1, int(PREDICTED_SHARE * len(states))),), device=states.device)  # (N,)
        inside = sequences.inside.flatten()[drawn]  # (N,)
        targets = tokens.flatten()[drawn]  # (N,)
        weight: Tensor = self.vocabulary.weight
        bias: Tensor = self.vocabulary.bias
        if tokens.device.type == "cpu":  # elsewhere the host would wait for the number of different tokens
            candidates, targets = targets.unique(return_inverse=True)
            weight, bias = weight[candidates], bias[candidates]
        logits = linear(self.transform(states[drawn]), weight, bias)  # (N, V or number of candidates)
        targets = targets.masked_fill(~inside, IGNORED)
        total = cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
        return total / inside.sum().clamp(min=1)

    def context_states(self, hidden: Tensor, sequences: Sequences) -> Tensor:
        """Return, for each token, the nearest states before and after it that have not read it, or 0, (T, B, H)."""
        forward, backward = direction_windows(self.config)
        # A direction has read a token as soon as one of its n-gram windows reaches that token: keep the distance.
        before = 1 + max([0, *(self.config.ngrams[i][1] for i in forward)])
        after = 1 + max([0, *(-self.config.ngrams[i][0] for i in backward)])
        left, right = (hidden * sequences.inside[..., None]).chunk(2, -1)  # (T, B, H / 2) each
        left = pad(left, (0, 0, 0, 0, before, 0))[: len(hidden)]
        right = pad(right, (0, 0, 0, 0, 0, after))[after:]
        return torch.cat([left, right], -1)
