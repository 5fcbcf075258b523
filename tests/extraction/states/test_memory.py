"""Peak memory is set by the budget, not by how many windows there are: the benchmark, with a small model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "extraction_speed.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_memory_is_flat(tmp_path: Path) -> None:
    # 20,000 windows x 8 tokens x 6 blocks x 128 features are 0.49 GB, about what the process holds besides.
    shape = ["--layers", "6", "--width", "128", "--inner", "64", "--distinct", "200", "--states-gb", "0.05"]
    done = subprocess.run(
        [sys.executable, "-P", SCRIPT, "--windows", "0", "--memory", "2000", "20000", *shape, "--spill", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"the peak of 20,000 windows is (\d\.\d+) of that of 2,000", done.stdout)
    assert found is not None
    assert 0.9 < float(found[1]) <= 1.1
    assert "0.49 GB spilled" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_missed_target_is_the_exit_code(tmp_path: Path) -> None:
    small = ["--layers", "1", "--width", "64", "--windows", "0", "--distinct", "20", "--spill", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-P", SCRIPT, *small, "--memory", "20", "--limit-gb", "0.001"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "the peak of 20 windows is 1.000" in done.stdout
