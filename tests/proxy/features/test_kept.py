"""Features kept on the way: what is damaged is made again, never believed."""

from pathlib import Path

from proxy.features.kept import Kept


def test_no_flipped_bit_of_a_kept_feature_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "features.parquet.partial"
    Kept(path).put("a", {"nll": 1.25, "none": None})
    whole = path.read_bytes()
    assert Kept(path).get("a") == {"nll": 1.25, "none": None}
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert Kept(path).get("a") in (None, {"nll": 1.25, "none": None})


def test_what_is_no_record_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "features.parquet.partial"
    path.write_text('["a", {"nll": 1.0}]\n{"key": "a", "found": {"nll": 1.0}}\n' + "[" * 100_000 + "\n5\nnull\n")
    assert len(Kept(path)) == 0
