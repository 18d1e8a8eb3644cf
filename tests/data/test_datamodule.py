"""Loaders of the data module, with and without workers, and what it says when a list is missing."""

import pytest
import pytorch_lightning as pl
import torch

from octvideo.data import VideoDataModule, VideoDataset

SMALL = {
    "num_frames": 4,
    "frame_stride": 2,
    "short_side": (48, 56),
    "test_short_side": 48,
    "crop_size": 32,
    "batch_size": 3,
    "num_workers": 0,
    "num_clips": 2,
    "num_crops": 3,
}


def build(folder, **settings):
    source = str(folder / "list.txt")
    return VideoDataModule(**({"train": source, "val": source, "test": source} | SMALL | settings))


@pytest.mark.parametrize("settings", [{"num_workers": 0}, {"num_workers": 1, "cache_short_side": 48}])
def test_loaders_give_every_view_once(painted_set, settings):
    module = build(painted_set, **settings)
    module.setup()
    for loader, num_views in ((module.val_dataloader(), 1), (module.test_dataloader(), 6)):
        batches = list(loader)
        videos, views = (torch.cat([batch[key] for batch in batches]).tolist() for key in ("video", "view"))
        assert list(zip(videos, views, strict=True)) == [(v, w) for v in range(8) for w in range(num_views)]
        assert batches[0]["clip"].shape == (3, 3, 4, 32, 32)
        assert batches[0]["label"].dtype == torch.int64
    assert torch.cat([batch["label"] for batch in batches])[::6].tolist() == [0, 1] * 4


def test_training_shuffles_and_drops_an_incomplete_last_batch(painted_set):
    module = build(painted_set)
    epochs = []
    for module.first_epoch in (0, 1, 0):
        epochs.append([batch["video"].tolist() for batch in module.train_dataloader()])
    assert [len(batch) for batch in epochs[0]] == [3, 3]
    assert epochs[0] != epochs[1]
    assert epochs[0] == epochs[2]
    assert [len(batch["video"]) for batch in build(painted_set, batch_size=100).train_dataloader()] == [8]


def test_validation_is_deterministic(painted_set):
    first, second = (list(build(painted_set).val_dataloader()) for _ in range(2))
    assert all(torch.equal(one["clip"], two["clip"]) for one, two in zip(first, second, strict=True))


def test_val_fraction_holds_out_a_part_of_each_class(painted_set):
    module = build(painted_set, val=None, val_fraction=0.25)
    val_records, train_records = (set(module.annotations(split).records) for split in ("val", "train"))
    assert sorted(record.label for record in val_records) == [0, 1]
    assert len(train_records) == 6
    assert not train_records & val_records
    assert set(build(painted_set, val=None, val_fraction=0.25).annotations("val").records) == val_records


def test_class_names_come_from_the_first_list(painted_set, tmp_path):
    module = VideoDataModule(train=str(painted_set), test=str(painted_set / "list.txt"), **SMALL)
    assert module.class_names == ("bend", "wave")
    assert module.num_classes == 2
    assert module.annotations("test").class_names == ("bend", "wave")
    only_test = VideoDataModule(test=str(painted_set / "list.txt"), class_names=["x", "y", "z"], **SMALL)
    assert only_test.num_classes == 3
    wrong = tmp_path / "val.txt"
    wrong.write_text(f"{painted_set}/bend/clip 0.mp4 2\n")
    with pytest.raises(ValueError, match=r"val.txt, line 1: label 2 is out of range"):
        VideoDataModule(train=str(painted_set), val=str(wrong), **SMALL).setup("fit")


def test_preprocessing_rebuilds_the_test_clips(painted_set):
    module = build(painted_set, test_crop_size=[32, 48], frame_order="shuffled")
    values = module.preprocessing()
    assert values["test_crop_size"] == [32, 48]
    rebuilt = VideoDataset(module.annotations("test"), mode="test", **values)
    for index in (0, 5, 47):
        assert torch.equal(rebuilt[index]["clip"], module.dataset("test")[index]["clip"])


def test_hyperparameters_are_plain_values_that_rebuild_the_module(painted_set):
    module = build(painted_set)
    again = VideoDataModule(**module.hparams)
    assert again.hparams == module.hparams
    assert again.preprocessing() == module.preprocessing()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda module: module.setup("fit"), "train is None, but its videos are needed. Give train a list"),
        (lambda module: module.setup("validate"), "val is None.*or set val_fraction"),
        (lambda module: module.setup("test"), "test is None, but its videos are needed"),
        (lambda module: module.setup("predict"), "test is None, but its videos are needed"),
        (lambda module: module.train_dataloader(), "train is None"),
        (lambda module: module.test_dataloader(), "test is None"),
        (lambda module: module.class_names, "train, val and test are all None"),
    ],
)
def test_a_missing_list_is_named(use, message):
    with pytest.raises(ValueError, match=message):
        use(VideoDataModule())


def test_contradictions(painted_set):
    with pytest.raises(ValueError, match=r"can't take both val .* and val_fraction \(0.2\). Choose one"):
        build(painted_set, val_fraction=0.2)
    with pytest.raises(ValueError, match="val_fraction should be at least 0 and below 1, but it is 1"):
        build(painted_set, val=None, val_fraction=1)
    with pytest.raises(FileNotFoundError, match=r"gone.txt: no such list"):
        build(painted_set, train=str(painted_set / "gone.txt")).setup("fit")


class Probe(pl.LightningModule):
    """Least network that Lightning can fit: counts batches."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.num_batches = 0

    def training_step(self, batch, batch_idx):
        self.num_batches += 1
        return self.linear(batch["clip"].mean().view(1, 1)).sum()

    def validation_step(self, batch, batch_idx):
        pytest.fail("there is no validation set")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore")
def test_lightning_fits_without_a_validation_set(painted_set, tmp_path):
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    model = Probe()
    trainer.fit(model, datamodule=build(painted_set, val=None))
    assert model.num_batches == 2
