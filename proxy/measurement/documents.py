"""The units of a text by which windows are assigned to folds and errors are taken, and where these are few."""

from __future__ import annotations

import numpy as np

from extraction import Windows

DOCUMENTS_NEEDED = 20  # for an error over them; fewer say too little of how they differ
FEW_DOCUMENTS = "few-documents"  # flags rows that are fitted on, and whose errors are taken over, parts of documents


def error_clusters(windows: Windows) -> np.ndarray | None:
    """Return the document of each window (N,), where there are enough for errors over them; None: over windows."""
    documents = windows.documents
    return None if documents is None or len(np.unique(documents)) < DOCUMENTS_NEEDED else documents


def few_documents(windows: Windows, clusters: np.ndarray | None) -> bool:
    """Whether errors are taken over parts of documents, which are more alike than documents are.

    Args:
        windows: of a text, or of lists, which have no documents.
        clusters: (N,) over what errors are taken; None: over windows.

    >>> windows = Windows("mine", "text", np.arange(6).reshape(3, 2), np.ones(3), documents=np.array([0, 0, 1]))
    >>> few_documents(windows, None), few_documents(windows, windows.documents)
    (True, False)
    """
    return windows.documents is not None and (windows.sections or clusters is None)
