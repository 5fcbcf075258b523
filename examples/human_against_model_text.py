"""Read two texts through one small model, on one scale: does text by a language model show more emergence?

    python examples/human_against_model_text.py
    python examples/human_against_model_text.py --human essays.jsonl --machine generated.jsonl --reader gpt2

The paper reports more of it in text by large models. Give it fair texts: as many documents of both, on the same
subjects, or differences of subject pass for differences of author. Without files, the documentation of Python stands
against what a bundled model continues from the beginnings of the same pages. Errors are from disjoint parts of the
documents.
"""

import argparse

import numpy as np
import pandas as pd

from extraction import Sampling, generate_answers, load_model
from extraction.corpora.text import documents
from proxy.features.readers import Reader


def continued(pages: list[str], author: str, seed: int) -> list[str]:
    """Let a bundled model go on from the first words of every page."""
    openings = [" ".join(page.split()[:12]) for page in pages]
    asked = pd.DataFrame({"prompt_id": [str(i) for i in range(len(pages))], "prompt": openings})
    answers = generate_answers(load_model(author), asked, sampling=Sampling(max_tokens=96, seed=seed))
    return answers["text"].fillna("").astype(str).tolist()


def main() -> None:
    """Read both texts part by part and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--human", default="python-docs", help="file or folder of text by people")
    parser.add_argument("--machine", help="file or folder of text by a model; default: the author writes it")
    parser.add_argument("--author", default="gpt2-2m", help="bundled model that writes")
    parser.add_argument("--reader", default="gemma-2m", help="model that reads; another one than wrote")
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--parts", type=int, default=4, help="disjoint parts, from whose spread the errors come")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    human = [page for page in documents(given.human) if len(page.split()) >= 40][: given.documents]
    machine = (
        continued(human, given.author, given.seed)
        if given.machine is None
        else list(documents(given.machine))[: given.documents]
    )
    reader = Reader(load_model(given.reader), given.seed)
    rows = {}
    for who, texts in (("human", human), ("machine", machine)):
        parts = [reader.read([[text] for text in texts[start :: given.parts]]) for start in range(given.parts)]
        rows[who] = pd.DataFrame(parts)
    means = pd.DataFrame({who: parts.mean() for who, parts in rows.items()})
    errors = pd.DataFrame({who: parts.std(ddof=1) / np.sqrt(given.parts) for who, parts in rows.items()})
    table = means.assign(
        difference=means["machine"] - means["human"], error=np.hypot(errors["human"], errors["machine"])
    )
    table["errors away from 0"] = table["difference"] / table["error"]
    print(f"{len(human)} documents by people, {len(machine)} by a model, read by {given.reader}; bits")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
