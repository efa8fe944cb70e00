"""Train token vectors on raw text: bilstm-crf train-embeddings [config.yaml] --input_file text.parquet [...]

Writes a file for `bilstm-crf ner --embeddings_file`, in the binary format of word2vec or, with --method fasttext, of
fastText. The words are the tokens of a tokenizer, so that a model with this tokenizer finds a vector for each token.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gensim.models import FastText, Word2Vec
from gensim.models.fasttext import save_facebook_model
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..data.raw_text import read_texts
from ..data.tokenization import build_character_tokenizer
from ..training.arguments import configure_logging, parse_arguments
from ..utils.files import write_atomically

METHODS = {"word2vec": Word2Vec, "fasttext": partial(FastText, bucket=2**17)}
"""Models by the values of `--method`. With its 2**21 buckets by default, fastText writes files of a gigabyte."""

logger = logging.getLogger(__name__)


@dataclass
class EmbeddingArguments:
    """Arguments that name the texts and their tokens, and the training of the vectors."""

    input_file: list[str] = field(
        metadata={"help": "Files of texts: txt, parquet, json or csv, with :COLUMN after the name."}
    )
    text_column: str = field(
        default="text", metadata={"help": "The column of the texts: strings, or lists of strings that are joined."}
    )
    tokenizer_name: str | None = field(
        default=None,
        metadata={"help": "The tokenizer, on the Hub or in a folder. Without it, the tokens are characters."},
    )
    output_file: str = field(default="outputs/vectors.bin", metadata={"help": "The file of the vectors."})
    method: str = field(default="word2vec", metadata={"help": "word2vec or fasttext.", "choices": list(METHODS)})
    vector_size: int = field(default=128, metadata={"help": "The number of elements of a vector."})
    window: int = field(
        default=5, metadata={"help": "The number of tokens on either side that a token predicts (skip-grams)."}
    )
    min_count: int = field(
        default=5, metadata={"help": "Only tokens that occur at least this often in the texts get a vector."}
    )
    epochs: int = field(default=5, metadata={"help": "The number of passes over the texts."})
    workers: int = field(
        default=1, metadata={"help": "The number of threads. With more than one, results differ from run to run."}
    )
    seed: int = field(default=42, metadata={"help": "The seed of the training."})


def write_tokens(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, path: Path, batch: int = 1000) -> int:
    """Write the tokens of each text as a line, separated by spaces, and return the number of tokens.

    gensim reads such a file in parallel and faster than a Python iterator.
    """
    count, waiting = 0, []
    with path.open("w", encoding="utf-8") as file:

        def flush() -> int:
            encoded = tokenizer(waiting, add_special_tokens=False, truncation=False, verbose=False)
            lines = [encoded.tokens(i) for i in range(len(waiting))]
            file.writelines(" ".join(line) + "\n" for line in lines)
            waiting.clear()
            return sum(map(len, lines))

        for text in texts:
            waiting.append(text)
            if len(waiting) == batch:
                count += flush()
        return count + (flush() if waiting else 0)


def save_vectors(model: Word2Vec | FastText, path: Path) -> None:
    """Write the vectors to a file that appears only once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        if isinstance(model, FastText):
            save_facebook_model(model, file.name)
        else:
            model.wv.save_word2vec_format(file.name, binary=True)


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    (arguments,) = parse_arguments((EmbeddingArguments,), argv, __doc__)
    configure_logging()
    logging.getLogger("gensim").setLevel(logging.WARNING)
    if Path(arguments.output_file).suffix != ".bin":
        raise ValueError(f"output_file is {arguments.output_file}, but vectors are written as a .bin file")

    def texts() -> Iterator[str]:
        for path in arguments.input_file:
            yield from read_texts(path, arguments.text_column)

    if arguments.tokenizer_name:
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer_name)
    else:
        tokenizer = build_character_tokenizer(texts(), arguments.min_count)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "tokens.txt")
        logger.info("%d tokens of text", write_tokens(texts(), tokenizer, corpus))
        model = METHODS[arguments.method](
            corpus_file=str(corpus),
            sg=1,
            vector_size=arguments.vector_size,
            window=arguments.window,
            min_count=arguments.min_count,
            epochs=arguments.epochs,
            workers=arguments.workers,
            seed=arguments.seed,
        )
    save_vectors(model, Path(arguments.output_file))
    logger.info("%d vectors of %d elements in %s", len(model.wv), model.vector_size, arguments.output_file)
    for token in model.wv.index_to_key[100:103]:
        logger.info("  %s: %s", token, " ".join(other for other, _ in model.wv.most_similar(token, topn=8)))
