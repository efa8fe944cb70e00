"""Pretraining of the BiLSTM on raw text. This file is copied into exported model repositories.

Letters in shapes: B texts, S tokens with padding and special tokens, T tokens of the longest sequence, V the
vocabulary, K labels, N questions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad
from transformers.utils import ModelOutput

from .configuration_bilstm_crf import BiLSTMCRFConfig
from .crf import UNKNOWN
from .input_features import direction_windows
from .modeling_bilstm_crf import AUTO_MAP, BiLSTMCRFModel, BiLSTMCRFPreTrainedModel, Sequences, _wants_dict

HEAD_SIZE = 128
"""Width of the layer between BiLSTM and vocabulary."""

ASKED = 0.5
"""Questions a batch has, as a share of its tokens with padding. All would teach little more, and take longer."""


@dataclass
class BiLSTMForPreTrainingOutput(ModelOutput):
    """Output of [`BiLSTMForPreTraining`].

    Args:
        loss: scalar, the sum of the following ones.
        cloze_loss: scalar, the mean cross entropy of the tokens asked for: among all tokens of the vocabulary on
            accelerators, among those that the batch asks for on CPUs. The two are not comparable.
        tag_loss: scalar, if labels were given: their mean cross entropy.
        logits: (B, S, K), if labels were given: those of the tags, 0 outside of a sequence.
    """

    loss: Tensor | None = None
    cloze_loss: Tensor | None = None
    tag_loss: Tensor | None = None
    logits: Tensor | None = None


class BiLSTMForPreTraining(BiLSTMCRFPreTrainedModel):
    """A cloze over tokens and, where labels are given, tags of them, such as those of their morphemes.

    A token is guessed from the nearest forward state before it and backward state behind it that have not read the
    token itself: with bigrams as inputs, those two tokens away. Nothing is masked, so that the BiLSTM meets what it
    will meet in use, and any token can be asked for. That is a bidirectional language model as ELMo's (Peters et al.,
    2018) whose directions answer together, as in Baevski et al. (2019). Tags are read as a tagger's emissions are, by a
    layer that no tagger takes for its own.

    Raises:
        ValueError: there is more than one layer. The second one would have read the token that is asked for; it can be
            added when the model is fine-tuned.
    """

    auto_map = AUTO_MAP | {"AutoModelForPreTraining": "modeling_pretraining.BiLSTMForPreTraining"}
    _auto_class = "AutoModelForPreTraining"
    _keep_in_fp32_modules_strict = None  # there is no CRF

    def __init__(self, config: BiLSTMCRFConfig) -> None:
        super().__init__(config)
        if config.num_hidden_layers != 1:
            raise ValueError(f"num_hidden_layers must be 1 in pretraining, got {config.num_hidden_layers}")
        self.bilstm = BiLSTMCRFModel(config)
        self.transform = nn.Sequential(nn.Linear(config.hidden_size, HEAD_SIZE), nn.GELU(), nn.LayerNorm(HEAD_SIZE))
        self.vocabulary = nn.Linear(HEAD_SIZE, config.vocab_size)
        self.tag_classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BiLSTMForPreTrainingOutput | tuple:
        """
        Args:
            input_ids: (B, S).
            attention_mask: (B, S), 0 on padding. Default: everything that is not `pad_token_id`.
            token_type_ids: not used; tokenizers made for BERT pass them.
            labels: (B, S), ids of tags, -100 where there is none.
        """
        sequences = self.bilstm.sequences(input_ids, attention_mask)
        hidden = self.bilstm.encode(input_ids, sequences)
        loss = cloze_loss = self.cloze(hidden, sequences.pack(input_ids), sequences)
        tag_loss = logits = None
        if labels is not None:
            logits = sequences.unpack(self.tag_classifier(hidden))
            tag_loss = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=UNKNOWN)
            loss = cloze_loss + tag_loss
        output = BiLSTMForPreTrainingOutput(loss=loss, cloze_loss=cloze_loss, tag_loss=tag_loss, logits=logits)
        return output if _wants_dict(self, return_dict) else output.to_tuple()

    def cloze(self, hidden: Tensor, tokens: Tensor, sequences: Sequences) -> Tensor:
        """The loss of guessing tokens drawn from `tokens` (T, B) from the states `hidden` (T, B, H), a scalar."""
        states = self.around(hidden, sequences).flatten(0, 1)
        drawn = torch.randint(len(states), (max(1, int(ASKED * len(states))),), device=states.device)  # (N,)
        asked = sequences.inside.flatten()[drawn]
        answers = tokens.flatten()[drawn]
        weight, bias = self.vocabulary.weight, self.vocabulary.bias
        if tokens.device.type == "cpu":  # elsewhere the host would have to wait for how many tokens differ
            candidates, answers = answers.unique(return_inverse=True)
            weight, bias = weight[candidates], bias[candidates]
        logits = linear(self.transform(states[drawn]), weight, bias)  # (N, V), or of the tokens that were drawn only
        total = cross_entropy(
            logits.float(), answers.masked_fill(~asked, UNKNOWN), ignore_index=UNKNOWN, reduction="sum"
        )
        return total / asked.sum().clamp(min=1)

    def around(self, hidden: Tensor, sequences: Sequences) -> Tensor:
        """(T, B, H): for each token the forward state before it and the backward state behind it that have not read it.

        Where there is none, at the ends of a sequence, they are 0.
        """
        forward, backward = direction_windows(self.config)
        before = 1 + max([0, *(self.config.ngrams[i][1] for i in forward)])
        behind = 1 + max([0, *(-self.config.ngrams[i][0] for i in backward)])
        ahead, back = (hidden * sequences.inside[..., None]).chunk(2, -1)
        steps = len(hidden)
        return torch.cat([pad(ahead, (0, 0, 0, 0, before, 0))[:steps], pad(back, (0, 0, 0, 0, 0, behind))[behind:]], -1)
