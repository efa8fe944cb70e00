"""A spaCy component that finds entities with a tagger of this package: `nlp.add_pipe("bilstm_crf", config={...})`.

    nlp = spacy.blank("ko", config={"nlp": {"tokenizer": {"@tokenizers": "spacy.Tokenizer.v1"}}})  # or with mecab
    nlp.add_pipe("bilstm_crf", config={"model": "outputs/klue-ner"})
    doc = nlp("손흥민은 춘천에서 태어났다.")
    doc._.entities  # [{"start": 0, "end": 3, "label": "PS", "score": 0.99, "text": "손흥민"}, ...]
    doc.ents  # (손흥민은, 춘천에서)

The tagger reads characters, while a spaCy span is made of tokens, on which a Korean particle often hangs. Therefore
`doc._.entities` has the entities as they are, and `doc.ents`, whatever was in it before, the tokens that they touch; of
entities that share a token it has the most probable.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from huggingface_hub import snapshot_download
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import minibatch

from ..pipeline_bilstm_crf import BATCH_SIZE
from .predictors import EntityPredictor, load_predictor

if not Doc.has_extension("entities"):
    Doc.set_extension("entities", default=[])


@Language.factory(
    "bilstm_crf",
    assigns=["doc.ents", "token.ent_iob", "token.ent_type", "doc._.entities"],
    default_config={"revision": None, "batch_size": BATCH_SIZE},
)
def make_bilstm_crf(
    nlp: Language, name: str, model: str, revision: str | None, batch_size: int
) -> "BiLSTMCRFComponent":
    """The component of a configuration, which `nlp.to_disk` keeps; the model stays where it is.

    Args:
        nlp, name: as every factory's.
        model: folder of a tagger, or its name on the Hub.
        revision: branch, tag or commit on the Hub.
        batch_size: texts that the model reads at a time; that of `nlp.pipe` is how many are read ahead.

    Raises:
        OSError: there is no such model.
        ValueError: it is not a tagger; `batch_size` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"{name}: batch_size is {batch_size}: it has to be 1 or more")
    folder = model if revision is None else snapshot_download(model, revision=revision)
    predictor = load_predictor(folder, batch_size)
    if not isinstance(predictor, EntityPredictor):
        raise ValueError(f"{name}: model {model} classifies texts: name a token classifier, which finds entities")
    return BiLSTMCRFComponent(predictor)


class BiLSTMCRFComponent:
    """Sets `doc.ents` and `doc._.entities` to what `predictor` finds: see the file."""

    def __init__(self, predictor: EntityPredictor) -> None:
        self.predictor = predictor

    @property
    def labels(self) -> tuple[str, ...]:
        """The types of entities, in alphabetical order."""
        names = self.predictor.pipe.model.config.id2label.values()
        return tuple(sorted({name.partition("-")[2] for name in names} - {""}))

    def __call__(self, doc: Doc) -> Doc:
        """`doc` with its entities."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = BATCH_SIZE) -> Iterator[Doc]:
        """The same of many, of which `batch_size` are read ahead and tagged in order of their length."""
        for docs in minibatch(stream, batch_size):
            for doc, row in zip(docs, self.predictor([doc.text for doc in docs]), strict=True):
                doc._.entities = [_entity(found) for found in row["entities"]]
                doc.set_ents(_token_spans(doc))
                yield doc


def _entity(found: dict[str, Any]) -> dict[str, Any]:
    """An entity of the pipeline, with spaCy's names of its fields."""
    names = {"start": "start", "end": "end", "label": "entity_group", "score": "score", "text": "word"}
    return {name: found[key] for name, key in names.items()}


def _token_spans(doc: Doc) -> list[Span]:
    """The tokens that entities touch; of those that share one, the most probable."""
    spans, taken = [], set()
    for entity in sorted(doc._.entities, key=lambda entity: -entity["score"]):
        span = doc.char_span(entity["start"], entity["end"], entity["label"], alignment_mode="expand")
        tokens = set(range(span.start, span.end))
        if not tokens & taken:
            spans.append(span)
            taken |= tokens
    return spans
