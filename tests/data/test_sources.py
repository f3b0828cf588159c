"""Images that are more, or less, than one file: what is read of them, and what they are told by."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from conftest import CONFIG, draw_shape
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from safetensors import safe_open

from foldcraft.common import config_file, notices
from foldcraft.common.config import ImageConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.competition import read
from foldcraft.data.images import band_count, decoding, image_reading, image_sources, image_stats
from foldcraft.data.images.decoding import UnreadableImage
from foldcraft.data.images.image_cache import ImageSpec, content_of, open_stores, square
from foldcraft.data.images.image_sources import ImageRequest
from foldcraft.data.images.sources import Channels, CutOut, Hdf5Item, Source, TableRow, TiffLevel, Tile, name_in

ROWS = pd.DataFrame({"id": ["a", "b"], "x": ["1", "2"], "y": ["3", "0"], "w": ["4", "5"], "h": ["6", "2"]})


def values(height: int = 8, width: int = 10, bands: int | None = None, most: int = 255) -> np.ndarray:
    """Values without symmetry, from 0 to `most`."""
    shape = (height, width) if bands is None else (height, width, bands)
    return np.linspace(0, most, int(np.prod(shape))).reshape(shape).astype(np.uint8 if most == 255 else np.uint16)


def find(folder: Path, rows: pd.DataFrame = ROWS, **setting: Any) -> tuple[Source, ...]:
    way = setting["image"] if "image" in setting else ImageConfig(**setting)
    (found,), *_ = image_sources.find(folder, {"competition.image": ImageRequest(way, rows, "train.csv")}, False)
    return found


def seen(source: Source, **look: float) -> np.ndarray:
    return np.asarray(image_reading.decode(source, **look))


# From settings to sources


def test_the_first_template_whose_file_is_there_is_taken(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "a.jpg"):
        Image.fromarray(values()).save(tmp_path / name)
    assert find(tmp_path, image=["{id}.png", "{id}.jpg"]) == (tmp_path / "a.png", tmp_path / "b.jpg")
    (tmp_path / "b.jpg").unlink()
    parts = {"competition.image": ImageRequest(["{id}.png", "{id}.jpg"], ROWS, "train.csv")}
    _, missing, _ = image_sources.find(tmp_path, parts, False)
    assert missing == ("b.png",)


def test_a_box_is_cut_from_columns_and_numbers(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(values()).save(tmp_path / name)
    first, second = find(tmp_path, file="{id}.png", box=["x", "y", "w", 2])
    assert (seen(first)[..., 0] == values()[3:5, 1:5]).all()
    assert (seen(second)[..., 0] == values()[0:2, 2:7]).all()
    assert name_in(first, tmp_path) == "a.png [1, 3, 4, 2]"


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [("w", "", "line 3: 2, 0, nan, 2"), ("h", "0", "line 3: 2, 0, 5, 0"), ("x", "left", "line 3: nan")],
)
def test_rows_without_a_box_are_told_by_their_lines(tmp_path: Path, column: str, cell: str, said: str) -> None:
    rows = ROWS.copy()
    rows.loc[1, column] = cell
    with pytest.raises(
        FoldcraftError, match=r"competition\.image\.box: no box in 1 row of train\.csv, " + said
    ) as told:
        find(tmp_path, rows, file="{id}.png", box=["x", "y", "w", "h"])
    assert len(str(told.value)) < 300


def test_a_box_outside_of_its_image_is_told_and_one_that_sticks_out_is_cut(tmp_path: Path) -> None:
    Image.fromarray(values()).save(tmp_path / "a.png")
    assert (seen(CutOut(tmp_path / "a.png", (-2, 5, 5, 9)))[..., 0] == values()[5:, :3]).all()
    outside = CutOut(tmp_path / "a.png", (10, 0, 5, 5))
    with pytest.raises(
        FoldcraftError, match=r"a\.png \[10, 0, 5, 5\] \(the box lies outside the image of 10 x 8 pixels"
    ):
        open_stores([outside], [ImageSpec(8)], tmp_path / "cache", "train")


def test_a_box_is_of_the_upright_image_and_of_one_that_is_reduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values()).save(tmp_path / "a.png", exif=exif)
    upright = np.rot90(values(), 3)
    assert (seen(CutOut(tmp_path / "a.png", (1, 2, 3, 4)))[..., 0] == upright[2:6, 1:4]).all()
    large = np.kron(values(), np.ones((20, 20), np.uint8))
    Image.fromarray(large).save(tmp_path / "b.png")
    monkeypatch.setattr(decoding, "MOST_PIXELS", large.size // 4)
    cut = seen(CutOut(tmp_path / "b.png", (20, 40, 60, 20)))
    assert cut.shape == (10, 30, 3)
    assert (cut[5, ::10, 0] == values()[2, 1:4]).all()


def test_tiles_make_up_the_image(tmp_path: Path) -> None:
    Image.fromarray(values(9, 11)).save(tmp_path / "a.png")
    tiles = [[seen(Tile(tmp_path / "a.png", (2, 3), (r, c)))[..., 0] for c in range(3)] for r in range(2)]
    assert (np.block(tiles) == values(9, 11)).all()


def test_cells_are_pixels(tmp_path: Path) -> None:
    cells = {f"pixel{k}": [str(k), str(2 * k)] for k in range(6)}
    first, second = find(tmp_path, ROWS.assign(**cells), pixels="pixel*", shape=[2, 3])
    assert (seen(first)[..., 1] == np.arange(6).reshape(2, 3)).all()
    assert (seen(second)[..., 2] == 2 * np.arange(6).reshape(2, 3)).all()
    assert name_in(second, tmp_path) == "train.csv, row 2"
    (coloured, _) = find(tmp_path, ROWS.assign(**cells), pixels="pixel*", shape=[1, 2, 3])
    assert seen(coloured).tolist() == [[[0, 1, 2], [3, 4, 5]]]


def test_pixels_are_in_the_order_of_the_training_table(tmp_path: Path) -> None:
    rows = pd.DataFrame({"p0": ["1", "5"], "p1": ["2", "6"], "p2": ["3", "7"], "p3": ["4", "8"]})
    way = ImageConfig(pixels="p*", shape=[2, 2])
    tables = {"competition.image": (rows, "train.csv"), "competition.test_image": (rows[rows.columns[::-1]], "t.csv")}
    parts = {key: ImageRequest(way, *table) for key, table in tables.items()}
    (train, test), _, notes = image_sources.find(tmp_path, parts, False)
    assert seen(test[1])[..., 0].tolist() == seen(train[1])[..., 0].tolist() == [[5, 6], [7, 8]]
    assert notes == (
        "competition.test_image: t.csv has the columns of pixels in another order; that of train.csv is taken",
    )


def test_cells_beyond_bytes_are_deep_in_all_parts(tmp_path: Path) -> None:
    setting = ImageConfig(pixels="p*", shape=[1, 2])
    parts = {
        "competition.image": ImageRequest(setting, pd.DataFrame({"p0": ["0"], "p1": ["4095"]}), "train.csv"),
        "competition.test_image": ImageRequest(setting, pd.DataFrame({"p0": ["5"], "p1": ["200"]}), "test.csv"),
    }
    (_, (test,)), *_ = image_sources.find(tmp_path, parts, False)
    assert image_reading.is_deep(test)
    assert seen(test, max_value=4095)[0, :, 0].tolist() == [0, 12]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"pixels": "pix*", "shape": [2, 2]}, "no column is like 'pix*'"),
        ({"pixels": "?", "shape": [2, 3]}, "2 columns are like '?', and 2 x 3 pixels need 6"),
        ({"pixels": "[xyid]*", "shape": [1, 3]}, "no pixels in 2 rows of train.csv, line 2, 3: id is 'a'"),
        ({"file": "{id}.png", "box": ["x", "y", "width", "h"]}, "no column 'width'"),
        ({"hdf5": "a.h5", "key": "{name}"}, "competition.image.key: no column for {name}"),
        ({"channels": ["{id}.png", "../{id}.png"]}, "competition.image.channels[1]: paths leave the input folder"),
    ],
)
def test_a_setting_that_does_not_fit_the_table_is_told(tmp_path: Path, setting: dict[str, Any], said: str) -> None:
    with pytest.raises(FoldcraftError) as told:
        find(tmp_path, ROWS.drop(columns=["w", "h"]) if setting.get("pixels") else ROWS, **setting)
    assert said in str(told.value)
    assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({}, "wants one of file, pixels, hdf5, channels"),
        ({"file": "a", "hdf5": "b", "key": "c"}, "wants one of"),
        ({"hdf5": "b"}, "hdf5 and key go together"),
        ({"pixels": "p*"}, "pixels and shape go together"),
        ({"channels": ["a"], "tiff_level": 1}, "tiff_level is of a file"),
    ],
)
def test_a_setting_is_of_one_way(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageConfig(**setting)


# What is read


def test_channels_are_put_side_by_side(tmp_path: Path) -> None:
    colours = ("red", "green", "blue", "yellow")
    for k, colour in enumerate(colours):
        Image.fromarray(values() // (k + 1)).save(tmp_path / f"a_{colour}.png")
        Image.fromarray(values() // (k + 2)).save(tmp_path / f"b_{colour}.png")
    first, second = find(tmp_path, channels=[f"{{id}}_{colour}.png" for colour in colours])
    stacked = np.dstack([values() // (k + 1) for k in range(4)])
    assert (image_reading.bands(first, 4) == stacked).all()
    assert (seen(first) == stacked[..., :3]).all()
    assert band_count.find_channels([first, second], tmp_path) == 4
    assert name_in(first, tmp_path) == "a_red.png and 3 more"
    assert square(first, ImageSpec(8, channels=4)).shape == (8, 8, 4)


def test_channels_of_other_sizes_or_in_colour_are_told(tmp_path: Path) -> None:
    Image.fromarray(values()).save(tmp_path / "a.png")
    Image.fromarray(values(6, 6)).save(tmp_path / "b.png")
    Image.fromarray(values(8, 10, 3)).save(tmp_path / "c.png")
    Image.fromarray(values(most=65535)).save(tmp_path / "d.png")
    for other, said in (("b", "a.png has 10 x 8 pixels and b.png 6 x 6"), ("c", "c.png is in colour"), ("d", "bits")):
        with pytest.raises(UnreadableImage, match=said):
            seen(Channels((tmp_path / "a.png", tmp_path / f"{other}.png")))


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (values(), np.dstack([values()] * 3)),
        (values(8, 10, 3), values(8, 10, 3)),
        (np.moveaxis(values(8, 10, 3), 2, 0), values(8, 10, 3)),
        (values(8, 10, 1), np.dstack([values(8, 10)] * 3)),
        (values(8, 10) > 100, np.dstack([255 * (values(8, 10) > 100)] * 3)),
        (values(8, 10, 5), values(8, 10, 5)[..., :3]),
        (values(most=65535), np.dstack([np.rint(values(most=65535) / 257)] * 3)),
        (values(most=65535).astype(np.float32), np.dstack([np.rint(values(most=65535) / 257)] * 3)),
        (np.asfortranarray(values()), np.dstack([values()] * 3)),
    ],
)
def test_arrays_are_images(tmp_path: Path, array: np.ndarray, wanted: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/one"] = array
    for source in (tmp_path / "a.npy", Hdf5Item(tmp_path / "a.h5", "group/one")):
        assert np.abs(seen(source).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    "array", [np.zeros(5), np.zeros((9, 100, 90, 80)), np.array([["a"]]), np.zeros((3, 3), complex), np.zeros((0, 3))]
)
def test_arrays_that_are_no_images_are_told(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnreadableImage, match="an array of"):
        seen(tmp_path / "a.npy")


def test_an_array_of_objects_is_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableImage, match=r"(?i)object|pickle"):
        seen(tmp_path / "a.npy")


def test_a_large_array_is_reduced_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.kron(values(most=65535), np.ones((20, 20), np.uint16))
    np.save(tmp_path / "a.npy", large)
    monkeypatch.setattr(decoding, "MOST_MEMORY", large.nbytes // 2)
    small = decoding.bands(tmp_path / "a.npy", 1)[..., 0]
    assert small.size * 8 <= large.nbytes // 2
    assert small[0, 0] == large[0, 0]
    assert small[-1, -1] == large[-1, -1]


def test_items_of_hdf5_may_be_image_files(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(values(8, 10, 3)).save(stream, "PNG")
    data = stream.getvalue()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["void"] = np.void(data)
        file["text"] = np.array(data)
        file["bytes"] = np.frombuffer(data, np.uint8)
        file["other"] = "no image"
        file["elsewhere"] = h5py.ExternalLink("b.h5", "void")
        file["near"] = h5py.SoftLink("/void")
    for key in ("void", "bytes", "text"):
        assert (seen(Hdf5Item(tmp_path / "a.h5", key)) == values(8, 10, 3)).all()
    for key, said in {
        "none": "no dataset 'none' in it; there are 6, as bytes, elsewhere, near",
        "other": "neither an array of pixels nor the bytes of an image file",
        "elsewhere": "a link, which is not followed",
        "near": "a link, which is not followed",
    }.items():
        with pytest.raises(UnreadableImage, match=said):
            seen(Hdf5Item(tmp_path / "a.h5", key))
    (tmp_path / "c.h5").write_bytes(b"none")
    with pytest.raises(FoldcraftError, match="not an HDF5 file"):
        seen(Hdf5Item(tmp_path / "c.h5", "void"))


def dicom(path: Path, pixels: np.ndarray | None, **tags: Any) -> Path:
    """A DICOM file of these stored values, (H, W), (H, W, 3) or frames (F, H, W) where NumberOfFrames says so."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    if pixels is not None:
        colours = pixels.ndim == 3 and "NumberOfFrames" not in tags
        data.Rows, data.Columns = pixels.shape[:2] if colours or pixels.ndim == 2 else pixels.shape[1:]
        data.SamplesPerPixel, data.BitsAllocated = (3 if colours else 1), 8 * pixels.itemsize
        data.BitsStored, data.HighBit = data.BitsAllocated, data.BitsAllocated - 1
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        data.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
        if colours:
            data.PlanarConfiguration = 0
        data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_dicom_goes_through_slope_window_and_photometric(tmp_path: Path) -> None:
    grey, stored = values(), np.array([[0, 500, 1000, 2000]], np.uint16)
    plain = dicom(tmp_path / "a.dcm", grey)
    assert (seen(plain)[..., 0] == grey).all()
    assert (seen(dicom(tmp_path / "b.dcm", grey, PhotometricInterpretation="MONOCHROME1"))[..., 0] == 255 - grey).all()
    assert (seen(dicom(tmp_path / "c.dcm", values(8, 10, 3))) == values(8, 10, 3)).all()
    slope = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    scaled = dicom(tmp_path / "d.dcm", stored, **slope)
    assert image_reading.deep_values(scaled).tolist() == [[-1000, 0, 1000, 3000]]
    # Values from -1000 to 1000 make the range of the window; what lies beyond is white.
    window = dicom(tmp_path / "e.dcm", stored, **slope, WindowCenter=0.5, WindowWidth=2001)
    assert seen(window)[0, :, 0].tolist() == [0, 128, 255, 255]
    dark = dicom(
        tmp_path / "f.dcm", stored, WindowCenter=500.5, WindowWidth=1001, PhotometricInterpretation="MONOCHROME1"
    )
    assert seen(dark)[0, :, 0].tolist() == [255, 127, 0, 0]
    deep = dicom(tmp_path / "g.dcm", stored, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    assert image_reading.deep_values(deep).tolist() == [[4095, 3595, 3095, 2095]]


def test_the_middle_frame_of_a_dicom_is_taken_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notices.tell_once.cache_clear()
    frames = np.stack([np.full((4, 5), value, np.uint8) for value in (10, 20, 30)])
    assert (seen(dicom(tmp_path / "a.dcm", frames, NumberOfFrames=3)) == 20).all()
    assert "of DICOM files with several frames the middle one is taken" in caplog.text


def test_dicom_without_pixels_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="a DICOM file without pixels"):
        seen(dicom(tmp_path / "a.dcm", None))
    (tmp_path / "b.dcm").write_bytes(b"not at all")
    with pytest.raises(UnreadableImage, match="DICOM"):
        seen(tmp_path / "b.dcm")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"Rows": None}, "a DICOM file without Rows"),
        ({"RescaleSlope": "1e300"}, "a DICOM file whose RescaleSlope is 1e[+]300"),
        ({"RescaleIntercept": "-1e99"}, "a DICOM file whose RescaleIntercept is -1e[+]99"),
    ],
)
def test_dicom_whose_tags_make_no_values_is_told(tmp_path: Path, tags: dict[str, Any], said: str) -> None:
    with pytest.raises(UnreadableImage, match=said):
        seen(dicom(tmp_path / "a.dcm", values(most=65535), **tags))


def test_what_a_file_holds_counts_and_not_its_name(tmp_path: Path) -> None:
    Image.fromarray(values()).save(tmp_path / "a.dcm", "PNG")
    assert (seen(tmp_path / "a.dcm")[..., 0] == values()).all()


def test_an_array_that_is_cut_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values())
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-3])
    with pytest.raises(UnreadableImage, match="an array of 8 x 10 is promised, and the file holds less"):
        seen(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["h5py", "pydicom", "tifffile"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values())
    h5py.File(tmp_path / "a.h5", "w").close()
    source = {
        "h5py": Hdf5Item(tmp_path / "a.h5", "x"),
        "pydicom": dicom(tmp_path / "a.dcm", values()),
        "tifffile": TiffLevel(tmp_path / "a.tif", 0),
    }[name]
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(FoldcraftError, match=f"{name} is not installed, .* run `pip install '{name}"):
        open_stores([source], [ImageSpec(8)], tmp_path / "cache", "train")


# TIFFs


@pytest.mark.parametrize("order", ["contig", "separate"])
@pytest.mark.parametrize("most", [255, 65535])
def test_all_bands_of_a_tiff_reach_the_net(tmp_path: Path, order: str, most: int) -> None:
    bands = values(8, 10, 5, most)
    stored = bands if order == "contig" else np.moveaxis(bands, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=order, metadata=None)
    assert band_count.find_channels([tmp_path / "a.tif"], tmp_path) == 5
    assert np.abs(image_reading.bands(tmp_path / "a.tif", 5, most).astype(int) - bands * (255 / most)).max() <= 0.5
    assert np.abs(seen(tmp_path / "a.tif", max_value=most).astype(int) - bands[..., :3] * (255 / most)).max() <= 0.5
    with pytest.raises(UnreadableImage, match=r"it has 5 bands, and images\.channels is 4"):
        image_reading.bands(tmp_path / "a.tif", 4)


def test_two_and_four_bands_are_told_from_grey_and_colours(tmp_path: Path) -> None:
    for bands, extra in ((2, "unspecified"), (4, "unspecified"), (2, "unassalpha")):
        path = tmp_path / f"{bands}{extra}.tif"
        tifffile.imwrite(path, values(8, 10, bands), photometric="minisblack", planarconfig="contig",
                         extrasamples=[extra] * (bands - 1), metadata=None)  # fmt: skip
    Image.fromarray(values(8, 10, 4)).save(tmp_path / "rgba.tif")
    names = {"2unspecified": 2, "4unspecified": 4, "2unassalpha": 3, "rgba": 3}
    assert {name: image_reading.channels_of(tmp_path / f"{name}.tif") for name in names} == names
    assert (image_reading.bands(tmp_path / "rgba.tif", 4) == values(8, 10, 4)).all()


def test_images_of_unlike_channels_are_told(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.npy" for k in range(5)]
    for k, path in enumerate(paths):
        np.save(path, values(8, 10, 4 if k else 6))
    with pytest.raises(FoldcraftError, match=r"images\.channels: 4 images have 4 channels, and 1 image has 6: 0\.npy"):
        band_count.find_channels(paths, tmp_path)


def test_items_of_hdf5_are_looked_at_once_and_not_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each must be read for it, and a set of skin lesions has 400,000; those that boxes are cut of are such as well."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key in range(6):
            file[str(key)] = values(8, 10, 5 if key == 5 else 3)
    items = [Hdf5Item(tmp_path / "a.h5", str(key)) for key in range(6)]
    for sources in (items, [CutOut(item, (0, 0, 4, 4)) for item in items]):
        with pytest.raises(FoldcraftError, match=r"5 images have 3 channels, and 1 image has 5: a\.h5 5"):
            band_count.find_channels(sources, tmp_path)
    monkeypatch.setattr(band_count, "MOST_ITEMS", 2)
    looked: list[Source] = []
    monkeypatch.setattr(image_reading, "channels_of", lambda source: looked.append(source) or 3)
    assert band_count.find_channels(items, tmp_path) == 3
    assert sorted(looked, key=lambda item: item.key) == [items[0], items[5]], "several at a time, in any order"


def test_a_tiff_that_ends_in_its_header_is_no_image_of_three_channels(tmp_path: Path, capfd, caplog) -> None:
    """What other libraries say of it comes from them alone, and the reason is told when it is decoded."""
    paths = [tmp_path / f"{k}.tif" for k in range(3)]
    for path in paths:
        tifffile.imwrite(path, values(8, 10, 6, 65535), photometric="minisblack", planarconfig="contig")
    paths[1].write_bytes(paths[1].read_bytes()[:40])
    assert band_count.find_channels(paths, tmp_path) == 6
    for look in (lambda: seen(paths[1]), lambda: seen(TiffLevel(paths[1], 1))):
        with pytest.raises(UnreadableImage):
            look()
    assert not caplog.text + "".join(capfd.readouterr())


def pyramid(path: Path, largest: np.ndarray) -> Path:
    """A TIFF with an image at three sizes."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(largest, tile=(32, 32), subifds=2, photometric="rgb")
        for step in (2, 4):
            writer.write(largest[::step, ::step], tile=(32, 32), subfiletype=1, photometric="rgb")
    return path


def test_a_level_of_a_tiff_is_read(tmp_path: Path) -> None:
    largest = np.kron(values(8, 10, 3), np.ones((16, 16, 1), np.uint8))
    path = pyramid(tmp_path / "a.tif", largest)
    assert [seen(TiffLevel(path, level)).shape[:2] for level in range(3)] == [(128, 160), (64, 80), (32, 40)]
    assert (seen(TiffLevel(path, 1)) == largest[::2, ::2]).all()
    with pytest.raises(UnreadableImage, match="3 levels, from 0 on, and no level 3"):
        seen(TiffLevel(path, 3))


@pytest.mark.parametrize("packed", ["raw", "tiff_lzw", "jpeg", "tiles", "big", "pyramid"])
def test_a_huge_tiff_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: str) -> None:
    picture = Image.fromarray(values(8, 10, 3)).resize((600, 480), Image.Resampling.BICUBIC)
    path = tmp_path / "a.tif"
    if packed == "pyramid":
        pyramid(path, np.asarray(picture))
    elif packed in ("tiles", "big"):
        tifffile.imwrite(path, np.asarray(picture), tile=(64, 96), photometric="rgb", bigtiff=packed == "big",
                         compression="zlib")  # fmt: skip
    else:
        picture.save(path, compression=packed)
    whole = seen(path)
    monkeypatch.setattr(decoding, "MOST_MEMORY", 600 * 480 * 3 // 2)
    small = seen(path)
    assert small.shape[1] <= 300
    wanted = np.asarray(Image.fromarray(whole).resize(small.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(small.astype(int) - wanted).mean() < 3


# The cache


def test_caches_know_what_an_image_is_made_of(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.png", tmp_path / "cache"
    Image.fromarray(values()).save(path)
    whole: list[Source] = [path]
    boxes: list[Source] = [CutOut(path, (0, 0, 4, 4))]
    cells: list[Source] = [TableRow("train.csv", 1, values())]
    known = {content_of(sources, cache) for sources in (whole, boxes, cells, [Tile(path, (2, 2), (0, 0))])}
    assert len(known) == 4
    assert content_of(boxes, cache) == content_of([CutOut(path, (0, 0, 4, 4))], cache)
    before = content_of(boxes, cache)
    Image.fromarray(values()[::-1]).save(path)
    assert content_of(boxes, cache) != before
    (store,) = open_stores(boxes, [ImageSpec(4)], cache, "train")
    assert (store[0][..., 0] == values()[::-1][:4, :4]).all()


def test_a_part_that_is_gone_is_told(tmp_path: Path) -> None:
    draw_shape("dot", 0).save(tmp_path / "a_red.png")
    both = Channels((tmp_path / "a_red.png", tmp_path / "a_blue.png"))
    with pytest.raises(FoldcraftError, match=r"a_red\.png and 1 more \(it is not there\)"):
        open_stores([both], [ImageSpec(8)], tmp_path / "cache", "train")


# Whole runs


def competition(place: Path, kind: str) -> Path:
    """A competition of drawn shapes whose images are of that kind; its config."""
    folder = place / "input" / "shapes"
    for part, number in (("train", 48), ("test", 12)):
        first = 0 if part == "train" else 100
        rows = pd.DataFrame({"id": [f"{first + k:03d}" for k in range(number)]})
        rows["label"] = [("bar", "cross", "dot")[k % 3] for k in range(number)]
        (folder / part).mkdir(parents=True)
        greys = [np.asarray(draw_shape(row.label, int(row.id))) for row in rows.itertuples()]
        for name, grey in zip(rows["id"], greys, strict=True):
            write_image(folder / part / name, kind, grey)
        if kind == "hdf5":
            with h5py.File(folder / f"{part}.hdf5", "w") as file:
                for name, grey in zip(rows["id"], greys, strict=True):
                    file[name] = np.dstack([grey] * 3)
        if kind == "pixels":
            rows = pd.concat([rows, pd.DataFrame([grey.ravel() for grey in greys]).add_prefix("pixel")], axis=1)
        rows.drop(columns="label" if part == "test" else []).to_csv(folder / f"{part}.csv", index=False)
    rows[["id"]].assign(label="bar").to_csv(folder / "sample_submission.csv", index=False)
    ways = {
        "channels": {"channels": [f"PART/{{id}}_{colour}.png" for colour in ("red", "green", "blue", "yellow")]},
        "tiff": "PART/{id}",
        "hdf5": {"hdf5": "PART.hdf5", "key": "{id}"},
        "tiles": {"file": "PART/{id}.png", "tiles": [1, 2]},
        "pixels": {"pixels": "pixel*", "shape": [20, 20]},
    }
    settings = yaml.safe_load(CONFIG)
    for key, part in (("image", "train"), ("test_image", "test")):
        settings["competition"][key] = yaml.safe_load(yaml.safe_dump(ways[kind]).replace("PART", part))
    settings |= {"folds": {"count": 2}, "augment": {"preset": "heavy"}}
    path = place / "configs" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(settings))
    return path


def write_image(path: Path, kind: str, grey: np.ndarray) -> None:
    """The files of one image; none where it lies elsewhere."""
    if kind == "channels":
        for share, colour in enumerate(("red", "green", "blue", "yellow"), start=1):
            Image.fromarray(grey // share).save(f"{path}_{colour}.png")
    if kind == "tiles":
        Image.fromarray(np.hstack([grey, 255 - grey])).save(f"{path}.png")
    if kind == "tiff":
        bands = np.dstack([grey * 200.0, -1.0 * grey]).astype(np.float32)
        tifffile.imwrite(f"{path}.tif", bands, photometric="minisblack", planarconfig="contig", metadata=None)


@pytest.mark.parametrize(("kind", "channels"), [("channels", 4), ("tiff", 2), ("hdf5", 3), ("pixels", 3)])
def test_from_table_to_submission(workplace: Path, command, caplog, kind: str, channels: int) -> None:
    config = competition(workplace, kind)
    assert f" px, {channels} channels; " in command("check", "--show", "net", "--config", config).out
    trained = command("train", "--config", config, "--fold", "0")
    assert trained.code == 0, trained.err
    said = trained.out + trained.err
    assert (f"images have {channels} channels, which all enter the net" in said) == (channels != 3)
    assert ("augmentation leaves out what wants three: HueSaturationValue" in caplog.text) == (channels != 3)
    with safe_open(workplace / "runs" / "shapes" / "tiny" / "fold0" / "model.safetensors", "np") as model:
        stem = model.get_tensor("conv1.0.weight")
    assert stem.shape[1] == channels
    done = command("infer", "--config", config)
    assert done.code == 0, done.err
    answers = pd.read_csv(next((workplace / "submissions").glob("shapes_*.csv")), dtype=str)
    assert answers["id"].tolist() == [f"{100 + k}" for k in range(12)]


def test_tiles_of_an_image_have_one_answer(workplace: Path, command) -> None:
    config = competition(workplace, "tiles")
    data = read(config_file.load(config))
    assert (len(data.train_ids), len(data.answers.train_ids)) == (96, 48)
    assert data.train_ids[:3].tolist() == ["000", "000#2", "001"]
    greys = [seen(source)[..., 0] for source in data.train_paths[:2]]
    assert (greys[1] == 255 - greys[0]).all()
    assert any("tiles of an image have one answer" in note for note in data.image_notes)
    trained = command("train", "--config", config, "--fold", "0")
    assert trained.code == 0, trained.err
    assert command("infer", "--config", config).code == 0
    answers = pd.read_csv(next((workplace / "submissions").glob("shapes_*.csv")), dtype=str)
    assert answers["id"].tolist() == [f"{100 + k}" for k in range(12)]


@pytest.mark.slow
def test_all_commands_take_four_channels(workplace: Path, command) -> None:
    config = competition(workplace, "channels")
    config.write_text(config.read_text() + "finetune: {mode: linear_probe}\n")
    assert command("train", "--config", config, "--fold", "all").code == 0
    for name in ("audit", "preview", "report", "infer"):
        done = command(name, "--config", config)
        assert done.code == 0, (name, done.err)


def test_facts_of_items_are_not_those_of_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a training set is told from its test set by the sizes of two files; and each is read for every item."""
    paths: dict[str, tuple[Hdf5Item, ...]] = {}
    for part, count in (("train", 5), ("test", 3)):
        with h5py.File(tmp_path / f"{part}.h5", "w") as file:
            for key in range(count):
                file[str(key)] = values(8, 10, 3) + np.uint8(key)
        paths[part] = tuple(Hdf5Item(tmp_path / f"{part}.h5", str(key)) for key in range(count))
    read: list[Path] = []
    whole = image_stats.hashlib.file_digest
    monkeypatch.setattr(
        image_stats.hashlib, "file_digest", lambda stream, name: read.append(stream.name) or whole(stream, name)
    )
    made = SimpleNamespace(
        train_ids=np.arange(5).astype(str),
        test_ids=np.arange(3).astype(str),
        train_paths=paths["train"],
        test_paths=paths["test"],
    )
    facts = image_stats.collect(made)
    assert facts["bytes"].tolist() == [0] * 8
    assert facts["sha256"].nunique() == 8
    assert len(read) <= 4, "two threads may read the same file at once"
