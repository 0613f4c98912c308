"""Tables: columns become vectors and come back the same, and files that cannot be used are refused in one sentence."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_of, write_table
from scipy.special import ndtri
from sklearn.preprocessing import QuantileTransformer

from ganrun.data import table_file
from ganrun.data.dataset import Dataset, DataSpec
from ganrun.data.inputs import Reader
from ganrun.data.table import breast_cancer, split_rows, table, table_of
from ganrun.data.table_form import Column, TableForm, normal_scores, values_of_scores

pytest.importorskip("pandas")


def of(rows: dict[str, list[Any]], **changes: Any) -> Dataset:
    """The data set of columns in memory, with the defaults of data=table and no rows held out."""
    columns = {
        name: np.array(values, dtype=np.float64 if all(isinstance(v, float) for v in values) else object)
        for name, values in rows.items()
    }
    settings: dict[str, Any] = {
        "label": None, "categories": (), "numbers": "standard", "missing": "indicator", "max_categories": 100,
        "valid": 0, "test": 0, "split_seed": 0, "where": "data.file=t.csv",
    }  # fmt: skip
    return table_of(columns, **(settings | changes))


def written(text: str, tmp_path: Path, **changes: Any) -> Dataset:
    (tmp_path / "t.csv").write_text(text)
    return table(file=str(tmp_path / "t.csv"), **({"valid": 0, "test": 0} | changes))


ROWS = {"a": [1.0, 3.0, 5.0, 7.0], "b": ["x", "y", "x", "x"], "c": [0.5, math.nan, 1.5, 1.0]}


def test_numbers_are_standardized_and_categories_one_hot() -> None:
    """Vectors have the numbers a and c, the block of b (x, y), and that of c (present, missing)."""
    data = of(ROWS)
    form = data.spec.form
    assert form is not None
    (x, skipped), root = form.encode({name: np.array(v, dtype=object) for name, v in ROWS.items()}), math.sqrt(5)
    assert skipped == {}
    assert x[:, 0].tolist() == pytest.approx([-3 / root, -1 / root, 1 / root, 3 / root])
    assert x[:, 1].tolist() == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5), 0], abs=1e-6)  # 0 if missing
    assert x[:, 2:4].tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]
    assert x[:, 4:].tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]
    assert data.spec.shape == (6,)
    assert data.spec.mean == pytest.approx(x.mean().item())
    assert data.spec.std == pytest.approx(x.std(correction=0).item())


@pytest.mark.parametrize("numbers", ["standard", "quantile", "minmax"])
def test_encoded_file_is_decoded_to_the_same_text(numbers: Any, tmp_path: Path) -> None:
    text = write_table(tmp_path).read_text()
    data = table(file=str(tmp_path / "table.csv"), numbers=numbers, valid=0, test=0)
    form = data.spec.form
    assert form is not None
    x, skipped = form.encode(table_file.read_table(tmp_path / "table.csv", categories=("owner",)))
    assert (len(x), skipped) == (200, {})
    assert x.isfinite().all()
    numbers_of = [[float(v) if v else None for v in line.split(",")[::2][:2]] for line in text.splitlines()[1:]]
    lines = form.csv(x).splitlines()
    assert lines[0] == "age,job,price,city,owner"
    for line, original, (age, price) in zip(lines[1:], text.splitlines()[1:], numbers_of, strict=True):
        found = line.split(",")
        assert found[0] == str(int(age or 0))
        assert (float(found[2]) if found[2] else None) == price
        assert [found[1], *found[3:]] == [original.split(",")[1], *original.split(",")[3:]]


def test_normal_scores_have_the_ranks_of_a_normal_distribution_and_are_inverted() -> None:
    v = np.exp(np.random.default_rng(0).normal(size=5000)) ** 2
    fitted = QuantileTransformer(n_quantiles=1000, output_distribution="uniform", subsample=None).fit(v[:, None])
    quantiles = tuple(fitted.quantiles_[:, 0])
    scores = normal_scores(v, quantiles)
    position = (fitted.transform(v[:, None])[:, 0] * 999 + 0.5) / 1000
    assert scores == pytest.approx(ndtri(position), rel=1e-9)
    assert (abs(scores.mean()), abs(scores.std() - 1)) < (0.01, 0.02)
    assert values_of_scores(scores, quantiles) == pytest.approx(v, rel=1e-6)
    ends = values_of_scores(np.array([-50.0, 50.0]), quantiles)
    assert ends.tolist() == [v.min(), v.max()]


def test_form_survives_a_checkpoint_and_identifies_the_data(tmp_path: Path) -> None:
    write_table(tmp_path)
    data = table(file=str(tmp_path / "table.csv"), numbers="quantile")
    torch.save(data.spec.plain(), buffer := io.BytesIO())
    spec = DataSpec(**torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert spec == data.spec
    assert DataSpec(**json.loads(json.dumps(data.spec.plain()))) == data.spec
    assert "form" not in DataSpec((1,)).plain()


DAMAGED = [
    ({"columns": 3}, "form has no columns"),
    ({"columns": [{"kind": "number"}]}, "a column has no name or kind"),
    ({"columns": [{"name": "a", "kind": "number", "spread": 0.0}]}, "spread 0.0"),
    ({"columns": [{"name": "a", "kind": "category"}]}, "no categories"),
    ({"columns": [{"name": "a", "kind": "text"}]}, "must be one of number, category"),
    ({"columns": [{"name": "a", "kind": "number", "scale": "quantile"}]}, "0 quantiles"),
    ({"columns": [], "order": []}, "the columns are"),
    ({"columns": [{"name": "a", "kind": "number"}], "order": ["b"]}, "their order is"),
    ({"columns": [{"name": "a", "kind": "number"}], "orders": ["a"]}, "no such setting"),
]


@pytest.mark.parametrize(("form", "message"), DAMAGED)
def test_damaged_form_is_a_value_error(form: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSpec((1,), form={"order": ["a"], "label": "", "width": 1} | form)  # type: ignore[arg-type]


def test_form_must_have_the_width_of_the_vectors() -> None:
    form = TableForm((Column("a", "number"),), ("a",))
    with pytest.raises(ValueError, match=r"spec.shape is \(2,\); it must be \(1,\)"):
        DataSpec((2,), form=form)


def test_splits_are_disjoint_and_depend_on_the_seed_and_the_shares() -> None:
    train, valid, test = split_rows(100, 0.2, 0.1, 0, "t")
    assert [len(part) for part in (train, valid, test)] == [70, 20, 10]
    assert sorted(torch.cat([train, valid, test]).tolist()) == list(range(100))
    assert torch.equal(train, split_rows(100, 0.2, 0.1, 0, "t")[0])
    assert not torch.equal(train, split_rows(100, 0.2, 0.1, 1, "t")[0])


def test_moments_and_quantiles_are_those_of_the_training_rows() -> None:
    rows: dict[str, list[Any]] = {"a": [float(v) for v in range(50)], "b": ["x", "y"] * 25}
    data = of(rows, valid=0.5)
    form = data.spec.form
    assert form is not None
    column = form.columns[0]
    train = form.decode(data.train.x)["a"]
    assert len(train) == 25
    assert (column.center, column.spread) == pytest.approx((np.mean(train), np.std(train)))
    quantiles = of(rows, valid=0.5, numbers="quantile").spec.form
    assert quantiles is not None
    assert quantiles.columns[0].quantiles == tuple(sorted(map(float, train)))


def test_category_without_a_training_row_has_an_entry_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    order = split_rows(20, 0.5, 0, 0, "t")[1].tolist()
    values = ["rare" if row == order[0] else "xy"[row % 2] for row in range(20)]
    data = of({"a": [float(v) for v in range(20)], "b": values}, valid=0.5)
    form = data.spec.form
    assert form is not None
    assert form.columns[1].categories == ("rare", "x", "y")
    assert data.train.x[:, 1].sum() == 0
    assert data.valid.x[0, 1] == 1
    assert caplog.messages == ["data: column b: the training rows have none of rare."]


def test_kinds_of_columns(tmp_path: Path) -> None:
    """Texts, flags, two whole numbers and chosen columns are categories; whole numbers and decimals are kept."""
    text = "t,flag,two,code,whole,price,real\n"
    text += "".join(f"{'ab'[i % 2]},{i % 3 == 0},{i % 2 + 1},0{i % 3},{i},{i / 4:.2f},{i / 7}\n" for i in range(12))
    form = written(text, tmp_path, categories=["code"]).spec.form
    assert form is not None
    found = {c.name: c.categories or c.decimals for c in form.columns}
    assert found == {
        "t": ("a", "b"), "flag": ("False", "True"), "two": ("1", "2"), "code": ("00", "01", "02"),
        "whole": 0, "price": 2, "real": None,
    }  # fmt: skip


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separator_is_that_of_the_header(separator: str, tmp_path: Path) -> None:
    text = "a,b\n1,x\n2,y\n4,x\n"
    found, plain = written(text.replace(",", separator), tmp_path), written(text, tmp_path)
    assert found.spec == plain.spec
    assert written(text, tmp_path, separator=",").spec == plain.spec


def test_texts_that_mean_missing_are_known_to_the_form(tmp_path: Path) -> None:
    form = written("a,b\n1,x\n2,-\n4,y\n-,y\n", tmp_path, missing_values=["-"]).spec.form
    assert form is not None
    assert form.texts == ("b",)
    x, skipped = form.encode({"a": ["3", "-"], "b": ["-", "x"]})
    assert (form.decode(x), skipped) == ({"a": [3, None], "b": [None, "x"]}, {})


def test_columns_are_chosen_and_keep_their_order(tmp_path: Path) -> None:
    text = "a,b,c,d\n1,2,x,4\n2,4,y,5\n4,9,x,9\n"

    def order(**settings: Any) -> tuple[str, ...]:
        form = written(text, tmp_path, **settings).spec.form
        assert form is not None
        return form.order

    assert order() == ("a", "b", "c", "d")
    assert order(columns=["d", "a"]) == ("a", "d")
    assert order(drop=["b"]) == ("a", "c", "d")
    assert order(columns=["a"], label="c") == ("a", "c")


def test_label_is_the_class_and_not_in_the_vectors(tmp_path: Path) -> None:
    data = written("a,k\n1,10\n2,9\n4,\n5,10\n7,9\n", tmp_path, label="k")
    form = data.spec.form
    assert form is not None
    assert (data.spec.classes, form.names, form.order) == (("9", "10"), ("a",), ("a", "k"))
    assert data.train.y is not None
    rows = dict(zip(form.decode(data.train.x)["a"], data.train.y.tolist(), strict=True))
    assert rows == {1: 1, 2: 0, 5: 1, 7: 0}  # the row without a label is left out
    labels = [data.spec.classes[k] for k in data.train.y.tolist()]
    assert form.decode(data.train.x, labels).keys() == {"a": 0, "k": 0}.keys()
    assert list(form.decode(data.train.x)) == ["a"]


def test_rows_with_missing_values_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = written("a,b\n1,x\n,y\n3,?\n4,y\n5,x\n", tmp_path, missing="drop", missing_values=["?"])
    form = data.spec.form
    assert form is not None
    assert sorted(form.decode(data.train.x)["a"]) == [1, 4, 5]
    assert not any(c.missing for c in form.columns)
    assert caplog.messages == ["data       left out 2 of 5 rows, with missing values in a (1), b (1)"]


def test_parquet_file_gives_the_same_data_as_a_csv_file(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    write_table(tmp_path)
    frame = pandas.read_csv(tmp_path / "table.csv")
    frame["job"] = frame["job"].astype("category")
    frame.to_parquet(tmp_path / "table.parquet")
    found, expected = (table(file=str(tmp_path / f"table.{end}")) for end in ("parquet", "csv"))
    assert found.spec == expected.spec
    assert torch.equal(found.test.x, expected.test.x)
    form = found.spec.form
    assert form is not None
    x, skipped = form.encode(frame)  # of pandas, as it is
    assert (len(x), skipped) == (200, {})


def test_relative_file_is_also_searched_for_in_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert len(table(file="table.csv", root=str(tmp_path / "data")).train) == 160


def test_rows_that_cannot_be_encoded_are_skipped_with_a_reason() -> None:
    form = of({"a": [1.0, 2.0, 4.0], "b": ["x", "y", "x"]}).spec.form
    assert form is not None
    x, skipped = form.encode(
        {"b": ["x", "z", None, "y", "x", "y"], "a": [1, 2, 2, "n/a", None, float("inf")], "c": 6 * [0]}
    )
    assert form.decode(x) == {"a": [1], "b": ["x"]}
    assert skipped == {
        1: "column b: 'z' is not one of its categories",
        2: "column b: the value is missing",
        3: "column a: 'n/a' is not a number",
        4: "column a: the value is missing",
        5: "column a: the value is infinite",
    }
    with pytest.raises(ValueError, match="there is no column b; the run was trained on a, b"):
        form.encode({"a": [1]})


def test_largest_entry_of_a_block_is_its_category() -> None:
    form = of(ROWS).spec.form
    assert form is not None
    x = torch.tensor([[0.0, 1.0, 0.2, 0.8, 0.4, 0.6], [0.0, 0.0, 0.9, 0.8, 0.7, 0.6]])
    assert form.decode(x) == {"a": [4, 4], "b": ["y", "x"], "c": [None, 1.0]}
    written = form.as_written(x)
    assert written[:, 2:].tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
    assert written[0, 1] == 0


def test_generated_rows_are_kept_where_they_look_like_a_missing_value() -> None:
    form = of({"a": [1.0, 2.0, 4.0], "b": ["x", "y", "x"]}, missing_values=("0",)).spec.form
    assert form is not None
    x = torch.tensor([[-form.numbers[0].center / form.numbers[0].spread, 1.0, 0.0]])
    assert form.decode(x) == {"a": [0], "b": ["x"]}
    assert form.as_written(x).tolist() == x.tolist()
    assert form.encode({"a": [0], "b": ["x"]})[1] == {0: "column a: the value is missing"}


def test_breast_cancer_comes_with_its_classes_or_as_a_category() -> None:
    data = breast_cancer()
    assert (data.spec.shape, data.spec.classes) == ((30,), ("benign", "malignant"))
    assert [len(split) for split in data.splits().values()] == [341, 114, 114]
    assert sum(int(split.y.sum()) for split in data.splits().values() if split.y is not None) == 212
    mixed = breast_cancer(label=None)
    assert (mixed.spec.shape, mixed.spec.classes) == ((32,), ())


GOOD = "a,b\n1,x\n2,y\n4,x\n"
CANNOT_USE: list[tuple[str, dict[str, Any], str]] = [
    ("", {}, "is empty"),
    ("a,b\n", {}, "has a header, but no rows"),
    (GOOD, {"columns": ["a", "q"]}, r"data.columns=\[q\]: .* has no such column"),
    (GOOD, {"drop": ["aa"]}, r"data.drop=\[aa\]: .* has no such column"),
    (GOOD, {"drop": ["a", "b"]}, "no column is left"),
    (GOOD, {"label": "q"}, "data.label=q: .* has no such column; it has a, b"),
    (GOOD, {"categories": ["q"]}, "data.categories=q: .* has no such column"),
    (GOOD, {"columns": ["b"], "label": "b"}, "has no column besides the label b"),
    ("a,b\n1,x\n1,y\n", {}, r"column a has one value only in all rows; .*data.drop=\[a\]"),
    ("a,b\n1,x\n2,x\n", {}, "column b has one value only in all rows"),
    ("a,k\n1,x\n2,x\n", {"label": "k"}, "data.label=k: has only the class x"),
    ("a\n1\n2\nabc\n4\n", {}, r"column a has the text 'abc' in row 3 among numbers; .*data.missing_values=\[abc\]"),
    ("a\n1\n2\ninf\n", {}, "column a has an infinite value in row 3"),
    (
        "a,b\n" + "".join(f"{i},t{i}\n" for i in range(30)),
        {"max_categories": 20},
        "column b has 30 categories, more than",
    ),
    ("a,b\n1,\n2,\n4,\n", {"missing": "drop"}, "a value is missing in each row of b"),
    ("a,b\n1,\n2,\n4,\n", {}, "column b has one value only"),
    ("a,b\n1,x\n2,y,z,w\n", {}, "cannot be read as CSV"),
    (GOOD, {"separator": "::"}, "data.separator=::: must be one character"),
    (GOOD, {"valid": 0.6, "test": 0.4}, "data.valid=0.6 data.test=0.4: must be at least 0, and sum to less than 1"),
    ("a,b\n1,x\n2,y\n", {"valid": 0.5}, "training needs two or more"),
]


@pytest.mark.parametrize(("text", "settings", "message"), CANNOT_USE)
def test_file_that_cannot_be_used_is_refused_in_one_sentence(
    text: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        written(text, tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_missing_or_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.file: name a CSV or Parquet file"):
        table()
    with pytest.raises(ValueError, match=r"data.file=nowhere.csv: no such file"):
        table(file="nowhere.csv")
    with pytest.raises(ValueError, match="is a folder"):
        table(file=str(tmp_path))
    for name in ("t.csv", "t.parquet"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00PAR1")
        with pytest.raises(ValueError, match=f"{name}: cannot be read as"):
            table(file=str(tmp_path / name))


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_library_that_is_not_installed_is_named(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_text("x")
    monkeypatch.setattr(table_file, "find_spec", lambda name: None if name == library else True)
    with pytest.raises(ValueError, match=rf"needs {library}, which is not installed; `pip install 'ganrun\[tables\]'`"):
        table(file=str(tmp_path / "t.parquet"))


def test_first_examples_keep_the_form(tmp_path: Path) -> None:
    write_table(tmp_path)
    data = table(file=str(tmp_path / "table.csv"))
    first = data.with_first(10)
    assert (len(first.train), first.spec.form) == (10, data.spec.form)
    assert first.spec.mean == pytest.approx(data.train.x[:10].mean().item())


def test_other_tables_are_other_data(tmp_path: Path) -> None:
    """A run is not resumed on a table with other categories but the same moments."""
    facts = []
    for name in ("x", "z"):
        (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i},{'y' if i % 2 else name}\n" for i in range(30)))
        facts.append(run_of("data=table", f"data.file={tmp_path}/t.csv", "metric=none").data_facts())
    assert facts[0]["form"] != facts[1]["form"]
    assert {**facts[0], "form": 0} == {**facts[1], "form": 0}


def test_a_table_is_read_as_in_training_also_where_its_categories_were_parsed(tmp_path: Path) -> None:
    """Readers leave texts of categories as they are, and pandas parses TRUE, 1.0 and 2.50 in training."""
    data = written("a,flag,kind,size\n1,TRUE,1.0,2.50\n2,FALSE,2.0,3\n4,TRUE,1.0,3\n", tmp_path,
                   categories=["kind", "size"])  # fmt: skip
    form = data.spec.form
    assert form is not None
    found = Reader(data.spec, form).read(tmp_path / "t.csv")
    assert (len(found.x), found.skipped) == (3, {})
    assert sorted(found.x.tolist()) == sorted(data.train.x.tolist())
    codes = of({"a": [1.0, 2.0, 4.0], "b": ["01", "02", "01"]}).spec.form
    assert codes is not None
    assert codes.encode({"a": [1.0, 1.0], "b": ["01", "1"]})[1] == {1: "column b: '1' is not one of its categories"}


def test_numbers_that_float32_cannot_hold_are_not_encoded() -> None:
    form = of(ROWS).spec.form
    assert form is not None
    x, skipped = form.encode({"a": [1.0, 1e300], "b": ["x", "y"], "c": [0.5, 0.5]})
    assert (len(x), skipped) == (1, {1: "column a: the value is too large"})


def test_other_columns_of_a_file_are_not_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    data = of({"a": [1.0, 2.0, 4.0], "b": ["x", "y", "x"]})
    frame = pandas.DataFrame({"when": pandas.to_datetime(["2020-01-01"]), "a": [1.0], "b": ["x"]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert len(Reader(data.spec, data.spec.form).read(tmp_path / "t.parquet").x) == 1
    frame.drop(columns="b").to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"there is no column b; the run was trained on a, b\."):
        Reader(data.spec, data.spec.form).read(tmp_path / "t.parquet")
