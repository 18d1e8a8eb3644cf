"""Lightning data module: lists of videos in, loaders of clips out."""

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from octvideo.data.annotations import Annotations
from octvideo.data.dataset import VideoDataset
from octvideo.data.decode import check_decoder
from octvideo.data.loaders import Loaders
from octvideo.data.multigrid import GridStage, read_stages, stage_at
from octvideo.data.scan.manifest import Manifest
from octvideo.data.shards import ShardSet
from octvideo.data.sources import read_source
from octvideo.data.split import split_annotations
from octvideo.data.unreadable import check_unreadable

__all__ = ["PREPROCESSING", "VideoDataModule"]

PREPROCESSING = (
    "num_frames", "frame_stride", "target_fps", "short", "frame_order", "test_short_side", "stretch", "num_clips",
    "num_crops", "test_crop_size", "cache_short_side", "mean", "std",
)  # fmt: skip
"""Names of the settings that make test clips, which a checkpoint keeps; the cache's, too: resizing twice gives other
pixels than once."""
PRECISE_EPOCH = 1_000_000  # no epoch of a run draws what statistics of batch norms are taken over
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
        root: folder that relative paths start from, and that official lists' videos lie below; None is each list's own.
        class_names: names, a file of names, or kinetics400, kinetics600, kinetics700, ucf101, hmdb51 or sthv2; None
            takes them from the first list of train, val and test.
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
        batch_size: clips per batch of one process.
        num_samples: clips of each training video in its batch, from the same frames, each with a crop, flip and colours
            of its own (repeated augmentation); batch_size counts them all.
        multigrid: stages of training with smaller clips in larger batches, as rows of until_epoch, batch_factor,
            num_frames, crop_size; after the last one clips have their usual shape. See :func:`plan_long_cycle`.
        num_workers: loader processes; 0 loads in the main one.
        cache_short_side: keep decoded videos in memory at this short side; None decodes a clip at a time.
        decoder: "pyav", "torchcodec" or "decord", each for the files in which its seeks are exact (PyAV reads the
            rest), or "auto", the fastest for each file; the pixels are the same, 10-bit files apart.
        manifest: file that `octvideo data scan` wrote: videos that it calls bad are left out, with a notice, and the
            others need no look before they are decoded. Videos that changed since, or were not scanned, are looked at.
        unreadable: clips that cannot be read: "error", or "skip" to leave them out of their batch (and a video that is
            scored out of the score), counted and listed.
        timeout_seconds: limit for making a clip, after which its video counts as unreadable; 0 sets none. It also
            holds for the index of shards, and for each piece of a shard that comes from an address.
        val_fraction: part of train that is held out, class by class, where val is None.
        seed: of that choice, and of what each training epoch draws.
        missing: listed videos that do not exist: "error", or "skip" to leave them out with a notice, as a manifest does
        shuffle_buffer: videos of training shards that each loader process holds to draw from.

    Raises:
        ValueError: on setup or use, a list that is needed and not given, or has no labels; val given beside
            val_fraction.
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
        num_samples: int = 1,
        multigrid: Sequence[Sequence[int]] = (),
        num_workers: int = 2,
        cache_short_side: int | None = None,
        decoder: str = "auto",
        manifest: str | None = None,
        unreadable: str = "error",
        timeout_seconds: float = 300.0,
        val_fraction: float = 0.0,
        seed: int = 0,
        missing: str = "error",
        shuffle_buffer: int = 100,
    ) -> None:
        super().__init__()
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction should be at least 0 and below 1, but it is {val_fraction}.")
        if val is not None and val_fraction > 0:
            raise ValueError(f"can't take both val ({val}) and val_fraction ({val_fraction}). Choose one.")
        if num_samples < 1 or batch_size % num_samples:
            raise ValueError(f"num_samples should be a divisor of batch_size ({batch_size}), but it is {num_samples}.")
        check_decoder(decoder)
        check_unreadable(unreadable, timeout_seconds)
        self.save_hyperparameters()
        self._stages = read_stages(multigrid)
        for stage in self._stages:
            stage.shape(self.hparams)  # raises an error now, not when its epoch comes
        self.first_epoch = 0  # of a resumed run: its loader starts to draw before the trainer knows its epoch
        self.first_batch = 0  # of a run that is resumed within that epoch
        self.left_out: dict[str, dict[str, str]] = {split: {} for split in SPLITS}  # reasons by path
        self._annotations: dict[str, Annotations] = {}
        self._datasets: dict[str, VideoDataset] = {}
        self._shards: dict[str, ShardSet] = {}
        self._cache: dict[str, torch.Tensor] = {}

    @cached_property
    def manifest(self) -> Manifest | None:
        """What a scan has found out about the videos."""
        path = self.hparams["manifest"]
        return None if path is None else Manifest(path)

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
        values = {name: self.hparams[name] for name in PREPROCESSING}
        if values["test_crop_size"] is None:
            values["test_crop_size"] = self.hparams["crop_size"]
        return {
            name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for name, value in values.items()
        }

    def shards_sha256(self, split: str) -> str | None:
        """What tells the shards of a split from others, wherever they lie; None for a list or folder of videos."""
        self.annotations(split)
        return self._shards[split].index.sha256 if split in self._shards else None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: which shards the run began with."""
        shards = {split: self.shards_sha256(split) for split in STAGE_SPLITS["fit"] if self._is_given(split)}
        return {"shards": shards} if any(shards.values()) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on with other shards.

        Raises:
            ValueError: they are not those of the state; names the split and where they lie.
        """
        before = state_dict.get("shards")
        for split, now in self.state_dict().get("shards", {}).items():
            if isinstance(before, dict) and before.get(split) != now:
                raise ValueError(
                    f"data.{split}: the shards {self.hparams[split]} hold other videos than those that the run began "
                    "with: they were packed anew. Put the former ones back, or give another --output for a new run."
                )

    def setup(self, stage: str | None = None) -> None:
        """Read the lists that a stage needs, and check that they are given."""
        required = REQUIRED_SPLITS.get(stage or "")
        if required is not None:
            self.annotations(required)
        if stage == "fit" and self._is_given("test"):
            self.annotations("test")  # a mistake in it should not come out after days of training
        for split in STAGE_SPLITS.get(stage, SPLITS):
            if self._is_given(split):
                self.dataset(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training clips; an incomplete last batch is left out, unless it is the only one.

        Raises:
            ValueError: there are stages of several shapes, but the trainer does not ask for a loader at every epoch; or
                the trainer is to overfit on shards.
        """
        if self._stages and getattr(self.trainer, "reload_dataloaders_every_n_epochs", 1) != 1:
            raise ValueError("multigrid changes the batches: set the trainer's reload_dataloaders_every_n_epochs to 1.")
        epoch = self._epoch()
        stage = stage_at(self._stages, epoch)
        dataset = self.dataset("train") if stage is None else self._build_dataset("train", stage)
        overfits = bool(getattr(self.trainer, "overfit_batches", 0))  # on the same clips every epoch
        if overfits and "train" in self._shards:
            raise ValueError("overfit_batches is not available for shards: give train a list or folder of videos.")
        drawn_as = (lambda: 0) if overfits else self._epoch
        return self._loaders("train", dataset, *self._place(), self._device()).train(
            self._videos_per_batch(epoch), drawn_as, self._first
        )

    def batch_factor(self, epoch: int) -> int:
        """How many times batch_size clips a training batch of an epoch has: 1 without multigrid stages."""
        stage = stage_at(self._stages, epoch)
        return 1 if stage is None else stage.batch_factor

    def num_train_batches(self, epoch: int, world_size: int = 1) -> int:
        """Training batches of an epoch in each of world_size processes."""
        return max(len(self.dataset("train")) // (world_size * self._videos_per_batch(epoch)), 1)

    def precise_loader(
        self, num_batches: int, rank: int = 0, world_size: int = 1, device: torch.device | str = "cpu"
    ) -> Iterable[dict[str, Any]]:
        """One process's share of num_batches training batches of the usual shape, for statistics: the same every time.

        There are fewer where the set has fewer videos; every process has as many.
        """
        loaders = self._loaders("train", self.dataset("train"), rank, world_size, device)
        return loaders.few(num_batches, self._videos_per_batch(None), PRECISE_EPOCH)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Validation clips in order; an empty list where there is no validation set, which skips validation."""
        if not self._is_given("val"):
            return []
        return self.scoring_dataloader("val", *self._place(), equal=True, device=self._device())

    def test_dataloader(self) -> DataLoader[Any]:
        """All views of the test videos; each video's come in order, from one worker."""
        return self.scoring_dataloader("test", *self._place(), device=self._device())

    def scoring_dataloader(
        self,
        split: str,
        rank: int = 0,
        world_size: int = 1,
        *,
        done: Collection[int] = (),
        equal: bool = False,
        device: torch.device | str = "cpu",
    ) -> DataLoader[Any]:
        """The views of "val" or "test" that one process of several scores.

        Args:
            split: "val" (one view a video) or "test" (num_clips x num_crops of them).
            rank: number of the process.
            world_size: number of processes.
            done: indices of videos that need no scoring.
            equal: give every process as many batches, by repeating some.
            device: where clips are normalised, and stay.
        """
        return self._loaders(split, self.dataset(split), rank, world_size, device).views(done, equal)

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
        read = read_source(split, source, class_names, self.manifest, self.hparams)
        self.left_out[split] = read.left_out
        if read.shards is not None:
            self._shards[split] = read.shards
        return read.annotations

    def _videos_per_batch(self, epoch: int | None) -> int:
        factor = 1 if epoch is None else self.batch_factor(epoch)
        return factor * self.hparams["batch_size"] // self.hparams["num_samples"]

    def _build_dataset(self, split: str, stage: GridStage | None = None) -> VideoDataset:
        hparams = self.hparams
        names = ("short_side", "crop_size", "flip", "color_jitter", "rand_augment", "decoder")
        settings = {name: hparams[name] for name in (*names, "rand_augment_magnitude", "num_samples")}
        settings |= self.preprocessing() | {"manifest": self.manifest} | ({} if stage is None else stage.shape(hparams))
        annotations = self.annotations(split)
        cache = {} if split in self._shards else self._cache
        return VideoDataset(annotations, mode=split, cache=cache, **settings)

    def _epoch(self) -> int:
        return max(self.first_epoch, 0 if self.trainer is None else self.trainer.current_epoch)

    def _first(self) -> int:
        return self.first_batch if self._epoch() == self.first_epoch else 0

    def _place(self) -> tuple[int, int]:
        """Number of this process, and how many the trainer has."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _device(self) -> torch.device:
        """Where the trainer's network is."""
        strategy = getattr(self.trainer, "strategy", None)
        return torch.device("cpu") if strategy is None else strategy.root_device

    def _loaders(
        self, split: str, dataset: VideoDataset, rank: int, world_size: int, device: torch.device | str
    ) -> Loaders:
        return Loaders(dataset, self._shards.get(split), self.hparams, rank, world_size, device)
