"""The card of a trained model, rendered from what its run left."""

from dataclasses import dataclass, field


@dataclass
class CardArguments:
    """What a model card says that a run cannot know by itself."""

    language: str = field(default="ko", metadata={"help": "Language of the texts, by its ISO 639 code."})
    license: str | None = field(
        default=None, metadata={"help": "Licence of the model, by the Hub's name for it, such as cc-by-sa-4.0."}
    )
    dataset_description: str | None = field(
        default=None, metadata={"help": "What the training data are, and their licence, in Markdown."}
    )
