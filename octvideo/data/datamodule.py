"""Lightning data module: lists of videos in, loaders of clips out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from octvideo.data.annotations import Annotations, read_annotations, resolve_class_names
from octvideo.data.dataset import ClipItem, VideoDataset
from octvideo.data.decode import check_decoder
from octvideo.data.draws import EpochSampler, ViewSampler
from octvideo.data.shards import ShardDataset, ShardLoader, ShardSet, are_shards, open_shards
from octvideo.data.split import split_annotations

__all__ = ["VideoDataModule"]

LOADER_TIMEOUT_SECONDS = 300  # a worker that waits for ever on a broken file becomes an error
SPLITS = ("train", "val", "test")
STAGE_SPLITS = {
    None: SPLITS,
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}
REQUIRED_SPLITS = {"fit": "train", "validate": "val", "test": "test", "predict": "test"}


class VideoDataModule(pl.LightningDataModule):
    """Training, validation and test clips of a labelled video data set.

    Every argument is a plain value, so that a checkpoint or a YAML file can rebuild the module.

    Args:
        train: list or folder of training videos, see :func:`read_annotations`; or shards of `octvideo data pack`, as a
            folder, path or address, see :func:`octvideo.data.shards.open_shards`.
        val: the same of validation videos.
        test: the same of test videos.
        root: folder that relative paths start from; None is each list's own folder.
        class_names: names, or a file of names; None takes them from the first list of train, val and test.
        num_frames: frames of a clip.
        frame_stride: distance between them, in frames at target_fps; None spreads the clip over the whole video, one
            frame from each of num_frames equal segments.
        target_fps: rate that frame_stride refers to; None counts each video's own frames.
        short: videos shorter than a clip: "repeat_last", "wrap" or "error".
        frame_order: "natural", or "shuffled" as the control that hides motion.
        short_side: (least, most) pixels of the short side in training.
        test_short_side: pixels of the short side in validation and test.
        crop_size: pixels of the training crop, one number or (height, width).
        test_crop_size: pixels of the crop in validation and test; None is crop_size.
        stretch: where above 0, the whole frame (in training at least this share of its height and width) is resized to
            the crop, whatever its shape, and the short sides play no role.
        flip: probability of a flip in training; 0 where direction is the label.
        color_jitter: strength of colour changes in training.
        rand_augment: RandAugment operations in training; 0 is off.
        rand_augment_magnitude: RandAugment strength, 0 to 30.
        mean: per channel, on pixels in 0 .. 1.
        std: per channel, on pixels in 0 .. 1.
        num_clips: clips per test video.
        num_crops: crops per test clip.
        batch_size: clips per batch.
        num_workers: loader processes; 0 loads in the main one.
        cache_short_side: keep decoded videos in memory at this short side; None decodes a clip at a time.
        decoder: "pyav", "torchcodec" or "decord", each for the files in which its seeks are exact (PyAV reads the rest
            in sequence), or "auto", the fastest for each file; the pixels are the same, 10-bit files apart.
        val_fraction: part of train that is held out, class by class, where val is None.
        seed: of that choice, and of what each training epoch draws.
        shuffle_buffer: videos of training shards that each loader process holds to draw from.
        on_error: videos of shards that cannot be read: "error", or "skip" to leave them out with a warning each.

    Raises:
        ValueError: on setup or use, a list that is needed and not given; val given beside val_fraction.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        root: str | None = None,
        class_names: list[str] | str | None = None,
        num_frames: int = 8,
        frame_stride: int | None = 8,
        target_fps: float | None = None,
        short: str = "repeat_last",
        frame_order: str = "natural",
        short_side: int | Sequence[int] = (256, 320),
        test_short_side: int = 256,
        crop_size: int | Sequence[int] = 224,
        test_crop_size: int | Sequence[int] | None = None,
        stretch: float = 0.0,
        flip: float = 0.5,
        color_jitter: float = 0.0,
        rand_augment: int = 0,
        rand_augment_magnitude: int = 9,
        mean: Sequence[float] = (0.45, 0.45, 0.45),
        std: Sequence[float] = (0.225, 0.225, 0.225),
        num_clips: int = 10,
        num_crops: int = 3,
        batch_size: int = 8,
        num_workers: int = 2,
        cache_short_side: int | None = None,
        decoder: str = "auto",
        val_fraction: float = 0.0,
        seed: int = 0,
        shuffle_buffer: int = 100,
        on_error: str = "error",
    ) -> None:
        super().__init__()
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction should be at least 0 and below 1, but it is {val_fraction}.")
        if val is not None and val_fraction > 0:
            raise ValueError(f"can't take both val ({val}) and val_fraction ({val_fraction}). Choose one.")
        check_decoder(decoder)
        self.save_hyperparameters()
        self.first_epoch = 0  # of a resumed run: its loader starts to draw before the trainer knows its epoch
        self._annotations: dict[str, Annotations] = {}
        self._datasets: dict[str, VideoDataset] = {}
        self._shards: dict[str, ShardSet] = {}
        self._cache: dict[str, torch.Tensor] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of class i at position i."""
        given = [split for split in SPLITS if self.hparams[split] is not None]
        if not given:
            raise ValueError("train, val and test are all None, so the classes are not known. Give at least one list.")
        return self.annotations(given[0]).class_names

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def has_validation(self) -> bool:
        """True where there are validation videos: a list of them, or a part of train that is held out."""
        return self._is_given("val")

    def annotations(self, split: str) -> Annotations:
        """Videos of "train", "val" or "test"; all splits share one tuple of class names.

        Raises:
            ValueError: the split has no list.
        """
        if split not in self._annotations:
            if split in ("train", "val") and self.hparams["val_fraction"] > 0 and self.hparams["train"] is not None:
                kept, held_out = split_annotations(
                    self._read("train"), self.hparams["val_fraction"], seed=self.hparams["seed"]
                )
                self._annotations.update(train=kept, val=held_out)
            else:
                self._annotations[split] = self._read(split)
        return self._annotations[split]

    def dataset(self, split: str) -> VideoDataset:
        """Clips of "train", "val" or "test", built on first use."""
        if split not in self._datasets:
            self._datasets[split] = self._build_dataset(split)
        return self._datasets[split]

    def preprocessing(self) -> dict[str, Any]:
        """Plain values that rebuild test clips: ``VideoDataset(annotations, mode="test", **preprocessing)``."""
        hparams = self.hparams
        names = ("num_frames", "frame_stride", "target_fps", "short", "frame_order", "test_short_side", "stretch")
        values = {name: hparams[name] for name in (*names, "num_clips", "num_crops")}
        crop = hparams["crop_size"] if hparams["test_crop_size"] is None else hparams["test_crop_size"]
        values["test_crop_size"] = crop if isinstance(crop, int) else list(crop)
        values["cache_short_side"] = hparams["cache_short_side"]  # resizing twice gives other pixels than once
        values.update(mean=list(hparams["mean"]), std=list(hparams["std"]))
        return values

    def setup(self, stage: str | None = None) -> None:
        """Read the lists that a stage needs, and check that they are given."""
        required = REQUIRED_SPLITS.get(stage or "")
        if required is not None:
            self.annotations(required)
        for split in STAGE_SPLITS.get(stage, SPLITS):
            if self._is_given(split):
                dataset = self.dataset(split)
                if self.hparams["num_workers"] > 0 and split not in self._shards:
                    # Filled before the workers start, the cache is one copy that all of them read.
                    dataset.fill_cache()

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training clips; an incomplete last batch is left out, unless it is the only one."""
        dataset = self.dataset("train")
        if "train" in self._shards:
            return self._shard_loader("train")
        drop_last = len(dataset) > self.hparams["batch_size"]
        sampler = EpochSampler(len(dataset), self.hparams["seed"], self._epoch)
        return self._loader(dataset, sampler=sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Validation clips in order; an empty list where there is no validation set, which skips validation."""
        if not self._is_given("val"):
            return []
        dataset = self.dataset("val")
        return self._shard_loader("val", equal=True) if "val" in self._shards else self._loader(dataset)

    def test_dataloader(self) -> DataLoader[Any]:
        """All views of the test videos; each video's come in order, from one worker."""
        dataset, hparams = self.dataset("test"), self.hparams
        if "test" in self._shards:
            return self._shard_loader("test")
        videos = len(dataset.annotations)
        sampler = ViewSampler(videos, dataset.num_views, hparams["batch_size"], hparams["num_workers"])
        return self._loader(dataset, sampler=sampler)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The same as the test loader."""
        return self.test_dataloader()

    def _is_given(self, split: str) -> bool:
        held_out = split == "val" and self.hparams["val_fraction"] > 0 and self.hparams["train"] is not None
        return held_out or self.hparams[split] is not None

    def _read(self, split: str) -> Annotations:
        source = self.hparams[split]
        if source is None:
            way_out = " or set val_fraction" if split == "val" else ""
            raise ValueError(f"{split} is None, but its videos are needed. Give {split} a list of videos{way_out}.")
        class_names = self.hparams["class_names"]
        first = next(name for name in SPLITS if self.hparams[name] is not None)
        if class_names is None and split != first:
            class_names = self.class_names
        if not are_shards(source):
            return read_annotations(source, root=self.hparams["root"], class_names=class_names)
        if self.hparams["val_fraction"] > 0:
            raise ValueError(f"val_fraction can't divide the shards {source}. Give val a list or shards of its own.")
        self._shards[split] = open_shards(source)
        names = None if class_names is None else resolve_class_names(Path(source), [], class_names)
        return self._shards[split].index.annotations(names)

    def _build_dataset(self, split: str) -> VideoDataset:
        hparams = self.hparams
        names = ("short_side", "crop_size", "flip", "color_jitter", "rand_augment", "decoder")
        settings = {name: hparams[name] for name in (*names, "rand_augment_magnitude")}
        annotations = self.annotations(split)
        cache = {} if split in self._shards else self._cache
        return VideoDataset(annotations, mode=split, cache=cache, **self.preprocessing(), **settings)

    def _shard_loader(self, split: str, *, equal: bool = False) -> ShardLoader:
        names = ("batch_size", "num_workers", "seed", "on_error")
        settings = {name: self.hparams[name] for name in names} | {"buffer": self.hparams["shuffle_buffer"]}
        # Of the processes that work now: after training, the first one scores alone.
        work_together = torch.distributed.is_available() and torch.distributed.is_initialized()
        place = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if work_together else (0, 1)
        dataset = ShardDataset(
            self._shards[split], self.dataset(split), rank=place[0], world_size=place[1], equal=equal, **settings
        )
        return ShardLoader(dataset, lambda: (self._epoch(), 0), **self._workers())

    def _epoch(self) -> int:
        return max(self.first_epoch, 0 if self.trainer is None else self.trainer.current_epoch)

    def _loader(
        self, dataset: VideoDataset, *, sampler: EpochSampler | ViewSampler | None = None, drop_last: bool = False
    ) -> DataLoader[ClipItem]:
        batch_size = self.hparams["batch_size"]
        return DataLoader(dataset, batch_size=batch_size, sampler=sampler, drop_last=drop_last, **self._workers())

    def _workers(self) -> dict[str, Any]:
        """A loader's options that say who makes its batches."""
        num_workers = self.hparams["num_workers"]
        return {
            "num_workers": num_workers,
            "persistent_workers": num_workers > 0,
            "timeout": LOADER_TIMEOUT_SECONDS if num_workers > 0 else 0,
            "pin_memory": torch.cuda.is_available(),
        }
