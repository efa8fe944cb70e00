"""A spaCy component that finds entities with a tagger of this package: `nlp.add_pipe("bilstm_crf")`.

    nlp = spacy.blank("ko", config={"nlp": {"tokenizer": {"@tokenizers": "spacy.Tokenizer.v1"}}})  # or with mecab
    nlp.add_pipe("bilstm_crf", config={"model": "outputs/mine"})  # default: "klue-ner"
    doc = nlp("손흥민은 춘천에서 태어났다.")
    doc._.entities  # [{"start": 0, "end": 3, "label": "PS", "score": 0.99, "text": "손흥민"}, ...]
    doc.ents  # (손흥민은, 춘천에서)

The entities of the tagger are spans of characters, while a spaCy span consists of whole tokens, and a Korean token
often ends in a particle. Therefore `doc._.entities` holds the exact entities, and `doc.ents` the tokens that they
overlap; if several entities share a token, only the most probable one. Earlier content of `doc.ents` is replaced.
"""

from collections.abc import Iterable, Iterator

from huggingface_hub import snapshot_download
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import minibatch

from ..models import TAGGER
from ..pipeline_bilstm_crf import BATCH_SIZE
from .predictors import EntityPredictor, load_predictor

FIELDS = {"start": "start", "end": "end", "label": "entity_group", "score": "score", "text": "word"}
"""spaCy's names of the fields of an entity, with those of the pipeline."""

if not Doc.has_extension("entities"):
    Doc.set_extension("entities", default=[])


@Language.factory(
    "bilstm_crf",
    assigns=["doc.ents", "token.ent_iob", "token.ent_type", "doc._.entities"],
    default_config={"model": TAGGER, "revision": None, "batch_size": BATCH_SIZE},
)
def make_bilstm_crf(
    nlp: Language, name: str, model: str, revision: str | None, batch_size: int
) -> "BiLSTMCRFComponent":
    """Make the component from its configuration. `nlp.to_disk` saves the configuration, but not the model.

    Args:
        model, revision: tagger of this package, or folder of one; or its name on the Hub, and a branch, tag or commit
            there.
        batch_size: number of texts in a batch of the model. The `batch_size` of `nlp.pipe` is the number of texts that
            are read ahead and sorted by length.

    Raises:
        OSError: if there is no such model.
        ValueError: if the model is not a tagger, or if `batch_size` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"{name}: batch_size is {batch_size}: set it to 1 or more")
    folder = model if revision is None else snapshot_download(model, revision=revision)
    predictor = load_predictor(folder, batch_size)
    if not isinstance(predictor, EntityPredictor):
        raise ValueError(f"{name}: model {model} is a text classifier: name a token classifier")
    return BiLSTMCRFComponent(predictor)


class BiLSTMCRFComponent:
    """A component that sets `doc._.entities` and `doc.ents` to the entities that `predictor` finds."""

    def __init__(self, predictor: EntityPredictor) -> None:
        self.predictor = predictor

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the entity types in alphabetical order."""
        names = self.predictor.pipe.model.config.id2label.values()
        return tuple(sorted({name.partition("-")[2] for name in names} - {""}))

    def __call__(self, doc: Doc) -> Doc:
        """Set the entities of a document and return it."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = BATCH_SIZE) -> Iterator[Doc]:
        """Set the entities of documents. `batch_size` of them are read ahead and tagged in order of their length."""
        for docs in minibatch(stream, batch_size):
            for doc, row in zip(docs, self.predictor([doc.text for doc in docs]), strict=True):
                doc._.entities = [{name: entity[key] for name, key in FIELDS.items()} for entity in row["entities"]]
                doc.set_ents(_token_spans(doc))
                yield doc


def _token_spans(doc: Doc) -> list[Span]:
    """Return the tokens that each entity overlaps. Of entities that share a token, only the most probable is kept."""
    spans: list[Span] = []
    taken: set[int] = set()
    for entity in sorted(doc._.entities, key=lambda entity: -entity["score"]):
        span = doc.char_span(entity["start"], entity["end"], entity["label"], alignment_mode="expand")
        if span and taken.isdisjoint(range(span.start, span.end)):
            spans.append(span)
            taken.update(range(span.start, span.end))
    return spans
