"""The emergence and reference tables: what each column holds."""

from __future__ import annotations

from extraction.tables import Schema

# One row per model x corpus x layer x position x resolution; layers and positions count from 0 and 1.
EMERGENCE = Schema(
    name="emergence",
    version=1,
    columns={
        "model": "string",
        "path": "string",  # of a model on disk, absolute; null for bundled models and those of the hub
        "revision": "string",
        "family": "string",
        "parameters": "Int64",
        "corpus": "string",
        "corpus_hash": "string",
        "layer": "Int64",
        "position": "Int64",
        "estimator": "string",
        "resolution": "Float64",
        "macro_bits": "Float64",
        "micro_bits": "Float64",
        "ie_bits": "Float64",
        "ie_std_error": "Float64",
        "ie_sample_std": "Float64",
        "macro_ceiling_bits": "Float64",
        "micro_ceiling_bits": "Float64",
        "flags": "string",  # comma-separated, empty when nothing is to be said
        "windows": "Int64",
        "seed": "Int64",
        "seconds": "Float64",
        "asked": "string",  # how the model was asked: "weights" of open models, else through which API
        "prefix": "string",  # text of what stood before every window and lone token, empty for nothing
        "windows_read": "Int64",  # distinct windows that the number is a mean over; null where that is not known
        "documents": "Int64",  # over which the standard error is taken; null: over windows
        "bytes_per_token": "Float64",  # of the predicted token, UTF-8; null where nothing is predicted
        "ie_bits_per_byte": "Float64",
        "twin_ie_bits": "Float64",  # of the random-weights twin; null where that control was not run
        "twin_ie_std_error": "Float64",
        "shuffled_ie_bits": "Float64",  # on shuffled windows; null where that control was not run
        "shuffled_ie_std_error": "Float64",
        "accuracy": "Float64",  # of the output: how often it says the token that follows a window; null for blocks
        "accuracy_std_error": "Float64",
        "log_rank": "Float64",  # mean log2 of that token's rank among those shown, one beyond where it is not shown
        "log_rank_std_error": "Float64",
    },
    required=("model", "corpus", "layer", "position", "resolution", "ie_bits"),
)

# One row per window that an output was read after, and reading that says something of single windows.
CONTINUATIONS = Schema(
    name="continuations",
    version=1,
    columns={
        "model": "string",
        "corpus": "string",
        "asked": "string",  # as in the emergence table
        "estimator": "string",
        "window": "string",  # 16 hexadecimal digits of its text and of what follows: the same for every tokenizer
        "right": "Float32",  # whether the likeliest token is the one that follows; of samples, their share
        "rank": "Int16",  # of that token among those shown, from 1; null where it is not shown, or nothing is ranked
        "cost_bits": "Float32",  # of that token; null where no probabilities are shown
    },
    required=("model", "corpus", "estimator", "window", "right"),
)

# One row per window that was read, at every resolution: its own emergence at the last position, in the block where E(l)
# peaks. Rows are in the order in which windows were sampled, so that two models on one corpus pair row by row.
WINDOWS = Schema(
    name="windows",
    version=1,
    columns={
        "estimator": "string",  # null in tables written before several could be measured together
        "layer": "Int64",
        "resolution": "Float64",
        "window": "Int64",  # row in the corpus; sampled by weight, so it may occur more than once
        "share": "Float64",  # what it counts; they sum to 1 at each resolution
        "ie_bits": "Float32",
        "document": "Int64",  # that the window is from, where the error is taken over documents; null: over windows
    },
    required=("layer", "resolution", "window", "share", "ie_bits"),
)

# One row per reference model. Feature columns start with small., behaviour., words. or meta.; missing is null, never 0.
REFERENCES = Schema(
    name="reference",
    version=1,
    columns={"model": "string", "family": "string"},
    required=("model",),
)
