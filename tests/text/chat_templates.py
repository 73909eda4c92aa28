"""Chat templates with the constructs of the published ones, and conversations to put into them."""

from __future__ import annotations

# Each in the manner of the family it is called after; the words are made up.
TEMPLATES = {
    "plain turns": """{% for message in messages %}{{ '[' + message['role'] + ']\\n' + message['content'] + '[/]' + '\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '[assistant]\\n' }}{% endif %}""",
    "headers": """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<system>\\n" }}
{%- if tools is not none %}{{- "Environment: tools\\n" }}{%- endif %}
{{- "Today: " + date_string + "\\n\\n" + system_message + "<end>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<' + message['role'] + '>\\n\\n' + message['content'] | trim + '<end>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one call at a time") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}<call end>" }}
    {%- elif message.role == "tool" %}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if tools %}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}{%- endif %}
{%- if add_generation_prompt %}{{- '<assistant>\\n\\n' }}{%- endif %}""",
    "alternating": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS] [" }}
            {%- for tool in tools %}{%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}{{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}{{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}{{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}{{- raise_exception("ids have nine characters") }}{%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}
        {%- else %}{%- set content = message.content %}{%- endif %}
        {{- '[RESULTS] {"content": ' + content|string + "}[/RESULTS]" }}
    {%- else %}{{- raise_exception("Only user, assistant and tool roles are known") }}{%- endif %}
{%- endfor %}""",
    "no system": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{%- if message['content'] is string -%}
{{ '<turn>' + role + '\\n' + message['content'] | trim + '<end>\\n' }}
{%- elif message['content'] is iterable -%}
{{ '<turn>' + role + '\\n' }}{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<image>' }}
{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{{ '<end>\\n' }}
{%- else -%}{{ raise_exception("Invalid content type") }}{%- endif -%}
{% endfor %}{% if add_generation_prompt %}{{'<turn>model\\n'}}{% endif %}""",
    "thinking": """{%- if tools %}{{- '<sys>\\n' }}{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}{{- "\\n</sys>" }}{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<result>') and message.content.endswith('</result>')) %}
        {%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<' + message.role + '>' + content + '<end>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}{%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<' + message.role + '><think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}{{- '<' + message.role + '>' + content }}{%- endif %}
        {%- if message.tool_calls %}{%- for tool_call in message.tool_calls %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '<call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}{{- '}\\n</call>' }}
        {%- endfor %}{%- endif %}{{- '<end>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<user>' }}{%- endif %}{{- '\\n<result>\\n' + content + '\\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<end>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<assistant>\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""",
    "role as token": """{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}""",
    "types of python": """{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if basic_type_map[json_spec.type] is defined %}{{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}{{- "list[" + json_to_python_type(json_spec|items) + "]" }}
{%- elif json_spec.type == "object" %}
    {%- if json_spec.additionalProperties is defined %}{{- "dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']' }}{%- else %}{{- "dict" }}{%- endif %}
{%- elif json_spec.type is iterable %}{{- "Union[" }}{%- for t in json_spec.type %}{{- json_to_python_type({"type": t}) }}{%- if not loop.last %}{{- "," }}{%- endif %}{%- endfor %}{{- "]" }}
{%- else %}{{- "Any" }}{%- endif %}
{%- endmacro %}
{%- macro old_tool_parser(tools) %}
{%- for tool in tools %}{%- if loop.index0 != 0 %}{{- '\\n\\n' }}{%- endif %}
def {{ tool.function.name }}({% for name, spec in tool.function.parameters.properties.items() %}{{ name }}: {{ json_to_python_type(spec) }}{% if name not in tool.function.parameters.required %} | None{% endif %}{% if not loop.last %}, {% endif %}{% endfor %})
    {{- '    """' + tool.function.description + '"""' }}
{%- endfor %}{%- endmacro %}
{{ bos_token }}{% if tools %}{{ old_tool_parser(tools) }}{% endif %}
{% for message in messages %}{{ message.role | upper }}: {{ message.content | default('-', true) }}
{% endfor %}""",
    "ends by eos": """{% for message in messages %}
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
{% endfor %}""",
    "first of a kind": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<U>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is none %}{{'NONE'}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is defined and message['content'] is not none %}{%- if ns.is_tool %}{{'<outputs end>' + message['content'] + eos_token}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<A>' + content + eos_token}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<outputs><output>' + message['content'] + '<end>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n<output>' + message['content'] + '<end>'}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<outputs end>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<A>'}}{% endif %}""",
    "marked for training": """{%- set today = strftime_now("%d %B %Y") -%}
{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
{%- set reasoning_mode = "/think" if enable_thinking else "/no_think" -%}
{%- if messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}{%- set reasoning_mode = "/no_think" -%}{%- endif -%}
  {%- set custom_instructions = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "Knowledge: June 2025\\nToday: " ~ today ~ "\\nMode: " + reasoning_mode + "\\n\\n" -}}
{{- custom_instructions | default("Be helpful.", boolean=true) -}}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}{{ "<user>\\n" + content + "<end>\\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {%- set written = content.lstrip("\\n") -%}
        {%- if reasoning_mode == "/think" -%}{{ "<assistant>\\n" + written + "<end>\\n" }}
        {%- else -%}{{ "<assistant>\\n" + "<think>\\n\\n</think>\\n" + written + "<end>\\n" }}{%- endif -%}
        {% endgeneration %}{{ written is defined }}
    {%- elif message.role == "tool" -%}{{ "<user>\\n" + message.content | string + "<end>\\n" }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<assistant>\\n" }}{%- endif -%}""",
    "documents": """{%- if tools and documents %}{%- set what = "tools and documents" %}{%- elif documents %}{%- set what = "documents" %}{%- else %}{%- set what = "nothing" %}{%- endif %}
{{- 'With ' ~ what }}
{%- for document in documents or [] %}
{{ loop.index }}/{{ loop.length }} {{ document.get('title', 'untitled') | title }}: {{ document['text'] | truncate(20) | wordwrap(9) | indent(2) }}
{%- endfor %}
{%- for message in messages %}
    {%- if loop.previtem is defined and loop.previtem.role == message.role %}{{- ' again' }}{%- endif %}
    {%- if loop.index > 5 %}{%- break %}{%- endif %}{%- if not message.content %}{%- continue %}{%- endif %}
{{ loop.cycle('a', 'b') }} {{ message | dictsort | map('first') | join(',') }} {{ message.content | length }}
{%- endfor %}
{{ controls | default({}) | tojson(separators=(',', ':'), sort_keys=true) }}""",
    "everything else": """{% set title %}  A block {{ messages | length }} {% endset %}{{ title | trim | replace(' ', '_') }}
{% call(x) wrapped('w') %}{{ x }}?{% endcall %}
{%- macro unused() %}{% endmacro %}
{% filter upper %}shout{% endfilter %} {% raw %}{{ as it is }}{% endraw %}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}
{{ '%s-%03d' % ('x', 7) }} {{ '{} {:>4}'.format('y', 3) }} {{ 7 // 2 }} {{ 2 ** 5 }} {{ 7 % 4 }} {{ 1 if x is defined else 0 }}
{{ ['b', 'a', 'c'] | sort | join }} {{ [1, 2, 3, 4] | batch(2) | list }} {{ range(3) | list }} {{ {'a': [1, {'b': none}]} | tojson }}
{{ "é <b> &" | tojson }} {{ "é" | tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}
{{ dict(a=1, b=2) }} {{ namespace(a=1).a }} {{ [1, 2] + [3] }} {{ 'a' in 'abc' }} {{ (1, 2) }} {{ true }} {{ none }} {{ 1.50 }}
{{ messages | map(attribute='role') | unique | list }} {{ messages | selectattr('content', 'defined') | list | count }}
{{ messages | groupby('role') | map('first') | list }} {{ bos_token is defined }} {{ pad_token is defined }} {{ unk_token is defined }}
{{ eos_token }} {{ mask_token }} {{ image_token | default('no image') }} {{ messages[0].nothing }} {{ messages[99] is defined }}
{{ cycler('odd', 'even').next() }} {% set sep = joiner(', ') %}{{ sep() }}{{ sep() }} {{ tools is none }} {{ documents is none }}""",
}  # fmt: skip
# A macro has to be known before it is called.
TEMPLATES["everything else"] = "{% macro wrapped(x) %}<{{ caller(x) }}>{% endmacro %}" + TEMPLATES["everything else"]

USER = {"role": "user", "content": "  What is 3 & 4 <b>? "}
SYSTEM = {"role": "system", "content": "Be brief.  "}
ANSWER = {"role": "assistant", "content": "\n7 \n", "tool_calls": None, "refusal": None}
CALL = {"id": "call12345", "type": "function", "function": {"name": "add", "arguments": {"a": 3, "b": [4, "é"]}}}
CONVERSATIONS = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, ANSWER, {"role": "user", "content": "And\r\nthen?\n"}],
    "twice": [USER, USER],
    "calls": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "name": "add", "tool_call_id": "call12345", "content": "7"}],
    "calls as text": [USER, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "add", "arguments": '{"a": 3}'}}]}, {"role": "tool", "content": {"sum": 7}}],
    "reasoning": [USER, {"role": "assistant", "content": "7", "reasoning": "3 and 4"}, USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\n8"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]}, {"role": "assistant", "content": [{"type": "text", "text": "A "}]}],
}  # fmt: skip
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "number", "description": "one"},
                    "b": {"type": ["integer", "string"]},
                    "c": {"type": "object", "additionalProperties": {"type": "boolean"}},
                },
                "required": ["a"],
            },
        },
    }
]
SIMPLE = {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {"zone": {"type": "string", "description": "where"}}, "required": ["zone"]}}  # fmt: skip
DOCUMENTS = [{"title": "on numbers", "text": "Three and four are seven, and so on."}, {"text": "é"}]
OPTIONS = {
    "bare": {},
    "open": {"add_generation_prompt": True},
    "tools": {"tools": TOOLS, "add_generation_prompt": True},
    "one tool": {"tools": [{"type": "function", "function": SIMPLE}], "datetime": "noon", "functions": "[]"},
    "documents": {"documents": DOCUMENTS, "controls": {"b": 1, "a": (2,)}},
    "no thinking": {"enable_thinking": False, "add_generation_prompt": True},
    "continued": {"continue_final_message": True},
}
