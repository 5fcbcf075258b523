"""Estimate a property of a model from answers that exist already: no API is asked, no weights of it are needed.

    python examples/closed_model_from_existing_answers.py
    python examples/closed_model_from_existing_answers.py --answers answers.parquet --targets scores.csv

`--answers` holds model, prompt_id and text (or output) of every model, all on the same prompts; `--targets` holds
model, family and the target of those it is known of, at least nine. The others are estimated. Without files, the
bundled models write the answers here, their emergence is the target, and that of the largest Gemma is left out.
"""

import argparse
from pathlib import Path

import pandas as pd

from extraction import Sampling, generate_answers, load_model, prompts, reference_models, windows
from extraction.answers.responses import read_responses
from extraction.tables import read_table
from proxy import compute_features, fit_proxy, measure, peak_emergence


def bundled(answers: int, count: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Let every bundled model answer prompts, and measure the emergence of each."""
    texts, tables = [], []
    for name in reference_models.names():
        model = load_model(name)
        texts.append(generate_answers(model, prompts("demo").head(answers), sampling=Sampling(seed=seed)))
        tables.append(measure(model, windows("animal", model.tokenizer, count=count, seed=seed), seed=seed))
        print(f"{name} has answered and is measured")
    peaks = peak_emergence(pd.concat(tables)).rename(columns={"emergence_bits": "target"})
    return pd.concat(texts), peaks[["model", "family", "target"]]


def main() -> None:
    """Answers to features, features to a proxy, a proxy to estimates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=Path, help="table of answers; default: the bundled models write them")
    parser.add_argument("--targets", type=Path, help="table of model, family and target")
    parser.add_argument("--target", default="target", help="column to estimate")
    parser.add_argument("--reader", default="gpt2-2m", help="small model that reads the answers")
    parser.add_argument("--prompts", type=int, default=60, help="prompts the bundled models answer")
    parser.add_argument("--windows", type=int, default=1000, help="windows the bundled models are measured on")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if (given.answers is None) != (given.targets is None):
        parser.error("--answers and --targets go together")
    hidden = pd.Series(dtype=float)
    if given.answers is not None:
        answers, targets = read_responses(str(given.answers)), read_table(given.targets)
    else:
        answers, targets = bundled(given.prompts, given.windows, given.seed)
        closed = targets["model"] == "gemma-2m"
        hidden, targets = targets[closed].set_index("model")["target"], targets[~closed]

    rows = compute_features(answers, [load_model(given.reader)], seed=given.seed)
    references = rows.merge(targets, on="model")
    proxy = fit_proxy(references, target=given.target)
    print(proxy.scores.round(3).to_string(index=False))
    for remark in proxy.remarks:
        print(f"Note: {remark}.")
    estimates = proxy.predict(rows[~rows["model"].isin(references["model"])])
    if len(hidden):
        estimates["truth"] = estimates["model"].map(hidden)
    print(estimates.drop(columns="remarks").round(3).to_string(index=False))


if __name__ == "__main__":
    main()
