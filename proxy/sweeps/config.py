"""The configuration of a sweep: strict, frozen, read from YAML."""

from __future__ import annotations

import difflib
import re
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from estimators.base import InputError
from estimators.contracts.files import check_file
from estimators.contracts.numbers import LARGEST, LARGEST_SEED
from extraction.states.budget import MOST_GB, StateBudget
from proxy.sweeps.strict import Named, Strict, explained, kind

MOST_CPUS = 100_000
MOST_GPUS = 10_000
LARGEST_CONFIG = 2_000_000  # bytes, of some ten thousand models
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Resources(Strict):
    """What one worker holds while a model is measured; what is left out is estimated from the model's size.

    Attributes:
        cpus: processor cores, also the number of torch threads; 1 by default.
        gpus: 0, a fraction of one GPU (workers then share it), or a whole number of GPUs.
        memory_gb: main memory in GiB.
        states_gb: main memory for states, in GB; what needs more is spilled to disk. Part of memory_gb.
        spill_dir: folder to spill to, on every node; by default its temporary folder.
        spill_gb: most that one worker may spill.
    """

    cpus: Annotated[int, Field(ge=1, le=MOST_CPUS)] | None = None
    gpus: Annotated[float, Field(ge=0, le=MOST_GPUS)] | None = None
    memory_gb: Annotated[float, Field(gt=0, le=MOST_GB)] | None = None
    states_gb: Annotated[float, Field(gt=0, le=MOST_GB)] | None = None
    spill_dir: Annotated[str, Field(min_length=1)] | None = None
    spill_gb: Annotated[float, Field(ge=0, le=MOST_GB)] | None = None

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError(f"more than one GPU comes in whole numbers, got {value:g}")
        return value

    @property
    def budget(self) -> StateBudget:
        """How a worker holds states: as given here, else as `extraction.extract` does."""
        given = {"states_gb": self.states_gb, "spill_dir": self.spill_dir, "spill_gb": self.spill_gb}
        return StateBudget(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    def over(self, other: Resources) -> Resources:
        """Return these, with those of `other` where they say nothing."""
        return other.model_copy(update=self.model_dump(exclude_none=True))


class Model(Named):
    """One model: a bundled name, a folder or a hub id; a bare string in the YAML means its id.

    Attributes:
        id: bundled name, folder, or hub id.
        revision: branch, tag or commit of a hub model.
        dtype: `auto` is the checkpoint's own.
        quantization: as `extraction.load_model` takes it, for example `bitsandbytes-4bit`.
        parameters: number of parameters, for planning where the model itself is out of reach.
        trust_remote_code: run code that the model's repository brings; off unless you trust it.
        allow_pickle: load weights that exist only as pickle, which can run code of their author.
        resources: overrides of the sweep's `resources`.
    """

    id: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    dtype: Dtype = "auto"
    quantization: str | None = None
    parameters: Annotated[int, Field(gt=0, le=LARGEST)] | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    resources: Resources | None = None


class Corpus(Named):
    """One corpus, as `extraction.windows` takes it; a bare string means its source.

    Attributes:
        source: built-in corpus (country, animal, color, python-docs), `list:FILE`, file or folder of text that every
            worker can read, or `hf:NAME`.
        windows: number of windows to sample; null takes all there are.
        tokens: tokens per window; by default the paper's (8 for text, 8 or 10 for its categories).
        at: where windows of text begin.
        demonstration: tokens of an entity and its comma.
        column: column of the text in a table.
    """

    source: Annotated[str, Field(min_length=1)]
    windows: Annotated[int, Field(ge=2, le=LARGEST)] | None = 2000
    tokens: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    at: Literal["sentence", "anywhere"] = "sentence"
    demonstration: Annotated[int, Field(ge=2, le=LARGEST)] = 2
    column: str | None = None


class Measurement(Strict):
    """How bits are estimated.

    Attributes:
        estimator: `predictive`, `sample-propagation`, a trained one, a reading of the output (`output-20`), or
            several separated by commas: `predictive,predictive-20,output-20` runs a model once.
        options: of a trained estimator, such as `{preset: paper, epochs: 200}`; of `predictive` `{full: true}`, to
            read a large model at every position and on more windows.
        resolutions: of sample propagation, noise levels relative to the RMS norm of the layer's states; empty: the
            default curve.
        queries: of sample propagation, windows whose information is read; every window is still a reference.
        project: dimensions that wider models are projected to; null keeps all.
        prefix: what stands before windows and lone tokens: `auto`, `none` or a token, as `emergence measure --prefix`.
    """

    estimator: str = "predictive"
    options: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    resolutions: tuple[Annotated[float, Field(gt=0)], ...] = ()
    queries: Annotated[int, Field(ge=2, le=LARGEST)] = 4000
    project: Annotated[int, Field(ge=1, le=LARGEST)] | None = 256
    prefix: Annotated[str, Field(min_length=1)] = "auto"


class Tracking(Strict):
    """Where the finished sweep is logged.

    Attributes:
        uri: MLflow tracking URI; by default sqlite in the working folder.
        experiment: name of the MLflow experiment.
    """

    uri: str | None = None
    experiment: str = "emergence"


class SweepConfig(Strict):
    """Many models on many corpora.

    Attributes:
        name: names the results folder when none is given, and the run in tracking; by default the name of the file.
        description: one line on what the sweep is for.
        seed: governs windows, projection, noise and controls.
        models: what to measure.
        corpora: what to measure it on; a job is one model on one corpus.
        measurement: how bits are estimated.
        controls: also measure each model's twin with random weights, and windows whose tokens are shuffled; both stand
            beside the model's own numbers, and rows that are not above both are flagged. About three times the work.
        resources: what one worker holds, for models that do not say.
        retries: how often a job is tried again after its worker died or a passing error.
        workers: workers to ask the cluster for; by default as many as its nodes have room for now.
        storage: results folder or URL (s3://bucket/sweep); `--results` overrides it.
        tracking: log the finished sweep to MLflow; left out: `emergence track` does so later.
    """

    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    corpora: Annotated[tuple[Corpus, ...], Field(min_length=1)]
    measurement: Measurement = Measurement()
    controls: bool = False
    resources: Resources = Resources()
    retries: Annotated[int, Field(ge=0, le=LARGEST)] = 2
    workers: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    storage: str | None = None
    tracking: Tracking | None = None

    @field_validator("name")
    @classmethod
    def _usable_as_folder(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"a name is made of letters, digits, '.', '_' and '-', got '{value}'")
        return value

    @field_validator("controls", mode="before")
    @classmethod
    def _both_or_none(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            raise ValueError(
                "this is true or false now: with true one job measures a model, its random-weights twin and shuffled "
                "windows together"
            )
        return value


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error instead of a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def shipped_sweeps() -> dict[str, Path]:
    """Return the ready sweeps that come with the package, by bare name."""
    folder = Path(str(resources.files("ray_configs") / "sweeps"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(source: str | PathLike[str]) -> Path:
    """Find a sweep file: a path, or one of the shipped sweeps by bare name or by its path in the package.

    Raises:
        InputError: if there is none; names the shipped ones.
    """
    path = Path(source)
    check_file(path)
    if path.is_file():
        return path
    shipped = shipped_sweeps()
    name = path.stem if path.parent in (Path(), Path("ray_configs/sweeps")) else ""
    if path.suffix in ("", ".yaml", ".yml") and name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(path.stem, list(shipped), n=1)
    hint = f"did you mean {near[0]}?" if near else "give a YAML file."
    raise InputError(f"No sweep config at {source}; shipped are {', '.join(shipped)}; {hint}")


def load_config(source: str | PathLike[str]) -> SweepConfig:
    """Read and check a sweep config; relative paths in it are taken from the working folder.

    Args:
        source: YAML file, or bare name of a shipped sweep such as `demo`.

    Raises:
        InputError: if it is missing, not YAML, or breaks a rule of `SweepConfig`.
    """
    path = find_config(source)
    check_file(path, most_bytes=LARGEST_CONFIG)
    try:
        # A SafeLoader that refuses repeated keys.
        content = yaml.load(path.read_text(encoding="utf-8-sig"), _StrictLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} could not be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{path}{where}: {problem}.") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply; check the file.") from error
    except (ValueError, TypeError, OverflowError, AttributeError) as error:  # such as a number of 5,000 digits
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path} holds a value that cannot be read: {reason}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold 'models:' and 'corpora:', got {kind(content)}.")
    return parse_config({"name": path.stem, **content}, str(path))


def parse_config(content: dict[str, Any], source: str = "the sweep config") -> SweepConfig:
    """Check a config given as a mapping.

    Raises:
        InputError: naming `source`, the place in it and what is wrong there.
    """
    try:
        return SweepConfig.model_validate(content)
    except ValidationError as error:
        problems = [explained(detail) for detail in error.errors()]
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{source}: {problems[0]}{more}") from None
