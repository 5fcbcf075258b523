"""Demand and placement: what a model needs, and where there is room."""

from pathlib import Path

import pytest

from extraction import load_model, spilled_bytes, windows
from proxy.sweeps.config import Model, Resources, parse_config
from proxy.sweeps.jobs import Job, make_jobs
from proxy.sweeps.placement import GIB, Demand, Node, demand, main_memory_gb, misfits, place
from proxy.sweeps.plan import plan, simulate, spilled_gb, workload
from proxy.sweeps.sizes import Shape, count_parameters, shape
from proxy.sweeps.store.results import Peaks

GPU_NODE = Node(Demand(4, 200 * GIB, 32), gpu_gb=80)
CPU_NODE = Node(Demand(0, 64 * GIB, 16))
NONE = Resources()


def billions(count: float, **more: object) -> Model:
    return Model.model_validate({"id": "some/model", "parameters": int(count * 1e9), **more})


@pytest.mark.parametrize(
    ("size", "gpus"),
    [(0.07, 0.125), (6.9, 0.25), (12.0, 0.5), (30.0, 1.0), (70.0, 2.0)],  # 2 bytes a parameter on 80 GiB
)
def test_a_gpu_is_shared_by_size(size: float, gpus: float) -> None:
    assert demand(billions(size), NONE, [GPU_NODE]).gpus == gpus


def test_controls_count_the_weights_of_the_twin() -> None:
    plain, with_twin = (demand(billions(7), NONE, [GPU_NODE], twin=twin) for twin in (False, True))
    assert with_twin.gpus == 2 * plain.gpus
    assert main_memory_gb(billions(7), 0, twin=True) - main_memory_gb(billions(7), 0) == pytest.approx(7e9 * 4 / GIB)


def test_without_gpus_all_runs_on_cores() -> None:
    wanted = demand(billions(1), NONE, [CPU_NODE])
    assert (wanted.gpus, wanted.cpus) == (0, 1)
    assert wanted.memory == 8 * GIB  # float32 on CPU: 3.7 GiB of weights and what loading and states take


def test_the_config_has_the_last_word() -> None:
    own = billions(7, resources={"gpus": 1, "memory_gb": 3, "cpus": 4})
    assert demand(own, NONE, [GPU_NODE]) == Demand(1, 3 * GIB, 4)
    assert demand(billions(7), Resources(gpus=0, memory_gb=40), [GPU_NODE]) == Demand(0, 40 * GIB, 1)


def test_what_was_measured_replaces_the_estimate() -> None:
    assert demand(billions(12), NONE, [GPU_NODE], Peaks(gpu_gb=5.0)).gpus == 0.125
    assert demand(billions(12), NONE, [CPU_NODE], Peaks(main_gb=5.0)).memory == 8 * GIB


def test_quantized_weights_are_smaller() -> None:
    plain, quantized = billions(13, dtype="float16"), billions(13, quantization="bitsandbytes-4bit")
    assert demand(quantized, NONE, [GPU_NODE]).gpus < demand(plain, NONE, [GPU_NODE]).gpus


def test_power_of_two_fractions_fill_a_gpu_without_gaps() -> None:
    loads = [(Demand(fraction, GIB, 1), 1.0) for fraction in (0.5, 0.125, 0.25, 0.125, 1.0, 2.0)]
    assert simulate(loads, {"node": GPU_NODE})[0] == 6


def test_the_fullest_node_with_room_is_taken_and_gpus_are_left_to_those_who_need_them() -> None:
    rooms = {"empty": Demand(4, 100 * GIB, 8), "fuller": Demand(1, 50 * GIB, 8), "cpu": Demand(0, 50 * GIB, 8)}
    assert place(Demand(0.5, GIB, 1), rooms) == "fuller"
    assert place(Demand(2, GIB, 1), rooms) == "empty"
    assert place(Demand(0, GIB, 1), rooms) == "cpu"
    assert place(Demand(8, GIB, 1), rooms) is None


def test_what_fits_nowhere_is_known() -> None:
    assert misfits(demand(billions(70), NONE, [CPU_NODE]), [CPU_NODE])
    assert not misfits(demand(billions(70), NONE, [GPU_NODE]), [GPU_NODE])


def test_rounding_up_refuses_nothing_that_fits() -> None:
    # 70 B in 2 bytes: 130 GiB of weights, 151 GiB with activations on GPUs of 40 GiB: 3.8, so 4; 80 B: 4.4, so 5 or 8.
    five = Node(Demand(5, 200 * GIB, 32), gpu_gb=40)
    assert demand(billions(80), NONE, [five]).gpus == 5
    assert demand(billions(80), NONE, [five, Node(Demand(8, 200 * GIB, 32), gpu_gb=40)]).gpus == 8
    # 1 B in 4 bytes: 3.7 GiB of weights, 7.4 GiB with loading and states, rounded to 8.
    small = Node(Demand(0, int(7.5 * GIB), 2))
    assert demand(billions(1), NONE, [small]).memory < 7.5 * GIB
    assert demand(billions(1), NONE, [small, CPU_NODE]).memory == 8 * GIB


def test_more_memory_means_more_of_both() -> None:
    assert Demand(0.25, GIB, 1).more() == Demand(0.5, 2 * GIB, 1)
    assert Demand(0, GIB, 1).more() == Demand(0, 2 * GIB, 1)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("EleutherAI/pythia-6.9b", 6_900_000_000),
        ("EleutherAI/pythia-70m-deduped", 70_000_000),
        ("google/gemma-3-270m", 270_000_000),
        ("meta-llama/Llama-3.1-8B", 8_000_000_000),
        ("gpt2-xl", 1_557_611_200),
        ("someone/unsized", None),
    ],
)
def test_a_size_is_read_from_the_name_when_nothing_else_tells(name: str, parameters: int | None) -> None:
    assert count_parameters(Model(id=name)) == parameters


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"\x02" + b"\0" * 7 + b"[]x"]
)
def test_weights_that_are_none_leave_the_size_unknown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_text("{")
    assert count_parameters(Model(id=str(tmp_path))) is None
    assert shape(Model(id=str(tmp_path))).blocks > 0


def test_a_bundled_model_is_counted_and_measured_from_its_files() -> None:
    from extraction import load_model

    model = load_model("gpt2-30k")
    assert count_parameters(Model(id="gpt2-30k")) == model.parameters
    assert shape(Model(id="gpt2-30k")) == Shape(len(model.blocks), model.width)


def jobs(*corpora: dict[str, object], estimator: str = "predictive", **resources: object) -> list[Job]:
    models = [{"id": "openai-community/gpt2-large"}]
    config = {"name": "t", "models": models, "corpora": list(corpora), "resources": resources}
    config["measurement"] = {"estimator": estimator}
    return make_jobs(parse_config(config))


def test_the_papers_lists_are_counted_as_they_are() -> None:
    found = [
        workload(job) for job in jobs(*({"source": name, "windows": None} for name in ("country", "animal", "color")))
    ]
    assert found == [(303_600, 8, 26), (524_160, 10, 17), (360_360, 10, 16)]
    short, longer = jobs({"source": "animal", "windows": 50, "tokens": 4}, {"source": "python-docs", "windows": 50})
    assert workload(short) == (50, 4, 17)
    assert workload(longer) == (50, 8, 400)


def test_states_take_memory_or_are_spilled() -> None:
    all_lists = {"source": "animal", "windows": None}
    (job,) = jobs(all_lists, estimator="sample-propagation")
    assert spilled_gb(job) == pytest.approx(
        4e-9 * 36 * 256 * (524_160 * 10 + 17)
    )  # 36 blocks projected to 256 features
    (job,) = jobs(all_lists)  # predictive: 36 blocks of their own width, of some of the windows
    assert spilled_gb(job) == pytest.approx(4e-9 * 36 * 1280 * (20_000 * 10 + 17))
    both = "sample-propagation,output-20"
    (job,) = jobs(all_lists, estimator=both)  # states as the model makes them would not fit in spill_gb: as if alone
    assert spilled_gb(job) == pytest.approx(4e-9 * 36 * 256 * (524_160 * 10 + 17))
    (job,) = jobs(all_lists, estimator=both, spill_gb=1000)  # both from one pass
    assert spilled_gb(job) == pytest.approx(4e-9 * 36 * 1280 * (524_160 * 10 + 17))
    (job,) = jobs(all_lists, estimator=f"predictive,{both}", spill_gb=1000)  # so many windows have a pass of their own
    assert spilled_gb(job) == pytest.approx(4e-9 * 36 * max(256 * (524_160 * 10 + 17), 1280 * (20_000 * 10 + 17)))
    (job,) = jobs(all_lists, states_gb=400)
    assert spilled_gb(job) == 0
    assert demand(billions(7), Resources(states_gb=20), [GPU_NODE]).memory == 32 * GIB
    assert demand(billions(7), NONE, [GPU_NODE]).memory == 16 * GIB


def test_the_plan_says_what_is_spilled_and_what_would_fail(tmp_path: Path) -> None:
    config = {"name": "t", "models": ["gpt2-2m"], "corpora": [{"source": "animal", "windows": None}]}
    config["measurement"] = {"estimator": "sample-propagation"}
    roomy = plan(parse_config(config), tmp_path / "results")
    assert [remark for remark in roomy.remarks if "spill" in remark] == [
        f"1 of 1 jobs spill states to the temporary folder of their node while they run, at most about "
        f"{spilled_gb(make_jobs(parse_config(config))[0]):.1f} GB each (gpt2-2m on animal)."
    ]
    tight = plan(parse_config(config | {"resources": {"spill_gb": 1, "spill_dir": "/fast"}}), tmp_path / "results")
    assert "spill states to /fast" in tight.remarks[-2]
    assert "would fail, such as gpt2-2m on animal; set spill_gb: " in tight.remarks[-1]
    assert not any(
        "spill" in remark for remark in plan(parse_config(config | {"resources": {"states_gb": 100}}), tmp_path).remarks
    )


@pytest.mark.parametrize("estimator", ["sample-propagation", "infonce"])
def test_the_plan_counts_as_extraction_does(estimator: str) -> None:
    config = {"name": "t", "models": ["gpt2-30k"], "corpora": [{"source": "animal", "windows": 300}]}
    few = {"measurement": {"estimator": estimator}, "resources": {"states_gb": 1e-4}}
    (job,) = make_jobs(parse_config(config | few))
    model = load_model("gpt2-30k", device="cpu")
    found = windows("animal", model.tokenizer, count=300)
    entering = estimator != "sample-propagation"
    assert 1e9 * spilled_gb(job) == pytest.approx(
        spilled_bytes(model, found, entering=entering, budget=job.resources.budget)
    )
