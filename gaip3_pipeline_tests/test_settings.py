"""Settings: what a file may say, and what each asset's code version hangs on."""

import dataclasses

import pytest

from gaip3_pipeline.layout import REPOSITORY, DataRoot
from gaip3_pipeline.settings import Settings, SettingsError, load, of_preset, resolve, section_hash


def root_with(tmp_path, text):
    root = DataRoot(tmp_path)
    root.settings_file.write_text(text, encoding="utf-8")
    return root


def test_later_tables_win_over_the_preset_and_the_defaults():
    settings = resolve("x", [{"nvae": {"epochs": 5, "seed": 3}}, {"nvae": {"epochs": 9}}])
    assert (settings.nvae.epochs, settings.nvae.seed) == (9, 3)
    assert settings.nvae.height == Settings().nvae.height


def test_one_attributes_table_leaves_the_others_alone():
    plain = resolve("x", [])
    edited = resolve("x", [{"input_model_mouth": {"least_noise": 0.5}}])
    changed = [a for a in plain.input_model if section_hash(plain.input_model[a]) != section_hash(edited.input_model[a])]
    assert changed == ["mouth"]


def test_editing_one_preset_leaves_another_alone(tmp_path):
    root = root_with(tmp_path, 'preset = "tiny"\n[presets.demo.nvae]\nepochs = 1234\n')
    assert load(root) == load(root_with(tmp_path, 'preset = "tiny"\n'))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[nvae]\nepoch = 3\n", r"\[nvae\] has no setting 'epoch'; known: .*epochs"),
        ('[nvae]\nepochs = "3"\n', r"\[nvae\] epochs = '3' must be of type int"),
        ("[nave]\nepochs = 3\n", r"unknown section \[nave\]"),
        ('preset = "none"\n', "preset 'none' is not defined; use one of"),
        ("[nvae\n", "not valid TOML"),
    ],
)
def test_a_mistake_names_file_key_and_remedy(tmp_path, text, complaint):
    with pytest.raises(SettingsError, match=complaint) as raised:
        load(root_with(tmp_path, text))
    assert "gaip3.toml" in str(raised.value)


def test_every_preset_of_the_repository_resolves(tmp_path):
    import tomllib

    names = tomllib.loads((REPOSITORY / "gaip3.toml").read_text(encoding="utf-8"))["presets"]
    assert {"seed", "demo", "tiny"} <= set(names)
    for name in names:
        assert load(root_with(tmp_path, f'preset = "{name}"\n')).preset == name


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().nvae.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("preset", "size"), [("tiny", (32, 26)), ("demo", (64, 52)), ("small", (64, 52)), ("seed", (128, 104)), ("hq", (256, 208))]
)
def test_every_preset_describes_a_generator_that_can_be_built(preset, size):
    from gaip3_pipeline.models.nvae.model import scale_sizes

    nvae = of_preset(preset).nvae
    assert (nvae.height, nvae.width) == size
    scales = len(scale_sizes(nvae.height, nvae.width, nvae.stem))
    assert {len(nvae.channels), len(nvae.latents), len(nvae.cells), len(nvae.kl_weights)} == {scales}


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"preset 'large' is not defined; use one of .*'seed'"):
        of_preset("large")
