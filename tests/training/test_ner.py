import pytest

from bilstm_crf_hf.training.arguments import ModelArguments
from bilstm_crf_hf.training.ner import DataArguments, prepare_tagging


def test_a_sample_of_training_sentences_without_any_entity_is_an_error(write):
    train = write("train.txt", "<김구:PS>는\n" + "비가 온다.\n" * 50)
    model_arguments = ModelArguments(config_overrides={"hidden_size": 8, "embedding_size": 8, "ngrams": []})
    files = {"train_file": str(train), "validation_file": str(train)}
    with pytest.raises(ValueError, match="the 2 training sentences have no entity: raise max_train_samples"):
        prepare_tagging(model_arguments, DataArguments(**files, max_train_samples=2), {})
    _, corpora = prepare_tagging(model_arguments, DataArguments(**files), {})
    assert sum(map(len, corpora["train"].spans)) == 1


def test_the_log_shows_misspelt_types_and_sentences_that_two_splits_share(write, caplog):
    train = write("train.txt", "<김구:PS>는\n<서울:LC>에\n<부산:LCC>에\n")
    validation = write("validation.txt", "<부산:LCC>에\n<춘천:LC>에\n")
    model_arguments = ModelArguments(config_overrides={"hidden_size": 8, "embedding_size": 8, "ngrams": []})
    with caplog.at_level("INFO", "bilstm_crf_hf"):
        prepare_tagging(model_arguments, DataArguments(train_file=str(train), validation_file=str(validation)), {})
    assert "train: entities LC 1, LCC 1, PS 1" in caplog.messages
    assert "validation: 1 of its sentences are in train, too" in caplog.messages
