//! What a parser holds in memory, counted by the thread that it runs on.
//!
//! tree-sitter bounds neither its memory nor how much it leaves open at once, and a single step of its error recovery
//! costs as much as there is open. It lets its allocator be set, which is the only place where both can be seen. Trees and
//! parsers are made and dropped on one thread, so plain counters of each thread do.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Once;

/// The size of one node of the parser's stack in this version of tree-sitter (`StackNode` of its `stack.c`). A test holds
/// it against what a parser allocates.
const NODE_BYTES: usize = 232;
/// Before each allocation stands its size; as long as what the C library's `malloc` aligns to.
const HEADER: usize = 16;

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held { bytes: 0, nodes: 0 }) };
}

/// What is allocated. Differences count: a thread may free what another one allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// Bytes that were asked for.
    pub(super) bytes: isize,
    /// Nodes of parsers' stacks: what is open, over all the ways to read the text that are being followed.
    pub(super) nodes: isize,
}

impl Held {
    /// By this thread, now.
    pub(super) fn now() -> Self {
        HELD.get()
    }

    /// More than at another time.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            nodes: self.nodes - before.nodes,
        }
    }
}

/// Has tree-sitter allocate here. Before anything else of it is called.
pub(super) fn count() {
    static SET: Once = Once::new();
    let functions = tree_sitter::Allocator {
        malloc: counted_malloc,
        calloc: counted_calloc,
        realloc: counted_realloc,
        free: counted_free,
    };
    SET.call_once(|| {
        // SAFETY: The four are one family; they align as `malloc` does, by `HEADER`, and end the process where memory is
        // short, as tree-sitter's own do. `Once` lets no other thread go on before this is done, and this module's parent
        // is the only one that makes parsers.
        unsafe { tree_sitter::set_allocator(Some(functions)) }
    });
}

fn add(size: usize, sign: isize) {
    let held = HELD.get();
    HELD.set(Held {
        bytes: held.bytes + sign * size as isize,
        nodes: held.nodes + sign * isize::from(size == NODE_BYTES),
    });
}

/// Of an allocation with its header. What tree-sitter asks for are sizes of things that it holds, far from overflowing.
fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size.saturating_add(HEADER), HEADER) {
        Ok(layout) => layout,
        Err(_) => std::process::abort(),
    }
}

/// Writes the header, and gives what comes after it.
///
/// # Safety
/// `start` is an allocation of `layout(size)`, or null.
unsafe fn begun(start: *mut u8, size: usize) -> *mut c_void {
    if start.is_null() {
        handle_alloc_error(layout(size));
    }
    add(size, 1);
    // SAFETY: The allocation is `HEADER` bytes longer than `size` and aligned to them, which is enough for a `usize`.
    unsafe {
        start.cast::<usize>().write(size);
        start.add(HEADER).cast()
    }
}

/// The start of an allocation, and the size that was asked for.
///
/// # Safety
/// `pointer` came from `begun` and was not freed.
unsafe fn header(pointer: *mut c_void) -> (*mut u8, usize) {
    // SAFETY: `begun` gave a pointer `HEADER` bytes into an allocation that begins with its size.
    unsafe {
        let start = pointer.cast::<u8>().sub(HEADER);
        (start, start.cast::<usize>().read())
    }
}

unsafe extern "C" fn counted_malloc(size: usize) -> *mut c_void {
    // SAFETY: The layout has a size that is not 0, and `begun` gets what was allocated by it.
    unsafe { begun(alloc(layout(size)), size) }
}

unsafe extern "C" fn counted_calloc(count: usize, size: usize) -> *mut c_void {
    let size = count.saturating_mul(size);
    // SAFETY: As in `counted_malloc`.
    unsafe { begun(alloc_zeroed(layout(size)), size) }
}

unsafe extern "C" fn counted_realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    if pointer.is_null() {
        // SAFETY: By C's rules this is `malloc`.
        return unsafe { counted_malloc(size) };
    }
    // SAFETY: tree-sitter gives back what it got from these functions, and the new layout's size is not 0.
    unsafe {
        let (start, old) = header(pointer);
        let moved = realloc(start, layout(old), layout(size).size());
        add(old, -1);
        begun(moved, size)
    }
}

unsafe extern "C" fn counted_free(pointer: *mut c_void) {
    if pointer.is_null() {
        return;
    }
    // SAFETY: tree-sitter gives back what it got from these functions, once.
    unsafe {
        let (start, size) = header(pointer);
        add(size, -1);
        dealloc(start, layout(size));
    }
}
