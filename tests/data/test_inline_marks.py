import pytest
from corpora import fails_at, marked, read_corpus

from bilstm_crf_hf.alignment import Span, render
from bilstm_crf_hf.data.inline_marks import parse_inline
from bilstm_crf_hf.data.ner import labels_of


def test_inline_marks_become_tags_and_are_rendered_back(write):
    lines = ["<손흥민:PS>은 <춘천:LC>에서 태어났다.", "<두 번:QT>이나 <한:LC><일:LC>전을 봤다."]
    dataset = read_corpus(write("inline.txt", "\n".join(lines)))
    assert dataset["text"][:] == ["손흥민은 춘천에서 태어났다.", "두 번이나 한일전을 봤다."]
    assert marked(dataset) == lines


def test_parse_inline_gives_text_and_spans():
    assert parse_inline("<경찰:OG>은 <12:30:TI>에") == ("경찰은 12:30에", [Span(0, 2, "OG"), Span(4, 9, "TI")])


@pytest.mark.parametrize(
    ("line", "text", "entities"),
    [
        ("영화 <<레이:PS>>는", "영화 <레이>는", ["레이"]),
        ("<기생충>은 <봉준호:PS> 작품", "<기생충>은 봉준호 작품", ["봉준호"]),
        ("3 < 5 > <1:QT>><2:QT>", "3 < 5 > 1>2", ["1", "2"]),
        ("3 < 5 <1:QT> -> <-0-> <뉴스: 오늘> :> <3", "3 < 5 1 -> <-0-> <뉴스: 오늘> :> <3", ["1"]),
        ("<경찰:og> <경찰: OG> <경찰:OG", "<경찰:og> <경찰: OG> <경찰:OG", []),  # OG is no type of this corpus
        ("<가람(江<물+길>)시:LC>는 크다.", "가람(江<물+길>)시는 크다.", ["가람(江<물+길>)시"]),
        ("<<<가>나>다:LC> <A>B:PS>", "<<가>나>다 <A>B:PS>", ["<<가>나>다"]),
        ("< 중국 :LC>증시", " 중국 증시", [" 중국 "]),
    ],
)
@pytest.mark.parametrize("entity_types", [None, ["LC", "QT"]])
def test_other_angle_brackets_are_text(line, text, entities, entity_types):
    if entity_types and "PS" in line:
        entity_types = None if line.endswith("B:PS>") else ["PS"]
    found, spans = parse_inline(line, entity_types)
    assert found == text
    assert [found[span.start : span.end] for span in spans] == entities


def test_long_lines_of_marks_take_no_time():
    line = "<가 " * 2000 + "<김구:PS> " * 2000 + ":" * 5000
    assert len(parse_inline(line, ["PS"])[1]) == 2000


def test_brackets_in_marks_are_rendered_back(write):
    lines = ["<가람(江<물+길>)시:LC>는 <<레이:PS>>의 <a<b><c>:LC>"]
    assert marked(read_corpus(write("inline.txt", lines[0]))) == lines
    assert render(*parse_inline(lines[0])) == lines[0]


def test_entity_types_may_be_in_lower_case_when_listed():
    assert parse_inline("<서울:loc>은", ["loc"]) == ("서울은", [Span(0, 2, "loc")])


def test_listed_entity_types_are_the_labels_even_if_unused(write):
    dataset = read_corpus(write("inline.txt", "<김구:PS> 선생"), entity_types=["PS", "LC"])
    assert labels_of(dataset) == ["B-LC", "I-LC", "B-PS", "I-PS", "O"]
    assert marked(dataset) == ["<김구:PS> 선생"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("<경찰:XX>은", r"unknown entity type XX in <경찰:XX>: add it to entity_types \(OG, PS\)"),
        ("<:OG>은", "<:OG> marks no text"),
        ("< :OG>은", "< :OG> marks no text"),
        ("<<서울:OG> 시장:PS>은", "<<서울:OG> 시장:PS> marks an entity around another one"),
        ("<전 <서울:OG> <시장:PS>님:PS>은", "<전 <서울:OG> <시장:PS>님:PS> marks an entity around another one"),
    ],
)
def test_bad_marks_are_named(write, line, message):
    path = write("inline.txt", f"<김구:PS> 선생\n{line}\n")
    with fails_at(path, 2, message):
        read_corpus(path, entity_types=["OG", "PS"])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("<부산: LC>은", "<부산: LC>"),
        ("<부산:LC >은", "<부산:LC >"),
        ("<부산：LC>은", "<부산：LC>"),
        ("<부산:ＬＣ>은", "<부산:ＬＣ>"),
        ("＜부산:LC＞은", "＜부산:LC＞"),
        ("〈부산:LC〉은", "〈부산:LC〉"),
        ("<부산:lc>은", "<부산:lc>"),
        ("<부산;LC>은", "<부산;LC>"),
        ("<부산/LC>은", "<부산/LC>"),
        ("<부산::LC>은", "<부산::...>"),
        ("한<일:;LC>월드컵", "<일:;LC>"),
        ("<부산:LC는 <서울:LC>", "<부산:LC"),
        ("<부산:LC", "<부산:LC"),
        ("<부산:LC)은", "<부산:LC"),
        ("<서울:LC>, 부산:LC>은", "부산:LC>"),
        ("<LC:부산>은", "<LC:"),
        ("<LC>부산</LC>은", "</LC>"),
        ("<부산 LC>은", "<부산 LC>"),
        ("<부산_LC>은", "<부산_LC>"),
        ("《부산:LC》은", "《부산:LC》"),
        ("&lt;부산:LC&gt;은", "&lt;부산:LC&gt;"),
    ],
)
def test_what_is_nearly_a_mark_of_a_type_in_the_file_is_an_error(write, line, found):
    path = write("inline.txt", f"{line}\n<서울:LC>에\n")
    with fails_at(path, 1, f"'{found}' is nearly a mark"):
        read_corpus(path)
    if found == "<부산::...>":
        return  # a mark, so it makes LC a type
    path = write("text.txt", f"<김구:PS>는\n{line.replace('<서울:LC>', '서울')}\n")  # LC is no type of this file
    assert read_corpus(path, entity_types=["PS"])["text"][0] == "김구는"


@pytest.mark.parametrize("text", ["<뉴스: 오늘>", "3 < 5", "->", "<제목>", "< LC >", "시간:LC", "<LC 화학>"])
def test_ordinary_brackets_are_not_nearly_marks(write, text):
    path = write("inline.txt", f"{text} 가\n<서울:LC>에\n")
    assert marked(read_corpus(path)) == [f"{text} 가", "<서울:LC>에"]


def test_an_inline_file_without_any_entity_is_an_error(write):
    path = write("inline.txt", "김구는 어제\n왔다.\n")
    with pytest.raises(ValueError, match=f"{path}: no entity is marked as in <경찰:OG>"):
        read_corpus(path)


def test_a_tab_in_an_inline_file_is_an_error(write):
    path = write("inline.txt", "<김구:PS>는\n어제\t왔다.\n<서울:LC>에\n")
    with fails_at(path, 2, "a tab, though other lines have marks"):
        read_corpus(path)


@pytest.mark.parametrize(
    "line",
    [
        "<가람(江<물+길)시:LC>는 크다.",
        "<가람 (江<물+길)시:LC>는 크다.",
        "<영화<괴물:LC>은",
        "<부산:PS:LC>은",
        "<부산:지역>은",
        "<부산:Loc>은",
        "<부산: OG>은",
        "<부산:>은",
    ],
)
def test_marks_that_are_not_clear_are_errors(write, line):
    path = write("inline.txt", f"<서울:LC>, <김구:PS>\n{line}\n")
    with fails_at(path, 2, ".*is nearly a mark"):
        read_corpus(path)


@pytest.mark.parametrize(
    "text", ["3 < 5인", "<3 >_<", "<속보: 서울>", "<12:30>", "<http://a.kr>", "<br>", "<a b='x:y'>", "<이 기사는"]
)
def test_brackets_of_a_text_before_a_mark_are_text(write, text):
    assert marked(read_corpus(write("inline.txt", f"{text} <서울:LC>\n"))) == [f"{text} <서울:LC>"]
