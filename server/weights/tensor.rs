//! A view of one tensor in a mapped file.

use std::ops::Range;

use rayon::prelude::*;

use super::dequantize::dequantize;
use super::dtype::DType;

/// Elements that one task dequantizes: large enough to hide the pool's cost, small enough for the caches.
const TASK: usize = 1 << 16;

/// How stored rows relate to the logical ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Stored as its shape says, row-major.
    Rows,
    /// Stored as the transpose of its (2-D) shape: the Conv1D weights of GPT-2. Only unquantized.
    Transposed,
    /// Rows (or, in a bias, elements) stored with the two halves of each head interleaved: the query and key
    /// projections of `llama` GGUF files.
    ///
    /// Logical row `h * D + s * D/2 + j` (head `h` of width `D`, half `s`, index `j`) is stored row `h * D + 2 j + s`.
    RopeInterleaved {
        /// Number of heads that the rows divide into.
        heads: usize,
    },
}

/// One tensor, borrowed from a mapped file.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorView<'a> {
    /// Its canonical name.
    pub name: &'a str,
    /// How its elements are stored.
    pub dtype: DType,
    /// Its logical shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Its stored bytes: whole blocks, row after row in the order of `layout`.
    pub data: &'a [u8],
    /// How the stored rows relate to the logical ones.
    pub layout: Layout,
}

impl<'a> TensorView<'a> {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size of the innermost dimension.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows of [`columns`](Self::columns) elements; 1 for a vector.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// All elements, dequantized, in logical row-major order. Uses the rayon pool.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.write_f32(&mut out);
        out
    }

    /// As [`to_f32`](Self::to_f32), into a buffer of the caller.
    ///
    /// # Panics
    /// If `out` is not [`len`](Self::len) long.
    pub fn write_f32(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.len(), "output of tensor '{}'", self.name);
        let columns = self.columns();
        if columns == 0 {
            return;
        }
        if self.shape.len() < 2 {
            dequantize(self.dtype, self.data, out);
            if let Layout::RopeInterleaved { heads } = self.layout {
                let stored = out.to_vec();
                for (row, y) in out.iter_mut().enumerate() {
                    *y = stored[interleaved(row, heads, stored.len())];
                }
            }
            return;
        }
        let rows = (TASK / columns).max(1);
        out.par_chunks_mut(rows * columns)
            .enumerate()
            .for_each(|(task, out)| {
                let first = task * rows;
                self.fill(first..first + out.len() / columns, out);
            });
    }

    /// Logical rows `rows` of a tensor of two dimensions or more into `out`, dequantized, on this thread.
    ///
    /// # Panics
    /// If the tensor is a vector, the range leaves it, or `out` is not `rows.len() * columns()` long.
    pub fn rows_to_f32(&self, rows: Range<usize>, out: &mut [f32]) {
        let name = self.name;
        assert!(self.shape.len() > 1, "tensor '{name}' has no rows");
        assert!(
            rows.end <= self.rows(),
            "rows {rows:?} of tensor '{name}' of {}",
            self.rows()
        );
        assert_eq!(
            out.len(),
            rows.len() * self.columns(),
            "output of tensor '{name}'"
        );
        self.fill(rows, out);
    }

    /// The stored bytes of one logical row; `None` where rows are not contiguous ([`Layout::Transposed`]) or there is no
    /// such row.
    pub fn row_bytes(&self, row: usize) -> Option<&'a [u8]> {
        let size = self.dtype.bytes_for(self.columns())?;
        let stored = match self.layout {
            Layout::Rows => row,
            Layout::Transposed => return None,
            Layout::RopeInterleaved { .. } if self.shape.len() < 2 => return None,
            Layout::RopeInterleaved { heads } => interleaved(row, heads, self.rows()),
        };
        if row >= self.rows() {
            return None;
        }
        self.data.get(stored * size..(stored + 1) * size)
    }

    fn fill(&self, rows: Range<usize>, out: &mut [f32]) {
        let columns = self.columns();
        match self.layout {
            Layout::Rows => {
                let size = self.data.len() / self.rows().max(1);
                let bytes = &self.data[rows.start * size..rows.end * size];
                dequantize(self.dtype, bytes, out);
            }
            Layout::RopeInterleaved { heads } => {
                let size = self.data.len() / self.rows().max(1);
                for (row, out) in rows.zip(out.chunks_mut(columns)) {
                    let stored = interleaved(row, heads, self.rows());
                    dequantize(
                        self.dtype,
                        &self.data[stored * size..(stored + 1) * size],
                        out,
                    );
                }
            }
            Layout::Transposed => self.fill_transposed(rows, out),
        }
    }

    /// Reads `rows.len()` neighbours of each stored row, so that every cache line is used once for all of them.
    fn fill_transposed(&self, rows: Range<usize>, out: &mut [f32]) {
        let (columns, stride, width) = (self.columns(), self.rows(), self.dtype.block_bytes());
        let mut strip = vec![0.0; rows.len()];
        for column in 0..columns {
            let start = column * stride + rows.start;
            let bytes = &self.data[start * width..(start + rows.len()) * width];
            dequantize(self.dtype, bytes, &mut strip);
            for (out, &value) in out.chunks_mut(columns).zip(&strip) {
                out[column] = value;
            }
        }
    }
}

/// The stored row of logical row `row`; `row` itself where `heads` does not divide `rows` into even widths.
fn interleaved(row: usize, heads: usize, rows: usize) -> usize {
    let width = rows.checked_div(heads).unwrap_or(0);
    if width < 2 || !width.is_multiple_of(2) || width * heads != rows {
        return row;
    }
    let (head, within) = (row / width, row % width);
    let (half, index) = (within / (width / 2), within % (width / 2));
    head * width + 2 * index + half
}
