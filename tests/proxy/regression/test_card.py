from pathlib import Path

import pytest

from proxy import Proxy
from proxy.regression.card import card, write_card


@pytest.fixture(scope="module")
def folder(fitted: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    write_card(fitted, folder)
    return folder


@pytest.mark.parametrize(
    "heading", ["Data", "Left-out performance", "Intervals", "Domain", "Must not be used", "Features"]
)
def test_the_card_says_what_a_reader_needs(folder: Path, heading: str) -> None:
    assert f"## {heading}\n" in (folder / "card.md").read_text(encoding="utf-8")


def test_the_card_shows_every_candidate_and_remark(fitted: Proxy) -> None:
    text = card(fitted)
    for name in fitted.scores["candidate"]:
        assert f"| {name} |" in text
    assert all(remark in text for remark in fitted.remarks)
    assert "10 models, 2 families" in text


def test_the_card_gives_the_domain_in_numbers(fitted: Proxy) -> None:
    text = card(fitted)
    leverage, distance = fitted.domain.reach()
    assert f"reach {leverage:.3g}, so an interval is withheld above {9 * leverage:.3g}" in text
    assert f"reach {distance:.3g}; withheld above {3 * distance:.3g}" in text
    assert f"{(~fitted.validation['in_domain']).sum()} lay outside the domain" in text
    assert "more than 33% of what" in text
    assert "over 10 left-out models" in text


def test_figures_are_images_the_card_links(folder: Path) -> None:
    text = (folder / "card.md").read_text(encoding="utf-8")
    for name in ("parity", "coverage"):
        assert f"figures/{name}.png" in text
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_proxy_without_skill_says_so(fitted: Proxy) -> None:
    from dataclasses import replace

    held = fitted.validation
    baselines = held.assign(best_feature=held["mean"], log_parameters=held["mean"])
    unskilled = replace(fitted, validation=baselines.assign(estimate=held["mean"] + 1))
    assert "**The proxy is the best single feature, and did no better than the references' mean: " in card(unskilled)
    assert "Do not use its estimates.**" in card(unskilled)
