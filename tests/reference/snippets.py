"""Small pieces of code in several languages: what the parity prompts ask the model to explain.

Each is (name, language, code). Written for this project, so that the reference data has no other source.
"""

SNIPPETS = [
    ("one_line", "python", "x = 1"),
    ("factorial", "python", "def f(n):\n    return 1 if n < 2 else n * f(n - 1)"),
    (
        "word_count",
        "python",
        "from collections import Counter\n\n"
        "def word_count(path):\n"
        "    with open(path, encoding='utf-8') as file:\n"
        "        words = file.read().lower().split()\n"
        "    return Counter(words).most_common(10)\n",
    ),
    (
        "stack",
        "python",
        "class Stack:\n"
        "    def __init__(self):\n        self.items = []\n\n"
        "    def push(self, item):\n        self.items.append(item)\n\n"
        "    def pop(self):\n"
        "        if not self.items:\n"
        "            raise IndexError('pop from an empty stack')\n"
        "        return self.items.pop()\n",
    ),
    (
        "retry",
        "python",
        "import time\n\n"
        "def retry(times, delay):\n"
        "    def wrap(call):\n"
        "        def inner(*args, **kwargs):\n"
        "            for attempt in range(times):\n"
        "                try:\n"
        "                    return call(*args, **kwargs)\n"
        "                except OSError:\n"
        "                    if attempt + 1 == times:\n"
        "                        raise\n"
        "                    time.sleep(delay * 2 ** attempt)\n"
        "        return inner\n"
        "    return wrap\n",
    ),
    ("square", "rust", "fn square(x: i32) -> i32 { x * x }"),
    (
        "largest",
        "rust",
        "fn largest(values: &[f64]) -> Option<f64> {\n"
        "    values.iter().copied().reduce(f64::max)\n}\n",
    ),
    (
        "matrix",
        "rust",
        "pub struct Matrix {\n    rows: usize,\n    cols: usize,\n    data: Vec<f32>,\n}\n\n"
        "impl Matrix {\n"
        "    pub fn new(rows: usize, cols: usize) -> Self {\n"
        "        Self { rows, cols, data: vec![0.0; rows * cols] }\n    }\n\n"
        "    pub fn mul(&self, other: &Matrix) -> Matrix {\n"
        "        assert_eq!(self.cols, other.rows);\n"
        "        let mut out = Matrix::new(self.rows, other.cols);\n"
        "        for i in 0..self.rows {\n"
        "            for j in 0..other.cols {\n"
        "                for k in 0..self.cols {\n"
        "                    out.data[i * other.cols + j] +=\n"
        "                        self.data[i * self.cols + k] * other.data[k * other.cols + j];\n"
        "                }\n            }\n        }\n        out\n    }\n}\n",
    ),
    (
        "parse_pairs",
        "rust",
        "use std::collections::HashMap;\n\n"
        "fn parse_pairs(text: &str) -> Result<HashMap<&str, i64>, std::num::ParseIntError> {\n"
        "    text.lines()\n"
        "        .filter_map(|line| line.split_once('='))\n"
        "        .map(|(key, value)| Ok((key.trim(), value.trim().parse()?)))\n"
        "        .collect()\n}\n",
    ),
    ("arrow", "javascript", "const add = (a, b) => a + b;"),
    (
        "debounce",
        "javascript",
        "function debounce(callback, wait) {\n"
        "  let timer = null;\n"
        "  return function (...args) {\n"
        "    clearTimeout(timer);\n"
        "    timer = setTimeout(() => callback.apply(this, args), wait);\n"
        "  };\n}\n",
    ),
    (
        "fetch_all",
        "javascript",
        "async function fetchAll(urls) {\n"
        "  const answers = await Promise.allSettled(urls.map((url) => fetch(url)));\n"
        "  return answers\n"
        "    .filter((answer) => answer.status === 'fulfilled')\n"
        "    .map((answer) => answer.value);\n}\n",
    ),
    (
        "event_emitter",
        "typescript",
        "type Handler<T> = (event: T) => void;\n\n"
        "export class Emitter<T> {\n"
        "  private handlers = new Set<Handler<T>>();\n\n"
        "  on(handler: Handler<T>): () => void {\n"
        "    this.handlers.add(handler);\n"
        "    return () => this.handlers.delete(handler);\n  }\n\n"
        "  emit(event: T): void {\n"
        "    for (const handler of this.handlers) handler(event);\n  }\n}\n",
    ),
    (
        "group_by",
        "typescript",
        "export function groupBy<T, K extends string>(items: T[], key: (item: T) => K) {\n"
        "  return items.reduce((groups, item) => {\n"
        "    (groups[key(item)] ??= []).push(item);\n"
        "    return groups;\n"
        "  }, {} as Record<K, T[]>);\n}\n",
    ),
    (
        "worker_pool",
        "go",
        "package pool\n\nimport \"sync\"\n\n"
        "func Run(jobs <-chan int, workers int, work func(int)) {\n"
        "\tvar group sync.WaitGroup\n"
        "\tfor i := 0; i < workers; i++ {\n"
        "\t\tgroup.Add(1)\n"
        "\t\tgo func() {\n"
        "\t\t\tdefer group.Done()\n"
        "\t\t\tfor job := range jobs {\n"
        "\t\t\t\twork(job)\n"
        "\t\t\t}\n"
        "\t\t}()\n"
        "\t}\n"
        "\tgroup.Wait()\n}\n",
    ),
    (
        "read_lines",
        "go",
        "func readLines(path string) ([]string, error) {\n"
        "\tfile, err := os.Open(path)\n"
        "\tif err != nil {\n\t\treturn nil, err\n\t}\n"
        "\tdefer file.Close()\n\n"
        "\tvar lines []string\n"
        "\tscanner := bufio.NewScanner(file)\n"
        "\tfor scanner.Scan() {\n"
        "\t\tlines = append(lines, scanner.Text())\n"
        "\t}\n"
        "\treturn lines, scanner.Err()\n}\n",
    ),
    (
        "binary_search",
        "java",
        "static int search(int[] sorted, int wanted) {\n"
        "    int low = 0, high = sorted.length - 1;\n"
        "    while (low <= high) {\n"
        "        int middle = (low + high) >>> 1;\n"
        "        if (sorted[middle] == wanted) return middle;\n"
        "        if (sorted[middle] < wanted) low = middle + 1;\n"
        "        else high = middle - 1;\n"
        "    }\n"
        "    return -1;\n}\n",
    ),
    (
        "account",
        "java",
        "public final class Account {\n"
        "    private long cents;\n\n"
        "    public synchronized void withdraw(long amount) {\n"
        "        if (amount <= 0) throw new IllegalArgumentException(\"amount must be positive\");\n"
        "        if (amount > cents) throw new IllegalStateException(\"not enough money\");\n"
        "        cents -= amount;\n"
        "    }\n\n"
        "    public synchronized long balance() {\n        return cents;\n    }\n}\n",
    ),
    ("swap", "c", "void swap(int *a, int *b) { int t = *a; *a = *b; *b = t; }"),
    (
        "list_reverse",
        "c",
        "struct node {\n    int value;\n    struct node *next;\n};\n\n"
        "struct node *reverse(struct node *head) {\n"
        "    struct node *previous = NULL;\n"
        "    while (head) {\n"
        "        struct node *next = head->next;\n"
        "        head->next = previous;\n"
        "        previous = head;\n"
        "        head = next;\n"
        "    }\n"
        "    return previous;\n}\n",
    ),
    (
        "string_copy",
        "c",
        "size_t copy(char *to, const char *from, size_t size) {\n"
        "    size_t n = 0;\n"
        "    while (n + 1 < size && from[n] != '\\0') {\n"
        "        to[n] = from[n];\n"
        "        n++;\n"
        "    }\n"
        "    if (size > 0) to[n] = '\\0';\n"
        "    return n;\n}\n",
    ),
    (
        "buffer",
        "cpp",
        "template <typename T, std::size_t N>\n"
        "class RingBuffer {\n"
        "public:\n"
        "    bool push(T value) {\n"
        "        if (size_ == N) return false;\n"
        "        data_[(start_ + size_++) % N] = std::move(value);\n"
        "        return true;\n"
        "    }\n\n"
        "    std::optional<T> pop() {\n"
        "        if (size_ == 0) return std::nullopt;\n"
        "        T value = std::move(data_[start_]);\n"
        "        start_ = (start_ + 1) % N;\n"
        "        --size_;\n"
        "        return value;\n"
        "    }\n\n"
        "private:\n"
        "    std::array<T, N> data_{};\n"
        "    std::size_t start_ = 0, size_ = 0;\n};\n",
    ),
    (
        "primes",
        "cpp",
        "std::vector<int> primes(int limit) {\n"
        "    std::vector<bool> composite(limit + 1, false);\n"
        "    std::vector<int> found;\n"
        "    for (int i = 2; i <= limit; ++i) {\n"
        "        if (composite[i]) continue;\n"
        "        found.push_back(i);\n"
        "        for (long j = 1L * i * i; j <= limit; j += i) composite[j] = true;\n"
        "    }\n"
        "    return found;\n}\n",
    ),
    (
        "top_customers",
        "sql",
        "SELECT customers.name, SUM(orders.total) AS spent\n"
        "FROM customers JOIN orders ON orders.customer_id = customers.id\n"
        "WHERE orders.placed_at >= DATE '2024-01-01'\n"
        "GROUP BY customers.name\nHAVING SUM(orders.total) > 1000\n"
        "ORDER BY spent DESC\nLIMIT 10;\n",
    ),
    (
        "backup",
        "bash",
        "#!/bin/sh\nset -eu\n"
        "for file in \"$@\"; do\n"
        "  [ -f \"$file\" ] || continue\n"
        "  cp -p \"$file\" \"$file.$(date +%Y%m%d).bak\"\n"
        "done\n",
    ),
    (
        "quicksort",
        "haskell",
        "quicksort :: Ord a => [a] -> [a]\n"
        "quicksort [] = []\n"
        "quicksort (p:xs) = quicksort [x | x <- xs, x < p] ++ [p] ++ quicksort [x | x <- xs, x >= p]\n",
    ),
    (
        "fizzbuzz",
        "ruby",
        "(1..100).each do |i|\n"
        "  line = ''\n"
        "  line += 'Fizz' if i % 3 == 0\n"
        "  line += 'Buzz' if i % 5 == 0\n"
        "  puts line.empty? ? i : line\nend\n",
    ),
    (
        "lru_cache",
        "python",
        "from collections import OrderedDict\n\n"
        "class LRUCache:\n"
        "    def __init__(self, capacity):\n"
        "        self.capacity = capacity\n"
        "        self.entries = OrderedDict()\n\n"
        "    def get(self, key):\n"
        "        if key not in self.entries:\n"
        "            return None\n"
        "        self.entries.move_to_end(key)\n"
        "        return self.entries[key]\n\n"
        "    def put(self, key, value):\n"
        "        self.entries[key] = value\n"
        "        self.entries.move_to_end(key)\n"
        "        if len(self.entries) > self.capacity:\n"
        "            self.entries.popitem(last=False)\n",
    ),
    (
        "umlauts",
        "python",
        "größe = {'klein': 'é', 'groß': '漢字 🎉'}\nfor schlüssel, wert in größe.items():\n    print(f'{schlüssel}: {wert!r}')\n",
    ),
    (
        "gcd",
        "kotlin",
        "tailrec fun gcd(a: Long, b: Long): Long = if (b == 0L) a else gcd(b, a % b)",
    ),
]
