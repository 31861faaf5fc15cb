//! Matrix product on strided views: the `gemm` crate behind one checked function.

/// A matrix inside a slice: element `(i, j)` lies at `i * row + j * column`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub column: usize,
}

impl<'a> View<'a> {
    /// Row-major, `columns` wide.
    pub fn rows(data: &'a [f32], columns: usize) -> View<'a> {
        View { data, row: columns, column: 1 }
    }

    /// The transpose.
    pub fn t(self) -> View<'a> {
        View { row: self.column, column: self.row, ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

/// `out [m, n] = a [m, k] * b [k, n]`, or `+=` where `accumulate`; `out` is row-major. One thread.
pub fn product([m, n, k]: [usize; 3], out: &mut [f32], accumulate: bool, a: View<'_>, b: View<'_>) {
    assert!(out.len() >= m * n && a.holds(m, k) && b.holds(k, n), "matrices do not fit");
    let out = out.as_mut_ptr();
    // SAFETY: every element that gemm reads or writes lies inside the slices (asserted above),
    // and `out` is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
