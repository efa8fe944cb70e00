"""Web page to try a tagger and a text classifier: python app.py MODEL [--classifier MODEL] [--server_port N]

MODEL is a folder, of a model or of its export to ONNX, or a model on the Hub, of which --revision names the commit
whose code may run. The folder of this file is also a Space, which reads the variables MODEL_ID, MODEL_REVISION,
CLASSIFIER_ID and CLASSIFIER_REVISION. It does not import bilstm_crf_hf, since models contain their code.

The page answers to addresses in numbers, localhost, the name of the machine, and that of the Space. If a proxy serves
it under other names, set ALLOWED_HOSTS to them, separated by commas.
"""

import argparse
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict
from urllib.parse import urlsplit

import gradio as gr
import torch
from jinja2 import Environment, FileSystemLoader
from tokenizers import Tokenizer
from transformers import Pipeline, pipeline

HEADS = {"token-classification": "ForTokenClassification", "text-classification": "ForSequenceClassification"}
"""Ends of the class names of models by task."""

RUNNER = "onnx_inference.py"
"""Name of the file that runs a model that was exported to ONNX."""

TYPES = {"PS": "person", "LC": "place", "OG": "organisation", "DT": "date", "TI": "time", "QT": "quantity"}
"""Meanings of KLUE's entity types. Types of other models are shown without an explanation."""

EXAMPLES = [
    "손흥민은 1992년 7월 8일 춘천에서 태어났다.\n"
    "어제 부산에서 봉준호 감독의 새 영화를 봤는데 정말 재미있었다.\n"
    "한국은행은 지난 목요일 오후 3시 기준금리를 0.25% 올렸다.",
    "김연아는 2010년 2월 밴쿠버에서 금메달을 땄다.",
    "서울시는 내년 3월부터 막차를 오전 1시까지 늘린다.",
    "두 시간 내내 졸았다. 결말도 뻔하다.",
]

MAX_CHARACTERS = 50_000  # per request: some seconds on a CPU, or half a minute if each line has one character
MAX_BYTES = 2_000_000  # per request: three times what these characters take if JSON escapes each of them
QUEUE_SIZE = 100  # number of requests that wait; later ones are told to try again
UNLIMITED = 1_000_000  # number of tokens that no text has
STRIDE = 32  # number of tokens that neighbouring windows of a line share
BATCH_SIZE = 64  # number of lines of similar length whose n-best paths are computed at a time
CONTEXT = 40  # number of characters shown on either side of the entities in which a reading differs from the best one
READINGS = 5  # number of readings of a line: the best one and four others

THEME = gr.themes.Default(
    primary_hue="blue",
    neutral_hue="slate",
    font=["system-ui", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", "Noto Sans CJK KR", "sans-serif"],
    font_mono=["ui-monospace", "D2Coding", "Noto Sans Mono CJK KR", "monospace"],
).set(body_text_color_subdued="*neutral_500")
"""Theme with the fonts of the reader's system, so that the page loads nothing from other servers."""


class Span(TypedDict):
    """Characters `[start, end)` of a line with their label."""

    start: int
    end: int
    label: str


class Entity(Span):
    """Span with the probability that exactly this span is an entity of this type."""

    score: float


class Reading(TypedDict):
    """All entities of a line with the probability of their path."""

    probability: float
    entities: list[Span]


class Label(TypedDict):
    """Label of a line with its probability."""

    label: str
    score: float


# Models


class Exported:
    """A model in a folder of `bilstm-crf export-onnx`, with what the page asks of a pipeline; onnxruntime runs it."""

    def __init__(self, folder: str) -> None:
        specification = spec_from_file_location("onnx_inference", Path(folder, RUNNER))
        runner = module_from_spec(specification)  # type: ignore[arg-type]  # the file exists
        specification.loader.exec_module(runner)  # type: ignore[union-attr]
        self.run = runner.OnnxPipeline(folder)
        self.task = self.run.task
        # A tagger reads lines of any length, in windows if need be.
        self.limit = (self.task == "text-classification" and self.run.settings["max_length"]) or UNLIMITED
        config = SimpleNamespace(id2label=dict(enumerate(self.run.labels)), architectures=[HEADS[self.task]])
        self.model = SimpleNamespace(config=config, name_or_path=folder, parameters=list)
        self.whole = Tokenizer.from_str(self.run.tokenizer.to_str())  # that of the runner cuts lines off, and pads them
        self.whole.no_truncation()
        self.whole.no_padding()

    def tokenizer(self, lines: list[str], verbose: bool) -> dict[str, list]:
        """Return the tokens of whole lines."""
        return {"input_ids": [encoding.ids for encoding in self.whole.encode_batch(lines)]}

    def __call__(self, lines: list[str], **options: Any) -> list:
        """Return the entities of each line, or a list with its label."""
        results = self.run(lines)
        return results if self.task == "token-classification" else [[label] for label in results]


def load(task: str, name: str, revision: str | None) -> Pipeline | Exported:
    """Load the pipeline of a model in a folder, or of a commit of a model on the Hub.

    Raises:
        SystemExit: if the model cannot be loaded, is for another task, has weights that are not finite, or is on the
            Hub and `revision` is None.
    """
    if not Path(name).is_dir() and not revision:
        remedy = "to run the code of a model on the Hub, give the commit with --revision"
        raise SystemExit(f"{name} is not a folder: {remedy}")
    try:
        if Path(name, RUNNER).is_file():
            pipe = Exported(name)
        else:
            pipe = pipeline(task, model=name, revision=revision, trust_remote_code=True)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"{name} cannot be loaded: {error}") from error
    classes = ", ".join(pipe.model.config.architectures or ["a model without a head"])
    if not classes.endswith(HEADS[task]):
        raise SystemExit(f"{name} is {classes}: expected a ...{HEADS[task]}")
    if not all(weight.isfinite().all() for weight in pipe.model.parameters()):
        raise SystemExit(f"{name} has weights that are NaN or infinite: train or download it again")
    return pipe


def limit_of(pipe: Pipeline | Exported) -> int:
    """Return the number of tokens that a model reads at a time, `UNLIMITED` if it reads texts of any length."""
    if isinstance(pipe, Exported):
        return pipe.limit
    config = getattr(pipe.model.config, "encoder_config", pipe.model.config)
    positions = getattr(config, "max_position_embeddings", -1)
    if positions is None:
        return UNLIMITED
    if positions < 0:
        positions = UNLIMITED
    elif config.pad_token_id == 1:  # of RoBERTa and its kin, which count positions from that of the padding
        positions -= 2
    return min(pipe.tokenizer.model_max_length, positions, UNLIMITED)


def split_lines(text: str) -> list[str]:
    """Split `text` into its lines. The model reads each line by itself.

    Raises:
        gr.Error: if `text` is no text, or has more than `MAX_CHARACTERS`.
    """
    message = None
    if not isinstance(text, str):
        message = f"Expected a text, got {type(text).__name__}."
    elif len(text) > MAX_CHARACTERS:
        message = f"The text has {len(text):,} characters: at most {MAX_CHARACTERS:,} are read at a time."
    elif any("\ud800" <= character <= "\udfff" for character in text):
        message = "The text holds half of a surrogate pair, which is no character."
    if message:
        raise gr.Error(message, print_exception=False)
    return text.splitlines()


def lengths(pipe: Pipeline, lines: list[str]) -> list[int]:
    """Return the number of tokens of each line."""
    return [len(tokens) for tokens in pipe.tokenizer(lines, verbose=False)["input_ids"]] if lines else []


def tag(tagger: Pipeline, lines: list[str]) -> list[list[Entity]]:
    """Return the entities of each line, which is read in windows if it has more tokens than the model has positions."""
    options: dict[str, Any] = {"aggregation_strategy": "simple"}
    if (limit := limit_of(tagger)) < UNLIMITED:
        tagger.tokenizer.model_max_length = limit
        options["stride"] = max(1, min(STRIDE, limit // 4))
    results = tagger(lines, **options) if lines else []
    return [[Entity(**_span(found), score=float(found["score"])) for found in result] for result in results]


def _span(found: dict) -> Span:
    """Return the span of an entity that a token-classification pipeline has found."""
    return Span(start=found["start"], end=found["end"], label=found["entity_group"])


def classify(classifier: Pipeline, lines: list[str]) -> list[list[Label]]:
    """Return the labels of each line, the most probable one first; none for a line of white space.

    Raises:
        gr.Error: if a line has more tokens than the model has positions.
    """
    limit = limit_of(classifier)
    for number, length in enumerate(lengths(classifier, lines), 1):
        if length > limit:
            message = f"Line {number} has {length:,} tokens: this model reads up to {limit:,}."
            raise gr.Error(message, print_exception=False)
    visible = [line for line in lines if line.strip()]
    results = iter(classifier(visible, top_k=None) if visible else [])
    return [next(results) if line.strip() else [] for line in lines]


def read(tagger: Pipeline, lines: list[str], k: int) -> list[list[Reading]]:
    """Return the k most probable readings of each line, the best one first.

    There are none without a CRF, without tokens, or if the model reads the line in windows.
    """
    readings: list[list[Reading]] = [[] for _ in lines]
    if not hasattr(tagger.model, "nbest") or not hasattr(tagger, "entities"):  # or code of an earlier version
        return readings
    limit = limit_of(tagger)
    whole = [length <= limit for length in lengths(tagger, lines)]
    order = sorted((i for i, line in enumerate(lines) if line.strip() and whole[i]), key=lambda i: len(lines[i]))
    for first in range(0, len(order), BATCH_SIZE):
        batch = order[first : first + BATCH_SIZE]
        inputs, encoded = tagger.encode([lines[i] for i in batch])
        output = tagger.model.nbest(**{name: rows.to(tagger.device) for name, rows in inputs.items()}, num_paths=k)
        predictions, probabilities = output.predictions.cpu(), output.probabilities.tolist()
        unused = torch.zeros(*predictions[:, 0].shape, 3)  # in place of the scores of entities
        for rank in range(k):
            entities = tagger.entities(encoded, predictions[:, rank], unused)
            for i, found, probability in zip(batch, entities, probabilities, strict=True):
                if probability[rank]:
                    readings[i].append(Reading(probability=probability[rank], entities=list(map(_span, found))))
    return readings


# Page


def percent(probability: float) -> str:
    """Format a probability as `98.48 %`, with `> 99.99 %` and `< 0.01 %` for extreme values."""
    if probability >= 0.99995:
        return "> 99.99 %"
    return "< 0.01 %" if probability < 0.00005 else f"{100 * probability:.2f} %"


def differing_part(line: str, spans: list[Span], best: list[Span]) -> tuple[int, int]:
    """Return the range of characters in which the entities differ from the best ones, with `CONTEXT` on either side."""
    ours, theirs = ({(span["start"], span["end"]): span["label"] for span in each} for each in (spans, best))
    places = [place for place, _ in ours.items() ^ theirs.items()]
    first = min((start for start, _ in places), default=0)
    last = max((end for _, end in places), default=0)
    return max(0, first - CONTEXT), min(len(line), last + CONTEXT)


def load_template(hues: dict[str, int]) -> Any:
    """Return the macros of `page.html`, for entity types that have these hues in degrees."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters["percent"] = percent
    values = {"hues": hues, "types": TYPES, "differing_part": differing_part}
    return environment.get_template("page.html").make_module(values)


def build(tagger: Pipeline, classifier: Pipeline | None = None) -> gr.Blocks:
    """Build the page and its endpoints: `/tag`, `/readings` and, with a classifier, `/classify`."""
    model = tagger.model
    outdated = hasattr(model, "crf") and not hasattr(model, "nbest")  # of a version before there was `nbest`
    html = load_template(_hues(model.config.id2label.values()))

    def entities_of_lines(text: str) -> list[list[Entity]]:
        """Return the entities of the best path of each line, with exact probabilities and positions within the line."""
        return tag(tagger, split_lines(text))

    def readings_of_lines(text: str) -> list[list[Reading]]:
        """Return the most probable readings of each line; none for an empty line, or if the model has no CRF."""
        return read(tagger, split_lines(text), READINGS)

    def labels_of_lines(text: str) -> list[list[Label]]:
        """Return the labels of each line, the most probable one first; none for an empty line."""
        return classify(classifier, split_lines(text))

    def show(text: str) -> tuple[str, str]:
        lines = text.splitlines()
        try:
            entities = html.entities(zip(lines, entities_of_lines(text), readings_of_lines(text), strict=True))
            return entities, html.labels(zip(lines, labels_of_lines(text), strict=True)) if classifier else ""
        except gr.Error as error:  # shown in place of the results of the text before
            return (html.alert(error.message),) * 2

    queue: dict[str, Any] = {"concurrency_id": "models", "concurrency_limit": 1}  # one request at a time
    first_entities, first_labels = show(EXAMPLES[0])
    with gr.Blocks(title="Named entities", analytics_enabled=False) as page:
        gr.HTML(html.header(*(_name(pipe) for pipe in (tagger, classifier) if pipe)))
        text = gr.Textbox(
            EXAMPLES[0],
            label="Text",
            info="One text per line. Shift+Enter runs as well.",
            placeholder="손흥민은 춘천에서 태어났다.",
            lines=3,
            max_lines=12,
            submit_btn="Run",
        )
        names = [example.replace("\n", " …\n").splitlines()[0] for example in EXAMPLES]
        examples = gr.Examples(EXAMPLES, text, example_labels=names, elem_id="examples", api_visibility="private")
        with gr.Tab("Entities"):
            gr.HTML(html.legend(outdated))
            entities = gr.HTML(first_entities, elem_classes="results")
        with gr.Tab("Sentiment", visible=classifier is not None):
            labels = gr.HTML(first_labels, elem_classes="results")
        for event in (text.submit, examples.load_input_event.then):
            event(show, text, [entities, labels], api_visibility="private", **queue)
        gr.api(entities_of_lines, api_name="tag", **queue)
        gr.api(readings_of_lines, api_name="readings", **queue)
        if classifier is not None:
            gr.api(labels_of_lines, api_name="classify", **queue)
    return page


def _hues(tags: Iterable[str]) -> dict[str, int]:
    """Return a hue in degrees for each entity type."""
    types = sorted({tag[2:] if tag[:2] in ("B-", "I-", "E-", "S-") else tag for tag in tags if tag != "O"})
    return {label: round(360 * i / len(types)) for i, label in enumerate(types)}


def _name(pipe: Pipeline) -> str:
    """Return a model's name on the Hub, or the name of its folder."""
    name = pipe.model.name_or_path
    return Path(name).resolve().name if Path(name).is_dir() else name


# Requests


class Guard:
    """An ASGI middleware that refuses requests to other hosts, and bodies of more than `MAX_BYTES`.

    Otherwise a page in the reader's browser could send texts to this server under a name of its own (DNS rebinding).
    """

    def __init__(self, app: Any, hosts: Iterable[str]) -> None:
        self.app, self.hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":  # the page has none
            return None
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_known(headers.get(b"host", "")):
            return await refuse(send, 400, "This host is not served here: see ALLOWED_HOSTS.")
        size, body, more = int(headers.get(b"content-length", 0)), bytearray(), True
        while more and size <= MAX_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            size, more = max(size, len(body)), message.get("more_body", False)
        if size > MAX_BYTES:
            return await refuse(send, 413, f"A request may have at most {MAX_BYTES:,} bytes.")
        messages = iter([{"type": "http.request", "body": bytes(body)}])

        async def receive_again() -> Any:
            return next(messages, None) or await receive()

        return await self.app(scope, receive_again, send)

    def _is_known(self, host: str) -> bool:
        """Return whether a `Host` is an address in numbers, which no other name stands for, or among `hosts`."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self.hosts or any(name.endswith(host[1:]) for host in self.hosts if host.startswith("*.")):
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


async def refuse(send: Any, status: int, message: str) -> None:
    """Send a message as the answer to a request, and close its connection: the rest of the body is not read."""
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": message}).encode()})


def allowed_hosts() -> set[str]:
    """Return the names under which the page is served; `*.` at the beginning stands for any subdomain."""
    names = ["localhost", socket.gethostname(), os.environ.get("GRADIO_SERVER_NAME", "")]
    names += f"{os.environ.get('SPACE_HOST', '')},{os.environ.get('ALLOWED_HOSTS', '')}".split(",")
    if os.environ.get("SPACE_ID") or os.environ.get("SPACE_HOST"):
        names.append("*.hf.space")
    if os.environ.get("GRADIO_SHARE", "").lower() == "true":
        names.append("*.gradio.live")
    return {name.strip() for name in names} - {""}


def main(argv: list[str], description: str = __doc__, load: Callable[[str, str, str | None], Pipeline] = load) -> None:
    """Serve the page. `--help` shows `description` above the arguments, and `load` loads the models."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = {
        "--revision": ("MODEL_REVISION", "commit of a tagger on the Hub"),
        "--classifier": ("CLASSIFIER_ID", "text classifier, in a folder or on the Hub"),
        "--classifier_revision": ("CLASSIFIER_REVISION", "commit of a classifier on the Hub"),
    }
    model_help = "tagger, in a folder or on the Hub (default: $MODEL_ID)"
    parser.add_argument("model", nargs="?", default=os.environ.get("MODEL_ID"), help=model_help)
    for name, (variable, meaning) in options.items():
        parser.add_argument(name, default=os.environ.get(variable), help=f"{meaning} (default: ${variable})")
    parser.add_argument("--server_port", type=int, help="default: $GRADIO_SERVER_PORT, or the first free one from 7860")
    arguments = parser.parse_args(argv)
    if not arguments.model:
        parser.error("give a model, or set MODEL_ID")
    tagger = load("token-classification", arguments.model, arguments.revision)
    classifier = None
    if arguments.classifier:
        classifier = load("text-classification", arguments.classifier, arguments.classifier_revision)
    build(tagger, classifier).queue(max_size=QUEUE_SIZE, default_concurrency_limit=1).launch(
        server_port=arguments.server_port,
        app_kwargs={"middleware": [(Guard, (), {"hosts": allowed_hosts()})]},  # class and arguments, as of Starlette
        max_file_size=MAX_BYTES,
        theme=THEME,
        css_paths=Path(__file__).with_name("style.css"),
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
