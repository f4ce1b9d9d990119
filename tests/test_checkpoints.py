"""Reading and writing BiT weights in both published formats.

The files are written key by key from the formats' description, not by the code under test.
"""

from __future__ import annotations

import io
import re
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest

from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.networks.bit import BiTConfig
from distill_bench.weights import files

CONFIG = BiTConfig((1, 2), 4, 3, groups=2)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def published(config=CONFIG, image=False, numbered=False):
    """The arrays of a Big Transfer file.

    Args:
      image: GroupNorm's vectors have shape [1, 1, 1, C].
      numbered: names of convolutions carry a number, as in some files.
    """
    arrays = {}

    def add(key, *shape):
        arrays[f"resnet/{key}"] = numbers(*shape, seed=len(arrays))

    def conv(prefix, *shape):
        add(f"{prefix}/standardized_conv2d{f'_{len(arrays)}' if numbered else ''}/kernel", *shape)

    def norm(prefix, channels):
        for leaf in ("gamma", "beta"):
            add(f"{prefix}group_norm/{leaf}", *((1, 1, 1) if image else ()), channels)

    conv("root_block", 7, 7, 3, config.width)
    cin = config.width
    for b, depth in enumerate(config.depths):
        middle = config.width * 2**b
        for u in range(depth):
            unit = f"block{b + 1}/unit{u + 1:02d}"
            for stage, size, channels, out in (
                ("a", 1, cin, middle),
                ("b", 3, middle, middle),
                ("c", 1, middle, 4 * middle),
            ):
                norm(f"{unit}/{stage}/", channels)
                conv(f"{unit}/{stage}", size, size, channels, out)
            if u == 0:
                conv(f"{unit}/a/proj", 1, 1, cin, 4 * middle)
            cin = 4 * middle
    norm("", cin)
    add("head/conv2d/kernel", 1, 1, cin, config.classes)
    add("head/conv2d/bias", config.classes)
    return arrays


FLAX = [  # from Big Transfer's names to big_vision's
    (r"resnet/root_block/standardized_conv2d/", "root_block/conv_root/"),
    (r"resnet/group_norm/", "norm-pre-head/"),
    (r"resnet/head/conv2d/", "head/"),
    (r"resnet/(block\d/unit\d\d)/a/proj/standardized_conv2d/", r"\1/conv_proj/"),
    *(
        (rf"resnet/(block\d/unit\d\d)/{stage}/standardized_conv2d/", rf"\1/conv{i}/")
        for i, stage in enumerate("abc", 1)
    ),
    *(
        (rf"resnet/(block\d/unit\d\d)/{stage}/group_norm/", rf"\1/gn{i}/")
        for i, stage in enumerate("abc", 1)
    ),
    ("gamma$", "scale"),
    ("beta$", "bias"),
]


def flax(prefix="", image=True, config=CONFIG):
    """The arrays of a big_vision file."""
    arrays = {}
    for key, array in published(config, image).items():
        for old, new in FLAX:
            key = re.sub(old, new, key)
        arrays[prefix + key] = array[0, 0] if key == "head/kernel" else array
    return arrays


def write(path, arrays, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=array.dtype == object)
            archive.writestr(f"{key}.npy", content.getvalue())
    return path


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("arrays", "weight_format"),
    [
        (published(), "published"),
        (published(image=True), "published"),
        (published(numbered=True), "published"),
        (flax(), "flax"),
        (flax(image=False), "flax"),
        (flax("params/") | {"opt/0/count": np.array(7), "extra/chrono": np.array("x")}, "flax"),
        (flax("opt/target/") | {"opt/state/step": np.array(7)}, "flax"),
    ],
)
def test_both_formats_are_read_into_the_same_parameters(arrays, weight_format, tmp_path):
    params, found = files.read(write(tmp_path / "file.npz", arrays), CONFIG)
    assert found == weight_format
    expected, source = jax.eval_shape(lambda: bit.init(CONFIG, jax.random.key(0))), published()
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    for (path, leaf), like in zip(
        jax.tree.leaves_with_path(params), jax.tree.leaves(expected), strict=True
    ):
        key = "/".join(["resnet", *(part.key for part in path)])
        assert (leaf.shape, leaf.dtype) == (like.shape, np.float32)
        np.testing.assert_array_equal(leaf, source[key].reshape(like.shape), err_msg=key)


def test_parameters_written_in_any_format_give_the_same_logits(tmp_path):
    params, _ = files.read(write(tmp_path / "file.npz", published()), CONFIG)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    logits = jax.jit(lambda p: bit.apply(CONFIG, p, images))
    expected = logits(params)
    assert np.ptp(expected) > 0
    for weight_format, arrays in (
        ("published", published()),
        ("flax", flax()),
        (None, published(image=True)),
    ):
        path = tmp_path / f"{weight_format}.npz"
        path.write_bytes(files.dumps(params, weight_format))
        with np.load(path) as stored:
            same(dict(stored), arrays)
        again, _ = files.read(path, CONFIG)
        np.testing.assert_array_equal(logits(again), expected)


@pytest.mark.parametrize("dtype", ["float16", "<f4", ">f4", "float64", ml_dtypes.bfloat16])
def test_every_float_becomes_float32(dtype, tmp_path):
    arrays = {key: np.asfortranarray(array.astype(dtype)) for key, array in published().items()}
    expected = {key: array.astype(np.float32) for key, array in arrays.items()}
    if dtype == ml_dtypes.bfloat16:  # numpy's file format stores it as two bytes of unknown type
        arrays = {key: array.view("V2") for key, array in arrays.items()}
    params, _ = files.read(write(tmp_path / "file.npz", arrays), CONFIG)
    same(params, files.read(write(tmp_path / "expected.npz", expected), CONFIG)[0])


HEAD, BIAS, ROOT = (
    "resnet/head/conv2d/kernel",
    "resnet/head/conv2d/bias",
    "resnet/root_block/standardized_conv2d/kernel",
)
NORM = "resnet/block1/unit01/b/group_norm/gamma"


def changed(key, array):
    return published() | {key: array}


def without(*keys):
    return {key: array for key, array in published().items() if key not in keys}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            published(BiTConfig((1, 3), 4, 3)),
            r"another architecture: depths \(1, 3\), width 4, 3 channels; "
            r"expected depths \(1, 2\), width 4",
        ),
        (
            published(BiTConfig((1, 2, 1), 8, 3)),
            r"another architecture: depths \(1, 2, 1\), width 8",
        ),
        (flax(config=BiTConfig((1, 2), 8, 3)), r"another architecture: depths \(1, 2\), width 8"),
        (published(BiTConfig((1, 2), 4, 5)), "has 5 classes; expected 3"),
        (flax(config=BiTConfig((1, 2), 4, 5)), "has 5 classes; expected 3"),
        (without(BIAS, NORM), rf"lacks 2 arrays of the network: '{NORM}', '{BIAS}'"),
        (without(HEAD), f"lacks 1 arrays of the network: '{HEAD}'"),
        (
            changed("resnet/global_step", numbers(1)),
            "has 1 arrays that the network does not have: 'resnet/global_step'",
        ),
        (
            flax() | {f"block1/unit01/gn_{i}/scale": numbers(4) for i in range(20)},
            "has 20 arrays that the network does not have: .* and 12 more",
        ),
        (
            changed("resnet/root_block/standardized_conv2d_1/kernel", numbers(1)),
            "holds the same parameter twice",
        ),
        (
            {"weights": numbers(1)},
            "has array names of neither format of BiT weights: 'weights'",
        ),
        ({}, "has array names of neither format of BiT weights: none"),
        (
            changed(ROOT, numbers(5, 5, 3, 4)),
            r"kernel with shape \(5, 5, 3, 4\); the network needs \(7, 7, 3, 4\)",
        ),
        (changed(ROOT, numbers(4)), r"kernel with shape \(4,\); the network needs \(7, 7, 3, 4\)"),
        (
            changed(NORM, numbers(1, 4)),
            r"gamma with shape \(1, 4\); the network needs \(4,\) or \(1, 1, 1, 4\)",
        ),
        (
            changed(HEAD, numbers(32, 3)),
            r"kernel with shape \(32, 3\); the network needs \(1, 1, 32, 3\)",
        ),
        (
            changed(BIAS, np.arange(3)),
            "bias as int64; expected float16, bfloat16, float32 or float64",
        ),
        (changed(BIAS, np.zeros(3, complex)), "bias as complex128; expected"),
        (changed(BIAS, np.array([1.0, None, 2.0], object)), "bias as object; expected"),
        (changed(BIAS, np.zeros(3, [("数", "f4")])), r"bias in version \(3, 0\) of numpy's format"),
        (
            changed(BIAS, np.array([1, np.nan, np.inf], np.float32)),
            "holds 2 numbers in resnet/head/conv2d/bias that are not finite",
        ),
        (
            changed(BIAS, np.array([1, 2, 1e300])),
            "holds 1 numbers in resnet/head/conv2d/bias that are not finite as float32",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_a_file_that_does_not_fit_is_refused(arrays, message, tmp_path):
    path = write(tmp_path / "file.npz", arrays)
    with pytest.raises(UserError, match=message) as refused:
        files.read(path, CONFIG)
    assert str(refused.value).startswith(f"{path} ")


def member(header, size):
    """An archive member with this header, whose data are `size` zero bytes."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, header)
    return content.getvalue() + bytes(size)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        (
            (3,),
            2**18,
            "holds 262144 bytes for resnet/head/conv2d/bias, whose header states 12",
        ),
        (
            (2**60,),
            12,
            "holds 12 bytes for resnet/head/conv2d/bias, whose header states 4611686018427387904",
        ),
        ((2**16,), 2**18, r"bias with shape \(65536,\)"),
        ((2**23,), 2**25, r"bytes and claims to hold 33,\d+,\d+, which is more than 20 times"),
    ],
)
def test_arrays_of_another_size_are_refused_before_they_are_unpacked(
    shape, size, message, tmp_path
):
    path = write(tmp_path / "bomb.npz", without(BIAS), zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(
            f"{BIAS}.npy", member({"descr": "<f4", "fortran_order": False, "shape": shape}, size)
        )
    assert path.stat().st_size < 2**20
    with pytest.raises(UserError, match=message):
        files.read(path, CONFIG)


def test_a_broken_file_is_refused(tmp_path):
    path = tmp_path / "file.npz"
    with pytest.raises(UserError, match="FileNotFoundError"):
        files.read(path, CONFIG)
    write(path, published())
    content = bytearray(path.read_bytes())
    for broken in (b"", b"<html>", content[:-50]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="BadZipFile"):
            files.read(path, CONFIG)
    at = content.index(published()[ROOT].tobytes())
    content[at + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32 for file 'resnet/root_block"):
        files.read(path, CONFIG)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{ROOT}.npy", b"no array")
    with pytest.raises(UserError, match="magic string"):
        files.read(path, CONFIG)
    write(path, published())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(f"{ROOT}.npy", b"no array")
    with pytest.raises(UserError, match="two arrays of the same name"):
        files.read(path, CONFIG)
