//! An outline says what a snippet's syntax tree shows.

use code_explainer_code::prompt::language::Language;
use code_explainer_code::prompt::outline::outline;

fn outlined(language: Language, code: &str) -> String {
    outline(language, code).expect("an outline").to_string()
}

#[test]
fn python() {
    insta::assert_snapshot!(outlined(Language::Python, r#"
import os, numpy as np
from collections import deque, defaultdict
from . import sibling

class Base: ...

class Stack(Base):
    limit: int = 10

    def __init__(self, items=None):
        self.items = items or []

    @property
    def size(self) -> int:
        return len(self.items)

    def drain(self):
        while self.items:
            yield self.items.pop()

def walk(tree, depth=0):
    for child in tree:
        for _ in child:
            while True:
                walk(child, depth + 1)

async def load(path: str) -> bytes:
    try:
        return await read(path)
    except (OSError, ValueError) as e:
        raise RuntimeError("no") from e

square = lambda x: x * x
if __name__ == "__main__":
    print(walk([]))
"#), @r"
    imports: os, numpy, collections.deque, collections.defaultdict, .sibling
    class Base
    class Stack(Base): fields limit
      method __init__(items=None)
      method size() -> int
      method drain(): generator; while loop
    function walk(tree, depth=0): recursive; nested loops for > for > while
    function load(path: str) -> bytes: async; raises RuntimeError; catches OSError, ValueError
    function square(x)
    top level: calls print, walk
    ");
}

#[test]
fn rust() {
    insta::assert_snapshot!(outlined(Language::Rust, r#"
use std::{fmt, io};

pub trait Area { fn area(&self) -> f64; }
#[derive(Debug)]
pub struct Rect { w: f64, h: f64 }
enum Kind { Small, Large { by: u32 } }

impl Area for Rect {
    fn area(&self) -> f64 { self.w * self.h }
}

mod inner {
    pub async fn get(url: &str) -> Option<String> { None }
}

fn gcd(a: u64, b: u64) -> u64 { if b == 0 { a } else { gcd(b, a % b) } }

fn sum(rows: &[Vec<u32>]) -> u32 {
    let mut total = 0;
    for row in rows { for x in row { total += x; } }
    let twice = |x: u32| x * 2;
    if total == 0 { panic!("empty") }
    loop { break twice(total) }
}
"#), @r"
    imports: std::{fmt, io}
    trait Area
      method area() -> f64
    struct Rect: fields w, h
    enum Kind: variants Small, Large
    impl Area for Rect
      method area() -> f64
    module inner
      function get(url: &str) -> Option<String>: async
    function gcd(a: u64, b: u64) -> u64: recursive
    function sum(rows: &[Vec<u32>]) -> u32: nested loops for > for; endless loop; may panic; calls twice
      function twice(x: u32)
    ");
}

#[test]
fn javascript() {
    insta::assert_snapshot!(outlined(Language::JavaScript, r#"
import fs from "node:fs";
const path = require("path");

class Queue extends Base {
  #items = [];
  add(item) { this.#items.push(item); }
  *[Symbol.iterator]() { yield* this.#items; }
  drain = async () => { while (this.#items.length) await this.#items.shift(); };
}

const factorial = (n) => (n <= 1 ? 1 : n * factorial(n - 1));
function isEven(n) { return n === 0 || isOdd(n - 1); }
function isOdd(n) { return n !== 0 && isEven(n - 1); }

export default function parse(text) {
  try {
    return JSON.parse(text);
  } catch (e) {
    throw new SyntaxError("bad");
  }
}
for (const x of [1, 2]) console.log(factorial(x));
"#), @r"
    imports: node:fs, path
    class Queue extends Base: fields #items
      method add(item)
      method [Symbol.iterator](): generator
      method drain(): async; while loop
    function factorial(n): recursive
    function isEven(n): mutually recursive with isOdd
    function isOdd(n): mutually recursive with isEven
    function parse(text): throws SyntaxError; catches errors
    top level: for loop; calls console.log, factorial
    ");
}

#[test]
fn typescript_and_tsx() {
    insta::assert_snapshot!(outlined(Language::TypeScript, r#"
import type { Db } from "./db";
interface User extends Named { id: number; greet(other: User): string }
type Id = string | number;
enum Color { Red, Green = 2 }
abstract class Repo<T> implements Source<T> {
  abstract find(id: Id): Promise<T>;
  async all(): Promise<T[]> { return []; }
}
namespace Util { export function twice(n: number): number { return n * 2; } }
const View = ({ name }: { name: string }) => <div>{name}</div>;
"#), @r"
    imports: ./db
    interface User extends Named: fields id
      method greet(other: User) -> string
    type Id
    enum Color: variants Red, Green
    abstract class Repo implements Source<T>
      method find(id: Id) -> Promise<T>
      method all() -> Promise<T[]>: async
    namespace Util
      function twice(n: number) -> number
    function View({ name }: { name: string })
    ");
}

#[test]
fn go() {
    insta::assert_snapshot!(outlined(Language::Go, r#"
package main

import (
	"fmt"
	log "github.com/x/log"
)

type Node struct { Left, Right *Node; Value int }
type Walker interface { Walk(n *Node) error }

func (n *Node) Sum() int { return n.Value }

func run(jobs <-chan int) (total int, err error) {
	defer fmt.Println("done")
	for j := range jobs { go func() { log.Print(j) }() }
	if total < 0 { panic("negative") }
	return
}

func ackermann(m, n int) int {
	if m == 0 { return n + 1 }
	return ackermann(m-1, ackermann(m, n-1))
}
"#), @r"
    imports: fmt, github.com/x/log
    struct Node: fields Left, Right, Value
    interface Walker
      method Walk(n *Node) -> error
    method Node.Sum() -> int
    function run(jobs <-chan int) -> (total int, err error): defers; starts goroutines; for loop; may panic
    function ackermann(m, n int) -> int: recursive
    ");
}

#[test]
fn java() {
    insta::assert_snapshot!(outlined(Language::Java, r#"
import java.util.List;
import static java.lang.Math.max;

public class Tree<T> extends Base implements Iterable<T> {
    private Node root; int size = 0, depth;
    enum Side { LEFT, RIGHT }
    record Pair(int a, int b) {}

    Tree() { super(); }

    int height(Node n) throws IllegalStateException {
        if (n == null) throw new IllegalStateException("none");
        return 1 + max(height(n.left), height(n.right));
    }

    void print(List<String> rows) {
        for (String row : rows) do { System.out.println(row); } while (false);
        try { flush(); } catch (IOException | RuntimeException e) { }
    }
}
"#), @r"
    imports: java.util.List, java.lang.Math.max
    class Tree extends Base implements Iterable<T>: fields root, size, depth
      enum Side: variants LEFT, RIGHT
      record Pair(int a, int b)
      method Tree()
      method height(Node n) -> int: recursive; throws IllegalStateException
      method print(List<String> rows): nested loops for > do-while; catches IOException | RuntimeException
    ");
}

#[test]
fn c() {
    insta::assert_snapshot!(outlined(Language::C, r#"
#include <stdio.h>
#include "list.h"
#define MIN(a, b) ((a) < (b) ? (a) : (b))

typedef struct { int x, *y; int (*compare)(const void *, const void *); } item_t;
enum state { ON, OFF };
struct item *find(struct item *head, int key);
static int count;

unsigned long *table(void) { return 0; }
int fact(int n) { return n < 2 ? 1 : n * fact(n - 1); }
int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        while (*argv[i]) { fact(i); if (i > 9) exit(1); }
    goto end;
end:
    return MIN(0, 1);
}
"#), @r"
    imports: stdio.h, list.h
    macro MIN(a, b)
    struct item_t: fields x, y, compare
    enum state: variants ON, OFF
    function find(struct item *head, int key) -> struct item*
    function table() -> unsigned long*
    function fact(int n) -> int: recursive
    function main(int argc, char **argv) -> int: goto; nested loops for > while; may exit; calls fact, MIN
    ");
}

#[test]
fn cpp() {
    insta::assert_snapshot!(outlined(Language::Cpp, r#"
#include <vector>

namespace geo {
template <typename T>
class Grid : public Base<T>, private Noise {
public:
    explicit Grid(int n) : n_(n) {}
    virtual ~Grid();
    T at(int x, int y) const { if (x < 0) throw std::out_of_range("x"); return cells_[x]; }
    bool operator==(const Grid& other) const;
    int depth(int k) { return k ? depth(k - 1) : 0; }
private:
    std::vector<T> cells_;
    int n_ = 0;
};
}

std::string& Grid::name() { try { load(); } catch (const std::exception& e) { } catch (...) { } }
auto twice = [](int x) { return 2 * x; };
int main() { for (auto& x : xs) for (int i = 0; i < 3; ++i) twice(x); }
"#), @r"
    imports: vector
    namespace geo
      class Grid(public Base<T>, private Noise): fields cells_, n_
        method Grid(int n)
        method ~Grid()
        method at(int x, int y) -> T: throws std::out_of_range
        method operator==(const Grid& other) -> bool
        method depth(int k) -> int: recursive
    method Grid::name() -> std::string&: catches std::exception, anything
    function twice(int x)
    function main() -> int: 2 nested for loops; calls twice
    ");
}

#[test]
fn names_every_top_level_function_of_every_snippet() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/snippets");
    let mut functions = 0;
    for (folder, language, keyword) in [
        ("python", Language::Python, "def "),
        ("rust", Language::Rust, "fn "),
        ("go", Language::Go, "func "),
        ("javascript", Language::JavaScript, "function "),
    ] {
        for file in std::fs::read_dir(root.join(folder)).expect("folder of snippets") {
            let code = std::fs::read_to_string(file.expect("entry").path()).expect("snippet");
            let text = outlined(language, &code);
            for line in code.lines() {
                let line = ["pub ", "async ", "export ", "default "]
                    .iter()
                    .fold(line, |line, word| line.strip_prefix(word).unwrap_or(line));
                let Some(rest) = line.strip_prefix(keyword) else {
                    continue;
                };
                let name: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                functions += usize::from(!name.is_empty());
                assert!(
                    text.contains(&name),
                    "{name} is not in the outline:\n{text}\nof\n{code}"
                );
            }
        }
    }
    assert!(functions > 25, "only {functions} functions in the snippets");
}
