"""A reference bank on disk: one folder of parquet and JSON, checked when it is read; no code, no pickle."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from estimators.base import InputError
from estimators.contracts.files import check_file, new_folder
from estimators.contracts.seals import content_hash, is_whole, sealed
from extraction.tables import Schema, read_table, write_table
from proxy.features.output import shown_in
from proxy.measurement.output import OUTPUT_LAYER
from proxy.schemas import CONTINUATIONS, EMERGENCE

SCHEMA = 1
KIND = "emergence-bank"
DESCRIPTION = "bank.json"
SHIPPED = Path(__file__).parent / "shipped"  # the bundled models and their training stages
TABLES = ("emergence.parquet", "models.parquet")
WEIGHTS, CHAT = "weights", "weights-chat"  # how references were asked: to continue a text, or as a chat
BUNDLED, BUILT_IN, FETCHED = "bundled", "built-in", "fetched"

# One row per feature that the free answers of a model show (schema REFERENCES has them as columns, of which words alone
# are thousands), and how the answers came about and were read (`proxy.features.provenance`).
ANSWERS = Schema(
    name="answer features",
    version=1,
    columns={"model": "string", "provenance": "string", "feature": "string", "value": "Float64"},
    required=("model", "provenance", "feature", "value"),
)
# Tables that a bank may lack, by their field.
FURTHER = {"continuations": ("continuations.parquet", CONTINUATIONS), "answers": ("answers.parquet", ANSWERS)}

# One row per model of a bank. Checkpoints of one training run share its name, and count as one.
MODELS = Schema(
    name="bank models",
    version=1,
    columns={"model": "string", "run": "string", "family": "string", "parameters": "Int64", "revision": "string"},
    required=("model", "run", "family"),
)


@dataclass(frozen=True, slots=True)
class BankCorpus:
    """A corpus that the references were measured on, and how its windows were sampled.

    Attributes:
        name: as in the tables.
        version: hash of its content.
        kept: `bundled` (its text is in the bank), `built-in` (a list that every installation has) or `fetched`.
        source: file in the bank, name of the list, or where to fetch it.
        tokens: T of a window.
        windows: sampled from it.
    """

    name: str
    version: str
    kept: str
    source: str
    tokens: int
    windows: int

    def place(self, folder: Path) -> str:
        """What `extraction.windows` takes for it."""
        return str(folder / self.source) if self.kept == BUNDLED else self.source


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """References with everything that proxies need of them.

    Attributes:
        name: of the bank.
        licence: under which its tables may be used.
        provenance: how they were made, in a sentence a person can follow.
        corpora: by name, the first one is the default.
        seed: that windows were sampled by.
        neutral: whether a neutral first token stood before windows and lone tokens.
        models: schema MODELS.
        emergence: schema EMERGENCE, last position: blocks, and the output as layer -1.
        folder: where it lies.
        continuations: schema CONTINUATIONS; without rows where single windows were not kept.
        answers: schema ANSWERS; without rows where there are no answers.
    """

    name: str
    licence: str
    provenance: str
    corpora: tuple[BankCorpus, ...]
    seed: int
    neutral: bool
    models: pd.DataFrame
    emergence: pd.DataFrame
    folder: Path = field(default=SHIPPED)
    continuations: pd.DataFrame = field(default_factory=CONTINUATIONS.empty)
    answers: pd.DataFrame = field(default_factory=ANSWERS.empty)

    def corpus(self, name: str | None = None) -> BankCorpus:
        """Return a corpus by name, by default the first.

        Raises:
            InputError: if the bank has none of that name.
        """
        known = {corpus.name: corpus for corpus in self.corpora}
        if name is None:
            return self.corpora[0]
        if name not in known:
            raise InputError(f"The bank {self.name} has the corpora {', '.join(known)}; got {name}.")
        return known[name]

    @property
    def run_of(self) -> dict[str, str]:
        """Training run of each model."""
        return dict(zip(self.models["model"], self.models["run"], strict=True))

    @property
    def runs(self) -> int:
        """Independent training runs."""
        return int(self.models["run"].nunique())

    def answer_features(self) -> pd.DataFrame:
        """Features of the answers: one row per model that answered, with ``provenance``, null where not shown."""
        plain = self.answers.astype({"value": "float64"})  # thousands of columns in one block
        return plain.pivot_table("value", ["model", "provenance"], "feature").reset_index()

    def output(self, corpus: str, *, chat: bool = False) -> pd.DataFrame:
        """Rows of the references' output on a corpus, by one way of asking."""
        rows = self.emergence
        asked = rows["asked"].fillna(WEIGHTS) == (CHAT if chat else WEIGHTS)
        return rows[(rows["corpus"] == corpus) & (rows["layer"] == OUTPUT_LAYER) & asked]

    def shown(self, corpus: str, *, chat: bool = False) -> list[int]:
        """Numbers of shown tokens for which references were read, the most first; 0: samples alone."""
        return shown_in(self.output(corpus, chat=chat))

    def windows(self, corpus: str, reading: str, *, chat: bool = False) -> pd.DataFrame:
        """How single windows of a corpus were continued, by one reading and one way of asking."""
        rows = self.continuations
        asked = rows["asked"].fillna(WEIGHTS) == (CHAT if chat else WEIGHTS)
        return rows[(rows["corpus"] == corpus) & (rows["estimator"] == reading) & asked]

    def estimators(self, corpus: str) -> list[str]:
        """Estimators by which blocks were measured."""
        rows = self.emergence[(self.emergence["corpus"] == corpus) & (self.emergence["layer"] > OUTPUT_LAYER)]
        return sorted(rows["estimator"].dropna().unique())


def save_bank(bank: Bank, folder: Path, texts: Mapping[str, list[str]]) -> None:
    """Write a bank into a new folder; it appears whole or not at all.

    Args:
        bank: to write.
        folder: must not exist yet, or be empty.
        texts: documents of each bundled corpus, by the file's name in the bank.

    Raises:
        InputError: if the folder holds something or cannot be made.
    """
    with new_folder(folder, "bank") as made:
        (made / "corpora").mkdir()
        write_table(bank.emergence, made / TABLES[0], EMERGENCE)
        write_table(bank.models, made / TABLES[1], MODELS)
        tables = [*TABLES]
        for part, (name, schema) in FURTHER.items():
            frame = getattr(bank, part)
            if len(frame):
                packed = schema.arrow(schema.conform(frame))
                pq.write_table(packed, made / name, compression="zstd", compression_level=19)
                tables.append(name)
        for name, documents in texts.items():
            pd.DataFrame({"text": documents}).to_parquet(made / name, compression="zstd", compression_level=19)
        description = {
            "kind": KIND,
            "schema": SCHEMA,
            "name": bank.name,
            "licence": bank.licence,
            "provenance": bank.provenance,
            "seed": bank.seed,
            "neutral": bank.neutral,
            "corpora": [asdict(corpus) for corpus in bank.corpora],
            "sha256": {name: content_hash((made / name).read_bytes()) for name in (*tables, *texts)},
        }
        (made / DESCRIPTION).write_text(json.dumps(sealed(description), indent=1) + "\n", encoding="utf-8")
        if not texts:
            (made / "corpora").rmdir()


def load_bank(folder: Path = SHIPPED) -> Bank:
    """Read a bank and check it: schema, hashes, and that it holds nothing but its tables.

    Raises:
        InputError: if there is none, it is of another schema, damaged, or holds other files.

    >>> load_bank().corpora[0].name
    'python-docs'
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    check_file(folder)
    check_file(path)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"No bank in {folder}: it has no {DESCRIPTION}; give a folder that `emergence bank build` wrote."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} could not be read as JSON ({str(error).splitlines()[0]}); copy the bank again."
        ) from error
    _check(folder, description)
    try:
        corpora = tuple(
            BankCorpus(**{name: entry[name] for name in BankCorpus.__slots__}) for entry in description["corpora"]
        )
        bank = Bank(
            description["name"],
            description["licence"],
            description["provenance"],
            corpora,
            int(description["seed"]),
            bool(description["neutral"]),
            read_table(folder / TABLES[1], MODELS),
            read_table(folder / TABLES[0], EMERGENCE),
            folder,
            **{
                part: read_table(folder / name, schema)
                for part, (name, schema) in FURTHER.items()
                if name in description["sha256"]
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not a description of a bank of this version ({error!r}); build it again."
        ) from error
    _check_content(bank)
    return bank


def _check(folder: Path, description: Any) -> None:
    path = folder / DESCRIPTION
    if not isinstance(description, dict) or description.get("kind") != KIND:
        raise InputError(f"{path} describes no reference bank; give a folder that `emergence bank build` wrote.")
    if description.get("schema") != SCHEMA:
        raise InputError(
            f"The bank in {folder} has schema {description.get('schema')}, this version reads {SCHEMA}; build it again."
        )
    if not is_whole(description):
        raise InputError(f"{path} was changed after the bank was built; build it again or copy the whole folder.")
    hashes = description.get("sha256")
    if not isinstance(hashes, dict) or not {*TABLES} <= {*hashes}:
        raise InputError(f"{path} lacks the hashes of its tables; build the bank again.")
    for name, digest in hashes.items():
        inside = (folder / name).resolve()
        if not inside.is_relative_to(folder.resolve()) or inside.suffix != ".parquet":
            raise InputError(f"{path} names {name}, which is not a table in the bank; build the bank again.")
        if not inside.is_file():
            raise InputError(f"The bank in {folder} lacks {name}; copy the whole folder.")
        if content_hash(inside.read_bytes()) != digest:
            raise InputError(f"{folder / name} was changed after the bank was built; copy the whole folder again.")
    known = {*hashes, DESCRIPTION}
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    other = sorted(found - known)
    if other:
        raise InputError(
            f"The bank in {folder} holds {', '.join(other[:3])}, which does not belong to it; a bank holds tables "
            "alone, so take "
            f"{'it' if len(other) == 1 else 'them'} out."
        )


def _check_content(bank: Bank) -> None:
    if not bank.corpora:
        raise InputError(f"The bank in {bank.folder} has no corpus; build it again.")
    twice = bank.models["model"][bank.models["model"].duplicated()]
    if len(twice):
        raise InputError(f"The bank in {bank.folder} names {twice.iloc[0]} twice among its models; build it again.")
    named = {*bank.emergence["model"], *bank.continuations["model"], *bank.answers["model"]}
    unknown = sorted(named - set(bank.models["model"]))
    if unknown:
        raise InputError(f"The bank in {bank.folder} has rows of {unknown[0]}, which is not among its models.")
    for what, numbers in (("emergence", bank.emergence["ie_bits"]), ("a feature of answers", bank.answers["value"])):
        if not np.isfinite(numbers.to_numpy(dtype=float, na_value=math.nan)).all():
            raise InputError(f"The bank in {bank.folder} holds {what} that is not finite; build it again.")
