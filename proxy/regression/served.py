"""A saved proxy as an MLflow model, from code: no pickle, and the same checks as `load_proxy`.

Logged by ``mlflow.pyfunc.log_model(python_model=<this file>, artifacts={"proxy": <folder>}, ...)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from proxy.regression.load import load_proxy


class ServedProxy(PythonModel):  # type: ignore[misc]
    """Predicts a table of estimates (`Proxy.predict`) from a table of features."""

    def load_context(self, context: Any) -> None:
        """Load the proxy's folder, which is the artifact ``proxy``."""
        self.proxy = load_proxy(Path(context.artifacts["proxy"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return model, estimate, lower, upper, level, in_domain, novelty, remarks for each row."""
        return self.proxy.predict(model_input)


mlflow.models.set_model(ServedProxy())
