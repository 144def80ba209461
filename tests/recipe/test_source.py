"""Files, bases, overrides and plug-ins: what is merged, where it was written, what is refused."""

from pathlib import Path

import pytest

from distcls.recipe.errors import RecipeError
from distcls.recipe.source import Source, read


def write(**files: str) -> None:
    for name, text in files.items():
        path = Path(name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def problems(source: Source) -> list[str]:
    return [str(problem) for problem in source.problems]


def refused(path: str = "a.yaml", *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read(Path(path), overrides)
    return str(caught.value).splitlines()[1:]


def test_mappings_merge_and_lists_and_scalars_replace() -> None:
    write(
        base="data: {workers: 1, augment: [1, 2], train: {path: x}}\n",
        a="_base_: base.yaml\ndata: {workers: 8, augment: [3]}\n",
    )
    assert read(Path("a.yaml")).tree == {"data": {"workers": 8, "augment": [3], "train": {"path": "x"}}}


def test_a_changed_type_replaces_the_whole_mapping_and_the_same_type_does_not() -> None:
    write(
        base="optimizer: {type: SGD, lr: 1, momentum: 2}\nschedule: {warmup_epochs: 3}\nmodel: {neck: {type: A, b: 1}}\n",
        a="_base_: base.yaml\noptimizer: {type: AdamW, lr: 4}\nschedule: {type: Cosine}\nmodel: {neck: {type: A, c: 2}}\n",
    )
    assert read(Path("a.yaml")).tree == {
        "optimizer": {"type": "AdamW", "lr": 4},
        "schedule": {"warmup_epochs": 3, "type": "Cosine"},
        "model": {"neck": {"type": "A", "b": 1, "c": 2}},
    }


def test_null_takes_a_mapping_away() -> None:
    write(base="model: {neck: {type: A}}\n", a="_base_: base.yaml\nmodel: {neck: null}\n")
    assert read(Path("a.yaml")).tree == {"model": {"neck": None}}


def test_later_bases_win_and_each_is_found_beside_its_own_file() -> None:
    write(
        sets__one="_base_: deeper/two.yaml\na: one\n",
        sets__deeper__two="a: two\nb: two\nc: two\n",
        three="b: three\n",
        a="_base_: [sets/one.yaml, three.yaml]\nd: a\n",
    )
    source = read(Path("a.yaml"))
    assert source.tree == {"a": "one", "b": "three", "c": "two", "d": "a"}
    assert [file.name for file in source.files] == ["a.yaml", "one.yaml", "two.yaml", "three.yaml"]
    assert str(source.at(("c",))) == "sets/deeper/two.yaml:3:1"
    assert source.name == "a"


def test_the_place_of_a_key_is_where_its_value_was_written_last() -> None:
    write(base="train:\n  seed: 1\n  epochs: 2\n", a="_base_: base.yaml\ntrain:\n  seed: 3\n")
    source = read(Path("a.yaml"), ["train.max_steps=5"])
    assert {key: str(source.at(("train", key))) for key in ("seed", "epochs", "max_steps", "precision")} == {
        "seed": "a.yaml:3:3",
        "epochs": "base.yaml:3:3",
        "max_steps": "command line",
        "precision": "a.yaml:2:1",
    }


def test_a_replaced_mapping_leaves_no_places_behind() -> None:
    write(base="optimizer:\n  type: SGD\n  momentum: 1\n", a="_base_: base.yaml\noptimizer: {type: AdamW}\n")
    assert ("optimizer", "momentum") not in read(Path("a.yaml")).where


def test_a_diamond_of_bases_is_no_circle() -> None:
    write(root="a: 1\n", b="_base_: root.yaml\n", c="_base_: root.yaml\n", a="_base_: [b.yaml, c.yaml]\n")
    assert problems(read(Path("a.yaml"))) == []


def test_a_circle_is_told_where_it_closes() -> None:
    write(a="x: 1\n_base_: b.yaml\n", b="_base_:\n  - c.yaml\n", c="_base_: b.yaml\n")
    source = read(Path("a.yaml"))
    assert problems(source) == ["c.yaml:1:1: _base_: the recipes inherit in a circle: b.yaml -> c.yaml -> b.yaml"]
    assert not source.complete


def test_bases_that_cannot_be_read() -> None:
    write(
        a="_base_:\n  - none.yaml\n  - folder\n  - 3\n  - list.yaml\n  - broken.yaml\n", list="- 1\n", broken="a: [\n"
    )
    Path("folder").mkdir()
    assert problems(read(Path("a.yaml"))) == [
        "a.yaml:2:5: _base_: no such file: none.yaml",
        "a.yaml:3:5: _base_: folder is a folder, expected a recipe file",
        "a.yaml:4:5: _base_: wrong type: got 3, expected a path or a list of paths",
        "list.yaml:1:1: not a recipe: got a list, expected keys such as model: and data:",
        "broken.yaml:2:1: not valid YAML: the text ends before a closing bracket",
    ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "a.yaml:1:1: not a recipe: got an empty file, expected keys such as model: and data:"),
        (b"# only a comment\n", "a.yaml:1:1: not a recipe: got an empty file, expected keys such as model: and data:"),
        (b"- a\n", "a.yaml:1:1: not a recipe: got a list, expected keys such as model: and data:"),
        (b"ResNet\n", "a.yaml:1:1: not a recipe: got a single value, expected keys such as model: and data:"),
        (b"a: 1\nb: caf\xe9\n", "a.yaml:2:7: not UTF-8 text: got the byte 0xe9"),
        (
            b"a: 1\n b: 2\n",
            "a.yaml:2:3: not valid YAML: this line is indented deeper than the one above, which has its value already",
        ),
    ],
)
def test_files_that_are_no_recipe(content: bytes, line: str) -> None:
    Path("a.yaml").write_bytes(content)
    assert refused() == [line]


def test_a_missing_file_and_a_folder() -> None:
    Path("folder").mkdir()
    assert refused("none.yaml") == ["none.yaml: no such file"]
    assert refused("folder") == ["folder: this is a folder, expected a recipe file"]


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    Path("a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(Path("a.yaml")).tree == {"a": 1}


def test_an_unreadable_recipe_is_reported_with_the_overrides() -> None:
    write(a="a: [\n")
    assert refused("a.yaml", "b") == [
        "a.yaml:2:1: not valid YAML: the text ends before a closing bracket",
        "command line: not an override: got 'b', expected KEY=VALUE, for example optimizer.lr=0.5",
    ]


BASE = "optimizer: {type: SGD, lr: 1}\ndata: {augment: [{type: A, p: 1}, {type: B}]}\nmodel: {neck: null}\n"


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (["optimizer.lr=5e-5"], ("optimizer",), {"type": "SGD", "lr": 5e-5}),
        (["optimizer.lr=2", "optimizer.lr=3"], ("optimizer", "lr"), 3),
        (["optimizer={lr: 2}"], ("optimizer",), {"type": "SGD", "lr": 2}),
        (["optimizer.lr=2", "optimizer.type=AdamW"], ("optimizer",), {"type": "AdamW", "lr": 2}),
        (["optimizer.type=SGD"], ("optimizer",), {"type": "SGD", "lr": 1}),
        (["data.augment.0.p=0.3"], ("data", "augment"), [{"type": "A", "p": 0.3}, {"type": "B"}]),
        (["data.augment.1={type: C, q: 1}"], ("data", "augment", 1), {"type": "C", "q": 1}),
        (["data.augment=[]"], ("data", "augment"), []),
        (["model.neck.type=GAP"], ("model", "neck"), {"type": "GAP"}),
        (["tracking.notes=a=b: c"], ("tracking", "notes"), None),
        (["tracking.tags=[no, 1]"], ("tracking", "tags"), ["no", 1]),
        (["tracking.group="], ("tracking", "group"), None),
        (["tracking.name='1'"], ("tracking", "name"), "1"),
    ],
)
def test_overrides(overrides: list[str], path: tuple, value: object) -> None:
    write(a=BASE)
    found: object = read(Path("a.yaml"), overrides).tree
    for step in path:
        found = found[step]  # type: ignore[index]
    assert found == (value if path[-1] != "notes" else {"a=b": "c"})


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("lr", "command line: not an override: got 'lr', expected KEY=VALUE, for example optimizer.lr=0.5"),
        ("--lr", "command line: got '--lr', expected KEY=VALUE without dashes, for example optimizer.lr=0.5"),
        ("=1", "command line: not an override: got '=1', expected KEY=VALUE, for example optimizer.lr=0.5"),
        ("a..b=1", "command line: not an override: got 'a..b=1', expected KEY=VALUE, for example optimizer.lr=0.5"),
        ("_base_=b.yaml", "command line: _base_: only a file can name its bases"),
        (
            "optimizer.lr=[1",
            "command line: optimizer.lr: not valid YAML: a ',' or the closing bracket is missing",
        ),
        ("optimizer.lr={a: 1, a: 2}", "command line: optimizer.lr.a: duplicate key"),
        (
            "optimizer.lr.x=1",
            "command line: optimizer.lr.x: optimizer.lr is 1, not a mapping: nothing can be set in it",
        ),
        (
            "data.augment.2.p=1",
            "command line: data.augment.2.p: no such item: got '2', expected an index of data.augment: 0 to 1",
        ),
        (
            "data.augment.p=1",
            "command line: data.augment.p: no such item: got 'p', expected an index of data.augment: 0 to 1",
        ),
    ],
)
def test_bad_overrides_are_one_problem_each_and_change_nothing(override: str, line: str) -> None:
    write(a=BASE)
    source = read(Path("a.yaml"), [override])
    assert problems(source) == [line]
    if not override.startswith("optimizer.lr={"):
        assert source.tree == read(Path("a.yaml")).tree


def test_plugins_are_found_beside_the_file_that_names_them(tmp_path: Path) -> None:
    write(sets__base="plugins: [./mine.py, ../other.py, my_lab.heads]\n", a="_base_: sets/base.yaml\n")
    assert read(Path("a.yaml")).plugins == [str(tmp_path / "sets/mine.py"), str(tmp_path / "other.py"), "my_lab.heads"]
    assert read(Path("a.yaml"), ["plugins.0=./x.py"]).plugins[0] == str(tmp_path / "x.py")
    assert read(Path("a.yaml"), ["plugins=[x.py]"]).plugins == [str(tmp_path / "x.py")]


def test_files_outside_the_working_directory_are_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(a="a: [\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert refused("../a.yaml")[0].startswith(f"{tmp_path}/a.yaml:2:1: ")


def test_a_python_config_is_sent_to_the_page_that_has_its_keys() -> None:
    Path("resnet50.py").write_text("_base_ = ['a.py']\nmodel = dict(type='ImageClassifier')\n")
    write(a="_base_: resnet50.py\n")
    advice = "docs/migrating.md says how each key of a config is written there"
    with pytest.raises(RecipeError) as caught:
        read(Path("resnet50.py"))
    assert str(caught.value) == f"1 mistake in resnet50.py\nresnet50.py: Python, expected YAML: {advice}"
    assert problems(read(Path("a.yaml"))) == [
        f"a.yaml:1:1: _base_: resnet50.py is Python, expected a recipe in YAML: {advice}"
    ]


def test_a_change_with_dashes_is_one_mistake_and_its_key_is_looked_at_all_the_same() -> None:
    write(a="data: {train: {path: a}}\n")
    source = read(Path("a.yaml"), ["--data.train.path=b"])
    assert problems(source) == [
        "command line: got '--data.train.path=b', expected KEY=VALUE without dashes, for example optimizer.lr=0.5"
    ]
    assert source.tree == {"data": {"train": {"path": "b"}}}
