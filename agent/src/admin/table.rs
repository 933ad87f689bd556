//! Aligned tables, for people.

use crate::telemetry::is_obeyed;

/// Between two columns.
const GAP: &str = "  ";

/// A cell that says nothing.
pub const NOTHING: &str = "-";

/// On which side a column's cells are aligned: numbers on the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table, its header first. A column's unit is in its header.
#[derive(Clone, Debug)]
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no row. A header that begins with `>` is a number's, and aligned so.
    pub fn new(header: &[&str]) -> Self {
        let align = |title: &&str| if title.starts_with('>') { Align::Right } else { Align::Left };
        let titles = header.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
        Self { aligns: header.iter().map(align).collect(), rows: vec![titles] }
    }

    /// Adds a row of as many cells as there are columns. What a terminal would obey is escaped; an empty cell is shown as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let clean = |cell: String| match cell.is_empty() {
            true => NOTHING.to_owned(),
            false => printable(&cell),
        };
        let cells: Vec<_> = cells.into_iter().map(clean).collect();
        debug_assert_eq!(cells.len(), self.aligns.len());
        self.rows.push(cells);
    }

    /// Whether there is nothing but the header.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// One line a row, the header first.
    pub fn render(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<_> = (0..self.aligns.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), align) in row.iter().zip(&widths).zip(&self.aligns) {
                if !line.is_empty() {
                    line.push_str(GAP);
                }
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text without anything that a terminal obeys.
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_in_a_cell_is_obeyed() {
        let mut table = Table::new(&["NAME", ">CALLS", "WHY"]);
        table.row(["a".into(), "7".into(), String::new()]);
        table.row(["längst".into(), "12345".into(), "red \u{1b}[31m\n".into()]);
        let lines: Vec<_> = table.render().lines().map(str::to_owned).collect();
        assert_eq!(lines, ["NAME    CALLS  WHY", "a           7  -", "längst  12345  red \\u{1b}[31m\\n"]);
    }
}
