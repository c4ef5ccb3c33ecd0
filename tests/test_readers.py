import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from PIL import Image

import wembed
from wembed import MeasureError, Measures, ReadError, SettingError
from wembed.readers import digits, read_labels

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5), dtype=np.uint8) * np.tri(6, 5, dtype=np.uint8)
WEIGHTS = np.array([[1.0, 0.0, 3.0], [0.0, 2.0, 2.0]])
SUPPORT = np.array([[0.0, 1.0], [2.0, 0.5], [4.0, -1.0]])
CLOUDS = [np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[4.0, 5.0]]), np.array([[1.0, 1.0], [0.0, 2.0], [7.0, 7.0]])]
MASSES = [np.array([1.0, 3.0]), np.array([2.0]), np.array([1.0, 1.0, 2.0])]
FLAT: dict[str, Any] = {
    "points": np.concatenate(CLOUDS),
    "weights": np.concatenate(MASSES),
    "sizes": np.array([2, 1, 3]),
}
TYPE_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: np.ndarray) -> bytes:
    code = TYPE_CODES[array.dtype.str[1:]]
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def png(pixels: np.ndarray, mode: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, mode)
    return content.getvalue()


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def parquet(**columns: Any) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    def write(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def assert_same(read: Measures, built: Measures) -> None:
    assert read.fingerprint == built.fingerprint
    assert read.grid == built.grid


# What comes back is what was written


@pytest.mark.parametrize("array", [IMAGES, IMAGES.astype(np.float32) / 255, IMAGES[None, :, :, :], IMAGES > 99])
def test_images_and_volumes_come_back_from_npy(write, array):
    assert_same(wembed.read(write("a.npy", npy(array))), Measures.from_images(array))


def test_a_path_may_be_a_string(write):
    assert_same(wembed.read(str(write("a.npy", npy(IMAGES)))), Measures.from_images(IMAGES))


def test_the_content_of_a_file_counts_and_not_its_suffix(write):
    assert_same(wembed.read(write("a.csv", npy(IMAGES))), Measures.from_images(IMAGES))
    assert_same(wembed.read(write("a.npy", idx(IMAGES))), Measures.from_images(IMAGES))
    assert_same(wembed.read(write("a.txt", "measure,x1\na,3\n")), Measures.from_point_clouds([np.array([3.0])]))


@pytest.mark.parametrize("given", ["array", "path", "string", "beside"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_histograms_come_back_with_their_support(write, given, name):
    path = write(name, npy(WEIGHTS) if name == "a.npy" else npz(weights=WEIGHTS))
    beside = write("a.support.npy" if given == "beside" else "elsewhere.npy", npy(SUPPORT))
    support = {"array": SUPPORT, "path": beside, "string": str(beside), "beside": None}[given]
    assert_same(wembed.read(path, support), Measures.from_histograms(WEIGHTS, SUPPORT))


def test_a_support_that_is_given_goes_before_the_one_beside_the_file(write):
    path = write("a.npy", npy(WEIGHTS))
    write("a.support.npy", npy(SUPPORT + 1))
    assert_same(wembed.read(path, SUPPORT), Measures.from_histograms(WEIGHTS, SUPPORT))


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_sparse_histograms_come_back(tmp_path, layout, kind):
    scipy.sparse.save_npz(tmp_path / "a.npz", kind(WEIGHTS).asformat(layout))
    assert_same(wembed.read(tmp_path / "a.npz", SUPPORT), Measures.from_histograms(WEIGHTS, SUPPORT))


@pytest.mark.parametrize(
    ("arrays", "built"),
    [
        ({"images": IMAGES}, Measures.from_images(IMAGES)),
        ({"images": IMAGES, "labels": np.arange(4)}, Measures.from_images(IMAGES)),
        ({"weights": WEIGHTS, "support": SUPPORT}, Measures.from_histograms(WEIGHTS, SUPPORT)),
        (FLAT, Measures.from_point_clouds(CLOUDS, MASSES)),
        ({key: FLAT[key] for key in ("points", "sizes")}, Measures.from_point_clouds(CLOUDS)),
        ({"points": np.arange(3), "sizes": [1, 2]}, Measures.from_point_clouds([np.array([0]), np.array([1, 2])])),
        ({**FLAT, "points": FLAT["points"].astype(np.float32)}, Measures.from_point_clouds(CLOUDS, MASSES)),
    ],
)
def test_every_layout_of_npz_comes_back(write, arrays, built):
    assert_same(wembed.read(write("a.npz", npz(**arrays))), built)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_comes_back_plain_and_gzipped(write, dtype, pack):
    assert_same(wembed.read(write("a", pack(idx(IMAGES.astype(dtype))))), Measures.from_images(IMAGES))


def test_idx_may_hold_volumes(write):
    assert_same(wembed.read(write("a", idx(IMAGES[None]))), Measures.from_images(IMAGES[None]))


def test_a_folder_of_images_comes_back_in_the_order_of_names(write):
    for i in (2, 0, 3, 1):
        folder = write(f"images/{i}.png", png(IMAGES[i])).parent
    write("images/notes.txt", "not an image")
    write("images/.hidden.png", "not an image either")
    assert_same(wembed.read(folder), Measures.from_images(IMAGES))


def test_one_image_is_one_measure(write):
    assert_same(wembed.read(write("a.png", png(IMAGES[0]))), Measures.from_images(IMAGES[:1]))
    jpeg = png(np.full((4, 3), 200, dtype=np.uint8), "JPEG")
    assert_same(wembed.read(write("a.jpg", jpeg)), Measures.from_images(np.ones((1, 4, 3))))


def test_a_coloured_image_counts_by_its_brightness(write):
    colours = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    assert_same(wembed.read(write("a.png", png(colours))), Measures.from_images(grey[None]))


def test_sixteen_bits_a_pixel_are_kept(write):
    deep = IMAGES[0].astype(np.uint16) * 257 + np.tri(6, 5, dtype=np.uint16)
    assert_same(wembed.read(write("a.png", png(deep))), Measures.from_images(deep[None]))


def test_transparent_pixels_have_no_mass(write):
    drawing = np.full((3, 2, 4), 255, dtype=np.uint8)
    drawing[1:, :, 3] = 0
    assert_same(wembed.read(write("a.png", png(drawing))), Measures.from_images([[[1, 1], [0, 0], [0, 0]]]))


def test_a_saved_folder_comes_back(tmp_path):
    built = Measures.from_point_clouds(CLOUDS, MASSES)
    built.save(tmp_path / "saved")
    assert_same(wembed.read(tmp_path / "saved"), built)


def table(measure: Any = ("b", "a", "b", "c", "c", "c")) -> dict[str, Any]:
    points = FLAT["points"][[0, 2, 1, 3, 4, 5]]
    weights = FLAT["weights"][[0, 2, 1, 3, 4, 5]]
    return {"measure": measure, "x1": points[:, 0], "x2": points[:, 1], "weight": weights}


def comma_separated(columns: dict[str, Any]) -> str:
    rows = [columns, *zip(*columns.values(), strict=True)]
    return "".join(",".join(str(cell) for cell in row) + "\n" for row in rows)


@pytest.mark.parametrize(
    "measure",
    [
        ["b", "a", "b", "c", "c", "c"],
        [7, -1, 7, 3, 3, 3],
        pa.DictionaryArray.from_arrays([1, 0, 1, 2, 2, 2], ["a", "b", "c"]),
    ],
)
def test_a_table_comes_back_whatever_its_names_with_scattered_rows_in_order_of_appearance(write, measure):
    built = Measures.from_point_clouds(CLOUDS, MASSES)
    assert_same(wembed.read(write("a.parquet", parquet(**table(measure)))), built)
    assert_same(wembed.read(write("a.csv", comma_separated(table(pa.array(measure).to_pylist())))), built)


def test_the_atoms_of_a_measure_keep_the_order_of_their_rows(write):
    path = write("a.csv", comma_separated({"measure": [i % 2 for i in range(200)], "x1": list(range(200))}))
    assert_same(wembed.read(path), Measures.from_point_clouds([np.arange(0, 200, 2), np.arange(1, 200, 2)]))


def test_the_columns_of_a_table_may_stand_in_any_order_beside_words(write):
    columns = {"note": ["hello"] * 6, **dict(reversed(table().items()))}
    built = Measures.from_point_clouds(CLOUDS, MASSES)
    assert_same(wembed.read(write("a.parquet", parquet(**columns))), built)
    assert_same(wembed.read(write("a.csv", comma_separated(columns))), built)


@pytest.mark.parametrize("name", ["population", "Weight", "mass", "y", ""])
def test_numbers_that_would_not_be_used_are_refused_with_the_columns_that_would_be(write, name):
    columns = {"measure": ["a", "a", "b"], "x1": [1.0, 2.0, 3.0], name: [5, 1, 2], "city": ["Bern", "Chur", "Biel"]}
    for path in (write("a.csv", comma_separated(columns)), write("a.parquet", parquet(**columns))):
        with pytest.raises(ReadError, match=f"has a column '{name}' with numbers .*'measure', 'x1',.*'weight'.*rename"):
            wembed.read(path)


@pytest.mark.parametrize("number", ["19055", '"19,055"', "19 055", "1.9e4", "-1", "12 %", "'19055"])
def test_a_number_of_a_column_that_is_not_known_is_one_however_it_is_written(write, number):
    path = write("a.csv", f"measure,x1,city,mass,share\na,1,Bern,n/a,0\na,2,Area 51,{number},1\n")
    with pytest.raises(ReadError, match=r"columns 'mass', 'share' with numbers .*; rename them or drop them"):
        wembed.read(path)


def test_columns_of_words_or_of_nothing_are_left_out(write):
    path = write("a.csv", 'measure,x1,city,city,\na,1,Bern,"100, Mile House",\na,2,,E1,\n')
    assert_same(wembed.read(path), Measures.from_point_clouds([np.array([1.0, 2.0])]))


def test_the_row_names_that_pandas_writes_into_parquet_are_left_out(write):
    path = write("a.parquet", parquet(measure=[0, 0], x1=[1.0, 2.0], __index_level_0__=[7, 9]))
    assert_same(wembed.read(path), Measures.from_point_clouds([np.array([1.0, 2.0])]))


def test_a_table_without_weights_gives_every_atom_the_same(write):
    columns = {key: values for key, values in table().items() if key != "weight"}
    built = Measures.from_point_clouds(CLOUDS)
    assert_same(wembed.read(write("a.parquet", parquet(**columns))), built)
    assert_same(wembed.read(write("a.csv", comma_separated(columns))), built)


def test_csv_as_spreadsheets_write_it_is_read(write):
    path = write("a.csv", '\ufeff"measure","x1","weight"\r\n"NA",1,2\r\n"Côte, d",3,1\r\n')
    assert_same(wembed.read(path), Measures.from_point_clouds([np.array([1.0]), np.array([3.0])]))


def test_labels_come_back(write):
    labels = np.array([3, 1, 4, 1, 5])
    for content in (idx(labels.astype(np.uint8)), gzip.compress(idx(labels.astype(np.int32))), npy(labels)):
        found = read_labels(write("labels", content))
        assert found.dtype == np.int64
        assert found.tolist() == labels.tolist()


def test_the_digits_that_ship_are_the_test_images_of_mnist():
    images, labels = digits()
    assert len(images) == 10_000
    assert images.grid == (28, 28)
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert int(images.offsets[-1]) == 1_511_219


def test_the_digits_of_an_installed_package_are_found_inside_it(write, monkeypatch):
    package = write("wembed/readers.py", "").parent
    monkeypatch.setattr("wembed.readers.__file__", str(package / "readers.py"))
    with pytest.raises(ReadError, match="install wembed again"):
        digits()
    write("wembed/data/mnist/t10k-images-idx3-ubyte.gz", gzip.compress(idx(IMAGES)))
    write("wembed/data/mnist/t10k-labels-idx1-ubyte.gz", gzip.compress(idx(np.arange(4, dtype=np.uint8))))
    images, labels = digits()
    assert_same(images, Measures.from_images(IMAGES))
    assert labels.tolist() == [0, 1, 2, 3]


# What isn't a file of measures is refused in a sentence that names it

IDX = idx(IMAGES)
PARQUET = parquet(**table())
UNREADABLE = {
    "nothing in it": ("a.npy", b"", r"empty \(0 bytes\)"),
    "a PDF": ("a.npy", b"%PDF-1.7 ...", "PDF.*expected .*IDX.*Parquet"),
    "noise": ("a.idx", bytes(range(200, 240)), "unknown kind.*0xc8c9cacb"),
    "text": ("a.npz", "Dear reader,\n", "text that begins 'Dear reader"),
    "a pickle": ("a.npy", b"\x80\x04]\x94.", "pickle, which wembed never opens"),
    "gzipped text": ("a.gz", gzip.compress(b"Dear reader", mtime=0), "text .*only IDX"),
    "a gzip file cut in its header": ("a.gz", gzip.compress(IDX)[:5], "empty, gzipped"),
    "npy cut in the header": ("a.npy", npy(IMAGES)[:20], "not a whole .npy"),
    "npy cut in the data": ("a.npy", npy(IMAGES)[:-1], "not a whole .npy"),
    "npy of objects": ("a.npy", npy(np.array([{}])), "objects"),
    "npy without images": ("a.npy", npy(np.zeros((0, 28, 28))), r"no images.*\(0, 28, 28\)"),
    "npy of one axis": ("a.npy", npy(np.ones(5)), r"\(5,\); expected images \(n, height, width\)"),
    "npy of no axis": ("a.npy", npy(np.float64(3)), r"shape \(\)"),
    "npy of two axes without support": ("a.npy", npy(WEIGHTS), r"\(2, 3\).*support \(s, dim\).*a\.support\.npy"),
    "npz cut short": ("a.npz", npz(images=IMAGES)[:-30], "not a whole .npz"),
    "npz of objects": ("a.npz", npz(images=np.array([{}])), "Object arrays"),
    "npz of other keys": ("a.npz", npz(foo=1, bar=2), "keys 'bar', 'foo'; expected 'images'"),
    "npz of no keys": ("a.npz", npz(), "none"),
    "npz of two layouts": ("a.npz", npz(images=IMAGES, **FLAT), "keys 'images', 'points'"),
    "npz of weights without support": ("a.npz", npz(weights=WEIGHTS), "a.support.npy"),
    "npz of sizes that disagree": ("a.npz", npz(**{**FLAT, "sizes": [2, 5]}), "6 points.*sum to 7"),
    "npz of negative sizes": ("a.npz", npz(**{**FLAT, "sizes": [7, -1]}), "no size negative"),
    "npz of sizes that are not integers": ("a.npz", npz(**{**FLAT, "sizes": [2.0, 1.0, 3.0]}), "'sizes'.*float64"),
    "npz of points as text": ("a.npz", npz(**{**FLAT, "points": np.full((6, 2), "1")}), "'points'.*<U1"),
    "npz of too few weights": ("a.npz", npz(**{**FLAT, "weights": [1.0]}), "1 weights"),
    "npz of no measures": ("a.npz", npz(points=np.ones((0, 2)), sizes=np.zeros(0, dtype=int)), "no measures"),
    "IDX cut in the header": ("a", IDX[:9], "cut short.*12 bytes of shape, not 5"),
    "IDX cut in the data": ("a", IDX[:-7], "cut short.*promises 120 .* 113 are there"),
    "IDX too long": ("a", IDX + b"xy", "too long.*promises 120 .* 122 are there"),
    "IDX.gz cut before zipping": ("a", gzip.compress(IDX[:-7]), "cut short.*promises 120 .* 113 are there"),
    "IDX.gz cut after zipping": ("a", gzip.compress(IDX)[:-30], "cut short.*promises 120 "),
    "IDX.gz damaged": ("a", gzip.compress(IDX)[:-8] + b"????????", "not a whole gzip file: CRC"),
    "IDX of an impossible promise": ("a", IDX[:4] + b"\xff" * 12 + IDX, "cut short"),
    "IDX.gz of an impossible promise": ("a", gzip.compress(IDX[:4] + b"\xff" * 12 + IDX), "cut short"),
    "IDX of an unknown type": ("a.idx", b"\0\0\x07\x03" + IDX[4:], "0x00000703, which is not a type"),
    "a video": ("a.mp4", b"\0\0\0\x18ftypmp42", "unknown kind"),
    "IDX without axes": ("a", b"\0\0\x08\0", "0x00000800"),
    "IDX of labels": ("a", idx(np.arange(5, dtype=np.uint8)), "5 labels, not images"),
    "IDX of a matrix": ("a", idx(IMAGES[0]), r"\(6, 5\); expected images"),
    "IDX without images": ("a", idx(IMAGES[:0]), "no images"),
    "PNG cut short": ("a.png", png(IMAGES[0])[:60], "not a whole PNG"),
    "JPEG cut short": ("a.jpg", png(IMAGES[0], "JPEG")[:300], "not a whole PNG or JPEG"),
    "CSV without rows": ("a.csv", "measure,x1\n", "no rows"),
    "CSV of one empty line": ("a.csv", "\n", r"columns \(none\)"),
    "CSV without measure": ("a.csv", "name,x1\na,1\n", "columns 'name', 'x1'; expected 'measure', 'x1'"),
    "CSV without points": ("a.csv", "measure,y\na,1\n", "columns 'measure', 'y'; expected"),
    "CSV without x2": ("a.csv", "measure,x1,x3\na,1,2\n", "'x3'; expected 'measure', 'x1', 'x2'"),
    "CSV of latitudes": ("a.csv", "measure,Latitude,Longitude\na,1,2\n", "on the globe 'x1' is the latitude and 'x2'"),
    "CSV with x1 twice": ("a.csv", "measure,x1,x1\na,1,2\n", "each once"),
    "CSV of semicolons": ("a.csv", "measure;x1\na;1\n", "columns 'measure;x1'; expected"),
    "CSV without a coordinate": ("a.csv", "measure,x1,x2\na,1,2\nb,1,\n", "row 2 of column 'x2'"),
    "CSV without a name": ("a.csv", "measure,x1\n,1\n", "row 1 of column 'measure'"),
    "CSV without a weight": ("a.csv", "measure,x1,weight\na,1,\n", "row 1 of column 'weight'"),
    "CSV with a word for a number": (
        "a.csv",
        "measure,x1\na,1\na,one\n",
        "has 'one' in row 2 of column 'x1'; expected",
    ),
    "CSV with a number that ends in a letter": (
        "a.csv",
        "city,weight,x1,measure\n" + "Bern,1,46.9,a\n" * 200_000 + "Biel,1,47.1N,a\n",
        "has '47.1N' in row 200,001 of column 'x1'; expected a number",
    ),
    "CSV with a row too long": ("a.csv", "measure,x1\na,1,2\n", "Expected 2 columns, got 3"),
    "CSV in Latin-1": ("a.csv", "measure,x1\nCôte,1\n".encode("latin-1"), "utf-8"),
    "Parquet cut short": ("a.parquet", PARQUET[:-20], "not a whole Parquet"),
    "Parquet of nulls": ("a.parquet", parquet(measure=[1, 2], x1=[None, 1.0]), "row 1 of column 'x1'"),
    "Parquet of other columns": ("a.parquet", parquet(a=[1], b=[2]), "columns 'a', 'b'; expected 'measure'"),
    "Parquet of text for numbers": ("a.parquet", parquet(measure=[1], x1=["1"]), "column 'x1' of type string"),
    "Parquet of lists for names": ("a.parquet", parquet(measure=[[1]], x1=[1.0]), "names of measures"),
    "Parquet without rows": ("a.parquet", parquet(measure=pa.array([], "int8"), x1=pa.array([], "f8")), "no rows"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_bad_file_is_refused_in_one_sentence_that_names_it(write, case):
    name, content, sentence = UNREADABLE[case]
    path = write(name, content)
    with pytest.raises(ReadError, match=sentence) as caught:
        wembed.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_path_is_refused(tmp_path):
    for missing in (tmp_path / "a.npy", tmp_path / "a" / "b"):
        with pytest.raises(ReadError, match=f"there is no file or folder {missing}"):
            wembed.read(missing)
        with pytest.raises(ReadError, match=f"there is no file or folder {missing}"):
            read_labels(missing)


@pytest.mark.parametrize("place", [(Path, "open"), (np, "load")])
def test_what_the_system_refuses_is_named(write, monkeypatch, place):
    path = write("a.npy", npy(IMAGES))

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(*place, refuse)
    with pytest.raises(ReadError, match=rf"{path} cannot be read: Permission denied"):
        wembed.read(path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("the first line\nand more"), "the first line"), (MemoryError(), "MemoryError")],
)
def test_whatever_a_parser_raises_comes_out_as_one_sentence(write, monkeypatch, error, reason):
    path = write("a.npy", npy(IMAGES))

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(ReadError, match=rf"not a whole \.npy file: {reason}\Z"):
        wembed.read(path)


def test_a_folder_without_images_is_refused(write, tmp_path):
    with pytest.raises(ReadError, match=f"{tmp_path} has no PNG or JPEG.*no files"):
        wembed.read(tmp_path)
    write("train-images", IDX)
    with pytest.raises(ReadError, match=f"{tmp_path} has no PNG or JPEG.*train-images first"):
        wembed.read(tmp_path)


def test_images_of_two_sizes_in_a_folder_are_refused_by_name(write):
    write("images/a.png", png(IMAGES[0]))
    odd = write("images/b.png", png(IMAGES[0, :4]))
    with pytest.raises(ReadError, match=rf"{odd} is 5 x 4 pixels and a\.png is 5 x 6"):
        wembed.read(odd.parent)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"Dear reader", "text that begins"),
        (npy(IMAGES), "not a PNG or JPEG image"),
        (png(IMAGES[0])[:60], "not a whole PNG"),
    ],
)
def test_a_bad_image_in_a_folder_is_refused_by_name(write, content, reason):
    write("images/a.png", png(IMAGES[0]))
    odd = write("images/b.png", content)
    with pytest.raises(ReadError, match=f"{odd} is .*{reason}"):
        wembed.read(odd.parent)


def test_a_saved_folder_that_lacks_a_file_is_refused(tmp_path):
    Measures.from_images(IMAGES).save(tmp_path)
    (tmp_path / "weights.npy").unlink()
    with pytest.raises(ReadError, match=str(tmp_path)):
        wembed.read(tmp_path)


def test_a_picture_that_unpacks_to_too_much_is_refused(write, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(ReadError, match=r"a\.png .*decompression bomb"):
        wembed.read(write("a.png", png(IMAGES[0])))


def test_of_a_gzipped_file_no_more_is_unpacked_than_its_header_promises(write, monkeypatch):
    unpacked = 0
    read1 = gzip.GzipFile.read1

    def counted(file: gzip.GzipFile, size: int = -1) -> bytes:
        nonlocal unpacked
        chunk = read1(file, size)
        unpacked += len(chunk)
        return chunk

    monkeypatch.setattr(gzip.GzipFile, "read1", counted)
    bomb = write("a", gzip.compress(IDX + bytes(1 << 22)))
    with pytest.raises(ReadError, match="too long"):
        wembed.read(bomb)
    assert unpacked <= 4096 + len(IDX) + 1


def test_column_numbers_out_of_range_in_a_sparse_file_are_refused(write):
    matrix = scipy.sparse.csr_array(WEIGHTS)
    arrays = {"indices": matrix.indices + 2, "indptr": matrix.indptr, "data": matrix.data}
    path = write("a.npz", npz(format=b"csr", shape=(2, 3), **arrays))
    with pytest.raises(ReadError, match="sparse"):
        wembed.read(path, SUPPORT)


@pytest.mark.parametrize("content", [npy(IMAGES), IDX, npz(images=IMAGES), npz(**FLAT), PARQUET, png(IMAGES[0])])
def test_a_support_for_what_needs_none_is_refused(write, content):
    path = write("a", content)
    with pytest.raises(SettingError, match=str(path)):
        wembed.read(path, SUPPORT)


def test_a_support_that_is_no_npy_file_is_refused_by_name(write, tmp_path):
    path = write("a.npy", npy(WEIGHTS))
    with pytest.raises(ReadError, match=r"gone\.npy"):
        wembed.read(path, tmp_path / "gone.npy")
    with pytest.raises(ReadError, match=r"b\.csv is not a \.npy file.*support"):
        wembed.read(path, write("b.csv", "measure,x1\na,1\n"))


@pytest.mark.parametrize(
    "content", [IDX, npy(np.array([0.5])), npy(IMAGES), npz(a=1), b"Dear reader", b"", gzip.compress(b"Dear", mtime=0)]
)
def test_what_holds_no_labels_is_refused(write, content):
    path = write("labels", content)
    with pytest.raises(ReadError, match=str(path)):
        read_labels(path)


# Numbers that are no measures are refused as such, still by name

BAD = np.array([1.0, 1.0, np.nan, 1.0, 1.0, 1.0])
NEGATIVE = np.array([1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
MASSLESS = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
POINT_BAD = FLAT["points"] * BAD[:, None]
ORDERED = {"measure": [0, 0, 1, 2, 2, 2], "x1": FLAT["points"][:, 0]}
NOT_MEASURES = {
    "a NaN pixel": (npy(np.where(IMAGES.max() == IMAGES, np.nan, IMAGES)), "image [0-3] .*NaN"),
    "a negative pixel": (idx(-IMAGES.astype(np.int16)), "image 0 .*negative"),
    "a black image": (idx(IMAGES * np.array([1, 0, 1, 1], dtype=np.uint8)[:, None, None]), "image 1 sum to 0"),
    "a black picture": (png(np.zeros((3, 3), dtype=np.uint8)), "sum to 0"),
    "complex numbers": (npy(IMAGES * 1j), "complex128"),
    "a NaN point in npz": (npz(**{**FLAT, "points": POINT_BAD}), "measure 1 has a point that is NaN"),
    "a NaN weight in npz": (npz(**{**FLAT, "weights": BAD}), "measure 1 has a weight that is NaN"),
    "a negative weight in npz": (npz(**{**FLAT, "weights": NEGATIVE}), "measure 1 has a negative"),
    "no mass in npz": (npz(**{**FLAT, "weights": MASSLESS}), "measure 1 sum to 0"),
    "no atoms in npz": (npz(**{**FLAT, "sizes": [2, 0, 4]}), "measure 1 has no atoms"),
    "a NaN point in CSV": (comma_separated({**ORDERED, "x1": BAD}), "measure 1 has a point that is NaN"),
    "a negative weight in CSV": (comma_separated({**ORDERED, "weight": NEGATIVE}), "measure 1 has a negative"),
    "no mass in CSV": (comma_separated({**ORDERED, "weight": MASSLESS}), "measure 1 sum to 0"),
    "a NaN point in Parquet": (parquet(**{**ORDERED, "x1": BAD}), "measure 1 has a point that is NaN"),
    "a negative weight in Parquet": (parquet(**ORDERED, weight=NEGATIVE), "measure 1 has a negative"),
    "no mass in Parquet": (parquet(**ORDERED, weight=MASSLESS), "measure 1 sum to 0"),
    "a histogram of negatives": (npz(weights=-WEIGHTS, support=SUPPORT), "histogram 0 .*negative"),
    "a support of another length": (npz(weights=WEIGHTS, support=SUPPORT[:2]), "support has 2 points"),
}


@pytest.mark.parametrize("case", NOT_MEASURES)
def test_numbers_that_are_no_measures_are_refused_with_the_name_of_the_file(write, case):
    content, sentence = NOT_MEASURES[case]
    path = write("a", content)
    with pytest.raises(MeasureError, match=sentence) as caught:
        wembed.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_black_image_in_a_folder_is_refused_by_name(write):
    write("images/a.png", png(IMAGES[0]))
    black = write("images/b.png", png(IMAGES[0] * 0))
    with pytest.raises(MeasureError, match=rf"{black.parent}: b\.png is black"):
        wembed.read(black.parent)
