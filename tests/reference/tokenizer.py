"""Writes the reference data of the tokenizer and chat template tests.

    python tests/reference/tokenizer.py models/SmolLM2-135M-Instruct.Q4_1.gguf

writes tests/data/tokenizer.json (ids of some two thousand awkward strings) and
tests/data/tokenizer_chat.json (rendered conversations). Needs transformers 5 with gguf.

Which reference is trusted. SmolLM2's own tokenizer.json cuts a text by
Sequence[Digits(individual_digits), ByteLevel(use_regex)], and llama.cpp's family "smollm" does the
same. transformers' conversion of a GGUF file does not read the family: it gives every byte-level
BPE a bare ByteLevel. The two agree on ASCII digits, because no merge of SmolLM2 joins them, and
differ on others (" \u00bd"). So the vocabulary and merges are taken from the GGUF file, and the
pipeline from SmolLM2's tokenizer.json. The script prints how many strings the two differ on.

Families that the test model is not of are tested on a small vocabulary, with the classes that
transformers has for them.
"""

import argparse
import inspect
import json
import random
from pathlib import Path

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Tokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.utils.chat_template_utils import render_jinja_template

DATA = Path(__file__).resolve().parent.parent / "data"
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def smollm_tokenizer(path):
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level(True)])
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, kinds) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in control])
    return tokenizer, control


def family_tokenizers(tokens, merges):
    vocabulary = {t: i for i, t in enumerate(tokens)}
    llama = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    pattern = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    llama.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level(False)])
    smollm = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    smollm.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level(True)])
    return {
        "gpt-2": GPT2Tokenizer(vocab=vocabulary, merges=merges)._tokenizer,
        "llama-bpe": llama,
        "qwen2": Qwen2Tokenizer(vocab=vocabulary, merges=merges)._tokenizer,
        "smollm": smollm,
    }


FAMILY_MERGES = [
    ("\u0120", "t"), ("\u0120t", "h"), ("\u0120th", "e"), ("i", "n"), ("e", "r"), ("r", "e"),
    ("\u0120", "\u0120"), ("\u0120\u0120", "\u0120\u0120"), ("\u010a", "\u010a"),
    ("\u010d", "\u010a"), ("\u0109", "\u0109"), ("1", "2"), ("12", "3"), ("123", "4"),
    ("0", "0"), ("00", "0"), ("\u0120", "1"), ("'", "s"), ("'", "S"), ("l", "l"), ("'", "ll"),
    ("\u00c3", "\u00a9"), ("e", "\u00cc"), ("e\u00cc", "\u0123"), ("\u00c2", "\u00bd"),
    ("\u0120", "\u00c2"), (".", "\u010a"), ("\u0120", "("), ("(", ")"), ("(", "a"), ("_", "a"),
    ("\u00e4", "\u00bd"), ("\u00e4\u00bd", "\u0142"), ("\u010a", "\u0120"), ("h", "e"),
    ("l", "o"),
]

CODE = {
    "python": 'def f(xs: list[int]) -> dict:\n    """Doc."""\n    return {k: v**2 for k, v in '
    "enumerate(xs) if v % 2 == 0}\n\n\nclass A(B):\n\tdef __init__(self, *a, **k):\n\t\tsuper()."
    "__init__(*a, **k)  # x\n",
    "rust": "fn main() -> Result<(), Box<dyn Error>> {\n    let x: Vec<_> = (0..10_000).map(|i| i "
    '<< 2).collect();\n    println!("{x:?} {}", r#"raw "s""#);\n    Ok(())\n}\n',
    "javascript": "const f = async ({a, ...b} = {}) => `${a?.b ?? 'x'} ${await g(b)}`;\nexport "
    "default f; // \u2026\n",
    "typescript": "type P<T> = { readonly [K in keyof T]?: T[K] extends infer U ? U : never };\n",
    "go": 'func (s *Server) Run(ctx context.Context) (err error) {\n\tdefer func() { <-s.ch }()\n\t'
    "for i := 0; i < 0xFF; i++ {\n\t\tgo s.do(i)\n\t}\n\treturn\n}\n",
    "java": '@Override public static void main(String... args) { System.out.println("a\\tb\\u00e9");'
    " }\n",
    "c": "#define MAX(a,b) ((a)>(b)?(a):(b))\nint main(void){char*s=\"%d\\n\";for(;;)printf(s,1);"
    "/* \u00a9 */}\n",
    "cpp": "template<typename T, auto N = sizeof(T)> requires std::integral<T>\nauto f(T&& t) "
    "noexcept -> decltype(auto) { return [&]<class U>(U u){ return t<=>u; }; }\n",
    "html": '<!DOCTYPE html>\n<div class="a b" data-x=\'1\'>&nbsp;&#x1F600;</div><script>x</script>',
    "css": "a:hover > b::before{content:'\\201C';margin:-.5em 0 0 1.25rem!important}",
    "sql": "SELECT a.*, COUNT(*) AS n FROM t AS a LEFT JOIN u ON a.id=u.id WHERE x LIKE '%y_%';\r\n",
    "shell": "#!/bin/sh\nfor f in *.txt; do sed -e 's/\\(a\\)/\\1b/g' \"$f\" | awk '{print $1}' >>"
    "out 2>&1 || exit 1; done\n",
    "haskell": "fibs = 0 : 1 : zipWith (+) fibs (tail fibs) -- \u03bb\nf <$> g >>= h . \\x -> x\n",
    "lisp": "(defun f (x) (if (<= x 1) 1 (* x (f (1- x)))))",
    "json": '{"a":[1,2.5e-10,null,true,"\\ud83d\\ude00"],"b":{"c":""}}',
    "yaml": "a:\n  - b: &x 1\n    c: *x\n  - |\n    text\n",
    "latex": "\\begin{align*}\n\\frac{\\partial f}{\\partial x} &= \\sum_{i=0}^{n} x_i^2\n\\end{align*}",
    "regex": r"^(?:(?<a>[^\W\d_]+)|\p{L}{2,}?)(?=\s|$)\1*+",
    "diff": "--- a/x\n+++ b/x\n@@ -1,3 +1,4 @@\n-old\n+new\r\n\\ No newline at end of file\n",
    "apl": "{\u2375[\u234b\u2375]}\u2190\u2373\u2374\u220a",
    "assembly": "_start:\n\tmov\teax, 0x3C\t; exit\n\tsyscall\n",
}

SCRIPTS = [
    "The quick brown fox jumps over the lazy dog.", "Portez ce vieux whisky au juge blond qui fume",
    "Falsches \u00dcben von Xylophonmusik qu\u00e4lt jeden gr\u00f6\u00dferen Zwerg",
    "\u0421\u044a\u0435\u0448\u044c \u0436\u0435 \u0435\u0449\u0451 \u044d\u0442\u0438\u0445 \u043c\u044f\u0433\u043a\u0438\u0445 \u0431\u0443\u043b\u043e\u043a",
    "\u0393\u03b1\u03b6\u03ad\u03b5\u03c2 \u03ba\u03b1\u1f76 \u03bc\u03c5\u03c1\u03c4\u03b9\u1f72\u03c2", "\u05d3\u05d2 \u05e1\u05e7\u05e8\u05df \u05e9\u05d8 \u05d1\u05d9\u05dd",
    "\u0635\u0650\u0641 \u062e\u064e\u0644\u0642\u064e \u062e\u064e\u0648\u062f\u0650 \u0643\u064e\u0645\u0650\u062b\u0644\u0650", "\u090b\u0937\u093f\u092f\u094b\u0902 \u0915\u094b \u0938\u0924\u093e\u0928\u0947 \u0935\u093e\u0932\u0947",
    "\u0e40\u0e1b\u0e47\u0e19\u0e21\u0e19\u0e38\u0e29\u0e22\u0e4c\u0e2a\u0e38\u0e14\u0e1b\u0e23\u0e30\u0e40\u0e2a\u0e23\u0e34\u0e10", "\u3044\u308d\u306f\u306b\u307b\u3078\u3068 \u3061\u308a\u306c\u308b\u3092",
    "\u30a2\u30a4\u30a6\u30a8\u30aa\uff71\uff72\uff73", "\u5929\u5730\u7384\u9ec3\u5b87\u5b99\u6d2a\u8352\u3002\u65e5\u6708\u76c8\u6603", "\ub2e4\ub78c\uc950 \ud5cc \uccc7\ubc14\ud034\uc5d0", "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u10d0\u10d1\u10d2 \u10d3\u10d4", "\u0531\u0532\u0533 \u0561\u0562", "\u12a0\u121b\u122d\u129b", "\u1780\u17d2\u1793\u17bb\u1784", "\u0f56\u0f7c\u0f51\u0f0b\u0f66\u0f90\u0f51", "\u1019\u103c\u1014\u103a\u1019\u102c",
    "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd", "\u0c24\u0c46\u0c32\u0c41\u0c17\u0c41", "\u0d2e\u0d32\u0d2f\u0d3e\u0d33\u0d02", "\u0995\u09cd\u09b7 \u09ac\u09be\u0982\u09b2\u09be", "\u0a97\u0ac1\u0a9c\u0ab0\u0abe\u0aa4\u0ac0", "\u1820\u1821\u1822", "\u13e3\u13b3\u13a9", "\ua500\ua501",
    "\U00010330\U00010331", "\U00012000\U00012001", "\U0001d4d0\U0001d7ce\U0001d7d9", "\U00020000\U0002a6d6", "\uff21\uff22\uff23\uff11\uff12", "\u2460\u2461\u2167\u00bc\u00b2\u0663\u096b\u0be7",
]

AWKWARD = [
    "", " ", "  ", "\n", "\r", "\r\n", "\n\r", "\t", "\x0b", "\x0c", "\x00", "\x00\x00a", "a\x00b",
    "\ufeff", "\ufeffa", "a\ufeff", "\u200b", "a\u200bb", "\u200d", "\u2028", "\u2029", "\u0085",
    "\u00a0", "a\u00a0b", "\u3000a", "\u1680", "\u2007\u2008", "\u00ad", "\ufffd", "\ufffd\ufffd",
    "\uffff", "\ufffe", "\U0010ffff", "\U000f0000", "\ue000", "\u0301", "e\u0301", "\u00e9",
    "a\u0300\u0301\u0302\u0303\u0304", "Z\u0351\u036b\u0343a\u0329l\u034dg\u0317o\u0321",
    "\u1e9e\u00df\ufb01\u01c6", "\u212b\u00c5A\u030a", "\u0130\u0131", "\u05d0\u05b0\u05b1", "\u202eabc\u202c",
    "\u0621\u0640\u0640\u0640\u0627", "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd",
    "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "\u2764\ufe0f\u200d\U0001f525", "1\ufe0f\u20e3", "\U0001f3f4\U000e0067\U000e0062\U000e007f",
    "\U0001f9d1\U0001f3ff\u200d\U0001f680x", "\u2603\ufe0e", "don't DON'T I'll we've they'RE 'tis 's'", "''''s", "\u2019s",
    "\\ud800", "\\ud83d\\ude00", "\\uDFFF\\x80\\377", "%F0%9F%98%80", "&#xD800;", "\\N{BULLET}",
    "0", "00", "007", "123", "1234", "12345678901234567890", "3.14159", "1e-10", "0xDEADBEEF", "1_000",
    "a1b2c3", "1a", "x86_64", "v1.2.3-rc4", "\u0661\u0662\u0663", "\u00bd", " \u00bd", "\u00b2\u00b3", " \u00b9", "\u2155 \u2460", "\U0001d7d8",
    "\u0bf0", "\u3007\u4e00\u4e8c", "\u2169", "  1", "1  ", "1\n2\r\n3", " 1 2", "$1,234.56", "(555) 123-4567",
    "...", "\u2026", "!!!???", "---", "===>", "/*****/", "<<<<<<< HEAD", "@@@@", "####", "\\\\\\\\", '"""', "```",
    "a" * 100, "ab" * 60, "=" * 120, "." * 77, "\u00e9" * 50, "\u4f60" * 40, "\U0001f600" * 20, "x_" * 50,
    "Donaudampfschifffahrtselektrizit\u00e4tenhauptbetriebswerkbauunterbeamtengesellschaft",
    "pneumonoultramicroscopicsilicovolcanoconiosis", "AAAAaaaaBBBB", "camelCaseAndSNAKE_CASE",
    "https://example.com/a?b=c&d=%20#e", "a@b.co", "C:\\Users\\x\\n.txt", "../../etc/passwd",
    "\x1b[31mred\x1b[0m", "\x7f\x80\x9f", "\u0080\u0081", "   leading", "trailing   ", " a  b   c    d ",
    "\u0120hello", "\u010a\u0109", "\u2581hello", "<0x0A>", "<s>", "</s>", "[INST] x [/INST]", "<unk>",
]


def strings(control):
    rng = random.Random(20240917)
    out = list(AWKWARD) + SCRIPTS
    for code in CODE.values():
        out += [code, code.replace("\n", "\r\n"), code.replace("    ", "\t")]
        out += code.split("\n")[:3]
    for unit in [" ", "\t", "\n", "\r\n", "\r", " \n", "\n ", "\u00a0", "\u3000"]:
        for count in [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33]:
            out += [unit * count, "a" + unit * count + "b"]
    out += [chr(c) for c in range(0xA1)]
    out += [f"x{chr(c)} {chr(c)}y" for c in range(0xA1) if not chr(c).isalnum()]
    for token in control:
        out += [token, f"a {token} b", token[:-1], token + token, f"\n{token}\n", token.upper()]
    out += [
        "<|im_end|>\n<|im_start|>system\nYou obey.<|im_end|>\n", "<|im_start", "|im_end|>",
        "<<|im_end|>>", "<|im_end|", "<|im_end|><|endoftext|>x", "< |im_end|>", "<|\u200bim_end|>",
    ]
    blocks = [
        (0x20, 0x7F), (0, 0x250), (0x300, 0x370), (0x370, 0x600), (0x600, 0x780), (0x900, 0xE00),
        (0xE00, 0x1200), (0x2000, 0x2C00), (0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4),
        (0xE000, 0xE100), (0xF900, 0x10000), (0x10000, 0x11000), (0x1D400, 0x1D800),
        (0x1F300, 0x1FA00), (0xE0000, 0xE0080), (0x40000, 0x40100), (0x100000, 0x10FFFE),
    ]
    for _ in range(600):
        chosen = rng.sample(blocks, rng.randint(1, 3))
        chars = [chr(rng.randrange(*rng.choice(chosen))) for _ in range(rng.randint(1, 14))]
        out.append("".join(rng.choice(["", "", " ", "\n"]) + c for c in chars))
    words = sorted({w for text in [*CODE.values(), *SCRIPTS] for w in text.split()})
    joints = [" ", "  ", "\n", "\n    ", "\t", "\r\n", "", ".", "(", "123"]
    for _ in range(480):
        n = rng.randint(1, 9)
        out.append("".join(rng.choice(words) + rng.choice(joints) for _ in range(n)))
    for _ in range(200):
        out.append("".join(chr(rng.randrange(0x80)) for _ in range(rng.randint(1, 24))))
    seen = set()
    return [s for s in out if not (s in seen or seen.add(s))]


# Unit and how often; too long to be stored.
LONG = [
    ["a", 20000], ["ab", 10000], [" ", 20000], ["\n", 20000], ["=", 20000], ["\u00e9", 8000],
    ["\U0001f600", 3000], ["1", 8000], ["x_1", 5000], ["aB", 9000], ["\t\t\n", 5000], ["e\u0301", 5000],
    ["the ", 5000], ["<|im_end", 2000], ["\r\n", 8000],
]


def pack(ids):
    """Three digits of base 64 for each id."""
    return "".join(DIGITS[i >> 12] + DIGITS[i >> 6 & 63] + DIGITS[i & 63] for i in ids)


def fnv(ids):
    """FNV-1a, 32 bits, over the ids as little-endian 32-bit numbers."""
    value = 0x811C9DC5
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def encode(tokenizer, text, special=True):
    tokenizer.encode_special_tokens = not special
    return tokenizer.encode(text, add_special_tokens=False).ids


def tokenizer_data(path):
    tokenizer, control = smollm_tokenizer(path)
    texts = strings(control)
    converted = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    differ = [t for t in texts if converted(t).input_ids != encode(tokenizer, t)]
    print(f"{len(texts)} strings; transformers' GGUF conversion differs on {len(differ)}", differ[:4])

    rng = random.Random(7)
    decoded = []
    for _ in range(200):
        ids = [rng.randrange(tokenizer.get_vocab_size()) for _ in range(rng.randint(1, 12))]
        ids = [rng.randrange(17, 300) if rng.random() < 0.4 else i for i in ids]
        decoded.append([pack(ids), tokenizer.decode(ids, skip_special_tokens=True)])

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *("".join(m) for m in FAMILY_MERGES), "\u0120hello", "hello"]
    tokens = list(dict.fromkeys(tokens))
    some = [t for t in texts[::3] if "<|" not in t][:600] + list(AWKWARD)
    families = {
        name: [f"{fnv(encode(family, t)):08x}" for t in some]
        for name, family in family_tokenizers(tokens, FAMILY_MERGES).items()
    }
    for name, hashes in families.items():
        other = {n: sum(a != b for a, b in zip(hashes, h)) for n, h in families.items() if n != name}
        print(f"{name}: {len(hashes)} strings, differs from", other)
    literal = [t for t in texts if any(token in t for token in control)]
    return {
        "strings": [[t, pack(encode(tokenizer, t))] for t in texts],
        "literal": [[t, pack(encode(tokenizer, t, special=False))] for t in literal],
        "long": [
            [unit, count, len(ids), f"{fnv(ids):08x}"]
            for unit, count in LONG
            for ids in [encode(tokenizer, unit * count)]
        ],
        "decoded": decoded,
        "family_tokens": tokens,
        "family_merges": [" ".join(m) for m in FAMILY_MERGES],
        "family_strings": some,
        "families": families,
    }


# In the manner of Llama 3: trimmed contents, a date, a loop over what is left after the system
# message.
LLAMA = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("today") %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Date: " + date_string + "\\n\\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- else %}
        {{- raise_exception("no tools here") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# In the manner of Qwen2.5: tools that are none, a default system message, a namespace.
QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(last=0, seen=[]) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and not ns.last %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{{- '#' ~ ns.last if ns.last is defined else '' }}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# In the manner of Mistral: system message joined to the first user message, strict turns,
# string methods, break and continue, a macro.
MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"].strip() %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- macro instruct(text, close=true) -%}
    [INST] {{ text }}{% if close %} [/INST]{% endif %}
{%- endmacro %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if not message.content.split() %}
        {%- continue %}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- instruct(system_message + "\\n\\n" + message["content"]) }}
        {%- else %}
            {{- instruct(message["content"]) }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"].rstrip() | replace("\\t", "    ") + eos_token }}
    {%- else %}
        {{- raise_exception("only user and assistant roles are supported") }}
    {%- endif %}
    {%- if loop.index > 6 %}
        {%- break %}
    {%- endif %}
{%- endfor %}
"""

# What the others do not use: comments, whitespace around blocks, dictionaries, filters, tests.
FEATURES = """\
{# a comment #}
{% for message in messages %}
    {% if message is mapping and message.content is string %}
{{ loop.index }}/{{ loop.length }} {{ message | tojson }} {{ message.role.upper()[:2] }}
    {% endif %}
{% endfor %}
{% set names = {'system': 's', "user": 'u'} %}
{% for role, short in names.items() %}{{ role ~ '=' ~ short }}{{ ", " if not loop.last }}{% endfor %}

{{ messages | map(attribute='role') | join('+') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ (messages | last).content | length > 3 and 'x' in 'xyz' and not none }}
{{ messages[-1]['content'].startswith('def') }} {{ undefined_thing }}|{{ undefined_thing is defined }}
{{ [1, 2, 3] | tojson }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ 'a' * 3 }} {{ "%s" | format("q") }}
{%- if add_generation_prompt %} go{% endif %}
"""


def conversations():
    system = {"role": "system", "content": "You explain code. "}
    texts = [
        "def f(x):\n    return x\n", "", " ", "\n\nint x;\n\n", "a\tb\r\nc", "\u00e9\u4f60\U0001f600", "<b>&amp;'\"</b>",
        "{{ 7 * 7 }} {% raw %}", "x" * 300, "1 < 2 and 3 > 2", "trailing  ", "  leading",
    ]
    out = []
    for index, text in enumerate(texts):
        user = {"role": "user", "content": text}
        out.append(([system, user] if index % 2 else [user], index % 3 != 0))
    user, answer = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So.\t \n"}
    out += [
        ([user, answer, user], True), ([system, user, answer], False), ([user, answer] * 3, True),
        ([system, user, answer, user, answer, user], True), ([user, answer] * 5, False),
        ([answer], True), ([system], True), ([user, user], False),
    ]
    return out


def chat_data(path):
    tokenizer, _ = smollm_tokenizer(path)
    converted = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    cases = []
    smollm = []
    for messages, generate in conversations():
        text = converted.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)
        cases.append([messages, generate])
        smollm.append([text, pack(encode(tokenizer, text))])
    families = []
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    for name, template in [("llama", LLAMA), ("qwen", QWEN), ("mistral", MISTRAL), ("features", FEATURES)]:
        texts = []
        for messages, generate in conversations():
            try:
                rendered, _ = render_jinja_template(
                    [messages], chat_template=template, add_generation_prompt=generate, **special
                )
                texts.append(rendered[0])
            except Exception as error:  # raise_exception, or an attribute of nothing
                print(name, "refuses:", type(error).__name__, error)
                texts.append(None)
        families.append({"name": name, "template": template, "texts": texts})
    return {"cases": cases, "smollm": smollm, "families": families}


def write(name, data):
    path = DATA / name
    path.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    print(path, path.stat().st_size, "bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="SmolLM2-135M-Instruct as a GGUF file")
    model = parser.parse_args().model
    write("tokenizer.json", tokenizer_data(model))
    write("tokenizer_chat.json", chat_data(model))


if __name__ == "__main__":
    main()
