"""Known truths, the verdict on estimates, and `emergence calibrate`."""

import json
import math
import zipfile

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from estimators import InputError, MIEstimate, plug_in_entropy, registry
from estimators.calibration import Calibration, applicable, calibrate, verdict
from estimators.truths import (
    KnownTruth,
    binary_channel_bits,
    continuous_truths,
    discrete_truths,
    folder_truths,
    gaussian_channels,
    student_bits,
)
from proxy.cli import app


def test_discrete_truths_are_hit():
    small = [truth for truth in discrete_truths() if len(truth.x) < 10_000]
    assert {row.verdict for row in calibrate(small)} == {"within", "ceiling"}


def test_an_estimator_registered_later_is_asked_too(monkeypatch):
    monkeypatch.setitem(registry._METHODS, "added", registry._METHODS["gaussian"])
    (pair,) = list(continuous_truths())[:1]
    assert applicable(pair, ["added"]) == ("added",)


def test_gaussian_channels_are_hit():
    for row in calibrate(list(gaussian_channels(samples=4000))[:6], ["sample-propagation"]):
        assert row.verdict == "within"


def test_channels_are_asked_of_those_that_can_find_them():
    asked = {truth.name: applicable(truth) for truth in gaussian_channels(samples=100)}
    assert asked["gaussian channel, 10 features"] == ("sample-propagation", "entropy")
    assert "infonce" in asked["gaussian channel, 10 features, input and output"]
    assert asked["gaussian channel, 1000 features, input and output"] == ("gaussian",)


def test_the_closed_form_hits_every_channel():
    pairs = [truth for truth in gaussian_channels(samples=4000) if truth.gaussian]
    assert {row.verdict for row in calibrate(pairs, ["gaussian"])} == {"within"}


def test_zipf_is_no_step():
    (zipf,) = (truth for truth in discrete_truths() if truth.name == "zipf, 4096 symbols")
    counts = torch.bincount(zipf.x)
    assert counts[:5].tolist() == [4096, 2048, 1365, 1024, 819]


def test_discrete_truths_are_their_entropy():
    truths = {truth.name: truth for truth in discrete_truths()}
    uniform = truths["uniform, 256 symbols, four to a state"]
    assert uniform.bits == pytest.approx(6.0)
    zipf = truths["zipf, 16 symbols"]
    assert zipf.bits == pytest.approx(plug_in_entropy(torch.bincount(zipf.x)))


def test_closed_forms():
    # Table of Czyz et al. 2023 for these Student tasks (bits, four digits).
    assert student_bits(2, 2, 2) == pytest.approx(0.2787, abs=5e-5)
    assert student_bits(5, 5, 3) == pytest.approx(0.4307, abs=5e-5)
    assert student_bits(3, 3, 1e7) == pytest.approx(0, abs=1e-4)
    # Capacity of the binary-input Gaussian channel at 0 dB, a tabled value.
    assert binary_channel_bits(1.0) == pytest.approx(0.4859, abs=1e-4)
    assert binary_channel_bits(1e-3) == pytest.approx(1.0)


def test_independent_pairs_are_zero_within_error():
    independent = [truth for truth in continuous_truths(samples=300) if truth.bits == 0]
    assert len(independent) == 3
    for row in calibrate(independent[:2], ["infonce", "gaussian"]):
        assert row.verdict == "within"


def truth(**changes):
    fields = {"name": "t", "x": torch.zeros(2, 1), "y": torch.zeros(2, 1), "bits": 1.0} | changes
    return KnownTruth(**fields)


def found(bits, method="infonce", error=0.01, flags=()):
    return MIEstimate(bits, error, None, 100, method, flags=flags)


@pytest.mark.parametrize(
    ("case", "value", "expected"),
    [
        (truth(), found(1.04), "within"),
        (truth(), found(1.06), "off"),
        (truth(), found(0.9), "off"),
        (truth(reachable=False), found(0.9), "bound"),
        (truth(reachable=False), found(1.1), "off"),
        (truth(), found(0.8, flags=("unreliable",)), "flagged"),
        (truth(), found(0.8, "gaussian"), "other law"),
        (truth(gaussian=True), found(0.8, "gaussian"), "off"),
        (truth(), found(1.5, "entropy", None), "ceiling"),
        (truth(), found(0.9, "entropy", None), "off"),
        (truth(discrete=True), found(1.0 + 5e-4, "sample-propagation", 0.0), "within"),
    ],
)
def test_verdicts(case, value, expected):
    assert verdict(case, value) == expected


@pytest.mark.parametrize(
    ("judged", "method", "fails"),
    [
        ("within", "infonce", False),
        ("off", "infonce", True),
        ("flagged", "infonce", True),
        ("bound", "sample-propagation", True),
        ("off", "mine", False),
        ("other law", "gaussian", False),
    ],
)
def test_only_default_estimators_fail_and_no_excuse_counts(judged, method, fails):
    assert Calibration("p", method, 1.0, 0.5, -0.5, 0.01, 1.0, "", judged).failed is fails


def test_unknown_method_is_refused():
    with pytest.raises(InputError, match="Unknown estimator 'ksg'"):
        applicable(truth(), ["ksg"])


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 1)).astype(np.float32)
    y = (0.6 * x + 0.8 * generator.normal(size=(200, 1))).astype(np.float32)
    np.savez(tmp_path / "normal.npz", x=x, y=y, mutual_information_bits=-0.5 * math.log2(1 - 0.36))
    return tmp_path


def test_command_prints_a_table_and_exits_zero(folder):
    run = CliRunner().invoke(app, ["calibrate", "--truths", str(folder), "--method", "infonce", "--json"])
    assert run.exit_code == 0, run.stderr
    (row,) = json.loads(run.stdout)
    assert (row["problem"], row["method"], row["verdict"]) == ("normal", "infonce", "within")
    assert row["truth"] == pytest.approx(0.3219, abs=1e-4)


def test_command_exits_one_when_a_default_is_off(folder):
    with np.load(folder / "normal.npz") as arrays:  # nearly equal sides, said to be almost independent
        np.savez(folder / "normal.npz", x=arrays["x"], y=arrays["x"] + 0.1 * arrays["y"], mutual_information_bits=0.01)
    run = CliRunner().invoke(app, ["calibrate", "--truths", str(folder), "--method", "infonce"])
    assert run.exit_code == 1
    assert "Off: infonce on normal" in run.stderr


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.npz files"):
        list(folder_truths(tmp_path))
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 1)))
    with pytest.raises(InputError, match="must hold arrays x, y and mutual_information_bits"):
        list(folder_truths(tmp_path))


@pytest.mark.parametrize("kind", ["claims 2**60 numbers", "unpacks to more than it may"])
def test_a_problem_that_does_not_fit_in_memory_is_one_sentence(tmp_path, monkeypatch, kind):
    if kind.startswith("claims"):
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976, 1), }".ljust(117) + b"\n"
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(64))
    else:
        monkeypatch.setattr("estimators.truths.LARGEST_PROBLEM", 10_000)
        np.savez_compressed(tmp_path / "a.npz", x=np.zeros(10**6), y=np.zeros(10**6), mutual_information_bits=0.0)
    with pytest.raises(InputError, match=r"a\.npz must hold arrays x, y and mutual_information_bits"):
        next(folder_truths(tmp_path))
