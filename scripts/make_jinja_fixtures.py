#!/usr/bin/env python3
"""Writes tests/golden/text/jinja.json: small pieces of the template language and what transformers'
environment makes of each, or that it refuses. Needs the package transformers."""

import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "text" / "jinja.json"

MESSAGES = [
    {"role": "user", "content": " Hi\nthere ", "n": 3, "tags": ["b", "a"]},
    {"role": "assistant", "content": "Köln & <b>", "n": 1, "tags": []},
    {"role": "tool", "content": None, "n": 2.5, "args": {"z": 1, "A": [True, None, 1.0], "é": "\"q\"\t"}},
]

EXPRESSIONS = r"""
messages | map(attribute='role') | join(', ')
messages | map(attribute='tags.0', default='-') | join(',')
messages | map('length') | list
messages | map(attribute='role') | map('upper') | list
['a', 'b'] | map('replace', 'a', 'x') | join
messages | join('|', attribute='role')
messages | selectattr('tags') | list | length
messages | selectattr('tags', 'defined') | list | length
messages | selectattr('n', 'gt', 1) | map(attribute='role') | list
messages | rejectattr('role', 'in', ['tool', 'user']) | map(attribute='n') | list
messages | selectattr('args.z', 'equalto', 1) | map(attribute='role') | list
[1, 0, 2, none] | select | list
[1, 0, 2, 3] | select('odd') | list
[1, 2, 3, 4] | reject('divisibleby', 2) | list
['a', none, 'b'] | reject('none') | list
[3, 1, 2] | sort
[3, 1, 2] | sort(reverse=true)
['b', 'A', 'c'] | sort | join
['b', 'A', 'c'] | sort(case_sensitive=true) | join
messages | sort(attribute='n') | map(attribute='role') | list
messages | sum(attribute='n')
[1, 2, 3] | sum
[1.5, 2] | sum(start=10)
messages[2].args | dictsort
messages[2].args | dictsort(true) | map('first') | join(',')
{'b': 1, 'a': 2} | dictsort(by='value')
{'b': 1, 'a': 2} | dictsort(reverse=true)
messages[2].args | items | list
undefined_name | items | list
messages[2].args | length
messages[2].args | tojson
messages[2].args | tojson(indent=2)
messages[2].args | tojson(ensure_ascii=true)
messages[2].args | tojson(sort_keys=true)
messages[2].args | tojson(separators=(',', ':'))
{'a': [], 'b': {}, 'c': 1e20, 'd': 0.1} | tojson(indent=1)
"a'b\\c\u2028\x7f</script>" | tojson
none | tojson
1.0 | tojson
'a\nb\n\nc' | indent
'a\nb\n\nc' | indent(2, true)
'a\nb\n\nc' | indent(width=1, first=true, blank=true)
'a\nb' | indent('> ')
'abc' | indent(first=true)
'a b' | wordcount
'foo bar baz' | truncate(7)
'foo bar baz' | truncate(5, true, '')
'foo bar' | center(11)
'%s-%d' | format('x', 3)
'<a href="x">&\'' | escape
'<a>' | e
'<p>a  <b>b</b></p>' | striptags
'a,b;c' | replace(',', ' ') | replace(';', '')
'hello' | replace('l', 'L', 1)
'' | default('x')
'' | default('x', true)
none | default('x')
nothing | default('x')
nothing.more | default('x')
messages[0].nothing | default('x')
nothing | d
3.7 | int
'12' | int
'x' | int(7)
'0x1A' | int(0, 16)
'3.9' | int
'1.5' | float
'x' | float(2.5)
7 | float
2.567 | round
2.567 | round(2)
2.5 | round
3.5 | round(method='floor')
42 | round
2.1 | round(0, 'ceil')
-3 | abs
[3, 1, 2] | min
[3, 1, 2] | max
['b', 'A'] | min
messages | max(attribute='n')
[1, 2, 1, 3] | unique | list
['a', 'A', 'b'] | unique | join
['a', 'A'] | unique(true) | list
'abc' | reverse
[1, 2, 3] | reverse | list
'abc' | list
'abc' | first
[] | first
[1, 2, 3] | last
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3] | batch(2, 'x') | list
[1, 2, 3, 4, 5] | slice(2) | list
messages | groupby('role') | map('first') | list
'abc' | length
'abc' | count
nothing | length
[1, 'a', none] | string
'a' | string | safe
{'a': 1} | string
'hello wORLD' | title
"it's o'neil" | title
'hELLO wORLD' | capitalize
'ßtraße' | upper
'ÀÉ' | lower
'  x ' | trim
'xxaxx' | trim('x')
messages[0] | attr('nothing') is defined
[1, 2] | join
[1, [2, none]] | join(', ')
'abc' | random is string
nothing is defined
nothing is undefined
none is none
none is not none
'a' is string
1 is string
1 is number
true is number
1.5 is float
1 is integer
true is integer
true is boolean
[] is iterable
'a' is iterable
1 is iterable
{} is mapping
[] is mapping
[] is sequence
{} is sequence
'a' is sequence
nothing is iterable
3 is odd
4 is even
6 is divisibleby 3
6 is divisibleby(4)
'a' is sameas('a')
none is sameas none
true is sameas true
1 is sameas true
'abc' is lower
'ABC' is upper
'Abc' is upper
1 is eq 1
1 is == 1
1 is ne 2
2 is gt 1
2 is ge 2
1 is lt 2
1 is le 0
1 is greaterthan 0
1 is lessthan 0
'a' is in 'abc'
1 is in [1, 2]
'upper' is filter
'odd' is test
'nothing' is filter
range is callable
'x' is callable
true is true
0 is false
false is false
'a' is not string
not 'a' is string
1 if true
1 if false else 2
'a' if false
(1 if false) is defined
1 if 0 else 2 if 0 else 3
'b' in 'abc'
'x' not in ['a']
'role' in messages[0]
not 'x' in 'abc'
1 < 2 < 3
1 < 3 < 2
1 == 1.0 == true
1 != 2 > 1
'a' < 'b'
[1, 2] < [1, 3]
[1, 2] == [1, 2]
{'a': 1} == {'a': 1.0}
none == false
'1' == 1
2 ** 3
2 ** 3 ** 2
-2 ** 2
2 ** -1
7 // 2
-7 // 2
7 % 3
-7 % 3
7.5 // 2
-7.5 % 2
1 / 2
4 / 2
1 + 2 * 3 - 4
1 ~ 'a' ~ none ~ true ~ 1.50
'a' ~ 1 + 2
'a' * 3
3 * 'a'
[0] * 3
[1] + [2]
(1, 2) + (3,)
'a' 'b'
'x' + 1
1 + '1'
none + 'x'
true + 1
'%s' % 'x'
'%s and %s' % ('a', 2)
'%05.2f|%d|%5s|%-5s|%x' % (3.14159, 7, 'ab', 'cd', 255)
'{} {}'.format('a', 1)
'{0}-{name}'.format('a', name='b')
1.0
1e3
1.5e-7
1e16
123456789012.0
0.1 + 0.2
1_000
0x1f
0b11
0o17
100000000000000000000
true
True
None
[1, 'a', none, true, 1.5, "it's"]
(1, 2)
(1,)
()
{'a': [1, {'b': none}], 1: 2}
{'k': 'v'}['k']
{'k': 'v'}.k
{1: 'one'}[1]
messages[0]['role']
messages[-1].role
messages[5]
messages[5].role
messages[0].role.upper()
messages[0].nothing.more
messages['x']
messages.0.role
'abc'[0]
'abc'[-1]
'abc'[5]
'abcdef'[1:4]
'abcdef'[::-1]
'abcdef'[::2]
'abcdef'[-3:]
'abcdef'[:-1]
[1, 2, 3, 4][1:]
[1, 2, 3, 4][::-1]
[1, 2, 3, 4][3:0:-1]
(messages | length - 1)
messages[(messages | length) - 1].n
'a-b-c'.split('-')
'a-b-c'.split('-', 1)
'a-b-c'.rsplit('-', 1)
' a  b '.split()
'a b c d'.split(none, 1)
'a b c d'.rsplit(none, 2)
'a b c'.split(maxsplit=1)
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('x')
'a\nb\r\nc'.splitlines()
'a\nb\n'.splitlines(true)
'abc'.startswith('ab')
'abc'.startswith(('x', 'a'))
'abc'.endswith('c')
'abc'.startswith('b', 1)
'xxabcxx'.strip('x')
'  abc '.lstrip()
'  abc '.rstrip()
'abcabc'.replace('a', 'X', 1)
'abc'.replace('', '-')
'abc'.find('c')
'abcabc'.rfind('b')
'abc'.find('x')
'abc'.index('b')
'abc'.index('x')
'banana'.count('an')
'banana'.count('')
'abc'.upper()
'ABC'.lower()
'ABC'.casefold()
'hello world'.title()
'hello world'.capitalize()
'Hello'.swapcase()
'abc'.isupper()
'ABC'.isupper()
'abc'.islower()
'123'.isdigit()
'12a'.isdigit()
'abc'.isalpha()
'ab1'.isalnum()
' \t'.isspace()
'1'.isnumeric()
'1'.isdecimal()
'a'.isidentifier()
'Ab'.istitle()
'5'.zfill(3)
'-5'.zfill(4)
'a'.ljust(3) ~ '|'
'a'.rjust(3, '.')
'a'.center(4, '*')
'abc'.removeprefix('a')
'abc'.removesuffix('bc')
'a\tb'.expandtabs(4)
', '.join(['a', 'b'])
'-'.join('abc')
', '.join([1, 2])
'abc'.encode('utf-8')
'a'.__class__
messages.append(1)
[1, 2].index(2)
[1, 2, 1].count(1)
messages[2].args.get('z')
messages[2].args.get('none')
messages[2].args.get('none', 5)
messages[2].args.keys() | list
messages[2].args.values() | list
messages[2].args.items() | list
messages[2].args.keys()
messages[2].args.items()
messages[2].args.copy() == messages[2].args
messages[2].args.pop('z')
messages[2].args.update({})
dict(a=1, b='x')
dict({'a': 1}, b=2)
dict([('a', 1)])
dict.fromkeys(['a', 'b'], 0)
range(3)
range(3) | list
range(1, 7, 2) | list
range(3, 0, -1) | list
namespace(a=1).a
namespace({'a': 1}, b=2).b
namespace(_x=1)
lipsum is defined
cycler is defined
joiner is defined
strftime_now is defined
raise_exception('no')
raise_exception(1)
cycler('a', 'b').next()
joiner(',')()
nothing()
nothing + 'a'
nothing ~ 'a'
nothing == nothing
nothing is none
-nothing
nothing and 1
not nothing
'a' and 'b'
'' or 'b'
0 or none
none and 1
[] or 'empty'
"tab\there \u00e9 \x41 \101 \N{BULLET} \q"
'line \
continued'
"a" if "a" is string and "b" not in "a" else "z"
(messages | selectattr('role', 'equalto', 'user') | first).content | trim | length
messages | map(attribute='content') | select('string') | map('trim') | join(' / ')
messages | list | length
(messages | selectattr('role', 'equalto', 'none') | list) == []
messages | selectattr('role', 'equalto', 'none') | first
messages | selectattr('role', 'equalto', 'none') | first | default('no')
messages | map(attribute='n') | list | tojson
messages | map(attribute='n')
'a' | upper ~ 'b' | lower
-1 | abs
1 + 2 | string
'x' | default('y') if true else 'z'
[1, 2, 3][-1:][0]
messages[0]['tags'][0]
messages[0].tags[messages[0].tags | length - 1]
messages[0]["content"].strip().split("\n")[-1]
'%' ~ 5 ~ '%'
"{{ x }}"
'}}'
{'a': {'b': 1}}.a.b
{'items': 1}.items
{'items': 1}['items']
{'a': 1,}
[1, 2,]
not true or true
not (1 == 2)
1 == 1 and 2 == 2
1 in [1] and 2 not in [1]
1 is odd and 2 is even
messages | length > 2
messages|length is gt 2
"a" ~ ("b" if true)
'abc' | nofilter
'abc' is notest
""".strip("\n").replace("\\\n", "\\\x00").split("\n")

STATEMENTS = [
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for m in messages %}{{ loop.cycle('odd', 'even') }} {% endfor %}",
    "{% for m in messages %}{% if loop.changed(m.role == 'user') %}changed {% endif %}{% endfor %}",
    "{% for m in messages %}{{ loop.depth }}{{ loop.depth0 }}{% for k in [1] %}{{ loop.depth }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else '-' }}>{{ loop.nextitem.role | default('end') }} {% endfor %}",
    "{% for m in messages recursive %}{{ m.role }}{% if m.tags %}[{{ loop(m.tags) }}]{% endif %}{% endfor %}",
    "{% for t in [{'n': 1, 'c': [{'n': 2, 'c': [{'n': 3}]}]}] recursive %}{{ loop.depth }}{{ t.n }}{% if t.c %}({{ loop(t.c) }}){% endif %}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for k, v in messages[2].args | dictsort %}{{ k }}:{{ v }} {% endfor %}",
    "{% for k in {'x': 1} %}{{ k }}{% endfor %}",
    "{% for c in 'abc' %}{{ c }}.{% endfor %}",
    "{% for m in [] %}x{% else %}none{% endfor %}",
    "{% for m in messages if m.role == 'nobody' %}x{% else %}none{% endfor %}",
    "{% for m in messages if m.role != 'tool' %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
    "{% for m in nothing %}x{% else %}empty{% endfor %}",
    "{% for m in none %}x{% endfor %}",
    "{% for m in 5 %}x{% endfor %}",
    "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}",
    "{% for x in (1 if true else 2), 3 %}{{ x }}{% endfor %}",
    "{% for x in [1, 2, 3] if x > 1 %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in [1, 2, 3] %}{% for y in [1, 2] %}{% if y == 2 %}{% continue %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b }}",
    "{% set ns = namespace(a=1) %}{{ ns }}",
    "{% set ns = namespace(a=1) %}{{ ns.b is defined }}{{ ns['a'] }}",
    "{% set d = {} %}{% set d.x = 1 %}",
    "{% set nothing.x = 1 %}",
    "{% set a, b = [1, 2] %}{{ a }}{{ b }}",
    "{% set a, b = 'xy' %}{{ a }}{{ b }}",
    "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set a, b = [1] %}",
    "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x | replace('a', 'b') | trim %} aaa {% endset %}[{{ x }}]",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x }}{{ x | length }}",
    "{% filter upper %}abc{{ 'd' }}{% endfilter %}",
    "{% filter indent(2) | upper %}a\nb{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=5, a=4) }} {{ m() }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, x=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m is callable }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro outer() %}[{{ caller() }}]{% endmacro %}{% call outer() %}in{% endcall %}",
    "{% macro each(xs) %}{% for x in xs %}{{ caller(x) }},{% endfor %}{% endmacro %}{% call(v) each([1, 2]) %}<{{ v }}>{% endcall %}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro f() %}{{ messages | length }}{{ g is defined }}{% endmacro %}{% set g = 1 %}{{ f() }}",
    "{% set t = 1 %}{% macro f() %}{{ t }}{% set t = 2 %}{{ t }}{% endmacro %}{{ f() }}{{ t }}",
    "{% for t in [5] %}{% macro f() %}{{ t }}{% endmacro %}{{ f() }}{% endfor %}",
    "{% macro f(x) -%}\n  {{ x }}\n{%- endmacro %}[{{ f('a') ~ f('b') }}] {{ f('c') | upper }} {{ f('abc') | length }}",
    "{% set f = namespace(x='') %}{% macro g(v) %}{% set f.x = f.x ~ v %}{% endmacro %}{{ g(1) }}{{ g(2) }}{{ f.x }}",
    "{{ '%s' | format(messages[0].n) }}{{ range(*[1, 3]) | list }}{{ dict(**{'a': 1}) }}",
    "{% if false %}a{% elif 0 %}b{% elif 'x' %}c{% else %}d{% endif %}",
    "{% if nothing %}a{% else %}b{% endif %}",
    "{% if messages[0].nothing is defined and messages[0].nothing.x %}a{% else %}b{% endif %}",
    "{% if not messages %}a{% endif %}{% if messages and messages[0] %}b{% endif %}",
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}  \n  b\n  {% endif %}\nc",
    "a\n  {%- if true -%}  \n  b\n  {%- endif -%}\nc",
    "a\n  {%+ if true +%}\n  b\n  {%+ endif +%}\nc",
    "  {{ 1 }}  \n  {{- 2 -}}  \n 3",
    "a {# c #} b\n  {# c #}\nd\n  {#- c -#}\n e {#+ x +#} f",
    "{{ 1 }}\n{{ 2 }}\n\n",
    "{{ 1 }}\n",
    "\n\n{{ 1 }}",
    "a\r\n{% if true %}\r\nb\r\n{% endif %}\rc",
    "x {% if true %} y {% endif %} z",
    "  x {% if true %}\n y{% endif %}",
    "\t{% set a = 1 %}\n{{ a }}",
    "{{- 'a' }} {{ 'b' -}} c",
    "{% raw %}{{ x }}{% if %}{% endraw %}",
    "a {% raw %}\n  {{ x }}\n{% endraw %}\nb",
    "a {%- raw -%}  {{ x }}  {%- endraw -%} b",
    "{% generation %}x{% endgeneration %}",
    "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}",
    "{% for m in messages %}{% generation %}{{ loop.index }}{{ m.role }}{% endgeneration %}{% endfor %}",
    "{% autoescape false %}<{% endautoescape %}",
    "{% do messages %}",
    "{% include 'x' %}",
    "{% block a %}x{% endblock %}",
    "{% if 1 %}",
    "{% endif %}",
    "{{ 1",
    "{{ }}",
    "{{ 1 2 }}",
    "{% for %}{% endfor %}",
    "{{ [1, 2 }}",
    "{% set 1 = 2 %}",
    "{% set true = 2 %}",
    "{% unknown %}",
    "{{ {# #} }}",
    "{{ 'a' -}}   \n  b",
    "{{ messages | tojson }}",
    "{{ messages[0] }}",
    "{{ messages }}",
    "{{ [true, none, 1.0, 'a\"b', \"it's\", 'both\\'\"', '\\n\\t\\\\', 'é', '\\x07', '\\u200b'] }}",
    "{{ {'a': 'b'}.items() | list | first }}",
    "{{ messages[0].items() | list | length }}",
    "{{ 1 if messages[0].role == 'user' else raise_exception('x') }}",
    "{{ (1, 'a') }} {{ (1,) }} {{ [(1, 2)] }} {{ {'a': (1, 2)} }}",
    "{% set t = (1, 2) %}{{ t[0] }} {{ t == (1, 2) }} {{ t == [1, 2] }} {{ t | tojson }} {{ t + (3,) }} {{ t[:1] }} {{ t is sequence }}",
    "{{ messages[2].args.items() | map('last') | list }}",
    "{% for g in messages | groupby('role') %}{{ g.grouper }}={{ g.list | length }} {% endfor %}",
    "{% for role, group in messages | groupby('role') %}{{ role }}={{ group | map(attribute='n') | join(',') }} {% endfor %}",
    "{% for row in [1, 2, 3, 4, 5] | batch(2, '-') %}{{ row | join }};{% endfor %}",
    "{% set x = joiner('|') %}{% for m in messages %}{{ x() }}{{ m.role }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}",
    "{{ self is defined }}{{ loop is defined }}{{ caller is defined }}",
    "{% for m in messages %}{% set loop_index = loop.index %}{% for t in [1] %}{{ loop_index }}{{ loop.index }}{% endfor %}{% endfor %}",
    "{% set messages = messages[1:] %}{{ messages | length }}{% for m in messages %}{{ m.role }}{% endfor %}",
    "{% if messages[0].role == 'user' %}{% set off = 1 %}{% else %}{% set off = 0 %}{% endif %}{% for m in messages[off:] %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% if m.role == 'tool' %}{% set ok = true %}{% endif %}{% endfor %}{{ ok is defined }}",
    "{{ messages | map(attribute='role') | unique | sort | join(' ') }}",
    "{% set content %}{% for m in messages %}{{ m.role }}{% endfor %}{% endset %}{{ content | upper }}",
    "{{ undefined_one }}{{ undefined_one | upper }}{{ undefined_one | trim | length }}",
    "{% set a = none %}{{ a }}{{ a | string | upper }}{{ a | default('d', true) }}",
    "{{ 'abc' | upper | lower | title | replace('A', 'b') | trim | length }}",
    "{{ \"a\\\"b\" }}{{ 'a\\'b' }}",
]


def main():
    cases = []
    for source in ["{{ " + e.replace("\x00", "\n") + " }}" for e in EXPRESSIONS if e] + STATEMENTS:
        case = {"source": source}
        try:
            case["text"] = render_jinja_template(conversations=[MESSAGES], chat_template=source)[0][0]
        except Exception as error:  # the kind differs: TemplateError, UndefinedError, TypeError, ...
            case["error"] = str(error)
        if " at 0x" not in case.get("text", ""):  # an address in memory
            cases.append(case)
    OUT.write_text(json.dumps({"messages": MESSAGES, "cases": cases}, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(len(cases), "cases,", sum("error" in c for c in cases), "refused")


if __name__ == "__main__":
    main()
