"""Web page to try a tagger and a text classifier: python app.py MODEL [--classifier MODEL] [--server_port N]

MODEL is a folder, or a model on the Hub, of which --revision names the commit whose code may run. The folder of this
file is also a Space, which reads the variables MODEL_ID, MODEL_REVISION, CLASSIFIER_ID and CLASSIFIER_REVISION. It does
not import bilstm_crf_hf, since models contain their code.
"""

import argparse
import os
import sys
from collections.abc import Container, Iterable
from html import escape
from pathlib import Path
from typing import TypedDict

import gradio as gr
from transformers import Pipeline, pipeline

HEADS = {"token-classification": "ForTokenClassification", "text-classification": "ForSequenceClassification"}
"""Ends of the class names of models by task."""

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

MAX_CHARACTERS = 50_000
"""Limit of a request, which takes some seconds on a CPU, or half a minute if each line has one character."""

BATCH_SIZE = 64
"""Number of lines of similar length whose n-best paths are computed at a time."""

CONTEXT = 40
"""Number of characters shown on either side of the entities in which a reading differs from the best one."""

READINGS = 5
"""Number of readings of a line: the best one and four others."""

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


def load(task: str, name: str, revision: str | None) -> Pipeline:
    """Load the pipeline of a model.

    Args:
        task: the task of the pipeline.
        name: folder of the model, or its name on the Hub.
        revision: commit of a model on the Hub.

    Raises:
        SystemExit: if the model cannot be loaded, is for another task, or is on the Hub and `revision` is None.
    """
    if not Path(name).is_dir() and not revision:
        raise SystemExit(
            f"{name} is not a folder: to run the code of a model on the Hub, give the commit with --revision"
        )
    try:
        pipe = pipeline(task, model=name, revision=revision, trust_remote_code=True)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"{name} cannot be loaded: {error}") from error
    classes = ", ".join(pipe.model.config.architectures or ["a model without a head"])
    if not classes.endswith(HEADS[task]):
        raise SystemExit(f"{name} is {classes}: expected a ...{HEADS[task]}")
    return pipe


def split_lines(pipe: Pipeline, text: str) -> list[str]:
    """Split `text` into its lines. The model reads each line by itself.

    Raises:
        gr.Error: if the text has more than `MAX_CHARACTERS`, or a line more tokens than the model has positions.
    """
    if len(text) > MAX_CHARACTERS:
        message = f"The text has {len(text):,} characters: at most {MAX_CHARACTERS:,} are read at a time."
        raise gr.Error(message, print_exception=False)
    lines = text.splitlines()
    config = pipe.model.config
    positions = getattr(getattr(config, "encoder_config", config), "max_position_embeddings", None)
    if lines and positions is not None:
        limit = min(positions, pipe.tokenizer.model_max_length)
        for number, tokens in enumerate(pipe.tokenizer(lines, verbose=False)["input_ids"], 1):
            if len(tokens) > limit:
                message = f"Line {number} has {len(tokens):,} tokens: this model reads up to {limit:,}."
                raise gr.Error(message, print_exception=False)
    return lines


def tag(tagger: Pipeline, lines: list[str]) -> list[list[Entity]]:
    """Return the entities of each line."""
    results = tagger(lines, aggregation_strategy="simple") if lines else []
    return [[Entity(**_span(found), score=float(found["score"])) for found in result] for result in results]


def _span(found: dict) -> Span:
    """Return the span of an entity that a token-classification pipeline has found."""
    return Span(start=found["start"], end=found["end"], label=found["entity_group"])


def classify(classifier: Pipeline, lines: list[str]) -> list[list[Label]]:
    """Return the labels of each line, the most probable one first; none for a line of white space."""
    visible = [line for line in lines if line.strip()]
    results = iter(classifier(visible, top_k=None) if visible else [])
    return [next(results) if line.strip() else [] for line in lines]


def read(tagger: Pipeline, lines: list[str], k: int) -> list[list[Reading]]:
    """Return the k most probable readings of each line, the best one first; none without a CRF or without tokens."""
    found: list[list[Reading]] = [[] for _ in lines]
    if hasattr(tagger.model, "nbest"):
        order = sorted((i for i, line in enumerate(lines) if line.strip()), key=lambda i: len(lines[i]))
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            for i, readings in zip(batch, _read_batch(tagger, [lines[i] for i in batch], k), strict=True):
                found[i] = list(readings)
    return found


def _read_batch(tagger: Pipeline, lines: list[str], k: int) -> list[list[Reading]]:
    """Return the readings of lines that share a batch."""
    encoded, details = tagger.encode(lines)
    special = encoded.pop("special_tokens_mask")
    inputs = {name: rows.to(tagger.device) for name, rows in encoded.items()}
    output = tagger.model.nbest(**inputs, num_paths=k)
    found: list[list[Reading]] = []
    for i, (_, detail) in enumerate(details):
        window = detail | {"special_tokens_mask": special[i : i + 1]}
        paths = zip(output.predictions[i].tolist(), output.probabilities[i].tolist(), strict=True)
        found.append([Reading(probability=p, entities=_spans_of_tags(tagger, window, tags)) for tags, p in paths if p])
    return found


def _spans_of_tags(tagger: Pipeline, window: dict, tags: list[int]) -> list[Span]:
    """Return the spans that the pipeline makes of tags. Its scores are not used."""
    certain = [[[0.0] * 3] * len(tags)]
    return [_span(e) for e in tagger.postprocess([window | {"predictions": [tags], "path_log_probs": certain}])]


# HTML


def percent(probability: float) -> str:
    """Format a probability as `98.48 %`, with `> 99.99 %` and `< 0.01 %` for extreme values."""
    if probability >= 0.99995:
        return "> 99.99 %"
    return "< 0.01 %" if probability < 0.00005 else f"{100 * probability:.2f} %"


def mark(line: str, spans: Iterable[Span], hues: dict[str, int], known: Container[Span] = ()) -> str:
    """Return the HTML of a line with its entities marked, those in `known` faintly, and with scores as tooltips."""
    pieces, at = [], 0
    for span in spans:
        start, end, label = span["start"], span["end"], span["label"]
        attributes = f'style="--hue: {hues.get(label, 0)}"{" class=known" if span in known else ""}'
        tip = ""
        if "score" in span:
            attributes += " tabindex=0"
            tip = f'<span role="tooltip">{percent(span["score"])}</span>'
        text = f"{escape(line[start:end])}<b>{escape(label)}</b>{tip}"
        pieces += [escape(line[at:start]), f"<mark {attributes}>{text}</mark>"]
        at = end
    return "".join([*pieces, escape(line[at:])])


def mark_differences(line: str, spans: list[Span], best: list[Span], hues: dict[str, int]) -> str:
    """Return the HTML of the part of a line in which the entities differ from the best ones, common ones faint."""
    ours, theirs = ({(span["start"], span["end"]): span["label"] for span in each} for each in (spans, best))
    differing = [place for place, _ in ours.items() ^ theirs.items()]
    first = max(0, min((start for start, _ in differing), default=0) - CONTEXT)
    last = min(len(line), max((end for _, end in differing), default=0) + CONTEXT)

    def cut(each: list[Span]) -> list[Span]:
        return [
            span | {"start": max(span["start"], first) - first, "end": min(span["end"], last) - first}
            for span in each
            if span["start"] < last and first < span["end"]
        ]

    part = mark(line[first:last], cut(spans), hues, known=cut(best))
    return f"{'… ' if first else ''}{part}{' …' if last < len(line) else ''}"


def show_readings(line: str, readings: list[Reading], hues: dict[str, int]) -> str:
    """Return the HTML of the probabilities of the best reading of a line and of the others."""
    if len(readings) < 2:
        return ""
    best, *others = readings
    rows = [
        f'<tr><td class="percent">{percent(other["probability"])}</td>'
        f"<td>{mark_differences(line, other['entities'], best['entities'], hues)}</td></tr>"
        for other in others
    ]
    summary = f"this reading {percent(best['probability'])}, next {percent(others[0]['probability'])}"
    return f"<details><summary>{summary}</summary><table>{''.join(rows)}</table></details>"


def show_entities(
    lines: list[str], entities: list[list[Entity]], readings: list[list[Reading]], hues: dict[str, int]
) -> str:
    """Return the HTML of all lines with their entities and readings."""
    items = [
        f"<li><p>{mark(line, found, hues)}</p>{show_readings(line, others, hues)}</li>"
        for line, found, others in zip(lines, entities, readings, strict=True)
    ]
    return f"<ol>{''.join(items)}</ol>"


def show_labels(lines: list[str], labels: list[list[Label]]) -> str:
    """Return the HTML of all lines with a bar for each label."""
    items = []
    for line, found in zip(lines, labels, strict=True):
        rows = [
            f'<tr><th>{escape(label["label"])}</th><td class="percent">{percent(label["score"])}</td>'
            f'<td class="bar"><i style="--share: {label["score"]:.2%}"></i></td></tr>'
            for label in found
        ]
        items.append(f"<li><p>{escape(line)}</p><table>{''.join(rows)}</table></li>")
    return f"<ol>{''.join(items)}</ol>"


# Page


def build(tagger: Pipeline, classifier: Pipeline | None = None) -> gr.Blocks:
    """Build the page and its endpoints: `/tag`, `/readings` and, with a classifier, `/classify`."""
    hues = _hues(tagger.model.config.id2label.values())

    def entities_of_lines(text: str) -> list[list[Entity]]:
        """Return the entities of the best path of each line, with exact probabilities and positions within the line."""
        return tag(tagger, split_lines(tagger, text))

    def readings_of_lines(text: str) -> list[list[Reading]]:
        """Return the most probable readings of each line; none for an empty line, or if the model has no CRF."""
        return read(tagger, split_lines(tagger, text), READINGS)

    def labels_of_lines(text: str) -> list[list[Label]]:
        """Return the labels of each line, the most probable one first; none for an empty line."""
        return classify(classifier, split_lines(classifier, text))

    def show(text: str) -> tuple[str, str]:
        lines = text.splitlines()
        try:
            entities = show_entities(lines, entities_of_lines(text), readings_of_lines(text), hues)
            return entities, show_labels(lines, labels_of_lines(text)) if classifier else ""
        except gr.Error as error:  # shown in place of the results of the text before
            return (f'<p role="alert">{escape(error.message)}</p>',) * 2

    entities, labels = show(EXAMPLES[0])
    queue = {"concurrency_id": "models", "concurrency_limit": 1}  # a hook on a model is for one request at a time
    with gr.Blocks(title="Named entities", analytics_enabled=False) as page:
        gr.HTML(_header(tagger, classifier))
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
            gr.HTML(_legend(hues))
            entities = gr.HTML(entities, elem_classes="results")
        with gr.Tab("Sentiment", visible=classifier is not None):
            labels = gr.HTML(labels, elem_classes="results")
        run = {"fn": show, "inputs": text, "outputs": [entities, labels], "api_visibility": "private"}
        text.submit(**run, **queue)
        examples.load_input_event.then(**run, **queue)
        gr.api(entities_of_lines, api_name="tag", **queue)
        gr.api(readings_of_lines, api_name="readings", **queue)
        if classifier is not None:
            gr.api(labels_of_lines, api_name="classify", **queue)
    return page


def _hues(tags: Iterable[str]) -> dict[str, int]:
    """Return a hue in degrees for each entity type."""
    types = sorted({tag[2:] if tag[:2] in ("B-", "I-", "E-", "S-") else tag for tag in tags if tag != "O"})
    return {label: round(360 * i / len(types)) for i, label in enumerate(types)}


def _header(tagger: Pipeline, classifier: Pipeline | None) -> str:
    sentiment = f"; sentiment by {_name(classifier)}" if classifier else ""
    return f"<h1>Named entities</h1><p>Found by {_name(tagger)}{sentiment}.</p>"


def _name(pipe: Pipeline) -> str:
    """Return the HTML of a model's name on the Hub, or of the name of its folder."""
    name = pipe.model.name_or_path
    return f"<b>{escape(Path(name).resolve().name if Path(name).is_dir() else name)}</b>"


def _legend(hues: dict[str, int]) -> str:
    marks = "".join(
        f'<li><mark style="--hue: {hue}">{escape(label)}</mark> {TYPES.get(label, "")}</li>'
        for label, hue in hues.items()
    )
    return f'<ul class="legend">{marks}<li class="hint">Point at an entity or tap it to see its probability.</li></ul>'


def main(argv: list[str], description: str = __doc__) -> None:
    """Serve the page.

    Args:
        argv: the command line.
        description: text that `--help` shows above the arguments.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = {
        "--revision": ("MODEL_REVISION", "commit of a tagger on the Hub"),
        "--classifier": ("CLASSIFIER_ID", "text classifier, in a folder or on the Hub"),
        "--classifier_revision": ("CLASSIFIER_REVISION", "commit of a classifier on the Hub"),
    }
    tagger_id = os.environ.get("MODEL_ID")
    parser.add_argument(
        "model", nargs="?", default=tagger_id, help="tagger, in a folder or on the Hub (default: $MODEL_ID)"
    )
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
    build(tagger, classifier).launch(
        server_port=arguments.server_port,
        theme=THEME,
        css_paths=Path(__file__).with_name("style.css"),
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
