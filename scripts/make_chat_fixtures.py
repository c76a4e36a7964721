#!/usr/bin/env python3
"""Writes tests/golden/text/chat.json: conversations, and what transformers renders of them (or that it
refuses) with the templates of tests/golden/text/chat, which are in the style of model families.
Needs the package transformers."""

import datetime
import json
import pathlib

from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "text"


class FixedTime(datetime.datetime):
    """strftime_now is the same on every day."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 2, 3, 4, 5, 6)


chat_template_utils.datetime = FixedTime

CONVERSATIONS = {
    "plain": [{"role": "user", "content": "Hi there\n"}, {"role": "assistant", "content": " Hello! "},
              {"role": "user", "content": "How're you? ü 😀 \"q\" <b> & 'x'"}],
    "system": [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "2+2?"},
               {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4"}],
    "parts": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What? "}]},
              {"role": "assistant", "content": "It.", "reasoning": "look"}, {"role": "user", "content": "Ah"}],
    "two_users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "tools": [{"role": "user", "content": "Weather?"},
              {"role": "assistant", "content": "", "tool_calls": [
                  {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2, "f": 1.5, "deep": [None, True]}}, "id": "abcdefghi"}]},
              {"role": "tool", "name": "weather", "content": "rain", "tool_call_id": "abcdefghi"}, {"role": "assistant", "content": "Rain."}],
}

TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "Looks out.\nTwice.", "parameters": {
        "type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Where"},
            "days": {"type": "array", "items": {"type": ["integer", "number"]}}, "Any": {"type": "object"}}},
    "return": {"type": "string"}}}]

VARIABLES = [
    {}, {"tools": TOOLS, "enable_thinking": False},
    {"tools": TOOLS, "builtin_tools": ["code_interpreter", "weather"], "tools_in_user_message": False,
     "documents": [{"doc_id": 7, "title": "t", "text": "d"}], "controls": {"citations": True}},
]


def main():
    cases = []
    for file in sorted((GOLDEN / "chat").glob("*.jinja")):
        template = file.read_bytes().decode()
        for label, messages in CONVERSATIONS.items():
            for prompt in (False, True):
                for number, variables in enumerate(VARIABLES):
                    case = {"template": file.stem, "conversation": label, "prompt": prompt, "variables": number}
                    marks = "{% generation %}" in template and not prompt
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
    document = {"conversations": CONVERSATIONS, "variables": VARIABLES, "cases": cases}
    (GOLDEN / "chat.json").write_text(json.dumps(document, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(len(cases), "cases,", sum("error" in c for c in cases), "refused")


if __name__ == "__main__":
    main()
