"""Order of the training rows: batches of similar lengths."""

from collections.abc import Iterator

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochLengthGroupedSampler(LengthGroupedSampler):
    """Sampler of batches of similar lengths, whose order depends on the seed and the number of the epoch only.

    A run that is resumed, even in the middle of an epoch, therefore continues with the same batches, and the processes
    of a distributed run agree on them. `batch_size` is the number of rows of an update.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that is drawn next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        indices = list(super().__iter__())
        # Grouped indices come longest first, 50 batches at a time. An incomplete batch has to stay the last one.
        complete = len(indices) - len(indices) % self.batch_size
        batches = torch.tensor(indices[:complete], dtype=torch.long).view(-1, self.batch_size)
        shuffled = batches[torch.randperm(len(batches), generator=self.generator)]
        return iter(shuffled.flatten().tolist() + indices[complete:])
