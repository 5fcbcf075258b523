"""Job keys: equal work has an equal key, changed work another."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from estimators.base import InputError
from extraction import reference_models
from proxy.sweeps.config import parse_config
from proxy.sweeps.jobs import make_jobs, out_of_reach, require_reachable

BASE: dict[str, Any] = {"name": "small", "models": ["gpt2-30k"], "corpora": ["animal"]}


def keys(**change: Any) -> list[str]:
    return [job.key for job in make_jobs(parse_config({**BASE, **change}))]


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(reference_models.path(name), folder))


def test_the_same_config_gives_the_same_keys() -> None:
    assert keys() == keys()
    assert len(keys()[0]) == 16


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"description": "words"},
        {"retries": 7},
        {"workers": 3},
        {"storage": "elsewhere"},
        {"models": [{"id": "gpt2-30k", "parameters": 5}]},
        {"models": [{"id": "gpt2-30k", "resources": {"cpus": 2, "memory_gb": 3}}]},
        {"models": [{"id": "gpt2-30k", "resources": {"states_gb": 8, "spill_dir": "/scratch", "spill_gb": 100}}]},
        {"resources": {"states_gb": 8, "spill_dir": "/scratch", "spill_gb": 100}},
    ],
)
def test_what_only_decides_where_it_runs_keeps_the_key(change: dict[str, Any]) -> None:
    assert keys(**change) == keys()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"models": ["gpt2-90k"]},
        {"models": [{"id": "gpt2-30k", "dtype": "bfloat16"}]},
        {"corpora": ["color"]},
        {"corpora": [{"source": "animal", "windows": 100}]},
        {"measurement": {"estimator": "sample-propagation"}},
        {"measurement": {"estimator": "predictive,sample-propagation"}},
        {"measurement": {"queries": 10}},
        {"measurement": {"estimator": "sample-propagation", "resolutions": [0.3]}},
        {"measurement": {"project": None}},
        {"measurement": {"estimator": "mine"}},
        {"measurement": {"prefix": "none"}},
    ],
)
def test_what_decides_the_numbers_changes_the_key(change: dict[str, Any]) -> None:
    assert keys(**change) != keys()


def test_the_default_curve_written_out_is_the_same_work() -> None:
    from estimators import DEFAULT_RESOLUTIONS

    states = {"estimator": "sample-propagation"}
    assert keys(measurement=states | {"resolutions": list(DEFAULT_RESOLUTIONS)}) == keys(measurement=states)


def test_the_main_branch_written_out_is_the_same_work() -> None:
    name = "EleutherAI/pythia-70m"
    assert keys(models=[{"id": name, "revision": "main"}]) == keys(models=[name])
    assert keys(models=[{"id": name, "revision": "step1000"}]) != keys(models=[name])


def test_changed_weights_in_the_same_folder_are_other_work(tmp_path: Path) -> None:
    folder = copied("gpt2-30k", tmp_path / "model")
    before = keys(models=[str(folder)])
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert keys(models=[str(folder)]) != before


def test_changed_text_in_the_same_file_is_other_work(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One sentence. " * 50)
    before = keys(corpora=[str(text)])
    text.write_text("Another sentence. " * 50)
    assert keys(corpora=[str(text)]) != before


def test_what_a_model_leaves_out_is_the_sweeps() -> None:
    models = ["gpt2-30k", {"id": "gpt2-90k", "resources": {"spill_gb": 3, "cpus": 2}}]
    config = {**BASE, "models": models, "resources": {"spill_dir": "/scratch", "spill_gb": 100}}
    found = [job.resources for job in make_jobs(parse_config(config))]
    assert [(room.spill_dir, room.spill_gb, room.cpus) for room in found] == [
        ("/scratch", 100, None),
        ("/scratch", 3, 2),
    ]


def test_controls_are_part_of_a_job_and_of_its_key() -> None:
    (job,), (plain,) = (make_jobs(parse_config({**BASE, "controls": controls})) for controls in (True, False))
    assert (job.model_name, job.corpus_name, job.controls) == ("gpt2-30k", "animal", True)
    assert job.key != plain.key


def test_jobs_of_one_model_share_a_loading() -> None:
    jobs = make_jobs(parse_config({**BASE, "corpora": ["animal", "color"]}))
    assert len({job.key for job in jobs}) == 2
    assert len({job.load_key for job in jobs}) == 1


def test_two_names_of_one_folder_stay_two_jobs(tmp_path: Path) -> None:
    one, two = copied("gpt2-30k", tmp_path / "one"), copied("gpt2-30k", tmp_path / "two")
    assert len(set(keys(models=[str(one), str(two)]))) == 2


def test_every_spelling_of_a_folder_is_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = copied("gpt2-30k", tmp_path / "tiny")
    (tmp_path / "text.txt").write_text("One sentence. " * 50)
    spelled = [keys(models=[str(name)], corpora=["text.txt"]) for name in ("tiny", "./tiny/", folder)]
    assert spelled[0] == spelled[1] == spelled[2]
    assert keys(models=["tiny"], corpora=["./text.txt"]) == spelled[0]
    remarks: list[str] = []
    config = parse_config({**BASE, "models": ["tiny", "./tiny", "gpt2-30k"]})
    assert [job.model_name for job in make_jobs(config, remarks.append)] == ["tiny", "gpt2-30k"]
    assert remarks == ["Listed more than once with the same settings, measured once: tiny on animal."]


def test_two_folders_of_one_name_are_distinguished(tmp_path: Path) -> None:
    folders = [str(copied("gpt2-30k", tmp_path / run / "tiny")) for run in "ab"]
    assert [job.model_name for job in make_jobs(parse_config({**BASE, "models": folders}))] == ["a/tiny", "b/tiny"]


def test_two_texts_of_one_name_are_told_apart(tmp_path: Path) -> None:
    texts = [tmp_path / run / "notes.txt" for run in "ab"]
    for text in texts:
        text.parent.mkdir()
        text.write_text(f"Notes of {text.parent.name}. " * 50)
    jobs = make_jobs(parse_config({**BASE, "corpora": [*map(str, texts), "animal"]}))
    assert [job.corpus_name for job in jobs] == ["a/notes.txt", "b/notes.txt", "animal"]


@pytest.mark.parametrize("again", [{"id": "gpt2-30k", "parameters": 2}, {"id": "gpt2-30k", "resources": {"cpus": 2}}])
def test_what_is_listed_twice_is_measured_once(again: dict[str, Any]) -> None:
    config = parse_config({**BASE, "models": [{"id": "gpt2-30k", "parameters": 1}, again]})
    assert [job.model.parameters for job in make_jobs(config)] == [1]


def test_a_hub_model_out_of_reach_can_still_be_planned() -> None:
    job = make_jobs(parse_config({**BASE, "models": ["EleutherAI/pythia-70m"]}))[0]
    assert job.model_version is None


def test_a_model_that_is_nowhere_is_refused_where_the_hub_is_switched_off() -> None:
    jobs = make_jobs(parse_config({**BASE, "models": ["gpt2-30k", "EleutherAI/pythia-70m"]}))
    assert out_of_reach(jobs) == ["EleutherAI/pythia-70m"]
    with pytest.raises(InputError, match=r"EleutherAI/pythia-70m is neither bundled, nor a folder, nor in the hub's"):
        require_reachable(out_of_reach(jobs))


def test_a_commit_that_is_not_in_the_cache_is_out_of_reach_too() -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    models = [{"id": "EleutherAI/pythia-70m", "revision": commit}]
    assert out_of_reach(make_jobs(parse_config({**BASE, "models": models}))) == ["EleutherAI/pythia-70m"]


def test_an_empty_text_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.touch()
    with pytest.raises(InputError, match="is an empty file"):
        keys(corpora=[str(text)])


def test_a_commit_is_its_own_version() -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    config = parse_config({**BASE, "models": [{"id": "EleutherAI/pythia-70m", "revision": commit}]})
    assert make_jobs(config)[0].model_version == commit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpora": ["anmal"]}, r"Unknown corpus anmal: .*nearest: animal\."),
        ({"corpora": ["/nowhere/text.txt"]}, "Unknown corpus /nowhere/text.txt"),
        ({"models": ["./nowhere"]}, "No model folder at './nowhere'"),
        ({"measurement": {"estimator": "mime"}}, "Unknown estimator 'mime'.*'mine'"),
        ({"measurement": {"options": {"epochs": 3}}}, "predictive takes none"),
        ({"measurement": {"estimator": "mine", "resolutions": [0.1]}}, "mine has no resolutions"),
        ({"measurement": {"resolutions": [0.1]}}, "predictive has no resolutions.*estimator: sample-propagation"),
    ],
)
def test_what_does_not_exist_is_said_before_any_work(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        keys(**change)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config\.json"):
        keys(models=[str(tmp_path)])
