"""The steps that the training commands share."""

import pytest

from bilstm_crf_hf.commands.training_steps import start_training
from bilstm_crf_hf.training.arguments import TaggerTrainingArguments


@pytest.mark.parametrize(
    ("finished", "resume", "warned"), [(True, (), True), (True, ("true",), False), (False, (), False)]
)
def test_a_finished_run_is_not_replaced_without_a_word(tmp_path, caplog, finished, resume, warned):
    if finished:
        (tmp_path / "all_results.json").write_text("{}")
    argv = ["--output_dir", str(tmp_path), *(("--resume_from_checkpoint", *resume) if resume else ())]
    with start_training((TaggerTrainingArguments,), argv, "") as (arguments,):
        assert arguments.output_dir == str(tmp_path)
    assert (f"{tmp_path} holds a finished run: this one will replace its model" in caplog.messages) is warned
