"""Does sample propagation tell text from shuffled windows, and trained from random, under another scale of the states?

    python benchmarks/normalisations.py --out docs --models gpt2-2m SmolLM2-135M-Instruct.gguf

The states of a block are put on one of three scales before noise is added: `pooled` (z-scores over macro and micro
states together, as `extract` does), `own` (macro and micro each on z-scores of their own), and `next block` (each state
divided by its RMS, or by its standard deviation where the model has layer norms, as the next block reads it). Of each
scale and resolution four things are asked: is E above zero; is the random-weights twin, and are shuffled windows, below
the model by four joint errors; does E rise with size inside a family? Windows are distinct and count once, in text and
shuffled alike, so that both have one ceiling. E is IE at the last position, in bits, at the highest of the blocks read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from estimators.contracts.cells import markdown
from extraction import LanguageModel, Projection, States, Windows, extract, load_model, random_twin, reference_models
from extraction import windows as make_windows
from proxy.measurement.blocks import emergence_of_block, queries_of
from proxy.measurement.prefix import chosen_prefix

SCALES = ("pooled", "own", "next block")
RESOLUTIONS = (0.18, 0.35, 0.5, 0.7)
CASES = ("text", "shuffled", "twin")
ERRORS = 4.0
KEPT = 256  # features that wider states are projected to, as `extract` does


@dataclass
class Scaled:
    """States of one block on another scale, as far as `emergence_of_block` reads them."""

    positions: int
    macro: Tensor
    micro: Tensor
    rms: float

    def micro_leaving(self, block: int) -> Tensor:
        """States (V, k) of each distinct token run alone."""
        return self.micro

    def leaving(self, block: int, t: int) -> Tensor:
        """States (N, k) at the last position, the only one read."""
        return self.macro

    def scale(self, block: int) -> float:
        """RMS norm that noise is relative to."""
        return self.rms


def scaled(states: States, windows: Windows, block: int, scale: str, layer_norm: bool) -> Scaled:
    """Put the states that leave `block` on a scale."""
    last = states.positions
    macro, micro = states.leaving(block, last), states.micro_leaving(block)  # (N, k), (V, k), pooled z-scores
    if scale == "pooled":
        return Scaled(last, macro, micro, states.scale(block))
    _, token_of = windows.distinct_tokens()  # (N, T)
    occurrences = torch.from_numpy(np.bincount(token_of.reshape(-1), minlength=len(micro))).float()
    shares = occurrences / occurrences.sum()  # (V,)
    if scale == "own":
        macro = (macro - macro.mean(0)) / macro.std(0).clamp_min(1e-6)
        centre = shares @ micro
        spread = (shares @ (micro - centre) ** 2).sqrt().clamp_min(1e-6)
        return Scaled(last, macro, (micro - centre) / spread, macro.shape[1] ** 0.5)
    mean, std = states.statistics.mean[block], states.statistics.std[block]
    raw = [part * std + mean for part in (macro, micro)]
    if layer_norm:
        raw = [part - part.mean(1, keepdim=True) for part in raw]
    macro, micro = (part / part.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6) for part in raw)
    centre = (macro.mean(0) + shares @ micro) / 2
    macro, micro = macro - centre, micro - centre
    power = (macro.square().sum(1).mean() + shares @ micro.square().sum(1)) / 2
    if macro.shape[1] > KEPT:
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(macro.shape[1], KEPT, generator=generator))[0]  # (d, k) orthonormal
        macro, micro, power = macro @ basis, micro @ basis, power * KEPT / macro.shape[1]
    return Scaled(last, macro, micro, float(power.sqrt()))


def cases(name: str, corpus: str, count: int, seed: int) -> Iterator[tuple[str, LanguageModel, Windows]]:
    """Yield a model on text, on shuffled windows, and its twin on text; all on equally many distinct windows."""
    model = load_model(name)
    model = replace(model, prefix=chosen_prefix(model, "auto").ids)
    text = make_windows(corpus, model.tokenizer, count=2 * count, seed=seed, prefix=model.prefix)
    shuffled = text.shuffled(seed)
    size = min(count, len(text), len(shuffled))
    text, shuffled = (replace(chosen.select(np.arange(size)), weights=np.ones(size)) for chosen in (text, shuffled))
    yield "text", model, text
    yield "shuffled", model, shuffled
    yield "twin", random_twin(model, seed=seed), text


def measured(names: list[str], corpus: str, count: int, blocks: int, seed: int) -> pd.DataFrame:
    """Return IE at the last position by model, case, scale, resolution and layer, with its standard error."""
    rows = []
    for name in names:
        for case, model, chosen in cases(name, corpus, count, seed):
            layer_norm = any(isinstance(part, torch.nn.LayerNorm) for part in model.model.modules())
            queries = queries_of(chosen, None, seed)
            wide = model.width > KEPT
            layers = sorted({round(b) for b in np.linspace(0, len(model.blocks) - 1, blocks)})
            together = [SCALES] if not wide else [("pooled", "own"), ("next block",)]
            for scales in together:
                features = None if "next block" in scales else KEPT
                with extract(model, chosen, projection=Projection(features, seed), likelihoods=False) as states:
                    for block, scale in product(layers, scales):
                        made = scaled(states, chosen, block, scale, layer_norm)
                        (values,) = emergence_of_block(
                            made,  # type: ignore[arg-type]  # all that is read of it is there
                            chosen,
                            block,
                            queries,
                            resolutions=RESOLUTIONS,
                            seed=seed,
                            device=torch.device("cpu"),
                            positions=[states.positions],
                        )
                        rows += [
                            {
                                "model": Path(name).stem,
                                "family": model.family,
                                "parameters": model.parameters,
                                "case": case,
                                "scale": scale,
                                "resolution": one.resolution,
                                "layer": block,
                                "ie_bits": one.value.ie_bits,
                                "ie_std_error": one.value.std_error,
                            }
                            for one in values
                        ]
        print(f"{name}: done", file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def answers(found: pd.DataFrame) -> pd.DataFrame:
    """Ask the four questions of every scale and resolution."""
    peaks = found.loc[found.groupby(["model", "case", "scale", "resolution"])["ie_bits"].idxmax()]
    rows = []
    for (scale, resolution), group in peaks.groupby(["scale", "resolution"], sort=False):
        by_case = {case: part.set_index("model") for case, part in group.groupby("case")}
        text = by_case["text"]
        below = {}
        for case in ("twin", "shuffled"):
            joint = np.hypot(text["ie_std_error"], by_case[case]["ie_std_error"])
            below[case] = (text["ie_bits"] - by_case[case]["ie_bits"]) > ERRORS * joint
        by_size = [
            part["ie_bits"].corr(part["parameters"], method="spearman")
            for _, part in text.groupby("family")
            if len(part) > 2
        ]
        several = len(text)
        rows.append(
            {
                "scale": scale,
                "resolution": f"{resolution:g}",
                "E above 0": f"{int((text['ie_bits'] > 0).sum())} of {several}",
                "twin below": f"{int(below['twin'].sum())} of {several}",
                "shuffled below": f"{int(below['shuffled'].sum())} of {several}",
                "size": " and ".join(f"{value:.1f}" for value in by_size) or "-",
            }
        )
    order = {scale: number for number, scale in enumerate(SCALES)}
    return pd.DataFrame(rows).sort_values("scale", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def main() -> None:
    """Measure, ask and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--models", nargs="+", default=list(reference_models.names()), help="bundled or .gguf")
    parser.add_argument("--corpus", default="python-docs")
    parser.add_argument("--windows", type=int, default=800)
    parser.add_argument("--blocks", type=int, default=4, help="blocks read of each model, first to last")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = measured(arguments.models, arguments.corpus, arguments.windows, arguments.blocks, arguments.seed)
    found.to_csv(arguments.out / "normalisations.csv", index=False, float_format="%.4f")
    print(markdown(answers(found), ".3g", missing="-"))


if __name__ == "__main__":
    main()
