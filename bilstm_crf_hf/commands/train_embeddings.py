"""Train token vectors on raw text: bilstm-crf train-embeddings [config.yaml] --input_file text.parquet [...]

Writes a file for `bilstm-crf ner --embeddings_file`, in the binary format of word2vec or, with --method fasttext, of
fastText. The words are the tokens of a tokenizer, so that a model with this tokenizer finds a vector for each token.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from gensim.models import FastText, Word2Vec
from gensim.models.fasttext import save_facebook_model
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.hf_argparser import HfArg

from ..data.raw_text import read_texts
from ..data.tokenization import build_character_tokenizer
from ..models import model_path
from ..training.arguments import TEXTS, configure_logging, parse_arguments
from ..utils.files import locked, write_atomically

METHODS = {"word2vec": Word2Vec, "fasttext": partial(FastText, bucket=2**17)}
"""Models by the values of `--method`. With its 2**21 buckets by default, fastText writes files of a gigabyte."""

SETTINGS = ("vector_size", "window", "min_count", "epochs", "workers", "seed")
"""Arguments of the command that gensim's models take."""

logger = logging.getLogger(__name__)


@dataclass
class EmbeddingArguments:
    """Arguments that name the texts and their tokens, and the training of the vectors."""

    input_file: list[str] = HfArg(help=TEXTS)
    text_column: str = HfArg(default="text", help="The column of strings, or of lists of strings, which are joined.")
    tokenizer_name: str | None = HfArg(default=None, help="Default: the tokens are characters.")
    output_file: str = "outputs/vectors.bin"
    method: str = HfArg(default="word2vec", metadata={"choices": list(METHODS)})
    vector_size: int = HfArg(default=128, help="The number of elements of a vector.")
    window: int = HfArg(default=5, help="The number of tokens on either side that a token predicts (skip-grams).")
    min_count: int = HfArg(default=5, help="Only tokens that occur at least this often in the texts get a vector.")
    epochs: int = HfArg(default=5, help="The number of passes over the texts.")
    workers: int = HfArg(default=1, help="The number of threads. With more than one, results differ from run to run.")
    seed: int = 42


def write_tokens(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, path: Path, batch: int = 1000) -> int:
    """Write the tokens of each text as a line, separated by spaces, and return the number of tokens.

    gensim reads such a file in parallel and faster than a Python iterator.
    """
    count, texts = 0, iter(texts)
    with path.open("w", encoding="utf-8") as file:
        while waiting := list(islice(texts, batch)):
            encoded = tokenizer(waiting, add_special_tokens=False, truncation=False, verbose=False)
            lines = [encoded.tokens(i) for i in range(len(waiting))]
            file.writelines(" ".join(line) + "\n" for line in lines)
            count += sum(map(len, lines))
    return count


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

    output = Path(arguments.output_file)
    with locked(output.parent, output.name):
        if arguments.tokenizer_name:
            tokenizer = AutoTokenizer.from_pretrained(model_path(arguments.tokenizer_name))
        else:
            tokenizer = build_character_tokenizer(texts(), arguments.min_count)
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder, "tokens.txt")
            logger.info("%d tokens of text", write_tokens(texts(), tokenizer, corpus))
            model = METHODS[arguments.method](
                corpus_file=str(corpus), sg=1, **{name: getattr(arguments, name) for name in SETTINGS}
            )
        save_vectors(model, output)
        logger.info("%d vectors of %d elements in %s", len(model.wv), model.vector_size, arguments.output_file)
        for token in model.wv.index_to_key[100:103]:
            logger.info("  %s: %s", token, " ".join(other for other, _ in model.wv.most_similar(token, topn=8)))
