"""Values that try to hide, to pose as something else, or to be more than text; for every place that shows any."""

from __future__ import annotations

from banksman.digest import Json

VALUES: dict[str, Json] = {
    "script": "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>&lt;b&gt;&#x202e;",
    "leaves": "</div></details></section><form action=/x><h2>Decide</h2>",
    "template": "{{ 7*7 }}{% raw %}${7*7}<%= 7 %>",
    "markdown": "[approve](https://evil.example) **bold** `code` <!here>",
    "ansi": "\x1b[2K\x1b[1A\x1b]8;;https://evil.example\x07ls\x08\x08rm",
    "returns": "rm -rf /\rls   ",
    "turned": "\u202etxt.exe\u2066\u2069",
    "unseen": "pass\u200bword\u00ad\u3164\U000e0041\ufeff",
    "looks_alike": "p\u0430ypal \uff0fetc\u2215passwd",
    "brackets": "⟦U+202E⟧ \\u202e",
    "poses": "ls\nwarning: none\ntool: read_file\n    2  | safe\n",
    "below": "ls" + "\n" * 60 + "rm -rf /",
    "aside": "ls" + " " * 400 + "; rm -rf /",
    "long_line": "x" * 100_000 + "end",
    "many_lines": "".join(f"line {number}\n" for number in range(10_000)),
    "table": [{"to": "ana\u200b", "sum": 1}, {"to": '" | 9', "sum": "</td>"}],
    "tree": {"</summary>": [{"\u202ekey": None}, [], {}]},
}
