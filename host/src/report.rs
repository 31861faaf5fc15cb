//! Tables and numbers as people read them.

use std::fmt::{self, Display};

/// A table with a header; columns are as wide as their widest cell, numbers to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|&h| h.to_owned()).collect()] }
    }

    /// Appends a row.
    pub fn row(&mut self, cells: &[&dyn Display]) {
        self.rows.push(cells.iter().map(|cell| cell.to_string()).collect());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |c: usize| self.rows.iter().filter_map(move |row| row.get(c));
        let widths: Vec<usize> = (0..columns)
            .map(|c| cells(c).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let number =
            |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
        let right: Vec<bool> = (0..columns).map(|c| cells(c).skip(1).all(number)).collect();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (c, cell) in row.iter().enumerate() {
                let width = widths[c];
                line +=
                    &if right[c] { format!(" {cell:>width$}") } else { format!(" {cell:<width$}") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Bytes as KB of 1024.
pub fn kb(bytes: usize) -> String {
    format!("{:.1} KB", bytes as f64 / 1024.0)
}

/// A fraction as percent with two decimals.
pub fn percent(fraction: f64) -> String {
    format!("{:.2} %", fraction * 100.0)
}

/// A count with a thousands separator.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let mut table = Table::new(&["layer", "MACs"]);
        table.row(&[&"stem", &5]);
        table.row(&[&"b1", &1234]);
        assert_eq!(table.to_string(), "  layer MACs\n  stem     5\n  b1    1234\n");
        assert_eq!(thousands(1234567), "1,234,567");
    }
}
