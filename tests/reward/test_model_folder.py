"""A model's folder from anywhere: damaged or hostile, it is refused in one sentence, and nothing of it runs."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from copl_core.records import CoplError
from copl_core.reward.backbone import load_backbone
from copl_core.reward.chat import check_template
from copl_core.reward.writer import load_writer
from tests.plan import ROOT, sources
from tests.reward.test_own_head import reward_trained

pytest_plugins = "tests.reward.tiny"

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
RECURSIVE = "{% for a in [1] recursive %}{{ loop(range(99999)) }}{% endfor %}"
SPLIT = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}"


@pytest.fixture
def folder(tiny_decoder, tmp_path) -> Path:
    return shutil.copytree(tiny_decoder, tmp_path / "model")


def says(folder: Path, **changes) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def refusal(folder: Path, nothing: Callable) -> str:
    with pytest.raises(CoplError) as refused:
        load_backbone(str(folder), nothing, 1)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_weights_that_are_cut_or_empty_or_without_a_head_are_refused_in_a_sentence(folder, nothing):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-100], b"", b"\xff" * 64, b"\x08" + bytes(7) + b"nonsense"):
        path.write_bytes(content)
        assert "cannot be loaded" in refusal(folder, nothing) and "SafetensorError" in refusal(folder, nothing)


def test_pickled_weights_are_not_read(folder, nothing):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert "weights must be safetensors" in refusal(folder, nothing)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 64}, "cannot be loaded"),
        ({"hidden_size": "32"}, "cannot be loaded"),
        ({"vocab_size": 3}, "cannot be loaded"),
        ({"dtype": "evil"}, "cannot be loaded"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "cannot be loaded"),
        ({"attn_implementation": "evil/kernel"}, "attn_implementation as 'evil/kernel'.*code from a hub is not run"),
        ({"text_config": {"_attn_implementation": {"": "evil/kernel"}}}, "code from a hub is not run"),
        ({"architectures": [1]}, "architectures .*a list of names"),
        ({"id2label": ["a"]}, "id2label .*an object of numbers and names"),
        ({"num_labels": "1"}, "num_labels as '1'.*a whole number"),
        ({"num_labels": 1_000_000_000}, "num_labels as '1000000000'.*up to 10,000"),
        ({"num_hidden_layers": 1_000_000_000}, "num_hidden_layers"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_wrong_is_refused_in_a_sentence(folder, nothing, changes, words):
    found = pytest.raises(CoplError, load_backbone, str(says(folder, **changes)), nothing, 1)
    assert found.match(words) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    "template", ["{% for", "{{ raise_exception('no') }}", "{{ a.b.c }}", "{{ ''.__class__.__mro__[1].x() }}"]
)
def test_a_template_that_cannot_be_rendered_is_refused_in_a_sentence(folder, nothing, template):
    (folder / "chat_template.jinja").write_text(template)
    assert "cannot be loaded" in refusal(folder, nothing)


@pytest.mark.parametrize("template", [ENDLESS, RECURSIVE, SPLIT])
def test_a_template_that_never_ends_is_refused(folder, nothing, template):
    (folder / "chat_template.jinja").write_text(template)
    assert "does not end within the steps" in refusal(folder, nothing)
    with pytest.raises(CoplError, match="does not end within the steps"):
        load_writer(str(folder), nothing)


def test_a_template_sees_its_loops_as_without_the_count():
    class Tokenizer:
        special_tokens_map = {"eos_token": "</s>"}
        chat_template = (
            "{% for m in messages %}{{ loop.length }}{{ loop.last }}{% if not loop.last %}{% continue %}{% endif %}"
            "{% generation %}{{ m.content | tojson }}{% endgeneration %}{{ eos_token }}{% endfor %}"
            "{% for i in range(messages | length) %}{{ messages[i].role }}{% endfor %}"
        )

        def get_chat_template(self) -> str:
            return self.chat_template

    check_template(Tokenizer(), steps=8)  # two loops of two turns; the range, its numbers, and the call of the tag
    with pytest.raises(CoplError, match="does not end"):
        check_template(Tokenizer(), steps=7)


def test_weights_that_are_no_numbers_are_refused(folder, nothing):
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert f"{name} holds numbers that are not finite" in refusal(folder, nothing)


def test_one_architecture_that_is_not_in_a_list_keeps_its_head(tiny_decoder, nothing, tmp_path):
    folder = reward_trained("llama", tiny_decoder, tmp_path / "trained")
    says(folder, architectures="LlamaForSequenceClassification")
    assert load_backbone(str(folder), nothing, 1).own_head is not None


def test_whatever_loads_a_model_refuses_its_code_aloud_and_takes_safetensors_alone():
    """Without these words transformers waits for an answer at the terminal, or unpickles."""
    for path in sources("copl_core/reward"):
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            given = {one.arg: ast.unparse(one.value) for one in node.keywords}
            if node.func.attr != "from_pretrained" or "gguf_file" in given:  # of the bundled model alone
                continue
            assert given.get("trust_remote_code") == "False", ast.unparse(node)
            if ast.unparse(node.func).startswith("AutoModel"):
                assert given.get("use_safetensors") == "True", ast.unparse(node)
