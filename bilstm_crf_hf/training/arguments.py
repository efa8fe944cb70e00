"""Arguments of the commands that train."""

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
    base_model: str | None = field(
        default=None,
        metadata={"help": "Encoder on the Hub that the model was made from, if its name is that of a folder."},
    )
