"""The paper's data sets and splits (Beyer et al. 2021, appendix A), as TFDS names them."""

from __future__ import annotations

from distill_bench.data import TfdsDataset

DATASETS = {
    "flowers102": TfdsDataset("oxford_flowers102", "train", "validation", "test", 1020, 6149, side=256, clean=(160, 128)),
    "pet37": TfdsDataset("oxford_iiit_pet", "train[:90%]", "train[90%:]", "test", 3312, 3669, side=256, clean=(160, 128)),
    "food101": TfdsDataset("food101", "train[:90%]", "train[90%:]", "validation", 68175, 25250, side=256, clean=(160, 128)),
    "sun397": TfdsDataset("sun397", "train", "validation", "test", 76128, 21750, side=256, clean=(160, 128)),
    "imagenet2012": TfdsDataset("imagenet2012", "train[:98%]", "train[98%:]", "validation", 1255544, 50000, side=288, clean=(256, 224)),
}
