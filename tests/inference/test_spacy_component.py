"""The spaCy component against the pipeline that it serves."""

import pytest
import torch
from conftest import new_tagger
from transformers import pipeline

from bilstm_crf_hf import BiLSTMCRFTokenClassificationPipeline, BiLSTMForSequenceClassification

spacy = pytest.importorskip("spacy")
from spacy.tokens import DocBin  # noqa: E402

from bilstm_crf_hf.inference import spacy_component  # noqa: E402
from bilstm_crf_hf.inference.spacy_component import BiLSTMCRFComponent  # noqa: E402

SPACES = {"nlp": {"tokenizer": {"@tokenizers": "spacy.Tokenizer.v1"}}}  # in place of mecab


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> str:
    """A tagger on disk, whose entities are several characters long."""
    path = tmp_path_factory.mktemp("tagger")
    model = new_tagger(tokenizer, seed=3)
    with torch.no_grad():
        model.crf.transitions += 3 * model.crf.continues[:-1, :-1]
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module", params=["xx", "ko"])
def nlp(request, folder):
    nlp = spacy.blank(request.param, config=SPACES)
    nlp.add_pipe("bilstm_crf", config={"model": folder})
    return nlp


@pytest.fixture(scope="module")
def expected(folder, texts) -> list[list[dict]]:
    """The pipeline's own entities, with the component's names of their fields."""
    tagger = pipeline("token-classification", model=folder, pipeline_class=BiLSTMCRFTokenClassificationPipeline)
    names = {"entity_group": "label", "word": "text"}
    return [[{names.get(key, key): value for key, value in e.items()} for e in tagger(text)] for text in texts]


def assert_entities(doc, entities: list[dict]) -> None:
    assert [e | {"score": 0} for e in doc._.entities] == [e | {"score": 0} for e in entities]
    assert [e["score"] for e in doc._.entities] == pytest.approx([e["score"] for e in entities], abs=1e-5)


def found_by(entities: list[tuple]) -> BiLSTMCRFComponent:
    """A component whose tagger finds (start, end, label, score) in every text."""

    def predict(texts):
        names = ("start", "end", "entity_group", "score")
        return [{"entities": [dict(zip(names, e)) | {"word": text[e[0] : e[1]]} for e in entities]} for text in texts]

    return BiLSTMCRFComponent(predict)


def spans(doc) -> list[tuple[str, str]]:
    return [(span.text, span.label_) for span in doc.ents]


def test_entities_are_the_pipelines_to_the_character(nlp, texts, expected):
    assert any(expected)
    for text, entities in zip(texts, expected, strict=True):
        assert_entities(nlp(text), entities)


def test_many_texts_are_tagged_together_and_read_as_they_come(nlp, texts, expected, monkeypatch):
    component = nlp.get_pipe("bilstm_crf")
    sizes, read = [], []
    predictor = component.predictor
    monkeypatch.setattr(component, "predictor", lambda texts: sizes.append(len(texts)) or predictor(texts))
    docs = nlp.pipe((read.append(text) or text for text in texts), batch_size=3)
    assert_entities(next(docs), expected[0])
    assert len(read) < len(texts)
    for doc, entities in zip(docs, expected[1:], strict=True):
        assert_entities(doc, entities)
    assert sizes == [3, 3, 2]


def test_ents_are_the_tokens_that_entities_touch():
    doc = found_by([(0, 3, "PS", 0.9), (5, 16, "DT", 0.8), (17, 19, "LC", 0.7)])(
        spacy.blank("ko", config=SPACES)("손흥민은 1992년 7월 8일 춘천에서 태어났다.")
    )
    assert spans(doc) == [("손흥민은", "PS"), ("1992년 7월 8일", "DT"), ("춘천에서", "LC")]
    assert [entity["text"] for entity in doc._.entities] == ["손흥민", "1992년 7월 8일", "춘천"]
    assert doc[1].ent_iob_ == "B"
    assert doc[-1].ent_iob_ == "O"


@pytest.mark.parametrize(
    ("scores", "ents"),
    [
        ((0.9, 0.8, 0.7), [("서울대학교병원은", "LC")]),
        ((0.7, 0.9, 0.8), [("서울대학교병원은", "OG")]),
        ((0.7, 0.8, 0.9), [("서울대학교병원은 혜화동", "AF")]),
    ],
)
def test_of_entities_in_one_token_ents_has_the_most_probable(scores, ents):
    found = [(0, 2, "LC"), (2, 5, "OG"), (5, 12, "AF")]
    component = found_by([(*entity, score) for entity, score in zip(found, scores)])
    doc = component(spacy.blank("ko", config=SPACES)("서울대학교병원은 혜화동 언덕에 있다."))
    assert spans(doc) == ents
    assert [(e["text"], e["label"]) for e in doc._.entities] == [
        ("서울", "LC"), ("대학교", "OG"), ("병원은 혜화동", "AF")
    ]  # fmt: skip


def test_ents_are_all_there_is_of_the_entities(nlp, texts):
    """None overlap, all are best among those they touch, and each entity without a span gave way to one."""
    for doc in nlp.pipe(texts):
        tokens = [{t.i for t in doc if t.idx < e["end"] and e["start"] < t.idx + len(t)} for e in doc._.entities]
        scores = {}
        for entity, touched in zip(doc._.entities, tokens):
            key = min(touched), max(touched) + 1, entity["label"]
            scores[key] = max(entity["score"], scores.get(key, 0))
        kept = {(span.start, span.end, span.label_) for span in doc.ents}
        assert kept <= scores.keys()
        for start, end, label in scores.keys() - kept:
            rivals = [scores[key] for key in kept if key[0] < end and start < key[1]]
            assert max(rivals) >= scores[start, end, label]


def test_texts_without_anything(nlp):
    for doc in nlp.pipe(["", "  ", "\n"]):
        assert doc._.entities == []
        assert doc.ents == ()


def test_earlier_entities_are_replaced(folder, texts):
    nlp = spacy.blank("xx")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "ALL", "pattern": [{"OP": "+"}]}])
    nlp.add_pipe("bilstm_crf", config={"model": folder})
    docs = list(nlp.pipe(texts))
    assert any(doc.ents for doc in docs)
    assert "ALL" not in {span.label_ for doc in docs for span in doc.ents}


def test_pipeline_is_saved_with_the_name_of_its_model(nlp, texts, expected, tmp_path):
    nlp.to_disk(tmp_path)
    for loaded in (spacy.load(tmp_path), spacy.blank(nlp.lang, config=SPACES).from_config(nlp.config)):
        assert loaded.config["components"]["bilstm_crf"]["model"] == nlp.config["components"]["bilstm_crf"]["model"]
        assert_entities(loaded(texts[0]), expected[0])
    assert nlp.from_bytes(nlp.to_bytes()) is nlp


def test_entities_are_saved_with_documents(nlp, texts, expected):
    saved = DocBin(store_user_data=True, docs=nlp.pipe(texts)).to_bytes()
    for doc, entities in zip(DocBin().from_bytes(saved).get_docs(nlp.vocab), expected, strict=True):
        assert_entities(doc, entities)


def test_labels_are_the_types_of_entities(nlp):
    assert nlp.pipe_labels == {"bilstm_crf": ["DT", "LC", "PS"]}


def test_a_revision_is_fetched(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        spacy_component, "snapshot_download", lambda *args, **kwargs: asked.append((args, kwargs)) or folder
    )
    nlp = spacy.blank("xx")
    nlp.add_pipe("bilstm_crf", config={"model": "someone/klue-ner", "revision": "v1"})
    assert asked == [(("someone/klue-ner",), {"revision": "v1"})]
    assert nlp.config["components"]["bilstm_crf"]["model"] == "someone/klue-ner"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"batch_size": 0}, "bilstm_crf: batch_size is 0"),
        ({"stride": 16}, "stride"),
    ],
    ids=str,
)
def test_configurations_that_are_refused(folder, config, message):
    nlp = spacy.blank("xx")
    with pytest.raises(ValueError, match=message):
        nlp.add_pipe("bilstm_crf", config=config | {"model": folder})
    assert nlp.pipe_names == []


def test_a_text_classifier_is_refused(tokenizer, tmp_path):
    BiLSTMForSequenceClassification.from_tokenizer(tokenizer, ngram_buckets=16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a text classifier: name a token classifier"):
        spacy.blank("xx").add_pipe("bilstm_crf", config={"model": str(tmp_path)})
