#!/usr/bin/env python3
"""Writes tests/golden/text/chat.json: templates in the style of model families, conversations, and
what transformers renders (or that it refuses). Needs the package transformers."""

import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "text" / "chat.json"

TEMPLATES = {
    "chatml": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are helpful<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""",
    "qwen_like": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and reasoning %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "llama3_like": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral_like": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}""",
    "gemma_like": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}""",
    "zephyr_like": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
""",
    "generation_marks": """{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
<|assistant|>
{% generation %}{{ message.content }}<|end|>{% endgeneration %}

    {%- else -%}
<|{{ message.role }}|>
{{ message.content }}<|end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>
{% endif -%}""",
    "macros": """{%- macro turn(role, content, end='<|end|>') -%}
<{{ role | upper }}>{{ content | trim | replace('\\n', ' ') }}{{ end }}
{%- endmacro -%}
{% set names = {'user': 'Human', 'assistant': "AI"} %}
{% set ns = namespace(count=0, seen='') %}
{% for m in messages if m.role in ['user', 'assistant'] %}
    {%- set ns.count = ns.count + 1 %}
    {{- loop.index ~ '/' ~ loop.length ~ ' ' ~ turn(names.get(m.role, 'x'), m['content'] if m.content is string else m.content | map(attribute='text') | join(' + ')) }}
    {% if not loop.last %}---{% else %}={% endif %}

    {%- if loop.previtem is defined and loop.previtem.role == m.role %}!{% endif %}
{% else %}
nothing
{% endfor %}
Total: {{ ns.count }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 / 2 }} {{ -7 % 3 }} {{ 2 * 3 + 4 }} {{ "x" * 3 }} {{ [1, 'a', none, true, 1.5] }} {{ {'a': [1]} }}
{{ (messages | first).role | capitalize }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ 'a,b,,c'.split(',') | join('|') }} {{ 'héllo'[1:4] }} {{ 'héllo'[::-1] }} {{ undefined_thing | default('none given') }} {{ '' | default('empty', true) }}
{% for key, value in names.items() %}{{ key }}={{ value }};{% endfor %}

{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}
{%+ if true %} kept {%+ endif +%}
{% set block %}
  inside {{ 1 + 1 }}
{% endset %}
[{{ block | trim }}] {{ {"z": 1, "a": ["ü", 2.0, null_value]} | tojson }} {{ messages | length > 1 and 'many' or 'one' }}
""".replace("null_value", "none"),
    "statements": """{# comment #}
  {# indented comment #}
a {# inline #} b
  {%- if 1 < 2 %} yes {% endif -%}
   c
\t{% if messages is defined and messages %}
    deep
\t{% endif %}
{{ "quote's" }} {{ 'tab\\there' }} {{ "a" "b" }} {{ 10 - 3 - 2 }} {{ not true }} {{ 1 if false }}|{{ (1, 2)[1] }} {{ [1, 2] + [3] }} {{ 3 is odd }} {{ 'x' is in ['x'] }} {{ "A-b c".title() }} {{ "%" ~ 5 }} {{ "b" in "abc" }} {{ "q" not in "abc" }} {{ none is none }} {{ 1 == 1.0 }} {{ "3" | int + 1 }}
{{ messages[-1].role }} {{ messages[99] is defined }} {{ messages[0].nothing is not defined }} {{ bos_token ~ eos_token }}
""",
}

CONVERSATIONS = {
    "plain": [{"role": "user", "content": "Hi there\n"}, {"role": "assistant", "content": " Hello! "},
              {"role": "user", "content": "How're you? ü 😀 \"q\" <b> & 'x'"}],
    "system": [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "2+2?"},
               {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4"}],
    "two_users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "tools": [{"role": "user", "content": "Weather?"},
              {"role": "assistant", "content": "", "tool_calls": [
                  {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2, "f": 1.5, "deep": [None, True]}}}]},
              {"role": "tool", "name": "weather", "content": "rain"}, {"role": "assistant", "content": "Rain."}],
}

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]


def main():
    cases = []
    for name, template in TEMPLATES.items():
        for label, messages in CONVERSATIONS.items():
            for prompt in (False, True):
                for variables in ({}, {"tools": TOOLS, "enable_thinking": False}):
                    case = {"template": name, "conversation": label, "prompt": prompt, "variables": variables}
                    marks = name == "generation_marks" and not prompt
                    try:
                        texts, spans = render_jinja_template(
                            conversations=[messages], chat_template=template, add_generation_prompt=prompt,
                            return_assistant_tokens_mask=marks, bos_token="<s>", eos_token="</s>",
                            **variables)
                        case["text"] = texts[0]
                        if marks:
                            case["spans"] = spans[0]
                    except Exception as error:  # the kind differs: TemplateError, UndefinedError, ...
                        case["error"] = str(error)
                    cases.append(case)
    document = {"templates": TEMPLATES, "conversations": CONVERSATIONS, "cases": cases}
    OUT.write_text(json.dumps(document, ensure_ascii=False, indent=0), encoding="utf-8")
    print(len(cases), "cases,", sum("error" in c for c in cases), "refused")


if __name__ == "__main__":
    main()
