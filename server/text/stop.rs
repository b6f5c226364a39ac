//! Finding stop strings in a text that arrives in pieces.

/// An Aho-Corasick automaton over the bytes of the stop strings.
///
/// After each byte its state is the longest end of the text that begins some stop string: exactly
/// what must be held back. Aho and Corasick, "Efficient string matching: an aid to bibliographic
/// search", 1975.
#[derive(Debug)]
pub(super) struct StopMatcher {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: Vec<(u8, u32)>,
    /// The longest proper end of this node's string that is a node too.
    fallback: u32,
    /// Bytes of this node's string.
    depth: u32,
    /// Bytes of the longest stop string that this node's string ends with; 0: with none.
    stop: u32,
}

/// What the text so far ends with: an index of a node, 0 at the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State(u32);

impl StopMatcher {
    /// A matcher for these strings; empty ones are left out. Their total length is limited by the
    /// request's limits, far below what an index holds.
    pub(super) fn new<S: AsRef<str>>(stops: &[S]) -> Self {
        let mut matcher = Self {
            nodes: vec![Node::default()],
        };
        for stop in stops
            .iter()
            .map(AsRef::as_ref)
            .filter(|stop| !stop.is_empty())
        {
            matcher.insert(stop.as_bytes());
        }
        matcher.link();
        matcher
    }

    /// Whether there is nothing to find.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// The state after one more byte.
    pub(super) fn advance(&self, state: State, byte: u8) -> State {
        let mut at = state.0;
        loop {
            match (self.child(at, byte), at) {
                (Some(child), _) => return State(child),
                (None, 0) => return State(0),
                (None, _) => at = self.node(at).fallback,
            }
        }
    }

    /// How many bytes at the end of the text may be the beginning of a stop string.
    pub(super) fn held(&self, state: State) -> usize {
        self.node(state.0).depth as usize
    }

    /// The length of the longest stop string that the text ends with.
    pub(super) fn stop(&self, state: State) -> Option<usize> {
        let stop = self.node(state.0).stop as usize;
        (stop > 0).then_some(stop)
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn child(&self, index: u32, byte: u8) -> Option<u32> {
        let children = &self.node(index).children;
        children
            .iter()
            .find(|(label, _)| *label == byte)
            .map(|&(_, child)| child)
    }

    fn insert(&mut self, stop: &[u8]) {
        let mut at = 0;
        for (depth, &byte) in (1..).zip(stop) {
            at = self.child(at, byte).unwrap_or_else(|| {
                let child = self.nodes.len() as u32;
                self.nodes.push(Node {
                    depth,
                    ..Node::default()
                });
                self.nodes[at as usize].children.push((byte, child));
                child
            });
        }
        self.nodes[at as usize].stop = stop.len() as u32;
    }

    /// Sets the fallbacks, shallow nodes first, since each follows from shallower ones.
    fn link(&mut self) {
        let mut order: Vec<(u32, u32, u8)> = Vec::with_capacity(self.nodes.len());
        for (parent, node) in (0u32..).zip(&self.nodes) {
            order.extend(
                node.children
                    .iter()
                    .map(|&(byte, child)| (child, parent, byte)),
            );
        }
        order.sort_by_key(|&(child, _, _)| self.node(child).depth);
        for (child, parent, byte) in order {
            if parent == 0 {
                continue;
            }
            let fallback = self.advance(State(self.node(parent).fallback), byte).0;
            let inherited = self.node(fallback).stop;
            let node = &mut self.nodes[child as usize];
            node.fallback = fallback;
            if node.stop == 0 {
                node.stop = inherited;
            }
        }
    }
}
