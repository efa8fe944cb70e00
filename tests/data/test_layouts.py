import re

import pytest
from corpora import entities_of, fails_at, marked, read_corpus, tags_of
from datasets import ClassLabel, Features, List, Value

from bilstm_crf_hf.data.ner import labels_of, load_ner_datasets

KLUE = """##klue-ner-v1_dev_00000-wikitree\t<서울:LC> 간 <김구:PS>
서\tB-LC
울\tI-LC
 \tO
간\tO
 \tO
김\tB-PS
구\tI-PS

##klue-ner-v1_dev_00001-nsmc\t<두 번:QT>!
두\tB-QT
 \tI-QT
번\tI-QT
!\tO
"""
CONLL = "김구는\tB-PS\n어제\tB-DT\n저녁\tI-DT\n왔다\tO\n"
GERMEVAL = """#\thttp://example.org\t[2009-10-17]
1\t민수는\tB-PER\tO
2\t대전\tB-LOC\tB-ORG
3\t병원에\tI-LOC\tO

1\t간다\tO\tO
"""
KMOU = """## 1
## 민수는 부산에 산다.
## <민수:PER>는 <부산:LOC>에 산다.
민수\t민수\tNNP\tB-PER
는\t는\tJX\tO
부산\t부산\tNNP\tB-LOC
에\t에\tJKB\tO
산\t살\tVV\tO
다\tㄴ다\tEF\tO
.\t.\tSF\tO

## 2
## 3 < 5
## 3 < 5
3\t3\tSN\tO
"""
CONLLU = """# sent_id = 1
# text = 민수는 서울에서 뉴욕으로.
1\t민수\t_\tPROPN\t_\t_\t0\troot\t_\tSpaceAfter=No|NER=B-PER
2\t는\t_\tADP\t_\t_\t1\tcase\t_\t_
3-4\t서울에서\t_\t_\t_\t_\t_\t_\t_\t_
3\t서울\t_\tPROPN\t_\t_\t1\tdep\t_\tNER=B-LOC
4\t에서\t_\tADP\t_\t_\t3\tcase\t_\t_
4.1\t가\t_\tVERB\t_\t_\t_\t_\t_\t_
5-6\t뉴욕으로\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
5\t뉴욕\t_\tPROPN\t_\t_\t1\tdep\t_\tNER=B-LOC|Gloss=x
6\t으로\t_\tADP\t_\t_\t5\tcase\t_\t_
7\t.\t_\tPUNCT\t_\t_\t1\tpunct\t_\t_

1\t비\t_\tNOUN\t_\t_\t0\troot\t_\t_
"""

# KLUE


def test_klue_tsv_gives_text_and_one_tag_a_character(write):
    dataset = read_corpus(write("klue.tsv", KLUE))
    assert dataset["text"][:] == ["서울 간 김구", "두 번!"]
    assert tags_of(dataset)[0] == ["B-LC", "I-LC", "O", "O", "O", "B-PS", "I-PS"]
    assert tags_of(dataset)[1] == ["B-QT", "I-QT", "I-QT", "O"]  # the space within the entity too


def test_labels_are_alphabetical_pairs_then_o(write):
    names = ["B-LC", "I-LC", "B-PS", "I-PS", "B-QT", "I-QT", "O"]
    dataset = read_corpus(write("klue.tsv", KLUE))
    assert labels_of(dataset) == names
    assert dataset.features == Features({"text": Value("string"), "tags": List(ClassLabel(names=names))})


def test_single_entity_characters_still_get_an_inside_label(write):
    assert labels_of(read_corpus(write("klue.tsv", "윤\tB-PS\n은\tO\n"))) == ["B-PS", "I-PS", "O"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n\n", "\n\t\n"),
        lambda text: text.replace("\n\n", "\n\n\n \n"),
        lambda text: text.rstrip("\n"),
    ],
    ids=["crlf", "byte order mark", "tab as separator", "several blank lines", "no newline at the end"],
)
def test_copies_of_klue_with_other_white_space_are_the_same(write, change):
    assert marked(read_corpus(write("klue.tsv", change(KLUE)))) == ["<서울:LC> 간 <김구:PS>", "<두 번:QT>!"]


def test_unicode_line_separators_are_characters_of_the_text(write):
    dataset = read_corpus(write("klue.tsv", "김\tB-PS\n\u2028\tO\n\x85\tO\n"))
    assert dataset["text"][0] == "김\u2028\x85"


def test_a_carriage_return_within_a_line_is_an_error(write):
    path = write("a.tsv", "김\tB-PS\r구\tI-PS\n")
    with fails_at(path, 1, "a carriage return within the line"):
        read_corpus(path)


def test_a_byte_order_mark_within_a_file_is_an_error(write):
    path = write("a.tsv", "김\tB-PS\n\n\ufeff구\tO\n")
    with fails_at(path, 3, "a byte order mark within the file"):
        read_corpus(path)


@pytest.mark.parametrize("line", ["-docstart- -X- O", "-DOCSTART -X- O", "-DOCSTART-(7) -X- O"])
def test_other_spellings_of_document_marks_separate_sentences(write, line):
    assert read_corpus(write("a.conll", f"김구 NN B-PS\n{line}\n비 NN O\n"))["text"][:] == ["김구", "비"]


def test_neighbouring_entities_of_one_type_stay_apart(write):
    dataset = read_corpus(write("klue.tsv", "한\tB-LC\n일\tB-LC\n전\tO\n"))
    assert entities_of(dataset) == [[("한", "LC"), ("일", "LC")]]


# Columns


@pytest.mark.parametrize("separator", ["\t", " ", "  "])
def test_words_are_joined_by_a_space(write, separator):
    dataset = read_corpus(write("words.conll", CONLL.replace("\t", separator)))
    assert marked(dataset) == ["<김구는:PS> <어제 저녁:DT> 왔다"]
    assert len(dataset["tags"][0]) == len("김구는 어제 저녁 왔다")


def test_columns_are_split_at_tabs_and_ascii_spaces_only(write):
    text = "12\u00a0000 B-QT\n뉴\u00a0욕 B-LC\n가\u3000나 O\nx\x0cy O\nz\u2003w O\n"
    expected = "12\u00a0000 뉴\u00a0욕 가\u3000나 x\x0cy z\u2003w"
    assert read_corpus(write("words.conll", text))["text"][0] == expected
    tabs = re.sub(r" ([BO])", r"\t\1", text)
    assert read_corpus(write("words.tsv", tabs))["text"][0] == expected
    assert read_corpus(write("more.tsv", "New York\tB-LC\n간다\tO\n"))["text"][0] == "New York 간다"


def test_columns_can_be_chosen(write):
    path = write("words.conll", "x 김구는 NNP B-PS _\ny 왔다 VV O _\n")
    assert marked(read_corpus(path, token_column=1, tag_column=-2)) == ["<김구는:PS> 왔다"]
    assert marked(read_corpus(path, token_column=-4, tag_column=3)) == ["<김구는:PS> 왔다"]


def test_the_columns_of_a_file_with_several_are_said_in_the_log(write, caplog):
    caplog.set_level("INFO")
    path = write("words.conll", "김구는 NNP B-NP B-PS\n왔다 VV O O\n")
    read_corpus(path)
    assert f"{path}: tokens in column 0, tags in column 3 of 4" in caplog.messages


@pytest.mark.parametrize(
    "content",
    [
        GERMEVAL,
        GERMEVAL.replace("3\t병", "2.1\t병"),
        CONLLU,
        "0 김구 B-PS\n1 는 O\n\n2 비 O\n3 가 O\n",  # running through the file
        "1 김구 B-PS\n",
        "w1 김구 B-PS\nw2 는 O\n\nw1 비 O\nw2 가 O\n",
        "1-1\t0-2\t김구\tB-PS\n1-2\t2-3\t는\tO\n",
        "[1] 김구 B-PS\n[2] 는 O\n",
        "0\t2\t김구\tB-PS\n2\t3\t는\tO\n",  # offsets
        "17\t김구\tB-PS\n3\t는\tO\n",  # the index of a shuffled table
    ],
)
@pytest.mark.parametrize("suffix", ["tsv", "txt", "conll"])
def test_a_first_column_that_counts_is_refused(write, content, suffix):
    path = write(f"words.{suffix}", content)
    with pytest.raises(ValueError, match=rf"{path}: column 0 counts .*: which column has the words\? .*--token_column"):
        read_corpus(path)


def test_a_first_column_that_names_the_sentence_is_refused(write):
    path = write("words.tsv", "s1\t김구\tB-PS\ns1\t는\tO\n\ns2\t왔다\tO\ns2\t.\tO\n")
    with pytest.raises(ValueError, match=r"column 0 is the same in all lines of a sentence \('s1'\): which"):
        read_corpus(path)
    assert marked(read_corpus(path, token_column=1)) == ["<김구:PS> 는", "왔다 ."]


@pytest.mark.parametrize(
    "content", ["1 B-QT\n2 O\n", "1 NN B-QT\n7 NN O\n\n김구 NN O\n는 JX O\n", "1 NN B-QT\n년 NN I-QT\n"]
)
def test_numbers_that_are_tokens_are_read(write, content):
    assert len(entities_of(read_corpus(write("words.conll", content)))[0]) == 1


def test_germeval_is_read_when_its_columns_are_named(write, caplog):
    caplog.set_level("INFO")
    path = write("words.tsv", GERMEVAL)
    assert marked(read_corpus(path, token_column=1, tag_column=2)) == ["<민수는:PER> <대전 병원에:LOC>", "간다"]
    assert marked(read_corpus(path, token_column=1)) == ["민수는 <대전:ORG> 병원에", "간다"]
    assert f"{path}: skipped 1 lines of comments" in caplog.messages


def test_comments_and_document_marks_are_skipped_but_not_tokens(write, caplog):
    caplog.set_level("INFO")
    content = "-DOCSTART- -X- O O\n\n# 신문\n#\n김구는 B-PS\n# O\n왔다 O\n-DOCSTART- O\n# O\n#서울 B-LC\n"
    path = write("words.conll", content)
    assert read_corpus(path)["text"][:] == ["김구는 # 왔다", "# #서울"]
    assert f"{path}: skipped 2 lines of comments" in caplog.messages


@pytest.mark.parametrize("comment", ["## 1\n", "## a\n## b\n## c\n", "## a\n## b\n## c\n\n"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_comments_with_two_number_signs_do_not_make_a_file_kmous(write, comment, separator):
    content = "김구 NNP B-PS\n는 JX O\n".replace(" ", separator)
    assert marked(read_corpus(write("a.conll", f"{comment}{content}\n{comment}{content}"))) == ["<김구:PS> 는"] * 2


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("New York B-LC\nis O\n비 O\n", 1, "3 columns in 'New York B-LC', but most lines of the file have 2"),
        ("New York B-LC\nis O\n", 2, "2 columns in 'is O', but most lines of the file have 3"),
        ("a _ O O\nMin Su _ O B-PS\nb _ _ O\n", 2, "5 columns in 'Min Su _ O B-PS', but most lines of the file have 4"),
        ("김구는\tB-PS\n왔다\tO\t\n비\tO\n", 2, "3 columns"),
        ("김구는\tB-PS\n왔다 O\n", 2, "no tab, though line 1 has one"),
        ("김구는 O\n왔다\tO\n", 1, "no tab, though line 2 has one"),
        ("김구는\n왔다\n", 1, "expected a token and a tag, between them a tab or spaces, found '김구는'"),
        ("김구는\tB-PS\n\tO\n", 2, "no token in column 0"),
        ("김\tB-PS\n구는\tI-PS\n \tO\n", 3, "the token is white space"),
        ("김구는\tB_PS\n", 1, "'B_PS' in column 1 is not a tag"),
        ("김구는\tB-B-PS\n", 1, "'B-B-PS' in column 1 is not a tag"),
        ("김구는\tB-O\n", 1, "'B-O' in column 1 is not a tag"),
        ("token\ttag\n김구는\tB-PS\n", 1, "'tag' in column 1 is not a tag .*header"),
        ("김구는\tB-PS\t\n왔다\tO\t\n", 1, "'' in column 2 is not a tag .*--tag_column"),
        ("김\tB-PS\n##klue-1\t구\n", 2, "'구' in column 1 is not a tag"),
        ("O\tThe\nB-LC\tSeoul\n", 1, "'The' in column 1 is not a tag"),
        ("#서울 B_LC\n김구는 B-PS\n", 1, "'B_LC' in column 1 is not a tag"),
        ("# 서울 시 B-LC\n김구는 B-PS\n", 1, "4 columns"),
        ("김\tB-PS\n\n서\tB-LC\n울\tI-PS\n", 4, "I-PS cannot stand here in BIO"),
    ],
)
def test_bad_lines_of_columns_are_named(write, content, line, message):
    path = write("words.conll", content)
    with fails_at(path, line, message):
        read_corpus(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tag_column": 3}, "there is no column 3 .*most lines have 2"),
        ({"token_column": -3}, "there is no column -3"),
        ({"tag_column": 0}, "column 0 cannot have both the tokens and the tags"),
    ],
)
def test_columns_that_the_file_does_not_have_are_named(write, columns, message):
    path = write("words.conll", CONLL)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        read_corpus(path, **columns)


def test_a_file_without_blank_lines_is_warned_about(write, caplog):
    path = write("words.conll", "\n" + "김구 B-PS\n는 O\n" * 1001)
    read_corpus(path)
    assert caplog.messages == [f"{path}:2: a sentence of 2002 tokens begins here: are blank lines missing?"]


# KMOU


@pytest.mark.parametrize("suffix", ["txt", "tsv", "conll"])
@pytest.mark.parametrize("name", ["## 1", "## doc-1"])
def test_kmou_is_read_from_its_annotated_lines(write, suffix, name):
    dataset = read_corpus(write(f"kmou.{suffix}", KMOU.replace("## 1", name).replace("## 2", f"{name}2")))
    assert marked(dataset) == ["<민수:PER>는 <부산:LOC>에 산다.", "3 < 5"]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("## 민수는 부산에", "## 민수는 대전에", 3, ".* without its marks is not '민수는 대전에 산다.'"),
        ("<민수:PER>", "<민수: PER>", 3, "'<민수: PER>' is nearly a mark"),
        ("## 2\n", "", 14, r"expected three lines '## number', .* found '3\\t3"),
        (
            "## 2\n## 3 < 5\n## 3 < 5\n3\t3\tSN\tO\n",
            "## 2\n## 3 < 5\n",
            13,
            "the sentence ends before its annotated line",
        ),
        ("민수\t민수\tNNP\t", "민수 민수 NNP ", 4, "expected three lines"),
        ("## 2", "##2", 12, "expected three lines"),
        ("## ", "##", 1, "expected three lines"),
        ("## ", "##\u00a0", 1, "expected three lines"),
        ("5\n3\t3", "5\n\n3\t3", 16, "expected three lines"),
    ],
)
def test_bad_sentences_of_kmou_are_named(write, old, new, line, message):
    assert old in KMOU
    path = write("kmou.txt", KMOU.replace(old, new))
    with fails_at(path, line, message):
        read_corpus(path)


# CoNLL-U


def test_conllu_is_read_with_its_spaces_and_multiword_tokens(write):
    dataset = read_corpus(write("ud.conllu", CONLLU))
    assert marked(dataset) == ["<민수:PER>는 <서울에서:LOC> <뉴욕으로:LOC>.", "비"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("NER=", "name="),
        ("NER=", "ner="),
        ("# text = 민수는 서울에서 뉴욕으로.\n", ""),
        ("NER=B-PER", "NER=U-PER"),
        ("SpaceAfter=No|NER=B-PER", "NER=B-PER|SpaceAfter=No"),
        ("\t1\tdep\t_\tNER=B-LOC\n", "\t1\tdep\t_\t_\n"),
    ],
)
def test_other_spellings_of_conllu_are_read(write, old, new):
    content = CONLLU.replace(old, new)
    if "U-PER" in new:
        content = content.replace("B-LOC", "U-LOC")
    if new.endswith("\t_\n"):
        content = content.replace("서울에서\t_\t_\t_\t_\t_\t_\t_\t_", "서울에서\t_\t_\t_\t_\t_\t_\t_\tNER=B-LOC")
    assert content != CONLLU
    assert marked(read_corpus(write("ud.conllu", content))) == ["<민수:PER>는 <서울에서:LOC> <뉴욕으로:LOC>.", "비"]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (
            "4.1\t가\t_\tVERB\t_\t_\t_\t_\t_\t_",
            "4.1\t가\t_\tVERB\t_\t_\t_\t_\t_\tNER=I-LOC",
            8,
            "an empty node has no text",
        ),
        ("7\t.\t_\tPUNCT", "7\t.\tPUNCT", 12, "expected ten columns"),
        ("7\t.\t_", "x\t.\t_", 12, "expected ten columns"),
        ("# text = 민수는 서울", "# text = 민수는  서울", 1, "the words give '민수는 서울.*SpaceAfter=No"),
        ("NER=B-PER", "NER=PER", 3, "'PER' is not a tag"),
        ("5\tcase\t_\t_", "5\tcase\t_\tNER=B-ORG", 11, "two entities have a part in the same multiword token"),
    ],
)
def test_bad_lines_of_conllu_are_named(write, old, new, line, message):
    assert old in CONLLU
    path = write("ud.conllu", CONLLU.replace(old, new))
    with fails_at(path, line, message):
        read_corpus(path)


def test_conllu_without_tags_is_an_error(write):
    path = write("ud.conllu", CONLLU.replace("NER=", "Other="))
    with pytest.raises(ValueError, match="no word has a tag such as NER=B-PS in the last column"):
        read_corpus(path)


# Choice of the layout


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", " \n\t\n", "-DOCSTART- O\n"])
@pytest.mark.parametrize("suffix", ["txt", "tsv", "conll", "conllu"])
def test_a_file_without_sentences_is_an_error(write, suffix, content):
    path = write(f"empty.{suffix}", content)
    known = r"no sentence in it|no entity is marked|no word has a tag" if "DOC" in content else "no sentence in it"
    with pytest.raises(ValueError, match=f"{path}:.*({known})"):
        read_corpus(path)


@pytest.mark.parametrize("suffix", ["txt", "tsv", "conll", "conllu"])
def test_a_file_that_is_not_utf8_is_named_with_line_and_byte(write, suffix):
    path = write(f"cp949.{suffix}", b"\xef\xbb\xbfO\tO\n" + "김\tO\n".encode("cp949"))
    with fails_at(path, 2, "byte 1 of the line is not UTF-8"):
        read_corpus(path)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("klue.tsv", KLUE, "서울 간 김구"),
        ("klue.tsv", "김\tB-PS\n구\tI-PS\n \tO\n가\tO\n", "김구 가"),
        ("klue.txt", KLUE, "서울 간 김구"),
        ("klue.conll", KLUE, "서울 간 김구"),
        ("words.tsv", CONLL, "김구는 어제 저녁 왔다"),
        ("words.tsv", "그\tB-PS\n사람\tO\n", "그 사람"),
        ("words.txt", CONLL, "김구는 어제 저녁 왔다"),
        ("words.txt", CONLL.replace("\t", " "), "김구는 어제 저녁 왔다"),
        ("words.txt", "<b:URL> B-URL\n비 O\n온다 O\n", "<b:URL> 비 온다"),
        ("inline.txt", "\n<김구:PS>는 왔다\n", "김구는 왔다"),
        ("inline.txt", "# <김구:PS>는 O\n비가 온다\n", "# 김구는 O"),
        ("words.conll", CONLL, "김구는 어제 저녁 왔다"),
        ("words.bio", CONLL, "김구는 어제 저녁 왔다"),
        ("words.iob2", CONLL, "김구는 어제 저녁 왔다"),
        ("words.iob", CONLL, "김구는 어제 저녁 왔다"),
        ("eng.testa", CONLL, "김구는 어제 저녁 왔다"),
        ("words.BIOES", CONLL.replace("B-PS", "S-PS").replace("I-DT", "E-DT"), "김구는 어제 저녁 왔다"),
        ("words.bilou", CONLL.replace("B-PS", "U-PS").replace("I-DT", "L-DT"), "김구는 어제 저녁 왔다"),
    ],
)
def test_the_layout_follows_from_the_name_and_all_lines(write, name, content, text):
    assert load_ner_datasets(data_files={"train": write(name, content)})["train"]["text"][0] == text
