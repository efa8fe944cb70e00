"""The page to try a tagger, served by a process that cannot import the package, in a real browser."""

import contextlib
import copy
import http.client
import itertools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from conftest import LABELS, new_reader, new_tagger
from gradio_client import Client
from gradio_client.exceptions import AppError
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from transformers import BertConfig, BertForTokenClassification, XLMRobertaConfig, pipeline

from bilstm_crf_hf import (
    BiLSTMCRFPreTrainedModel,
    BiLSTMCRFTokenClassificationPipeline,
    BiLSTMForSequenceClassification,
    EncoderClassifierConfig,
    EncoderCRFConfig,
    EncoderCRFForTokenClassification,
    EncoderForSequenceClassification,
)
from bilstm_crf_hf.alignment import spans_from_tags
from bilstm_crf_hf.inference.space import app

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "recipes"
APP = Path(app.__file__)

SECONDS = 120  # that an answer may take: it takes one, but other processes may want the machine
BROWSER_OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1200,1000"),
    "--disable-dev-shm-usage",  # which is small in a container
]


@pytest.fixture(scope="module")
def models(tagger, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    names = {"id2label": {0: "부정", 1: "긍정"}, "label2id": {"부정": 0, "긍정": 1}}
    for name, model in {
        "tagger": tagger,
        "classifier": BiLSTMForSequenceClassification.from_tokenizer(tokenizer, hidden_size=8, **names),
    }.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def pipe(models):
    return pipeline("token-classification", model=str(models / "tagger"), trust_remote_code=True)


@pytest.fixture(scope="module")
def classifier(models):
    return pipeline("text-classification", model=str(models / "classifier"), trust_remote_code=True)


@pytest.fixture(scope="module")
def url(models, tmp_path_factory):
    """The address of the page, served by a process that has the files of a Space only."""
    folder = tmp_path_factory.mktemp("space")
    shutil.copytree(APP.parent, folder, dirs_exist_ok=True)
    arguments = [str(models / "tagger"), "--classifier", str(models / "classifier")]
    code = f"import sys; sys.modules['bilstm_crf_hf'] = None; import app; app.main({arguments!r})"
    with serving(["-c", code], folder) as address:
        yield address


@contextlib.contextmanager
def serving(arguments: list[str], folder: Path):
    """Run Python with these arguments and yield the address of the page that it serves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        "HF_MODULES_CACHE": f"{folder}/modules",
        "GRADIO_TEMP_DIR": f"{folder}/temp",
        "GRADIO_SERVER_PORT": str(port),
    }
    address = f"http://127.0.0.1:{port}/"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: process.poll() is not None or answers(address))
        assert process.poll() is None, (folder / "log").read_text()
        yield address
    finally:
        process.kill()
        process.wait()


def answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address).status == 200
    except urllib.error.URLError:
        return False


def wait_for(condition, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def client(url) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


@pytest.fixture(scope="module")
def page(url, tmp_path_factory):
    """The page in headless Chromium."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        miss = pytest.fail if os.environ.get("CI") else pytest.skip
        miss("there is no chromium with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*BROWSER_OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        driver.get(url)
        wait_for(lambda: driver.find_elements("css selector", ".results li"))
        yield Page(driver)
    finally:
        driver.quit()


class Page:
    """The actions of a reader of the page, and what it shows."""

    READ = """
        const bare = node => {
            const copy = node.cloneNode(true);
            copy.querySelectorAll('mark b, mark span').forEach(extra => extra.remove());
            return copy.textContent;
        };
        return [...document.querySelectorAll('.results ol > li')].filter(li => li.checkVisibility()).map(li => ({
            text: bare(li.querySelector('p')),
            marks: [...li.querySelectorAll('p mark')].map(
                mark => [bare(mark), mark.querySelector('b').textContent, mark.querySelector('span').textContent]
            ),
            rows: [...li.querySelectorAll('tr')].map(row => [...row.children].map(cell => cell.textContent)),
        }))"""

    def __init__(self, driver) -> None:
        self.driver = driver

    def lines(self) -> list[dict]:
        return self.driver.execute_script(self.READ)

    def click(self, selector: str, text: str) -> None:
        found = self.driver.find_elements("css selector", selector)
        next(element for element in found if element.is_displayed() and element.text.strip() == text).click()

    def type(self, text: str) -> None:
        self.driver.find_element("css selector", "textarea").send_keys(Keys.CONTROL + "a", Keys.BACKSPACE)
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})

    def run(self, text: str) -> list[dict]:
        """Enter a text, press the button and return the lines that the page shows."""
        self.type(text)
        self.click("button", "Run")
        wait_for(lambda: [line["text"] for line in self.lines()] == text.splitlines())
        return self.lines()

    def requests(self) -> set[str]:
        """Return the addresses on the network that the page has requested."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"]["request"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return {request["url"] for request in asked if request["url"].startswith("http")}


def expected_marks(pipe, line: str) -> list[list[str]]:
    return [[e["word"], e["entity_group"], app.percent(e["score"])] for e in pipe(line)]


# ---------------------------------------------------------------- in the browser


def test_page_marks_the_entities_of_the_pipeline(page, pipe, texts):
    (line,) = page.run(texts[0])
    assert line["marks"] == expected_marks(pipe, texts[0])
    assert line["marks"]


def test_probability_shows_where_one_points_at_an_entity(page, texts):
    page.run(texts[1])
    entity = page.driver.find_element("css selector", ".results mark")
    tip = entity.find_element("css selector", "[role=tooltip]")
    ActionChains(page.driver).move_to_element(page.driver.find_element("tag name", "h1")).perform()
    assert not tip.is_displayed()
    ActionChains(page.driver).move_to_element(entity).perform()
    assert tip.is_displayed()
    assert tip.text.endswith("%")


def test_lines_keep_their_order_and_empty_ones_their_place(page, pipe, texts):
    lines = [texts[0], "", texts[2], "  ", texts[1]]
    shown = page.run("\n".join(lines))
    assert [line["marks"] for line in shown] == [expected_marks(pipe, line) for line in lines]
    assert [len(line["rows"]) for line in shown] == [4, 0, 4, 0, 4]  # other readings


def test_shift_and_enter_have_the_effect_of_the_button(page):
    page.type("서울")
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    wait_for(lambda: [line["text"] for line in page.lines()] == ["서울"])


def test_examples_run_where_one_clicks_them(page, pipe):
    page.click("#examples button", app.EXAMPLES[1])
    wait_for(lambda: [line["text"] for line in page.lines()] == [app.EXAMPLES[1]])
    assert page.lines()[0]["marks"] == expected_marks(pipe, app.EXAMPLES[1])


def test_long_and_empty_texts(page, pipe, texts):
    text = (" ".join(texts) * 100)[:10_000]
    (line,) = page.run(text)
    assert line["marks"] == expected_marks(pipe, text)
    assert all(len(reading) < 500 for _, reading in line["rows"])  # where it differs, not all of it
    assert page.run("") == []


def test_markup_in_a_text_is_text(page):
    text = "<script>document.title = '서울'</script> <b>춘천</b> &amp; ${1 + 1} {{value}} \"'"
    (line,) = page.run(text)
    assert line["text"] == text
    assert page.driver.title == "Named entities"
    assert not page.driver.find_elements("css selector", ".results script, .results p > b")


def test_classes_of_each_line_in_a_tab(page, classifier, texts):
    page.run(f"{texts[0]}\n\n{texts[5]}")
    page.click("[role=tab]", "Sentiment")
    wait_for(lambda: page.lines() and not page.lines()[0]["marks"])
    shown = [[[label, score] for label, score, _ in line["rows"]] for line in page.lines()]
    best = [[[r["label"], app.percent(r["score"])] for r in classifier(t, top_k=None)] for t in (texts[0], texts[5])]
    assert shown == [best[0], [], best[1]]
    page.click("[role=tab]", "Entities")


def test_a_message_takes_the_place_of_results_where_a_text_is_too_long(page):
    page.run("서울")
    page.type("가" * (app.MAX_CHARACTERS + 1))
    page.click("button", "Run")
    wait_for(lambda: page.driver.find_elements("css selector", "[role=alert]"))
    message = "The text has 50,001 characters: at most 50,000 are read at a time."
    assert page.driver.find_element("css selector", "[role=alert]").text == message
    assert page.lines() == []


def test_nothing_comes_from_elsewhere(page, url):
    requests = page.requests()
    assert len(requests) > 10
    assert {address for address in requests if not address.startswith(url)} == set()


# ---------------------------------------------------------------- from a program


def test_endpoint_gives_the_entities_of_the_pipeline(client, pipe, texts):
    found = client.predict("\n".join([*texts, "", texts[0]]), api_name="/tag")
    for line, entities in zip([*texts, "", texts[0]], found, strict=True):
        expected = [{"start": e["start"], "end": e["end"], "label": e["entity_group"]} for e in pipe(line)]
        assert [{name: e[name] for name in ("start", "end", "label")} for e in entities] == expected
        assert [e["score"] for e in entities] == pytest.approx([e["score"] for e in pipe(line)], abs=1e-5)
    assert client.predict("", api_name="/tag") == []
    with pytest.raises(AppError, match="50,001 characters"):
        client.predict("가" * 50_001, api_name="/tag")


def test_endpoint_gives_the_readings_that_the_page_shows(client, pipe, texts):
    first, empty = client.predict(f"{texts[0]}\n\n", api_name="/readings")
    assert (len(first), empty) == (5, [])
    best = [{"start": e["start"], "end": e["end"], "label": e["entity_group"]} for e in pipe(texts[0])]
    assert [reading["entities"] == best for reading in first] == [True, False, False, False, False]
    assert 1 > first[0]["probability"] > first[1]["probability"] > first[4]["probability"] > 0


def test_endpoint_gives_the_labels_of_the_pipeline(client, classifier, texts):
    first, empty, second = client.predict(f"{texts[0]}\n \n{texts[5]}", api_name="/classify")
    assert empty == []
    for ours, text in ((first, texts[0]), (second, texts[5])):
        theirs = classifier(text, top_k=None)
        assert [label["label"] for label in ours] == [label["label"] for label in theirs]
        assert [label["score"] for label in ours] == pytest.approx([label["score"] for label in theirs], abs=1e-5)


def test_recipe_serves_the_same_page_with_the_classifier_of_the_package(models, texts, client, tmp_path):
    with serving([str(RECIPES / "demo.py"), str(models / "tagger")], tmp_path) as address:
        ours = Client(address, verbose=False, analytics_enabled=False)
        assert set(ours.view_api(return_format="dict")["named_endpoints"]) == {"/tag", "/readings", "/classify"}
        assert ours.predict(texts[0], api_name="/tag") == client.predict(texts[0], api_name="/tag")


def test_a_page_has_no_classes_without_a_classifier(pipe):
    assert set(app.build(pipe).get_api_info()["named_endpoints"]) == {"/tag", "/readings"}


# ---------------------------------------------------------------- requests


def request(url: str, path: str, body=None, **headers: str) -> tuple[int, str]:
    """Return the status and content of the answer. An iterable `body` is sent in chunks, without its length."""
    connection = http.client.HTTPConnection(url.removeprefix("http://").strip("/"), timeout=SECONDS)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[("localhost", 200), ("127.0.0.1:7860", 200), ("[::1]:7860", 200), ("192.168.0.7", 200), ("LOCALHOST:1", 200)],
        *[
            ("evil.example", 400),
            ("evil.example:7860", 400),
            ("localhost.evil.example", 400),
            ("127.0.0.1.nip.io", 400),
        ],
        *[("", 400), ("user-space.hf.space", 400), ("[", 400)],
    ],
)
def test_only_known_hosts_are_answered(url, host, status):
    assert request(url, "/config", Host=host)[0] == status


def test_hosts_of_a_space_and_of_a_proxy_are_known(monkeypatch):
    for name, value in {"SPACE_HOST": "user-space.hf.space", "ALLOWED_HOSTS": "ner.example, *.intern.example"}.items():
        monkeypatch.setenv(name, value)
    guard = app.Guard(None, app.allowed_hosts())
    known = ["user-space.hf.space", "user--space-dev.hf.space:443", "ner.example", "a.intern.example", "localhost"]
    assert all(map(guard._is_known, known))
    assert not any(map(guard._is_known, ["evilhf.space", "example", "x.ner.example", "intern.example.evil", ""]))


@pytest.mark.parametrize(
    ("path", "content_type", "begin"),
    [
        ("queue/join", "application/json", b'{"data": ["'),
        ("call/tag", "application/json", b'{"data": ["'),
        (
            "upload",
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"',
        ),
    ],
)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_large_body_is_refused_before_it_is_read(url, path, content_type, begin, in_chunks):
    sent = 0

    def body():
        nonlocal sent
        yield begin + b"\r\n\r\n" * (path == "upload")
        for _ in range(100):
            sent += 1
            yield b" " * 1_000_000

    headers = {"Content-Type": content_type} | ({} if in_chunks else {"Content-Length": "100000000"})
    with contextlib.suppress(OSError):  # the server closes the connection while the client still sends
        assert request(url, f"/gradio_api/{path}", body(), **headers)[0] in (400, 413)
    assert sent < 20
    assert request(url, "/config")[0] == 200


@pytest.mark.parametrize("file", ["/etc/passwd", "app.py", "../app.py", "%2e%2e/app.py", "log", "/proc/self/environ"])
def test_no_file_of_the_machine_is_served(url, file):
    assert request(url, f"/gradio_api/file={file}")[0] in (403, 404)


def test_many_clients_are_answered(url, client, texts):
    expected = client.predict(texts[0], api_name="/tag")
    jobs = [client.submit(texts[0], api_name="/tag") for _ in range(50)]
    assert all(job.result(SECONDS) == expected for job in jobs)


# ---------------------------------------------------------------- readings and models


def test_readings_are_the_most_probable_ones(tagger, tokenizer):
    """Compare with all paths of a text of four characters, by brute force in float64."""
    text = "서울에서"
    pipe = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)
    hidden = tagger.bilstm(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 1:-1]
    emissions, crf = tagger.classifier(hidden).double(), tagger.crf
    weights: dict[tuple, float] = {}
    for path in itertools.product(range(len(LABELS)), repeat=4):
        if all(crf.possible[a, b] for a, b in itertools.pairwise((-1, *path, -1))):
            score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
            score = score + sum(emissions[t, i] for t, i in enumerate(path))
            score = score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))
            weights[path] = math.exp(score.item())
    best = sorted(weights, key=weights.get, reverse=True)[:5]
    (readings,) = app.read(pipe, [text], 5)
    assert [reading["probability"] for reading in readings] == pytest.approx(
        [weights[b] / sum(weights.values()) for b in best], rel=1e-4
    )
    for path, reading in zip(best, readings, strict=True):
        spans = [tuple(span) for span in spans_from_tags(LABELS[i] for i in path)]
        assert [(e["start"], e["end"], e["label"]) for e in reading["entities"]] == spans


@pytest.mark.parametrize("reads_morphemes", [False, True])
def test_readings_of_a_line_do_not_depend_on_other_lines(reads_morphemes, tagger, tokenizer, texts):
    if reads_morphemes:
        tagger = new_reader(tokenizer)
    pipe = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)
    lines = [texts[0], "", "[SEP]", "서", " ".join(texts), texts[1]]
    together = app.read(pipe, lines, 3)
    alone = [app.read(pipe, [line], 3)[0] for line in lines]
    for ours, theirs in zip(together, alone, strict=True):
        assert [reading["entities"] for reading in ours] == [reading["entities"] for reading in theirs]
        assert [r["probability"] for r in ours] == pytest.approx([r["probability"] for r in theirs], abs=1e-5)
    best = [{name: e[name] for name in ("start", "end", "label")} for e in app.tag(pipe, [texts[0]])[0]]
    assert together[0][0]["entities"] == best
    assert [len(readings) for readings in together] == [3, 0, 0, 3, 3, 3]


def test_differences_are_marked_and_what_is_known_is_faint():
    line = "어제 " * 30 + "손흥민은 춘천에 갔다."
    (ps, lc, short) = (
        {"start": line.index(word), "end": line.index(word) + len(word), "label": label}
        for word, label in (("손흥민", "PS"), ("춘천", "LC"), ("손흥", "PS"))
    )
    html = app.load_template({"LC": 0, "PS": 180}).differences(line, [short, lc], [ps, lc])
    assert html == (
        f"… {line[50:90]}"
        '<mark style="--hue: 180">손흥<b>PS</b></mark>민은 '
        '<mark style="--hue: 0" class=known>춘천<b>LC</b></mark>에 갔다.'
    )


def test_markup_in_labels_is_text():
    label = "<img src=x onerror=alert(1)>"
    span = {"start": 0, "end": 2, "label": label, "score": 0.5}
    html = app.load_template(app._hues([f"B-{label}"]))
    rows = [("서울", [span], [{"probability": 0.5, "entities": [span]}, {"probability": 0.4, "entities": []}])]
    shown = [html.entities(rows), html.labels([(label, [span])]), html.legend(False), html.header(label, label)]
    for part in shown + [html.alert(label)]:
        assert "<img" not in part
        assert "&lt;img src=x onerror=alert(1)&gt;" in part


@pytest.mark.parametrize("name", ["tagger", "classifier"])
def test_a_folder_of_an_exported_model_gives_the_results_of_the_pipeline(name, models, texts, tmp_path):
    """Without readings, and with the most probable label only."""
    export = pytest.importorskip("bilstm_crf_hf.commands.export_onnx")
    folder, model = tmp_path / "onnx", models / name
    examples = RECIPES / "data" / ("ner/validation.txt" if name == "tagger" else "sentiment/validation.tsv")
    export.main([str(model), "--output_dir", str(folder), "--file", str(examples)])
    tasks = ["token-classification", "text-classification"]
    task, other = tasks if name == "tagger" else tasks[::-1]
    exported, pipe = app.load(task, str(folder), None), app.load(task, str(model), None)
    lines = [*texts, "", "서울 " * 600]
    if name == "tagger":
        found, expected = app.tag(exported, lines), app.tag(pipe, lines)
        assert app.read(exported, lines, 5) == [[] for _ in lines]
        app.build(exported)
    else:
        found = app.classify(exported, lines)
        expected = [labels[:1] for labels in app.classify(pipe, lines)]
    assert [[e | {"score": 0} for e in row] for row in found] == [[e | {"score": 0} for e in row] for row in expected]
    scores = [[e["score"] for row in rows for e in row] for rows in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    with pytest.raises(SystemExit, match="expected a ...For"):
        app.load(other, str(folder), None)


def test_a_line_that_an_exported_classifier_cannot_read_as_a_whole_is_refused(tokenizer, tmp_path):
    export = pytest.importorskip("bilstm_crf_hf.commands.export_onnx")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    encoder = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **small)
    options = {"pad_token_id": tokenizer.pad_token_id, "id2label": {0: "0", 1: "1"}, "label2id": {"0": 0, "1": 1}}
    config = EncoderClassifierConfig(encoder_config=encoder, pooling="mean", **options)
    model, folder, examples = tmp_path / "model", tmp_path / "onnx", RECIPES / "data" / "sentiment" / "validation.tsv"
    for part in (EncoderForSequenceClassification(config), tokenizer):
        part.save_pretrained(model)
    export.main([str(model), "--output_dir", str(folder), "--file", str(examples)])
    exported = app.load("text-classification", str(folder), None)
    special = tokenizer.num_special_tokens_to_add()
    lines = ["춘천으로", "가" * (32 - special), "가" * 100]
    assert [len(labels) for labels in app.classify(exported, lines[:2])] == [1, 1]
    with pytest.raises(app.gr.Error, match=f"Line 3 has {100 + special} tokens: this model reads up to 32"):
        app.classify(exported, lines)


def test_any_other_tagger_has_entities_but_no_readings(tokenizer):
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, initializer_range=1.0, **small, **names)
    own_tokenizer = copy.deepcopy(tokenizer)
    bert = pipeline("token-classification", model=BertForTokenClassification(config).eval(), tokenizer=own_tokenizer)
    long = "서울에서 " * 40
    lines = app.split_lines(f"서울에서\n\n춘천으로\n{long}")
    found = app.tag(bert, lines)
    assert [len(entities) > 0 for entities in found] == [True, False, True, True]
    assert found[3][-1]["end"] > len(long) - 10
    assert app.read(bert, lines, 3) == [[], [], [], []]


@pytest.mark.parametrize(("pad_token_id", "limit"), [(0, 32), (1, 30)])
def test_a_line_with_more_tokens_than_positions_is_read_in_windows_and_not_classified(tokenizer, pad_token_id, limit):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config_class = (BertConfig, XLMRobertaConfig)[pad_token_id]
    encoder = config_class(
        vocab_size=len(tokenizer), max_position_embeddings=32, pad_token_id=pad_token_id, initializer_range=1.0, **small
    )
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    torch.manual_seed(0)
    own_tokenizer = copy.deepcopy(tokenizer)
    model = EncoderCRFForTokenClassification(EncoderCRFConfig(encoder_config=encoder, **names)).eval()
    tagger = BiLSTMCRFTokenClassificationPipeline(model=model, tokenizer=own_tokenizer)
    lines = ["서울에서 " * 40, "춘천으로", "가" * (limit - 2), "가" * (limit - 1)]
    assert app.limit_of(tagger) == limit
    assert app.tag(tagger, lines)[0][-1]["end"] > 5 * 38
    assert [len(readings) for readings in app.read(tagger, lines, 3)] == [0, 3, 3, 0]
    classifier = EncoderForSequenceClassification(EncoderClassifierConfig(encoder_config=encoder, pooling="mean"))
    pipe = pipeline("text-classification", model=classifier.eval(), tokenizer=own_tokenizer)
    assert len(app.classify(pipe, lines[1:3])) == 2
    with pytest.raises(app.gr.Error, match=f"Line 1 has {limit + 1} tokens: this model reads up to {limit}"):
        app.classify(pipe, lines[3:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("가" * 50_001, "50,001 characters"),
        ("서\ud800울", "half of a surrogate pair"),
        (None, "Expected a text, got None"),
    ],
)
def test_what_is_no_text_is_refused_with_a_message(text, message):
    with pytest.raises(app.gr.Error, match=message):
        app.split_lines(text)


def test_a_model_with_weights_that_are_not_finite_ends_the_program(tokenizer, tmp_path):
    model = BiLSTMForSequenceClassification.from_tokenizer(tokenizer, hidden_size=8)
    torch.nn.init.constant_(model.classifier.bias, math.nan)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="weights that are NaN or infinite"):
        app.load("text-classification", str(tmp_path), None)


@pytest.mark.parametrize("outdated", [False, True])
def test_a_note_says_why_a_tagger_of_an_earlier_version_has_no_readings(outdated, tagger, tokenizer, monkeypatch):
    if outdated:
        monkeypatch.delattr(BiLSTMCRFPreTrainedModel, "nbest")
    pipe = BiLSTMCRFTokenClassificationPipeline(model=tagger, tokenizer=tokenizer)
    html = "".join(block.value for block in app.build(pipe).blocks.values() if isinstance(block, app.gr.HTML))
    assert ("saved by an earlier version" in html) == outdated
    assert ("this reading" in html) != outdated


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/nothing", "nobody/nothing is not a folder: .* give the commit with --revision"),
        ("{models}", "cannot be loaded"),
        ("{models}/classifier", "is BiLSTMForSequenceClassification: expected a ...ForTokenClassification"),
    ],
)
def test_what_is_no_tagger_ends_the_program_with_a_message(models, name, message):
    with pytest.raises(SystemExit, match=message):
        app.main([name.format(models=models)])


def test_bioes_tags_and_types_of_other_names_have_their_colours(tokenizer):
    assert app._hues(["O", "B-PS", "I-PS", "E-PS", "S-LC", "MISC"]) == {"LC": 0, "MISC": 120, "PS": 240}
    assert new_tagger(tokenizer).config.id2label[6] == "O"
