//! Views of row-major matrices, and the one way in which several threads write into one.

use std::marker::PhantomData;

use crate::pool::Pool;

/// Rows of floats, `stride` apart.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) stride: usize,
}

impl<'a> Matrix<'a> {
    /// The first `rows` rows of `data`.
    ///
    /// # Panics
    /// If `data` does not hold them.
    pub fn new(data: &'a [f32], rows: usize, stride: usize) -> Self {
        assert!(
            rows * stride <= data.len(),
            "matrix of {rows} x {stride} over {} floats",
            data.len()
        );
        Self { data, rows, stride }
    }

    /// Row `i`, all of its stride.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..][..self.stride]
    }
}

/// Rows of floats to write, `stride` apart.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    pub(super) rows: usize,
    pub(super) stride: usize,
    pointer: *mut f32,
    data: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `MatrixMut` is a `&mut [f32]` whose parts the kernels hand to several threads; they do so through the unsafe
// `row_part`, whose contract is that no two parts in use overlap.
unsafe impl Sync for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// The first `rows` rows of `data`.
    ///
    /// # Panics
    /// If `data` does not hold them.
    pub fn new(data: &'a mut [f32], rows: usize, stride: usize) -> Self {
        assert!(
            rows * stride <= data.len(),
            "matrix of {rows} x {stride} over {} floats",
            data.len()
        );
        Self {
            rows,
            stride,
            pointer: data.as_mut_ptr(),
            data: PhantomData,
        }
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The same, to read.
    pub fn as_matrix(&mut self) -> Matrix<'_> {
        // SAFETY: the slice that `new` was given, which is borrowed mutably here as long as it is read.
        let data = unsafe { std::slice::from_raw_parts(self.pointer, self.rows * self.stride) };
        Matrix::new(data, self.rows, self.stride)
    }

    /// Row `i`, all of its stride.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        // SAFETY: the matrix is borrowed mutably as long as the row.
        unsafe { self.row_part(i, 0, self.stride) }
    }

    /// Where column `column` of row `row` lies.
    pub(super) fn at(&self, row: usize, column: usize) -> *mut f32 {
        assert!(row < self.rows && column < self.stride);
        // SAFETY: inside the slice that `new` was given, by the assertion.
        unsafe { self.pointer.add(row * self.stride + column) }
    }

    /// Floats `from..from + len` of row `row`.
    ///
    /// # Safety
    /// No other use of these floats while the answer lives.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn row_part(&self, row: usize, from: usize, len: usize) -> &mut [f32] {
        assert!(row < self.rows && from + len <= self.stride);
        // SAFETY: inside the slice that `new` was given, by the assertion; alone, by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(row * self.stride + from), len) }
    }
}

/// Calls `f(i, row)` for each row, on all threads.
pub fn for_each_row(pool: &Pool, matrix: &mut MatrixMut<'_>, f: impl Fn(usize, &mut [f32]) + Sync) {
    let matrix = &*matrix;
    pool.run(matrix.rows, &|i, _| {
        // SAFETY: the matrix is borrowed mutably here, and only this task has row i.
        f(i, unsafe { matrix.row_part(i, 0, matrix.stride) });
    });
}
