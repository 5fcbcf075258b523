"""The public benchmarks leave out what belongs together, and write their page part by part."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import public_alpaca
import public_cache
import public_proxies


@pytest.mark.parametrize(
    ("model", "wraps"),
    [
        ("aligner-2b_gpt-4-turbo-2024-04-09", True),
        ("aligner-2b_claude-3-opus-20240229", True),
        ("openpipe-moa-gpt-4-turbo-v1", True),
        ("aligner-2b_qwen1.5-72b-chat", False),
        ("gpt-4-turbo-2024-04-09", False),
    ],
)
def test_what_wraps_an_api_model_is_not_open(model: str, wraps: bool) -> None:
    assert bool(re.search(public_alpaca.WRAPPERS, model)) == wraps


def test_a_part_is_replaced_and_the_others_stay() -> None:
    page = public_proxies.replaced("# Title\n\nWords.\n", "emergence", "\nold\n")
    page = public_proxies.replaced(page, "observational", "\nfirst\n")
    page = public_proxies.replaced(page, "emergence", "\nnew\n")
    assert page.startswith(f"# Title\n\nWords.\n\n{public_proxies.MARK}\n")
    assert "old" not in page
    assert page.index("first") < page.index("new")
    assert page.count("<!-- part ") == page.count("<!-- end -->") == 2
    assert public_proxies.replaced(page, "emergence", "\nnew\n") == page


def test_tables_of_other_settings_have_other_names(tmp_path: Path) -> None:
    one, same, other = (public_cache.table_path(tmp_path, "words", *settings) for settings in ((4, 2), (4, 2), (4, 3)))
    assert one == same
    assert one != other
