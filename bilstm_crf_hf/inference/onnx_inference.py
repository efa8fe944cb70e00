"""A tagger without torch, copied into each folder of `export-onnx`: python onnx_inference.py model.onnx SENTENCE ..."""

import json
import sys
from pathlib import Path
from types import ModuleType

import onnxruntime
from tokenizers import Tokenizer

model, *texts = sys.argv[1:]
config = json.loads(Path(model).with_name("config.json").read_text(encoding="utf-8"))
labels = config["id2label"]
tokenizer = Tokenizer.from_file(str(Path(model).with_name("tokenizer.json")))
tokenizer.enable_padding()
encodings = tokenizer.encode_batch(texts)
inputs = {"input_ids": [e.ids for e in encodings], "attention_mask": [e.attention_mask for e in encodings]}
session = onnxruntime.InferenceSession(model)
if kiwi_version := config.get("kiwi_version", config.get("morphemes")):  # by the code beside the graph
    package = sys.modules["exported"] = ModuleType("exported")
    package.__path__ = [str(Path(model).parent)]
    from exported.morphemes import check_version, morpheme_ids

    check_version(kiwi_version)
    inputs["morpheme_ids"] = morpheme_ids(texts, [encoding.offsets for encoding in encodings])
(predictions,) = session.run(None, inputs)
for text, encoding, row in zip(texts, encodings, predictions.tolist()):
    entities = []  # [start, end, type]
    for (start, end), label in zip(encoding.offsets, row):
        prefix, _, kind = labels.get(str(label), "O").partition("-")
        if prefix in ("B", "S"):
            entities.append([start, end, kind])
        elif kind:
            entities[-1][1] = end
    print(text, [(text[start:end], kind) for start, end, kind in entities])
