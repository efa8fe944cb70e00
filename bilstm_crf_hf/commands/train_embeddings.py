"""Train token vectors on raw text: python recipes/train_embeddings.py [config.yaml] --input_file text.parquet [...]

Writes what `recipes/ner.py --embeddings_file` reads: word2vec's or, with --method fasttext, fastText's binary format.
The words are the tokens of a tokenizer, so that a model over the same tokenizer finds a vector for each.
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
from ..training.trainer import parse_arguments

METHODS = {"word2vec": Word2Vec, "fasttext": partial(FastText, bucket=2**17)}  # 2**21 by default: files of a gigabyte
logger = logging.getLogger("train_embeddings")


@dataclass
class EmbeddingArguments:
    """Which text is read in which tokens, and how vectors are trained on it."""

    input_file: list[str] = field(
        metadata={"help": "Files of text: txt, parquet, json or csv, with :COLUMN behind the name."}
    )
    text_column: str = field(default="text", metadata={"help": "Column of the text: strings, or lists to be joined."})
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Tokenizer on the Hub or in a folder. Default: characters, as recipes/ner.py."}
    )
    output_file: str = field(default="outputs/vectors.bin", metadata={"help": "Where the vectors go."})
    method: str = field(default="word2vec", metadata={"help": "word2vec or fasttext.", "choices": list(METHODS)})
    vector_size: int = field(default=128, metadata={"help": "Numbers of a vector."})
    window: int = field(default=5, metadata={"help": "Tokens to either side that a token predicts (skip-grams)."})
    min_count: int = field(default=5, metadata={"help": "Rarer tokens get no vector."})
    epochs: int = 5
    workers: int = field(default=1, metadata={"help": "Threads. With more than one, results differ from run to run."})
    seed: int = 42


def write_tokens(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, path: Path, batch: int = 1000) -> int:
    """A line a text, tokens between blanks, as gensim reads it in its fast way; the number of tokens."""
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


def save(model: Word2Vec | FastText, path: Path) -> None:
    """Written beside its place and then moved there, so that there is never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=path.parent) as folder:
        unfinished = Path(folder, path.name)
        if isinstance(model, FastText):
            save_facebook_model(model, str(unfinished))
        else:
            model.wv.save_word2vec_format(str(unfinished), binary=True)
        unfinished.replace(path)


def main(argv: list[str], recipes: Path | None = None) -> None:
    """Run the command."""
    (arguments,) = parse_arguments((EmbeddingArguments,), argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("gensim").setLevel(logging.WARNING)
    if Path(arguments.output_file).suffix != ".bin":
        raise ValueError(f"{arguments.output_file}: vectors are written in the binary format: name a .bin file")

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
    save(model, Path(arguments.output_file))
    logger.info("%d vectors of %d numbers in %s", len(model.wv), model.vector_size, arguments.output_file)
    for token in model.wv.index_to_key[100:103]:
        logger.info("  %s: %s", token, " ".join(other for other, _ in model.wv.most_similar(token, topn=8)))
