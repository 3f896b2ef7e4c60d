"""Where each part of a model is found, and what is said where it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from weber.errors import ModelError
from weber.families.identity import build_identity
from weber.families.places import find_file
from weber.families.source import Source

TRANSFORMER = {"img_in.weight": torch.zeros(2, 2)}
VAE = {"decoder.conv_in.weight": torch.zeros(2, 2)}
PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


def _say(call: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        call()
    message = str(caught.value)
    assert "  fix: " in message
    return message


def _write_part(folder: Path, part: str) -> Path:
    """One part in the library's layout."""
    (folder / part).mkdir(parents=True)
    if part.startswith("tokenizer"):
        (folder / part / "tokenizer.json").write_text("{}", encoding="utf-8")
    else:
        (folder / part / "config.json").write_text(json.dumps({"part": part}), encoding="utf-8")
        save_file({"x": torch.zeros(1)}, folder / part / "model.safetensors")
    return folder / part


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A model in diffusers layout."""
    for part in PARTS:
        _write_part(tmp_path / "whole", part)
    return tmp_path / "whole"


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A transformer in a single file."""
    save_file(TRANSFORMER, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub cannot be asked, and nothing of it is on this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


NOWHERE = ["/no/such/folder", "./missing", "~/no-such-folder-of-weber", "a/b/c", "one-word", "models/flux.safetensors", r"C:\models\x"]


@pytest.mark.parametrize("path", NOWHERE)
def test_a_folder_that_does_not_exist(path: str) -> None:
    message = _say(lambda: Source(path))
    assert f"got: model.path = {path!r}" in message
    assert "fix: correct model.path" in message


@pytest.mark.parametrize("name", ["transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer_path"])
def test_the_setting_that_names_nothing_is_named(name: str, whole: Path) -> None:
    message = _say(lambda: Source(str(whole), own={name: "/no/such"}))
    assert f"got: model.{name} = '/no/such'" in message
    assert f"fix: correct model.{name}" in message


@pytest.mark.parametrize("path", ["/typo.safetensors", "./typo", "~/typo.safetensors", "C:/models/typo.safetensors", r"models\typo"])
def test_a_path_of_this_machine_is_not_said_to_be_of_the_hub(path: str) -> None:
    for call in (lambda: Source(path), lambda: Source(None, own={"transformer": path}), lambda: find_file("model.assistant", path)):
        message = _say(call)
        assert "does not exist" in message
        assert repr(path) in message
        assert "hub" not in message


def test_a_file_below_a_folder_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    for call in (lambda: Source("models/kind/typo.safetensors"), lambda: find_file("model.assistant", "models/kind/typo.safetensors")):
        assert "does not exist" in _say(call)


def test_the_one_file_that_a_setting_names(single: Path) -> None:
    folder = single.parent
    assert find_file("model.assistant", str(single)) == single
    assert find_file("model.assistant", str(folder)) == single
    save_file(TRANSFORMER, folder / "a.safetensors")
    message = _say(lambda: find_file("model.assistant", str(folder)))
    assert "several files of weights" in message
    assert "a.safetensors, model.safetensors" in message
    assert f"fix: set model.assistant to the file itself, such as {folder}/a.safetensors" in message
    assert find_file("model.assistant", str(single)) == single


def test_a_setting_that_names_no_file_of_weights(tmp_path: Path) -> None:
    message = _say(lambda: find_file("model.assistant", str(tmp_path)))
    assert "a place without a file of weights" in message
    assert "no *.safetensors" in message
    (tmp_path / "lora.pt").write_bytes(b"")
    assert "a pickle" in _say(lambda: find_file("model.assistant", str(tmp_path / "lora.pt")))
    for number in (1, 2):
        save_file(TRANSFORMER, tmp_path / f"x-0000{number}-of-00002.safetensors")
    message = _say(lambda: find_file("model.assistant", str(tmp_path / "x-00001-of-00002.safetensors")))
    assert "fix: set model.assistant to a file that is whole" in message


def test_an_address_is_not_a_hub_id() -> None:
    address = "https://huggingface.co/owner/name/resolve/main/model.safetensors"
    assert f"got: model.path = {address!r}" in _say(lambda: Source(address))


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")
    assert "a pickle: reading it runs the code that is in it" in _say(lambda: Source(str(tmp_path / "model.ckpt")).find("transformer"))


def test_tokenizers_in_a_file(single: Path) -> None:
    assert "tokenizer folder does not exist" in _say(lambda: Source(str(single), own={"tokenizer_path": str(single)}))


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    _write_part(tmp_path / "model", "vae")
    save_file(TRANSFORMER, tmp_path / "x.safetensors")
    source = Source("~/model", own={"transformer": "~/x.safetensors"})
    assert source.is_local
    assert source.read_config("vae") == {"part": "vae"}
    assert source.load_folder("vae") == tmp_path / "model" / "vae"
    assert source.find("transformer").path == tmp_path / "x.safetensors"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_revision_of_what_is_here(kind: str, whole: Path, single: Path) -> None:
    message = _say(lambda: Source(str(whole if kind == "folder" else single), "v2"))
    assert f"no effect for a local {kind}" in message
    assert "model.revision = 'v2'" in message
    assert "fix: remove model.revision" in message


def test_a_revision_of_a_model_that_comes_with_weber(whole: Path) -> None:
    assert "model.revision has no effect" in _say(lambda: Source(None, "v2").with_home(str(whole)))


@pytest.mark.usefixtures("offline")
def test_the_revision_of_a_transformer_alone(whole: Path, single: Path) -> None:
    source = Source(None, "v2", own={"transformer": "owner/custom"}).with_home("owner/home")
    assert "hf download owner/custom --revision v2" in _say(lambda: source.read_config("transformer"))
    message = _say(lambda: source.read_config("vae"))
    assert "hf download owner/home" in message
    assert "--revision" not in message
    alone = Source(None, "v2", own={"vae": "owner/vae"}).with_home("owner/home")
    assert "hf download owner/home --revision v2" in _say(lambda: alone.read_config("transformer"))
    assert "--revision" not in _say(lambda: alone.read_config("vae"))
    model = Source(str(whole), own={"transformer": "owner/custom"})
    assert "--revision" not in _say(lambda: model.read_config("transformer"))
    message = _say(lambda: Source(None, "v2", own={"transformer": str(single)}))
    assert "no effect for a local file" in message
    assert "or give a hub id as model.transformer" in message


@pytest.mark.usefixtures("offline")
def test_a_home_that_nothing_is_taken_from_is_not_asked(whole: Path) -> None:
    names = ("transformer", "vae", "text_encoder", "text_encoder_2")
    own = {name: str(whole / name) for name in names} | {"tokenizer_path": str(whole)}
    source = Source(None, own=own).with_parts(PARTS).with_home("owner/gated")
    assert source.is_local
    assert source.read_config("scheduler", "scheduler_config.json") is None
    source = Source(None, own={name: own[name] for name in names}).with_parts(PARTS).with_home("owner/gated")
    assert "owner/gated" in _say(lambda: source.read_config("scheduler", "scheduler_config.json"))


def test_the_scheduler_of_a_home_that_parts_are_taken_from(whole: Path, single: Path) -> None:
    (whole / "scheduler").mkdir()
    (whole / "scheduler" / "scheduler_config.json").write_text('{"shift": 3.0}', encoding="utf-8")
    source = Source(None, own={"transformer": str(single)}).with_home(str(whole))
    assert source.read_config("scheduler", "scheduler_config.json") == {"shift": 3.0}


def test_a_whole_model(whole: Path) -> None:
    source = Source(str(whole)).with_home("owner/name").with_parts(PARTS)
    for part in PARTS:
        source.check_part(part)
        assert source.load_folder(part) == whole / part
        assert not source.is_single(part)
    assert source.is_local
    assert source.list_given() == list(PARTS)
    assert source.read_config("scheduler", "scheduler_config.json") is None
    assert source.read_config("", "model_index.json") is None


@pytest.mark.parametrize("part", ["vae", "tokenizer_2"])
def test_a_part_that_the_index_names_must_be_there(part: str, whole: Path) -> None:
    (whole / "model_index.json").write_text(json.dumps({name: ["library", "Class"] for name in PARTS} | {"_x": 1}), encoding="utf-8")
    source = Source(str(whole)).with_home("owner/name")
    assert source.read_config("", "model_index.json") is not None
    for file in (whole / part).iterdir():
        file.unlink()
    message = _say(lambda: source.check_part(part))
    assert f"part {part} is not complete" in message
    assert "fix: download the whole model again" in message
    (whole / part).rmdir()
    assert f"no part named {part}" in _say(lambda: source.check_part(part))


def test_a_part_without_weights(whole: Path) -> None:
    (whole / "transformer" / "model.safetensors").unlink()
    (whole / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    message = _say(lambda: Source(str(whole)).check_part("transformer"))
    assert "diffusion_pytorch_model.bin" in message
    assert "expected: *.safetensors" in message


def test_a_piece_that_is_missing(whole: Path) -> None:
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}
    (whole / "vae" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (whole / "vae" / "model.safetensors").rename(whole / "vae" / "model-00001-of-00002.safetensors")
    assert "without model-00002-of-00002.safetensors" in _say(lambda: Source(str(whole)).check_part("vae"))


def test_a_folder_without_parts(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    source = Source(str(tmp_path))
    for call in (lambda: source.read_config("transformer"), lambda: source.check_part("transformer")):
        message = _say(call)
        assert "no part named transformer" in message
        assert "picture.png" in message
        assert "config.json" in message
        assert "fix: correct model.path, or set model.transformer" in message


def test_a_folder_of_single_files(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors"):
        save_file(TRANSFORMER, tmp_path / name)
    message = _say(lambda: Source(str(tmp_path)).check_part("transformer"))
    assert "fix: set model.path to a file in it (a.safetensors, b.safetensors)" in message


def test_a_folder_that_holds_only_a_transformer(whole: Path) -> None:
    source = Source(str(whole / "transformer")).with_home(str(whole))
    assert source.load_folder("transformer") == whole / "transformer"
    assert source.read_config("transformer") == {"part": "transformer"}
    assert source.load_folder("vae") == whole / "vae"
    assert source.read_config("scheduler", "scheduler_config.json") is None


@pytest.mark.parametrize(("text", "what"), [("{", "is not valid JSON"), ("", "is not valid JSON"), ("[1]", "does not hold a JSON object")])
def test_bad_json(whole: Path, text: str, what: str) -> None:
    (whole / "vae" / "config.json").write_text(text, encoding="utf-8")
    message = _say(lambda: Source(str(whole)).read_config("vae"))
    assert f"{whole / 'vae' / 'config.json'} {what}" in message
    assert "fix: download the file again" in message


def test_bytes_that_are_not_text(whole: Path) -> None:
    (whole / "vae" / "config.json").write_bytes(b"\xff\xfe\x00")
    assert "is not valid JSON" in _say(lambda: Source(str(whole)).read_config("vae"))


def test_a_part_without_its_config(whole: Path) -> None:
    (whole / "vae" / "config.json").unlink()
    assert "The model has no vae/config.json" in _say(lambda: Source(str(whole)).read_config("vae"))


def test_own_places_win(whole: Path, single: Path, tmp_path: Path) -> None:
    save_file(VAE, tmp_path / "ae.safetensors")
    bare = _write_part(tmp_path / "elsewhere", "text_encoder")
    own = {"transformer": str(single), "vae": str(tmp_path / "ae.safetensors"), "text_encoder": str(bare), "text_encoder_2": str(whole)}
    source = Source(str(whole), own=own)
    assert source.find("transformer").path == single
    assert source.is_single("transformer") and source.is_single("vae") and not source.is_single("text_encoder")
    assert source.read_config("vae") is None
    assert source.load_folder("text_encoder") == bare
    assert source.load_folder("text_encoder_2") == whole / "text_encoder_2"
    assert source.load_folder("tokenizer") == whole / "tokenizer"
    assert source.name_part("vae") == f"model.vae = {str(tmp_path / 'ae.safetensors')!r}"


def test_what_is_nowhere_comes_from_home(whole: Path, single: Path) -> None:
    source = Source(str(single))
    assert "no part named vae" in _say(lambda: source.find("vae"))
    source = source.with_home(str(whole))
    assert source.load_folder("vae") == whole / "vae"
    assert source.find("transformer").path == single
    assert source.is_local
    assert not Source(str(single)).with_home("owner/name").is_local
    assert source.with_parts(PARTS).list_given() == ["transformer"]


def test_a_transformer_never_comes_from_home_where_a_model_is_named(whole: Path, tmp_path: Path) -> None:
    save_file(VAE, tmp_path / "ae.safetensors")
    message = _say(lambda: Source(str(tmp_path / "ae.safetensors")).with_home(str(whole)).check_part("transformer"))
    assert "ae.safetensors' with an autoencoder" in message


def test_a_transformer_alone_is_enough(whole: Path, single: Path) -> None:
    source = Source(None, own={"transformer": str(single)}).with_home(str(whole))
    assert source.find("transformer").path == single
    assert source.load_folder("tokenizer_2") == whole / "tokenizer_2"


def test_a_checkpoint_gives_all_that_it_holds(whole: Path, tmp_path: Path) -> None:
    tensors = {
        "model.diffusion_model.img_in.weight": torch.zeros(1),
        "vae.decoder.conv_in.weight": torch.zeros(1),
        "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(1),
    }
    save_file(tensors, tmp_path / "all.safetensors")
    source = Source(str(tmp_path / "all.safetensors")).with_home(str(whole)).with_parts(PARTS)
    assert source.list_given() == ["transformer", "vae", "text_encoder_2"]
    assert source.load_folder("text_encoder") == whole / "text_encoder"


def test_settings_that_cannot_act(whole: Path, single: Path) -> None:
    source = Source(str(whole), own={"text_encoder_2": str(single)})
    message = _say(lambda: source.with_parts([part for part in PARTS if not part.endswith("_2")]))
    assert "model.text_encoder_2 has no effect" in message
    assert "fix: remove model.text_encoder_2" in message
    both = Source(str(single), own={"transformer": str(whole)}).with_home(str(whole))
    assert "model.path has no effect" in _say(lambda: both.with_parts(PARTS))


def test_tokenizers_of_their_own(whole: Path, tmp_path: Path) -> None:
    for part in ("tokenizer", "tokenizer_2"):
        _write_part(tmp_path / "words", part)
    source = Source(str(whole), own={"tokenizer_path": str(tmp_path / "words")})
    assert source.load_folder("tokenizer_2") == tmp_path / "words" / "tokenizer_2"
    bare = Source(str(whole), own={"tokenizer_path": str(tmp_path / "words" / "tokenizer")})
    assert bare.load_folder("tokenizer") == tmp_path / "words" / "tokenizer"
    message = _say(lambda: bare.check_part("tokenizer_2"))
    assert "The model has two tokenizers, and one was given." in message


def test_a_tokenizer_folder_without_tokenizers(whole: Path) -> None:
    message = _say(lambda: Source(str(whole), own={"tokenizer_path": str(whole / "vae")}).check_part("tokenizer"))
    assert "no part named tokenizer" in message
    assert "fix: correct model.tokenizer_path" in message


@pytest.mark.usefixtures("offline")
def test_a_hub_id_offline_and_not_on_this_machine() -> None:
    source = Source("somebody/some-model")
    assert not source.is_local
    message = _say(lambda: source.read_config("transformer"))
    assert "The model somebody/some-model is not on this machine and could not be downloaded." in message
    assert "got: HF_HUB_OFFLINE is set" in message
    assert "hf download somebody/some-model" in message
    assert "set model.path to a local folder" in message


@pytest.mark.usefixtures("offline")
def test_tokenizers_that_are_nowhere_are_missed_before_anything_is_loaded(single: Path) -> None:
    source = Source(str(single)).with_parts(PARTS).with_home("owner/home")
    message = _say(lambda: source.check_part("tokenizer"))
    assert "The tokenizer of the model is not with what was given, and cannot be had from owner/home." in message
    assert '--include "tokenizer/*" --include "tokenizer_2/*"` where there is a connection' in message
    assert "set model.tokenizer_path to a folder with tokenizer and tokenizer_2" in message
    assert "or set model.vae to a file or folder" in _say(lambda: source.check_part("vae"))


@pytest.mark.usefixtures("offline")
def test_a_file_on_the_hub_offline() -> None:
    source = Source("owner/name/split_files/model.safetensors")
    message = _say(lambda: source.check_part("transformer"))
    assert "hf download owner/name split_files/model.safetensors" in message


def test_a_hub_id_with_letters_that_ids_do_not_have() -> None:
    assert "The hub has no model owner/na me" in _say(lambda: Source("owner/na me").read_config("transformer"))


def test_identity_of_a_part(whole: Path) -> None:
    source = Source(str(whole))
    assert source.identify("vae", extra=["x"]) == build_identity(whole / "vae", [whole / "vae" / "model.safetensors"], extra=["x"])
    assert source.identify("vae") != source.identify("text_encoder")


def test_identity_of_a_part_without_a_folder_of_its_own(whole: Path) -> None:
    root = whole.parent / "bare"
    (whole / "text_encoder").rename(root)
    _write_part(root, "tokenizer").joinpath("tokenizer.json").rename(root / "tokenizer.json")
    (root / "tokenizer").rmdir()
    source = Source(str(whole), own={"text_encoder": str(root), "tokenizer_path": str(root)})
    before = [source.identify(part) for part in ("text_encoder", "tokenizer")]
    _write_part(root / "more", "vae")
    assert [source.identify(part) for part in ("text_encoder", "tokenizer")] == before
    save_file({"x": torch.ones(1)}, root / "model.safetensors")
    assert source.identify("text_encoder") != before[0]
    assert source.identify("tokenizer") == before[1]


def test_identity_of_a_single_file(tmp_path: Path) -> None:
    save_file(TRANSFORMER, tmp_path / "a.safetensors")
    save_file(TRANSFORMER, tmp_path / "b.safetensors")
    save_file({"img_in.weight": torch.ones(2, 2)}, tmp_path / "c.safetensors")
    first, second, third = (Source(str(tmp_path / f"{name}.safetensors")).identify("transformer") for name in "abc")
    assert first == second != third
    assert len(first) == 32
    assert Source(str(tmp_path / "a.safetensors")).identify("transformer", extra=["x"]) != first
