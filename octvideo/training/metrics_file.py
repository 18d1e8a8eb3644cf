"""metrics.csv: a line per epoch, which a resumed run writes on as the straight run would have."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from octvideo.training.checkpoint_files import write_whole


class MetricsFile(Callback):
    """Writes what was logged under names in train_ and val_, with the learning rate, as lines of a CSV file.

    The lines belong to the state of the run: a checkpoint holds them, and what was written after it is gone when the
    run goes on from there. Each validation has a line; the one at an epoch's end shares the epoch's.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """The lines so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the lines of a checkpoint's run."""
        self.rows = state_dict["rows"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._add(trainer, "val_")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._add(trainer, "train_", lr=trainer.optimizers[0].param_groups[0]["lr"])

    def _add(self, trainer: pl.Trainer, prefix: str, **values: float) -> None:
        place = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        if not self.rows or self.rows[-1]["step"] != place["step"]:
            self.rows.append(place)
        logged = trainer.callback_metrics  # in every process: they reduce them together
        self.rows[-1] |= {name: float(logged[name]) for name in logged if name.startswith(prefix)} | values
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in self.rows for name in row)))
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(text.getvalue().encode(), self.path)
