import csv

from trainers.reporting.tables import as_text, show_facts, write_csv

ROWS = [{"name": "[a]", "x": 1.23456789, "n": [1.0, 2.5]}, {"name": "long name", "x": None, "other": 3}]


def test_text_has_a_line_for_each_row_in_columns_of_any_width():
    lines = as_text(ROWS, ["name", "x", "n"]).splitlines()
    assert [line.split() for line in lines] == [
        ["name", "x", "n"],
        ["[a]", "1.235", "1", "2.5"],
        ["long", "name", "-", "-"],
    ]
    wide = as_text([{str(k): k for k in range(200)}], [str(k) for k in range(200)])
    assert wide.count("\n") == 1


def test_csv_has_numbers_in_full_and_lists_with_spaces(tmp_path):
    write_csv(tmp_path / "x.csv", ROWS, ["name", "x", "n"])
    with (tmp_path / "x.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "x", "n"], ["[a]", "1.23456789", "1 2.5"], ["long name", "", ""]]


def test_facts_without_a_value_are_left_out(capsys):
    show_facts("[title]", {"a": "1", "empty": "", "b": "[2]"})
    out, err = capsys.readouterr()
    assert out == "" and [line.split() for line in err.splitlines()] == [["[title]"], ["a", "1"], ["b", "[2]"]]
