"""What a sweep prints at its end, read from the merged table a part at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from estimators.contracts import controls
from estimators.contracts.results_folder import MERGED
from proxy.sweeps.store.storage import retry

if TYPE_CHECKING:
    from proxy.sweeps.store.results import ResultsStore

IDENTITY = ["model", "revision", "corpus", "corpus_hash"]
BITS = ("ie_bits", "ie_std_error")
NEEDED = [
    *IDENTITY,
    *("estimator", "family", "parameters", "layer", "position", "resolution", "flags", "windows", "prefix", "path"),
    *BITS,
    *(f"{control}_{name}" for control in controls.CONTROLS for name in BITS),
]
BATCH = 50_000  # rows in memory at a time, beside those that are kept
SHOWN = 7  # characters of a revision or hash


def end_rows(results: ResultsStore, *, resolution: float) -> pd.DataFrame:
    """Return the rows that a summary reads of all done jobs, by corpus, family and size of the model.

    They are those of the last positions at `resolution`, or without one. Where one model or corpus name stands for
    several, its revision or hash is added to it.
    """
    kept = []
    with retry(lambda: results.storage.open(MERGED)) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(BATCH, columns=NEEDED):
            table = pa.Table.from_batches([batch])
            distance = pc.abs(pc.subtract(table["resolution"], resolution))
            table = table.filter(pc.fill_null(pc.less(distance, 1e-5 * resolution), True))
            if table.num_rows:
                frame = table.to_pandas()
                last = frame.groupby(IDENTITY, dropna=False)["position"].transform("max")
                kept.append(frame[frame["position"] == last])
    table = _with_versions(pd.concat(kept, ignore_index=True))
    return table.sort_values(["corpus", "family", "parameters", "model"], kind="stable", ignore_index=True)


def _with_versions(table: pd.DataFrame) -> pd.DataFrame:
    """Add to a name what distinguishes it from others of that name; a corpus has another hash for every tokenizer.

    One of text and the token that follows it, which readings of the output have, is no other corpus.
    """
    for name, version in (("model", "revision"), ("corpus", "corpus_hash")):
        many = table.groupby(["model", "corpus", "estimator"], dropna=False)[version].transform("nunique") > 1
        if many.any():
            mark = "@" + table[version].fillna("?").str[:SHOWN]
            table = table.assign(**{name: table[name].where(~many, table[name] + mark)})
    return table
