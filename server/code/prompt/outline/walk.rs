//! The one pass over a syntax tree that fills an [`Outline`].
//!
//! A [`TreeCursor`](tree_sitter::TreeCursor) goes through the tree in order, so that depth costs no stack; what is open
//! around the current node is a stack of [`Open`] nodes.

use code_explainer_host::cpu::Limit;

use super::grammar::{Grammar, Role};
use super::{Facts, Item, Outline};
use super::{names, references};
use crate::prompt::language::Language;
use tree_sitter::{Node, Tree};

/// Entries of one list of an item or of the imports.
pub(super) const MAX_LIST: usize = 64;
/// Loops around a loop that are named; their number is exact beyond it.
const MAX_NAMED_LOOPS: usize = 6;

/// Nodes between two looks at the time.
const NODES_PER_LOOK: usize = 256;

/// A node that the cursor is inside of.
pub(super) struct Open {
    /// Depth of the node in the tree.
    pub(super) level: usize,
    pub(super) kind: OpenKind,
}

pub(super) enum OpenKind {
    /// An item, with the loops that were open around it.
    Item { loops_around: Vec<&'static str> },
    /// A closure that is no item.
    Closure,
    /// A loop; `leaf` until another one is found inside.
    Loop { leaf: bool },
}

pub(super) struct Walk<'a> {
    pub(super) language: Language,
    pub(super) grammar: &'static Grammar,
    pub(super) roles: &'static [Role],
    pub(super) code: &'a str,
    pub(super) outline: Outline,
    /// Open nodes, outermost first.
    pub(super) open: Vec<Open>,
    /// Indices of the items among them.
    pub(super) items_around: Vec<usize>,
    /// Open loops of the current function, outermost first.
    pub(super) loops: Vec<&'static str>,
    /// Calls outside of functions, with their places: of a chain of calls, the last is met first.
    pub(super) top_calls: Vec<(usize, String)>,
    /// The name that a binder gave to a node further inside.
    pub(super) bound: Option<(usize, String)>,
}

/// Outlines a tree; `None` if `limit` is over before its end. `roles` are those of the grammar that it was parsed with.
pub(super) fn walk(
    roles: &'static [Role],
    language: Language,
    tree: &Tree,
    code: &str,
    limit: &Limit,
) -> Option<Outline> {
    let mut walk = Walk {
        language,
        grammar: Grammar::of(language),
        roles,
        code,
        outline: Outline {
            language,
            imports: Vec::new(),
            items: Vec::new(),
            top_level: Facts::default_for(language),
            omitted: 0,
            error_line: None,
            cut: false,
        },
        open: Vec::new(),
        items_around: Vec::new(),
        loops: Vec::new(),
        top_calls: Vec::new(),
        bound: None,
    };
    let mut cursor = tree.walk();
    let mut level = 0;
    let mut nodes = 0_usize;
    'nodes: loop {
        nodes += 1;
        if nodes.is_multiple_of(NODES_PER_LOOK) && limit.is_over() {
            return None;
        }
        let descend = walk.enter(cursor.node(), level);
        if descend && cursor.goto_first_child() {
            level += 1;
            continue;
        }
        walk.leave(level);
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                break 'nodes;
            }
            level -= 1;
            walk.leave(level);
        }
    }
    Some(walk.finish())
}

impl Walk<'_> {
    /// Takes in a node; whether its children are to be visited.
    fn enter(&mut self, node: Node<'_>, level: usize) -> bool {
        let role = self
            .roles
            .get(usize::from(node.kind_id()))
            .copied()
            .unwrap_or(Role::Other);
        match role {
            Role::Other => {}
            Role::Import => {
                let imports = references::imported(node, self.language, self.code);
                imports
                    .into_iter()
                    .for_each(|name| add(&mut self.outline.imports, name));
                return false;
            }
            Role::Type(word, body) => self.enter_type(node, level, word, body),
            Role::Function => self.enter_function(node, level),
            Role::Closure => match self.take_bound(node) {
                Some(name) => {
                    let signature = names::closure(node, name, self.language, self.code);
                    let word = if self.in_type() { "method" } else { "function" };
                    self.open_item(level, word, true, signature);
                }
                None => self.open.push(Open {
                    level,
                    kind: OpenKind::Closure,
                }),
            },
            Role::Binder(name, value) => self.bind(node, name, value),
            Role::Loop(word) => {
                if let Some(Open {
                    kind: OpenKind::Loop { leaf },
                    ..
                }) = self
                    .open
                    .iter_mut()
                    .rev()
                    .find(|open| !matches!(open.kind, OpenKind::Closure))
                {
                    *leaf = false;
                }
                self.loops.push(word);
                self.open.push(Open {
                    level,
                    kind: OpenKind::Loop { leaf: true },
                });
            }
            Role::Raise => {
                let raised = references::raised(node, self.code);
                if !raised.is_empty() {
                    add(&mut self.facts().raises, raised);
                }
            }
            Role::Catch => {
                let caught = references::caught(node, self.language, self.code);
                add(&mut self.facts().catches, caught);
            }
            Role::Call(field) => self.call(node, field),
            Role::Mark(word) => {
                let in_closure = self.open.iter().rev().find_map(|open| match open.kind {
                    OpenKind::Closure => Some(true),
                    OpenKind::Item { .. } => Some(false),
                    OpenKind::Loop { .. } => None,
                });
                let marks = &mut self.facts().marks;
                if in_closure != Some(true) && !marks.contains(&word) {
                    marks.push(word);
                }
            }
            Role::Member => {
                self.members(names::members(node, self.code));
                // The fields of a variant are not the enum's.
                return false;
            }
            Role::Skip => return false,
        }
        true
    }

    /// Closes what was opened for the node at `level`.
    fn leave(&mut self, level: usize) {
        while self.open.last().is_some_and(|open| open.level == level) {
            match self.open.pop().map(|open| open.kind) {
                Some(OpenKind::Item { loops_around }) => {
                    self.loops = loops_around;
                    self.items_around.pop();
                }
                Some(OpenKind::Loop { leaf }) => {
                    if leaf {
                        let depth = self.loops.len();
                        let mut chain = self.loops[..depth.min(MAX_NAMED_LOOPS)].join(" > ");
                        if depth > MAX_NAMED_LOOPS {
                            chain.push_str(" > …");
                        }
                        let facts = self.facts();
                        facts.loop_depth = facts.loop_depth.max(depth);
                        if facts.loops.len() < MAX_LIST {
                            facts.loops.push(chain);
                        }
                    }
                    self.loops.pop();
                }
                Some(OpenKind::Closure) | None => {}
            }
        }
    }

    /// Index of the innermost item around the current node.
    pub(super) fn current_index(&self) -> Option<usize> {
        self.items_around.last().copied()
    }

    pub(super) fn current(&self) -> Option<&Item> {
        self.current_index().map(|index| &self.outline.items[index])
    }

    /// Whether the current node is right inside of a type, so that its functions are methods.
    pub(super) fn in_type(&self) -> bool {
        self.current()
            .is_some_and(|item| !item.is_function && !matches!(item.word, "module" | "namespace"))
    }

    pub(super) fn current_function(&self) -> Option<&Item> {
        self.current().filter(|item| item.is_function)
    }

    /// The facts of the innermost item, or those of the top level.
    pub(super) fn facts(&mut self) -> &mut Facts {
        match self.current_index() {
            Some(index) => &mut self.outline.items[index].facts,
            None => &mut self.outline.top_level,
        }
    }
}

/// Adds to a list without duplicates and of bounded length.
pub(super) fn add(list: &mut Vec<String>, entry: String) {
    if !entry.is_empty() && list.len() < MAX_LIST && !list.contains(&entry) {
        list.push(entry);
    }
}
