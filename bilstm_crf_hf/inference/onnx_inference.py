"""A tagger without torch, copied into each folder of `export-onnx`: python onnx_inference.py model.onnx SENTENCE ...

It reads the files beside the graph: `tokenizer.json`, `config.json`, and the code that the pipeline uses, too.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import onnxruntime
from tokenizers import Tokenizer

model, *texts = sys.argv[1:]
config = json.loads(Path(model).with_name("config.json").read_text(encoding="utf-8"))
labels = config["id2label"]
tokenizer = Tokenizer.from_file(str(Path(model).with_name("tokenizer.json")))
tokenizer.enable_padding()
tokenizer.no_truncation()  # the limit of the training, which the file contains
encodings = tokenizer.encode_batch(texts)
inputs = {"input_ids": [e.ids for e in encodings], "attention_mask": [e.attention_mask for e in encodings]}
session = onnxruntime.InferenceSession(model)
package = sys.modules["exported"] = ModuleType("exported")
package.__path__ = [str(Path(model).parent)]
alignment = import_module("exported.alignment")
if config["read_morphemes"]:
    morphemes = import_module("exported.morphemes")
    inputs["morpheme_ids"] = morphemes.morpheme_ids(texts, [encoding.offsets for encoding in encodings])
(predictions,) = session.run(None, inputs)
for text, encoding, row in zip(texts, encodings, predictions.tolist()):
    tags = [None if out else labels.get(str(i)) for i, out in zip(row, encoding.special_tokens_mask)]
    spans = alignment.spans_from_token_tags(text, encoding.offsets, tags)
    print(text, [(text[start:end], label) for start, end, label in spans])
