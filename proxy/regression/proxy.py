"""Fit, validate and use a proxy: from a reference table to an estimate with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from estimators.base import InputError, Progress
from estimators.contracts.cells import counted
from proxy.features.provenance import ASKED, COLUMN, differences, read_provenance
from proxy.regression.candidates import CANDIDATES, OUTPUT
from proxy.regression.domain import MISSING, WITHHELD, Domain, contributions, estimate_models
from proxy.regression.folds import FAMILIES_NEEDED, families_needed, unit_left_out
from proxy.regression.intervals import LEVELS, Intervals, require_rows
from proxy.regression.links import Bounds, Link, inferred_bounds
from proxy.regression.record import ProxyRecord
from proxy.regression.references import (
    SIZE,
    listed,
    numeric,
    of_accuracies,
    of_answers,
    output_asked,
    provenances,
    read_references,
)
from proxy.regression.regressor import ProxyRegressor
from proxy.regression.save import save_proxy
from proxy.regression.validation import coverage_by_level, score_candidates, validate

REFERENCE_SIZE = "log_parameters"  # of references, beside their features


class Proxy(ProxyRecord):
    """A fitted proxy: estimates the target of other models; its evidence is in `ProxyRecord`.

    >>> fit_proxy(references, target="emergence_bits", candidate="best_feature")
    <Proxy of emergence_bits by best_feature: 12 references, 90 % intervals, left out by model>
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """One line; its tables are pages."""
        return (
            f"<Proxy of {self.target} by {self.chosen}: {len(self.references)} references, {100 * self.level:g} % "
            f"intervals, left out by {self.unit}>"
        )

    def predict(self, features: pd.DataFrame, *, level: float | None = None, every_level: bool = False) -> pd.DataFrame:
        """Estimate the target of other models.

        Args:
            features: one row per model with at least the columns of `features`; `model` and `family` are used if given.
            level: confidence of `lower` and `upper`, one of 0.5, 0.8, 0.9, 0.95 and the proxy's own, which is the
                default.
            every_level: also give lower_50, upper_50 ... of every level.

        Returns:
            model, estimate, lower, upper, level, in_domain, novelty, remarks. Outside the domain the interval is
            widened by the novelty on the link's scale. Estimate and interval are withheld (null) beyond three times
            the references' own reach, where more is missing than a third of what the candidate looks at, and, if
            models were left out one at a time, for a family that is given and absent from the references: their errors
            say nothing about it. Where no family is given, as for most closed models, the remark says so instead.

        Raises:
            InputError: if a feature is missing (named) or not numeric, the table is empty, a model was not asked and
                read like the references, or there is no interval at `level`.

        >>> proxy = fit_proxy(references, target="emergence_bits", candidate="best_feature")
        >>> found = proxy.predict(references.head(2)[["model", "family", *proxy.features]])
        >>> found[["model", "level", "in_domain"]].values.tolist()
        [['m0', 0.9, True], ['m1', 0.9, True]]
        >>> bool((found["lower"] <= found["estimate"]).all() and (found["estimate"] <= found["upper"]).all())
        True
        """
        X = self._inputs(features)
        levels = sorted({*LEVELS, self.level})
        shown = self.level if level is None else level
        if shown not in levels:
            raise InputError(
                f"This proxy has intervals at {', '.join(f'{known:g}' for known in levels)}; got level {shown:g}. Fit "
                "it again with that level."
            )
        found = estimate_models(self.intervals, self.domain, X, levels)
        given = ~self._of_new_family(X["family"]).to_numpy(dtype=bool)
        withheld = ~given | np.isnan(found.lower).all(axis=1)
        pushes = contributions(self.intervals.regressor, X)
        warning = self.verdict.warning
        ends = {}
        for at, level in enumerate(levels):
            ends[f"lower_{level * 100:g}"] = np.where(given, found.lower[:, at], np.nan)
            ends[f"upper_{level * 100:g}"] = np.where(given, found.upper[:, at], np.nan)
        table = pd.DataFrame(
            {
                "model": self._names(features).to_numpy(),
                "estimate": np.where(withheld, np.nan, found.estimate),
                "lower": ends[f"lower_{shown * 100:g}"],
                "upper": ends[f"upper_{shown * 100:g}"],
                "level": shown,
                "in_domain": found.inside,
                "novelty": found.novelty,
                "remarks": [
                    "; ".join(
                        [
                            *([warning] if warning else []),
                            *said,
                            self._remark(X.iloc[i], found.novelty[i], found.missing[i], pushes.iloc[i]),
                        ]
                    ).removesuffix("; ")
                    for i, (_, said) in enumerate(self._asked(features))
                ],
            }
        ).astype({"model": "string", "remarks": "string"})
        return table.assign(**ends) if every_level else table

    def explain(self, features: pd.DataFrame) -> pd.DataFrame:
        """Return model, feature, value and contribution (on the link's scale), the strongest first for each model.

        Args:
            features: as for `predict`.

        >>> proxy = fit_proxy(references, target="emergence_bits", candidate="best_feature")
        >>> proxy.explain(references.head(1))[["model", "feature"]].values.tolist()
        [['m0', 'behaviour.length'], ['m0', 'small.reader.ie_0.18']]
        """
        X = self._inputs(features)
        pushes = contributions(self.intervals.regressor, X)
        tall = pushes.assign(model=self._names(features).to_numpy()).melt(
            "model", var_name="feature", value_name="contribution"
        )
        tall.insert(2, "value", X[list(self.features)].to_numpy(dtype=np.float64).T.reshape(-1))
        order = np.lexsort((-tall["contribution"].abs().to_numpy(), pd.factorize(tall["model"])[0]))
        return tall.iloc[order].reset_index(drop=True)

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the proxy into a new folder; see `proxy.regression.save`.

        Raises:
            InputError: if the folder exists already.

        >>> fit_proxy(references, target="emergence_bits", candidate="mean").save(scratch / "saved")
        >>> sorted(file.name for file in (scratch / "saved").iterdir())
        ['card.md', 'figures', 'model.skops', 'proxy.json', 'references.parquet', 'validation.parquet']
        """
        save_proxy(self, Path(folder))

    def _names(self, features: pd.DataFrame) -> pd.Series:
        names = features["model"] if "model" in features.columns else pd.Series(features.index, index=features.index)
        return names.astype("string")

    def _of_new_family(self, family: pd.Series) -> pd.Series:
        """Return which families are given but absent from the references, where models were left out one at a time."""
        families_compared = self.unit != "family" and self._families_known()
        return family.notna() & ~family.isin(set(self.references["family"])) & families_compared

    def _families_known(self) -> bool:
        return bool((self.references["family"] != self.references["model"]).any())

    def _inputs(self, features: pd.DataFrame) -> pd.DataFrame:
        if features.empty:
            raise InputError("The table of features has no rows; give one row per model to estimate.")
        missing = [name for name in self.features if name not in features.columns]
        if missing:
            raise InputError(
                f"This proxy was trained on {len(self.features)} features, of which {len(missing)} are missing here: "
                f"{listed(missing)}; {'; '.join(self._remedies(missing))}."
            )
        for name, (refused, _) in zip(self._names(features), self._asked(features), strict=True):
            if refused:
                raise InputError(
                    f"{name} was not asked and read as this proxy's references were: {'; '.join(refused)}."
                )
        X = numeric(features, self.features)
        family = features["family"] if "family" in features.columns else pd.Series(pd.NA, index=features.index)
        return X.assign(family=family.astype("string"))

    def _asked(self, features: pd.DataFrame) -> list[tuple[list[str], list[str]]]:
        """Return, for each model, why its features do not compare with the references', and what else to say of it."""
        known, way = provenances(self.references), output_asked(self.references)
        output = [name for name in self.features if name.startswith(OUTPUT)]
        read = features[output].notna().any(axis=1)  # models whose output was not read have none of these
        found = []
        for row, reads_output in zip(features.reindex(columns=[COLUMN, ASKED]).to_dict("records"), read, strict=True):
            refused: list[str] = []
            said: list[str] = []
            given, asked = not pd.isna(row[COLUMN]), not pd.isna(row[ASKED])
            if known and given:
                refused, said = differences(known, read_provenance(str(row[COLUMN])))
            elif (known or given) and of_answers(self.features):
                said.append(f"how {_whose(known)} answers were made is not recorded")
            if reads_output and way and asked and row[ASKED] != way[0]:
                refused = [
                    *refused,
                    f"what it says next was asked for otherwise ({row[ASKED]}; theirs: {way[0]}): ask it as they were",
                ]
            elif reads_output and bool(way) != asked:
                said.append(f"how {_whose(way)} next tokens were asked for is not recorded")
            found.append((refused, said))
        return found

    def _remedies(self, missing: Sequence[str]) -> list[str]:
        """Return, for each source of features, how the missing ones are made."""
        readers = {name.split(".")[1] for name in missing if name.startswith("small.")}
        remedies = []
        if any(name.startswith(OUTPUT) for name in missing):
            remedies.append("give what the models say next (features --output TABLE)")
        if of_answers(missing):
            by = (
                f", read by {listed(sorted(readers))} (features --readers)"
                if readers and self.mode == "outputs"
                else ""
            )
            remedies.append(f"make the features of the models' answers{by}")
        return remedies or ["add these columns"]

    def _remark(self, row: pd.Series, novelty: float, missing: float, pushes: pd.Series) -> str:
        parts = []
        if novelty > WITHHELD:
            parts.append(
                f"withheld: {novelty:.1f} times as far out as any reference, by {self._farthest(row)}; references with "
                "such values would bring it inside"
            )
        elif novelty > 1:
            parts.append(f"{novelty:.1f} times as far out as any reference: interval widened by that factor")
        if missing > max(MISSING, self.domain.lacked) + 1e-9:
            parts.append(f"withheld: {missing:.0%} of what the estimate rests on is missing")
        known = listed(sorted(set(self.references["family"])), 4)
        if self._of_new_family(pd.Series([row["family"]])).item():
            parts.append(
                f"withheld: left-out errors speak of further models of {known}, not of a new family; references of at "
                f"least {FAMILIES_NEEDED} families would allow it"
            )
        elif self.unit != "family" and not self._families_known():
            parts.append(
                "families of the references are not known: the interval may hold for their close relatives only"
            )
        elif self.unit != "family" and pd.isna(row["family"]):
            parts.append(f"the interval holds for further models of {known}, not of a new family")
        values = row[list(self.features)]
        empty = values.index[values.isna()].tolist()
        if empty:
            parts.append(f"missing, taken as typical: {listed(empty, 3)}")
        if novelty > WITHHELD:
            return "; ".join(parts)  # there is no estimate to explain
        strongest = pushes.abs().sort_values(ascending=False).index[:3]
        moves = [f"{name} {pushes[name]:+.2g}" for name in strongest if abs(pushes[name]) > 1e-12]
        if moves:
            parts.append(f"pushed by {', '.join(moves)}")
        return "; ".join(parts)

    def _farthest(self, row: pd.Series) -> str:
        """Name the three features of a model that lie farthest from the references, with their range."""
        known = self.references[list(self.features)].astype(float)
        values = row[list(self.features)].astype(float)
        apart = ((values - known.mean()) / known.std().replace(0, np.nan)).abs().fillna(0.0)
        return ", ".join(
            f"{name} {values[name]:.3g} (references {known[name].min():.3g} to {known[name].max():.3g})"
            for name in apart.sort_values(ascending=False).index[:3]
        )


def _whose(known: Sequence[object]) -> str:
    """Return whose origin is not recorded where only one side's is."""
    return "its" if known else "the references'"


def fit_proxy(
    references: pd.DataFrame,
    *,
    target: str,
    groups: str | None = "family",
    mode: str = "outputs",
    level: float = 0.9,
    bounds: Bounds | None = None,
    candidate: str = "auto",
    progress: Progress | None = None,
) -> Proxy:
    """Learn `target` from the features of reference models, with errors and intervals from left-out references.

    Every choice is made without the rows a number is reported on: references are left out by family
    where there are enough families for `level` (nine at 90 %), else by model; the candidate is chosen among the rest
    by leaving families (models) out again; and the intervals are jackknife+ (up to ten groups) or CV+ over the same
    groups, each group with the same weight however many rows it has.

    Args:
        references: one row per reference model: `model`, `groups`, features (``output.*``, ``small.*``,
            ``behaviour.*``, ``words.*``, ``accuracy.*``, ``meta.*``), `target`, optionally ``<target>_std_error`` in
            the same unit, which weighs the rows, and `run`: checkpoints of one training run count as one model.
        target: column to estimate.
        groups: column of families; without one models are left out one at a time.
        mode: ``outputs`` learns from all that is known of a closed model (``output.*``, ``small.*``, ``behaviour.*``,
            ``words.*``, ``accuracy.*``), ``scale`` from ``small.*`` and ``meta.*``.
        level: confidence of the intervals, between 0 and 1.
        bounds: (lower, upper) of the target, each may be None; they choose the link (identity, log or logit). Without
            them, shares and percentages are recognised by name and values (0,1 or 0,100) and have no bounds otherwise.
        candidate: "auto" chooses by left-out groups, except where all features are accuracies (``accuracy.*``) and the
            target has two bounds: then it is ``scaling_law``, the form known to fit. Or the name of one of
            `proxy.regression.candidates.CANDIDATES` to use it unconditionally.
        progress: called after each left-out fit.

    Raises:
        InputError: fewer than nine models, a target that is missing or constant, no usable feature, or a bad
            argument.

    >>> proxy = fit_proxy(references, target="emergence_bits", candidate="best_feature")  # twelve models
    >>> proxy.unit, len(proxy.validation), proxy.chosen
    ('model', 12, 'best_feature')
    """
    if not 0 < level < 1:
        raise InputError(f"A confidence level lies between 0 and 1, for example 0.9; got {level}.")
    if candidate != "auto" and candidate not in CANDIDATES:
        raise InputError(f"Unknown candidate {candidate!r}; choose auto or one of {', '.join(CANDIDATES)}.")
    table = read_references(references, target=target, groups=groups, mode=mode)
    remarks = list(table.remarks)
    if bounds is None:
        bounds, remark = inferred_bounds(target, table.y)
        remarks += [remark] if remark else []
    link = Link(bounds)
    link.check(table.y)
    families = len(np.unique(table.families))
    alone = "run" if "run" in table.frame.columns else "model"  # what is left out where families are few
    require_rows(len(np.unique(table.runs)), level, f"{alone}s")
    unit = unit_left_out(families, level, alone) if table.families_known else alone
    if unit != "family" and table.families_known:
        remarks.append(
            f"{counted(families, 'family', 'families')}: {alone}s were left out one at a time, so errors and intervals "
            f"speak of further models of these families; for a new family at least {families_needed(level)} families "
            f"are needed at {level:.0%}"
        )
    left_out = table.families if unit == "family" else table.runs
    X = table.X.assign(family=table.families, model=left_out)
    size = SIZE if SIZE in table.X.columns else None
    beside = None
    if size is None and table.log_parameters is not None:
        X, beside = X.assign(**{REFERENCE_SIZE: table.log_parameters[SIZE]}), REFERENCE_SIZE
    regressor = ProxyRegressor(
        candidate,
        bounds,
        group_column="model",
        family_column="family",
        size_column=size,
        one_unit=of_accuracies([*table.X.columns]),
        reference_size_column=beside,
    )
    if regressor.one_unit and candidate == "auto":
        remarks.append(
            "features are accuracies alone: the published form of Observational Scaling Laws is taken, not chosen"
            if link.name == "logit"
            else "features are accuracies alone: with two bounds of the target, such as 0,1, the form of Observational "
            "Scaling Laws would be taken"
        )
    levels = sorted({*LEVELS, level})
    validation = validate(regressor, X, table, left_out, levels, progress)
    intervals = Intervals.fit(regressor, X, table.y, table.weights, left_out)
    validation["lower"] = validation[f"lower_{level * 100:g}"]
    validation["upper"] = validation[f"upper_{level * 100:g}"]
    coverage = coverage_by_level(validation, levels)
    return Proxy(
        target=target,
        mode=mode,
        features=tuple(table.X.columns),
        level=level,
        bounds=bounds,
        unit=unit,
        intervals=intervals,
        domain=Domain.of(intervals.regressor, X),
        references=table.frame,
        validation=validation,
        scores=score_candidates(validation, coverage, level),
        coverage=coverage,
        remarks=tuple(remarks),
    )
