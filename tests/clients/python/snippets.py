"""Sixteen snippets in several languages: by name, the language (empty: the server detects it) and the code."""

SNIPPETS = {
    "factorial.py": ("python", "def factorial(n):\n    return 1 if n <= 1 else n * factorial(n - 1)\n"),
    "lru_cache.py": (
        "python",
        "from collections import OrderedDict\n\n\nclass LRUCache:\n    def __init__(self, size):\n"
        "        self.size, self.items = size, OrderedDict()\n\n    def get(self, key):\n"
        "        self.items.move_to_end(key)\n        return self.items[key]\n\n"
        "    def put(self, key, value):\n        self.items[key] = value\n        self.items.move_to_end(key)\n"
        "        if len(self.items) > self.size:\n            self.items.popitem(last=False)\n",
    ),
    "primes.py": (
        "",
        "def primes(limit):\n    sieve = [True] * limit\n    for n in range(2, limit):\n        if sieve[n]:\n"
        "            yield n\n            sieve[n * n :: n] = [False] * len(sieve[n * n :: n])\n",
    ),
    "retry.py": (
        "python",
        "import time\n\n\ndef retry(call, tries=3):\n    for n in range(tries):\n        try:\n"
        "            return call()\n        except OSError:\n            if n == tries - 1:\n                raise\n"
        "            time.sleep(2**n)\n",
    ),
    "gcd.rs": (
        "rust",
        "fn gcd(a: u64, b: u64) -> u64 {\n    if b == 0 { a } else { gcd(b, a % b) }\n}\n",
    ),
    "words.rs": (
        "rust",
        "use std::collections::HashMap;\n\nfn count(text: &str) -> HashMap<&str, usize> {\n"
        "    let mut counts = HashMap::new();\n    for word in text.split_whitespace() {\n"
        "        *counts.entry(word).or_insert(0) += 1;\n    }\n    counts\n}\n",
    ),
    "stack.rs": (
        "",
        "pub struct Stack<T> {\n    items: Vec<T>,\n}\n\nimpl<T> Stack<T> {\n"
        "    pub fn push(&mut self, item: T) {\n        self.items.push(item);\n    }\n\n"
        "    pub fn pop(&mut self) -> Option<T> {\n        self.items.pop()\n    }\n}\n",
    ),
    "debounce.js": (
        "javascript",
        "function debounce(fn, ms) {\n  let timer;\n  return (...args) => {\n    clearTimeout(timer);\n"
        "    timer = setTimeout(() => fn(...args), ms);\n  };\n}\n",
    ),
    "group.js": (
        "javascript",
        "const groupBy = (items, key) =>\n  items.reduce((groups, item) => {\n"
        "    (groups[item[key]] ??= []).push(item);\n    return groups;\n  }, {});\n",
    ),
    "result.ts": (
        "typescript",
        "type Result<T> = { ok: true; value: T } | { ok: false; error: string };\n\n"
        "function parse(text: string): Result<number> {\n  const value = Number(text);\n"
        "  return Number.isNaN(value) ? { ok: false, error: text } : { ok: true, value };\n}\n",
    ),
    "worker.go": (
        "go",
        "package main\n\nfunc worker(jobs <-chan int, results chan<- int) {\n\tfor job := range jobs {\n"
        "\t\tresults <- job * 2\n\t}\n}\n",
    ),
    "reverse.go": (
        "go",
        "package list\n\ntype Node struct {\n\tValue int\n\tNext  *Node\n}\n\nfunc Reverse(head *Node) *Node {\n"
        "\tvar prev *Node\n\tfor head != nil {\n\t\thead.Next, prev, head = prev, head, head.Next\n\t}\n"
        "\treturn prev\n}\n",
    ),
    "Account.java": (
        "java",
        "class Account {\n    private long cents;\n\n    synchronized void withdraw(long amount) {\n"
        "        if (amount > cents) throw new IllegalStateException(\"not enough\");\n"
        "        cents -= amount;\n    }\n}\n",
    ),
    "search.c": (
        "c",
        "int search(const int *a, int n, int x) {\n    int low = 0, high = n - 1;\n    while (low <= high) {\n"
        "        int mid = low + (high - low) / 2;\n        if (a[mid] == x) return mid;\n"
        "        if (a[mid] < x) low = mid + 1; else high = mid - 1;\n    }\n    return -1;\n}\n",
    ),
    "copy.c": (
        "",
        "#include <stdio.h>\n\nint main(void) {\n    int c;\n    while ((c = getchar()) != EOF)\n"
        "        putchar(c);\n    return 0;\n}\n",
    ),
    "matrix.cpp": (
        "c++",
        "#include <array>\n\ntemplate <std::size_t N>\nusing Matrix = std::array<std::array<double, N>, N>;\n\n"
        "template <std::size_t N>\ndouble trace(const Matrix<N>& m) {\n    double sum = 0;\n"
        "    for (std::size_t i = 0; i < N; ++i) sum += m[i][i];\n    return sum;\n}\n",
    ),
}
