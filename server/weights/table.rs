//! Where each tensor lies.

use std::collections::BTreeMap;
use std::ops::Range;

use super::dtype::DType;
use super::tensor::{Layout, TensorView};

/// Where a tensor lies and how to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorEntry {
    /// How its elements are stored.
    pub dtype: DType,
    /// Its logical shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// How the stored rows relate to the logical ones.
    pub layout: Layout,
    /// Which of the checkpoint's files holds it.
    pub file: usize,
    /// Its bytes in that file.
    pub range: Range<usize>,
    /// What the file calls it, if not by its canonical name.
    pub source: Option<String>,
}

impl TensorEntry {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Tensors by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TensorTable {
    entries: BTreeMap<String, TensorEntry>,
}

impl TensorTable {
    /// Adds a tensor. Gives back name and entry, changing nothing, if the name is taken.
    pub(crate) fn insert(
        &mut self,
        name: String,
        entry: TensorEntry,
    ) -> Option<(String, TensorEntry)> {
        if self.entries.contains_key(&name) {
            return Some((name, entry));
        }
        self.entries.insert(name, entry);
        None
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut TensorEntry> {
        self.entries.get_mut(name)
    }

    /// The entry of `name`.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.entries.get(name)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorEntry)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }

    /// A view of `name` in `bytes`, the file that holds it. `None` if either has no such part.
    pub fn view<'a>(&'a self, name: &str, bytes: &'a [u8]) -> Option<TensorView<'a>> {
        let (name, entry) = self.entries.get_key_value(name)?;
        Some(TensorView {
            name,
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            data: bytes.get(entry.range.clone())?,
            layout: entry.layout,
        })
    }
}
