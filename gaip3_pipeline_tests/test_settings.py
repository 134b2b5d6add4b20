"""Settings: what a settings file may contain, and which settings change which code versions."""

import dataclasses
import json
from pathlib import Path

import pytest
from dagster import AssetsDefinition

from gaip3_pipeline.layout import REPOSITORY, DataRoot
from gaip3_pipeline.settings import (
    BEFORE,
    SECTIONS,
    ControlRegressor,
    Settings,
    SettingsError,
    added,
    load,
    of_preset,
    resolve,
    section_hash,
)

RECORDED = Path(__file__).with_name("recorded_settings.json")  # each section's fields on 2026-11-28


def root_with(tmp_path, text):
    root = DataRoot(tmp_path)
    root.settings_file.write_text(text, encoding="utf-8")
    return root


def test_later_tables_win_over_the_preset_and_the_defaults():
    settings = resolve("x", [{"nvae": {"epochs": 5, "seed": 3}}, {"nvae": {"epochs": 9}}])
    assert (settings.nvae.epochs, settings.nvae.seed) == (9, 3)
    assert settings.nvae.height == Settings().nvae.height


def test_the_table_of_one_attribute_does_not_change_the_others():
    plain = resolve("x", [])
    edited = resolve("x", [{"input_model_mouth": {"least_noise": 0.5}}])
    changed = [
        a
        for a in plain.input_model
        if section_hash(plain.input_model[a]) != section_hash(edited.input_model[a])
    ]
    assert changed == ["mouth"]


def test_editing_one_preset_does_not_change_another(tmp_path):
    root = root_with(tmp_path, 'preset = "tiny"\n[presets.demo.nvae]\nepochs = 1234\n')
    assert load(root) == load(root_with(tmp_path, 'preset = "tiny"\n'))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[nvae]\nepoch = 3\n", r"\[nvae\] has no setting 'epoch'; known: .*epochs"),
        ('[nvae]\nepochs = "3"\n', r"\[nvae\] epochs = '3' must be of type int"),
        ("[nvae]\nepochs = inf\n", r"\[nvae\] epochs = inf must be of type int"),
        ("[nvae]\ncells = [1, 0.5]\n", r"\[nvae\] cells = \[1, 0.5\] must be of type tuple"),
        ("[nave]\nepochs = 3\n", r"unknown section \[nave\]"),
        ('preset = "none"\n', "preset 'none' is not defined; use one of"),
        ("[nvae\n", "not valid TOML"),
        (
            '[retouch]\nmethod = "repair"\n',
            r"\[retouch\] method = 'repair' was removed; use one of ascent, transport",
        ),
        ('[retouch]\nmethod = "climb"\n', r"\[retouch\] method = 'climb' is not one of ascent"),
    ],
)
def test_a_mistake_names_file_key_and_remedy(tmp_path, text, complaint):
    with pytest.raises(SettingsError, match=complaint) as raised:
        load(root_with(tmp_path, text))
    assert "gaip3.toml" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('preset = "seed"'.encode("utf-16"), r"not UTF-8 \(byte 0\); save it as UTF-8"),
        ("# 한글".encode("cp949"), r"not UTF-8 \(byte 2\); save it as UTF-8"),
        ('preset = "seed"'.encode("utf-16-le"), "a NUL byte, .*; save it as UTF-8"),
        (
            b"[nvae]\n<<<<<<< HEAD\nepochs = 3\n=======\nepochs = 4\n>>>>>>> other\n",
            "line 2: a merge conflict; keep the lines that are right",
        ),
    ],
)
def test_what_is_no_text_in_utf8_or_has_a_merge_conflict_is_named(tmp_path, content, complaint):
    root = root_with(tmp_path, "")
    root.settings_file.write_bytes(content)
    with pytest.raises(SettingsError, match=complaint) as raised:
        load(root)
    assert str(raised.value).startswith(str(root.settings_file))
    assert "codec" not in str(raised.value)


def test_byte_order_marks_are_passed_over(tmp_path):
    root = root_with(tmp_path, "\ufeff\ufeff[nvae]\nepochs = 3\n")
    assert load(root).nvae.epochs == 3


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
    ("preset", "size"),
    [
        ("tiny", (32, 26)),
        ("demo", (64, 52)),
        ("small", (64, 52)),
        ("seed", (128, 104)),
        ("hq", (256, 208)),
    ],
)
def test_every_preset_describes_a_generator_that_can_be_built(preset, size):
    from gaip3_pipeline.models.nvae.model import scale_sizes

    nvae = of_preset(preset).nvae
    assert (nvae.height, nvae.width) == size
    scales = len(scale_sizes(nvae.height, nvae.width, nvae.stem))
    assert {len(nvae.channels), len(nvae.latents), len(nvae.cells), len(nvae.kl_weights)} == {
        scales
    }


def test_a_value_written_in_another_form_is_the_same_setting_with_the_same_hash(tmp_path):
    def versions(text):
        return _code_versions(load(root_with(tmp_path, text)))

    lists = "kl_weights = {}\nchannels = {}\nlatents = {}\ncells = {}\n".format
    known = versions(
        'preset = "seed"\n[nvae]\nlearning_rate = 0.001\nepochs = 60\nema = 1.0\n'
        + lists([1.0, 2.0], [64, 32], [8, 0], [1, 1])
        + "[critic]\ndropout = 0.5\n"
    )
    assert known == versions(
        '# tried on Monday\npreset = "seed"\n[critic]\ndropout = 5e-1 # half\nseed = 1\n\n[nvae]\n'
        + lists([1, 2.0], [64, 32.0], [8.0, 0], [1, 1])
        + "ema = 1\nepochs = 60.0\nlearning_rate = 1e-3\nheight = 128\n"
    )
    assert known != versions('preset = "seed"\n')


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"preset 'large' is not defined; use one of .*'seed'"):
        of_preset("large")


def test_recorded_settings_count_in_code_versions_and_later_ones_are_declared_as_added(tmp_path):
    # A setting without settings.added enters every hash and makes every finished root train again:
    # declare new settings with settings.added.
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    plain = {
        kind.__name__: [f.name for f in dataclasses.fields(kind) if BEFORE not in f.metadata]
        for kind in SECTIONS.values()
    }
    assert plain == recorded


def test_a_setting_added_at_its_default_changes_no_code_version_and_a_changed_value_exactly_one():
    settings = of_preset("tiny")
    versions = _code_versions(settings)
    later = dataclasses.make_dataclass(
        "ControlRegressor", [("later", int, added(3))], bases=(ControlRegressor,), frozen=True
    )

    def with_later(**changes):
        section = later(**dataclasses.asdict(settings.control_regressor) | changes)
        return _code_versions(dataclasses.replace(settings, control_regressor=section))

    assert with_later() == versions
    for changes in ({"later": 4}, {"epochs": 99}):
        changed = with_later(**changes)
        assert [name for name in versions if changed[name] != versions[name]] == [
            "control_regressor"
        ]


def test_a_new_default_of_a_setting_added_earlier_counts():
    @dataclasses.dataclass(frozen=True)
    class Section:
        later: int = added(4, before=3)

    assert section_hash(Section()) != section_hash(Section(later=3))
    assert section_hash(Section(later=3)) == section_hash(
        dataclasses.make_dataclass("Section", [], frozen=True)()
    )


def _code_versions(settings):
    from gaip3_pipeline.assets import build

    specs = [
        spec
        for asset in build(settings)
        if isinstance(asset, AssetsDefinition)
        for spec in asset.specs
    ]
    return {spec.key.to_user_string(): spec.code_version for spec in specs}
