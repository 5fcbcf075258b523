"""Scores of a leaderboard joined to features, with families proposed from names."""

import pandas as pd
import pytest

from estimators.base import InputError
from proxy.features.families import proposed_families, proposed_family
from proxy.features.scores import join_scores

FEATURES = pd.DataFrame({"model": ["vicuna-7b", "gpt-4o", "zephyr-7b-beta"], "behaviour.log_words": [4.5, 5.0, 5.1]})


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("SelfMoA_gemma-2-9b-it-SimPO", "gemma"),
        ("aligner-2b_qwen1.5-72b-chat", "qwen"),
        ("causallm-14b", "qwen"),
        ("aligner-2b_gpt-4-turbo-2024-04-09", "gpt-4"),
        ("openpipe-moa-gpt-4-turbo-v1", "gpt-4"),
        ("alpaca-farm-ppo-sim-gpt4-20k", "llama"),
        ("aligner-2b_claude-3-opus-20240229", "claude"),
        ("claude2-alpaca-13b", "llama-2"),
        ("oasst-rlhf-llama-33b", "llama"),
        ("Meta-Llama-3.1-8B-Instruct-Turbo", "llama-3"),
        ("opencoderplus-15b", "starcoder"),
        ("Together-MoA-Lite", "mixture of models"),
        ("Infinity-Instruct-3M-0625-Qwen2-7B", "qwen"),
        ("Infinity-Instruct-3M-0625-Yi-1.5-9B", "yi"),
        ("openai/gpt-4.1-mini", "gpt-4"),
        ("openai/o3-mini", "o-series"),
        ("Nanbeige2-8B-Chat", "nanbeige"),
        ("7b", "7b"),
    ],
)
def test_models_go_to_the_base_they_are_made_of(model: str, family: str) -> None:
    assert proposed_family(model) == family


def test_models_are_listed_by_family() -> None:
    assert proposed_families(["vicuna-7b", "alpaca-7b", "phi-2"]) == {
        "llama": ["alpaca-7b", "vicuna-7b"],
        "phi": ["phi-2"],
    }


def test_a_leaderboard_without_a_name_for_its_models_is_joined_whole() -> None:
    board = pd.DataFrame({"Unnamed: 0": ["zephyr-7b-beta", "vicuna-7b", "other"], "win_rate": [10.0, 6.0, 1.0]})
    joined = join_scores(FEATURES, board)
    assert joined["model"].tolist() == FEATURES["model"].tolist()
    assert joined["win_rate"].fillna(-1).tolist() == [6.0, -1, 10.0]
    assert joined["family"].tolist() == ["llama", "gpt-4", "mistral"]
    assert joined.attrs["proposed"] == {"gpt-4": ["gpt-4o"], "llama": ["vicuna-7b"], "mistral": ["zephyr-7b-beta"]}


def test_families_that_are_given_are_kept() -> None:
    scores = pd.DataFrame({"model": FEATURES["model"], "family": ["a", "b", None], "win_rate": [1.0, 2.0, 3.0]})
    joined = join_scores(FEATURES, scores)
    assert joined["family"].tolist() == ["a", "b", "mistral"]
    assert joined.attrs["proposed"] == {"mistral": ["zephyr-7b-beta"]}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"name": ["vicuna-7b"]}, "needs a column model; it has name"),
        ({"model": ["vicuna-7b", "vicuna-7b"]}, "several rows of vicuna-7b"),
        ({"model": ["x/y"], "win_rate": [1.0]}, "none of the 3 models of the answers: it has x/y"),
        (
            {"model": ["vicuna-7b"], "behaviour.log_words": [1.0]},
            "Scores to be added have names that other columns have: behaviour.log_words; rename them",
        ),
    ],
)
def test_tables_that_do_not_fit(scores: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        join_scores(FEATURES, pd.DataFrame(scores))
