from itertools import combinations, product

import pytest
from corpora import fails_at, marked, read_corpus
from seqeval import scheme as seqeval_schemes
from seqeval.scheme import Entities

from bilstm_crf_hf.alignment import Span, spans_from_tags
from bilstm_crf_hf.data.tag_schemes import SCHEMES, check_type, find_scheme, is_tag, respell

LENGTH = 4
SPANS = [Span(i, j, label) for i in range(LENGTH) for j in range(i + 1, LENGTH + 1) for label in ("PS", "LC")]
ANNOTATIONS = [
    list(spans)
    for count in range(LENGTH + 1)
    for spans in combinations(sorted(SPANS), count)
    if all(a.end <= b.start for a, b in zip(spans, spans[1:]))
]
"""All sets of entities of two types on four tokens."""

# IOE1 is left out: seqeval does not find an entity of one token that ends before another of its type
SEQEVAL = {"BIO": "IOB2", "BIOES": "IOBES", "IOB1": "IOB1", "IOE2": "IOE2", "BILOU": "BILOU"}


def encoded(scheme, spans):
    spelled = dict(zip("BIES", scheme.letters))
    return [spelled.get(tag[0], tag[0]) + tag[1:] for tag in scheme.encode(spans, LENGTH)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_every_set_of_entities_is_read_back(scheme):
    assert len(ANNOTATIONS) > 150
    for spans in ANNOTATIONS:
        tags = encoded(scheme, spans)
        assert scheme.violations(tags) == []
        assert spans_from_tags(map(respell, tags)) == spans


@pytest.mark.parametrize("name", SEQEVAL)
def test_entities_are_those_of_seqeval(name):
    scheme = next(scheme for scheme in SCHEMES if scheme.name == name)
    sequences = [encoded(scheme, spans) for spans in ANNOTATIONS]
    entities = Entities(sequences, scheme=getattr(seqeval_schemes, SEQEVAL[name])).entities
    assert [[(e.start, e.end, e.tag) for e in row] for row in entities] == ANNOTATIONS


def test_tags_that_are_valid_in_several_schemes_have_the_same_entities_in_all():
    for scheme in SCHEMES:
        for spans in ANNOTATIONS:
            tags = encoded(scheme, spans)
            for other in SCHEMES:
                if not other.violations(tags):
                    assert spans_from_tags(map(respell, tags)) == spans


@pytest.mark.parametrize("name", ["IOB1", "BIOES", "BILOU", "BMES", "BMEWO", "IOE1", "IOE2", "BIO"])
def test_the_scheme_of_a_corpus_is_found(name):
    scheme = next(scheme for scheme in SCHEMES if scheme.name == name)
    assert find_scheme(encoded(scheme, spans) for spans in ANNOTATIONS).name == name


def test_all_tag_sequences_of_a_scheme_but_its_own_are_violations():
    """Over all sequences of three tags, those without violations are as many as there are sets of entities."""
    sets = {tuple(spans) for spans in ANNOTATIONS if all(span.end <= 3 for span in spans)}
    for scheme in SCHEMES:
        letters = [f"{letter}-{label}" for letter in scheme.letters for label in ("PS", "LC")]
        valid = [tags for tags in product([*letters, "O"], repeat=3) if not scheme.violations(tags)]
        assert len(valid) == len(sets), scheme.name


NO_TAGS = [
    "",
    " O",
    "O ",
    "o",
    "0",
    "-",
    "--",
    "_",
    "*",
    "I",
    "PS",
    "BPS",
    "B PS",
    "B_PS",
    "b-PS",
    "X-PS",
    "PS-B",
    "B–PS",
]
NO_TAGS += ["Ｂ-PS", "B-ＰＳ", "B-", "B-PS ", "B- PS", "B-P\u200bS", "B-PS|B-LC", "B-PS;B-LC", "B-PS,LC", "B-<PS>"]
CONLL_2003 = "EU I-ORG\nrejects O\nGerman I-MISC\ncall B-MISC\n\nPeter I-PER\nBlackburn I-PER\n"


@pytest.mark.parametrize(
    ("content", "name", "entities"),
    [
        (CONLL_2003, "IOB1", ["<EU:ORG> rejects <German:MISC> <call:MISC>", "<Peter Blackburn:PER>"]),
        (CONLL_2003 + "\n" + CONLL_2003 + "\nAtlanta B-LOC\n", "IOB1", None),  # a B that is not needed
        ("EU U-ORG\nis O\nNew B-LOC\nYork L-LOC\n", "BILOU", ["<EU:ORG> is <New York:LOC>"]),
        ("EU S-ORG\nis O\nNew B-LOC\nYork E-LOC\n", "BIOES", ["<EU:ORG> is <New York:LOC>"]),
        ("EU S-ORG\nis O\nNew B-LOC\nYork M-LOC\nCity E-LOC\n", "BMES", ["<EU:ORG> is <New York City:LOC>"]),
        ("EU W-ORG\nis O\nNew B-LOC\nYork M-LOC\nCity E-LOC\n", "BMEWO", ["<EU:ORG> is <New York City:LOC>"]),
        ("EU E-ORG\nis O\nNew I-LOC\nYork E-LOC\n", "IOE2", ["<EU:ORG> is <New York:LOC>"]),
        ("EU I-ORG\nis O\nNew E-LOC\nYork I-LOC\n", "IOE1", ["<EU:ORG> is <New:LOC> <York:LOC>"]),
    ],
)
def test_other_schemes_are_converted_and_named_in_the_log(write, caplog, content, name, entities):
    caplog.set_level("INFO")
    dataset = read_corpus(write("words.conll", content))
    if entities:
        assert marked(dataset) == entities
    assert f"the tags of the corpus follow {name}: they are converted to BIO" in caplog.messages


def test_bio_is_not_named_in_the_log(write, caplog):
    caplog.set_level("INFO")
    read_corpus(write("words.conll", "EU B-ORG\nis O\nNew B-LOC\nYork I-LOC\n"))
    assert not any("converted" in message for message in caplog.messages)


@pytest.mark.parametrize("tag", NO_TAGS)
def test_what_is_no_tag_is_named(write, tag):
    assert not is_tag(tag)
    path = write("words.tsv", f"김구는\tB-PS\n왔다\t{tag}\n")
    with fails_at(path, 2, r"'.*' in column 1 is not a tag such as O or B-PS"):
        read_corpus(path)


@pytest.mark.parametrize("name", ["PS", "creative-work", "법인명", "その他の組織名", "Event Name", "B", "ORG.Corp/1"])
def test_types_may_have_any_usual_name(name):
    check_type(name)
    assert respell(f"U-{name}") == f"S-{name}"


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("New B-LOC\nYork I-LOC\n\nO O\nBusan I-LOC\n\nZ B-LOC\n", 5, "I-LOC cannot stand here in BIO, B-LOC could"),
        ("A S-LOC\nB B-LOC\nC E-LOC\nD B-LOC\n", 4, "B-LOC cannot stand here in BIOES, S-LOC could"),
        ("A U-LOC\nB B-LOC\nC L-LOC\nD I-LOC\n", 4, "I-LOC cannot stand here in BILOU, U-LOC could"),
        ("A B-LOC\nB M-LOC\nC E-LOC\nD S-LOC\nE W-LOC\n", 5, "W-LOC cannot stand here in BMES, S-LOC could"),
        ("A I-LOC\nB E-LOC\nX O\nC I-LOC\nY O\nD E-LOC\n", 4, "I-LOC cannot stand here in IOE2, E-LOC could"),
    ],
)
def test_tags_that_follow_no_scheme_are_named(write, content, line, message):
    path = write("words.conll", content)
    with fails_at(path, line, message):
        read_corpus(path)
