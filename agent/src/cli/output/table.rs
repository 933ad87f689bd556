//! Tables as kubectl prints them: columns as wide as their widest cell, three spaces apart, no lines.

use super::{Paint, Palette};
use crate::admin::table::printable;

/// Spaces between columns.
const GAP: usize = 3;

/// What stands in an empty cell.
const EMPTY: &str = "<none>";

/// A table. Every row has as many cells as there are columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    /// In a colour.
    pub(in crate::cli) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self { paint: Some(paint), ..Self::from(text.into()) }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        // What others have named must not steer the terminal, nor break the line.
        Self { text: printable(&text), paint: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        number.to_string().into()
    }
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        text.unwrap_or_default().into()
    }
}

impl Table {
    /// One with these columns and no row.
    pub(in crate::cli) fn new(columns: impl IntoIterator<Item = &'static str>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(in crate::cli) fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        let row: Vec<Cell> = row.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a cell for each column");
        self.rows.push(row);
    }

    /// Whether there is no row.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As text.
    pub(in crate::cli) fn render(&self, with_header: bool, palette: Palette) -> String {
        let width_of = |column: usize| {
            let header = if with_header { self.columns[column].len() } else { 0 };
            let cells =
                self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.shown().chars().count());
            cells.max().unwrap_or(0).max(header)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width_of).collect();
        let mut text = String::new();
        if with_header {
            let header = self.columns.iter().map(|name| Cell::painted(*name, Paint::Bold));
            push_line(&mut text, &header.collect::<Vec<_>>(), &widths, palette);
        }
        for row in &self.rows {
            push_line(&mut text, row, &widths, palette);
        }
        text
    }
}

/// No column of a [`RunningTable`] becomes wider than this for a long word's sake, in characters.
const WIDEST: usize = 60;

/// A table whose rows come one after the other: each is as wide as those before it.
#[derive(Clone, Debug)]
pub(in crate::cli) struct RunningTable {
    columns: Vec<&'static str>,
    widths: Vec<usize>,
}

impl RunningTable {
    /// One with these columns, each as wide as is to be expected.
    pub(in crate::cli) fn new(columns: impl IntoIterator<Item = (&'static str, usize)>) -> Self {
        let (columns, widths): (Vec<&str>, Vec<usize>) = columns.into_iter().unzip();
        let widths = columns.iter().zip(widths).map(|(name, width)| width.max(name.len())).collect();
        Self { columns, widths }
    }

    /// The first line.
    pub(in crate::cli) fn header(&self, palette: Palette) -> String {
        let cells: Vec<_> = self.columns.iter().map(|name| Cell::painted(*name, Paint::Bold)).collect();
        let mut text = String::new();
        push_line(&mut text, &cells, &self.widths, palette);
        text
    }

    /// A row's line.
    pub(in crate::cli) fn line(&mut self, cells: &[Cell], palette: Palette) -> String {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.shown().chars().count().min(WIDEST));
        }
        let mut text = String::new();
        push_line(&mut text, cells, &self.widths, palette);
        text
    }
}

impl Cell {
    fn shown(&self) -> &str {
        if self.text.is_empty() { EMPTY } else { &self.text }
    }
}

fn push_line(text: &mut String, cells: &[Cell], widths: &[usize], palette: Palette) {
    for (position, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let shown = cell.shown();
        match cell.paint {
            Some(paint) => text.push_str(&palette.paint(shown, paint)),
            None => text.push_str(shown),
        }
        if position + 1 < cells.len() {
            let padding = width.saturating_sub(shown.chars().count()) + GAP;
            text.extend(std::iter::repeat_n(' ', padding));
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "CALLS", "WHY"]);
        table.push(["cart".into(), 12_345.into(), "".into()]);
        table.push([
            Cell::painted("a-longer-name", Paint::Bad),
            1.into(),
            "bad\u{1b}[31m\n\u{202e}things".into(),
        ]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let expected = "NAME            CALLS   WHY\n\
                        cart            12345   <none>\n\
                        a-longer-name   1       bad\\u{1b}[31m\\n\\u{202e}things\n";
        assert_eq!(table().render(true, Palette::Plain), expected);
        let without_header = expected.split_once('\n').unwrap().1;
        assert_eq!(table().render(false, Palette::Plain), without_header);
    }

    #[test]
    fn rows_that_come_later_stand_below_those_before_them() {
        let mut table = RunningTable::new([("NAME", 6), ("CALLS", 0), ("WHY", 0)]);
        assert_eq!(table.header(Palette::Plain), "NAME     CALLS   WHY\n");
        let mut line = |name: &str| table.line(&[name.into(), 1.into(), "\u{1b}x".into()], Palette::Plain);
        assert_eq!(line("a"), "a        1       \\u{1b}x\n");
        assert_eq!(line("a-longer-name"), "a-longer-name   1       \\u{1b}x\n");
        assert_eq!(line("a"), "a               1       \\u{1b}x\n");
        assert_eq!(line(&"x".repeat(100)).len(), 100 + 3 + 8 + 8);
        assert_eq!(line("a").len(), WIDEST + 3 + 8 + 8);
    }

    #[test]
    fn colours_change_no_width() {
        let coloured = table().render(true, Palette::Colours);
        assert!(coloured.contains("\x1b[31ma-longer-name\x1b[0m   1"), "{coloured:?}");
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once("\x1b[") {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        assert_eq!(plain, table().render(true, Palette::Plain));
    }
}
