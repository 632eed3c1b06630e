"""The reviewed table of bad pipeline files: what it is, its text, the line named, the refusal."""

from __future__ import annotations

GOOD = """\
type: ml_control.components.ModelPipeline
attributes:
  description: what it is for
  source:
    format: csv
    partition: {by: day, start: "2024-01-01"}
    settle: 2 s
  columns:
    target: label
    task: binary
    positive: "yes"
    features:
      - {name: age, type: number, min: 0}
      - {name: job, type: category}
  quality:
    min_rows: 10
  gates:
    metrics:
      auc: {min: 0.8}
"""


def instead(old, new):
    """The good file with one part replaced."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def bomb():
    """Nine levels of nine aliases: four hundred million values, if they were expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    return GOOD + "\n".join(lines) + "\n"


def nested(levels):
    """A value so many lists deep."""
    return instead("what it is for", "[" * levels + "]" * levels)


def wide(features):
    """A feature list longer than any real one."""
    lines = "".join(f"      - {{name: f{i}, type: number}}\n" for i in range(features))
    return instead("      - {name: job, type: category}\n", lines)


# (what, text or bytes, the line that is named or None, part of the reason)
PIPELINES = [
    ("zero bytes", "", None, "has no type"),
    ("no mapping", "- a\n- b\n", None, "has no type"),
    ("not YAML", "type: [unclosed\n", 2, "not valid YAML"),
    ("UTF-16", GOOD.encode("utf-16"), None, "is not UTF-8 text"),
    ("control character", instead("what", "a\x01b"), None, "characters are not allowed"),
    ("larger than 1 MB", GOOD + "#" * 1_000_001, None, "larger than 1,000,000 bytes"),
    ("anchor bomb", bomb(), 21, "uses the alias *a0"),
    ("one alias", instead("{min: 0.8}", "&x {min: 0.8}\n      f1: *x"), 20, "uses the alias *x"),
    ("merge key", instead("min_rows: 10", "<<: {min_rows: 5}"), 16, "merges with '<<'"),
    ("200 levels deep", nested(200), 3, "nests too deeply"),
    ("100,000 levels deep", nested(100_000), 3, "nests too deeply"),
    ("30,000 features", wide(30_000), None, "larger than 1,000,000 bytes"),
    ("12,000 features", wide(12_000), None, "has more than 60,000 parts"),
    ("key twice", instead("min_rows: 10", "min_rows: 10\n    min_rows: 1"), 17, "'min_rows' twice"),
    ("section twice", GOOD + "attributes: {}\n", 20, "'attributes' twice"),
    ("key that is a number", instead("auc:", "1:"), 19, "valid string"),
    ("key that is a mapping", instead("what it is for", "{{ env.HOME }}"), 3, "a key is a list"),
    ("two documents", GOOD + "---\n" + GOOD, 20, "second document"),
    ("Python object", instead("what it is for", '!!python/object/apply:os.system ["true"]'), 3,
     "could not determine a constructor"),
    ("Python module", instead("what it is for", "!!python/module:os"), 3, "a constructor"),
    ("own tag", instead("what it is for", "!include /etc/passwd"), 3, "a constructor"),
    ("code beside it", GOOD + "template_vars_module: .x\n", 20, "'template_vars_module'"),
    ("post processing", GOOD + "post_processing: {assets: []}\n", 20, "'post_processing'"),
    ("unknown section", GOOD + "attribute: {}\n", 20, "did you mean 'attributes'?"),
    ("unknown key", instead("min_rows:", "min_row:"), 16, "did you mean 'min_rows'?"),
    ("unknown key in a list", instead("min: 0}", "mim: 0}"), 13, "did you mean 'min'?"),
    ("unknown key, nothing near", instead("min_rows:", "zzz:"), 16, "Extra inputs"),
    ("unit in words", instead("2 s", "2 sec"), 7, "'2 sec' is not a duration"),
    ("no unit", instead("2 s", "2"), 7, "2 is not a duration"),
    ("negative duration", instead("2 s", "-1 s"), 7, "not a duration"),
    ("not a number", instead("0.8}", ".nan}"), 19, "finite number"),
    ("infinite", instead("0.8}", ".inf}"), 19, "finite number"),
    ("number as text", instead("min_rows: 10", 'min_rows: "ten"'), 16, "valid integer"),
    ("number of 5,000 digits", instead("10", "9" * 5000), 16, "not valid YAML"),
    ("no such day", instead('"2024-01-01"', "2024-13-01"), 6, "not valid YAML"),
    ("variable not allowed", instead("what it is for", "'{{ env.HOME }}'"), None,
     "the template {{ env.HOME }} is not allowed"),
    ("template that computes", instead("what it is for", "'{{ 7 * 7 }}'"), None, "is not allowed"),
    ("template that opens a file", instead("what it is for", "'{{ open(\"/etc/passwd\") }}'"), None,
     "is not allowed"),
    ("template with a statement", instead("what it is for", "'{% for i in range(9) %}x'"), None,
     "is not allowed"),
    ("template in a key", instead("auc:", "'{{ env.HOME }}':"), None, ""),
]  # fmt: skip
