//! The layout of descriptions: lines of tab-separated cells whose columns align over neighbouring lines, as Go's
//! `text/tabwriter` does it for kubectl.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};

use crate::{duration, terminal};

const PADDING: usize = 2;

/// Lines of a description.
#[derive(Debug, Default)]
pub struct Layout {
    lines: Vec<Vec<String>>,
}

// === impl Layout ===

impl Layout {
    /// `Name:  value`.
    pub fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        self.lines.push(vec![format!("{name}:"), value.to_string()]);
    }

    /// `Name:  value`, where there is one.
    pub fn field_if(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// A line that aligns with nothing, indented by `level`.
    pub fn line(&mut self, level: usize, text: &str) {
        self.lines.push(vec![format!("{}{text}", "  ".repeat(level))]);
    }

    /// `Name:  value` below something, indented by `level`.
    pub fn field_at(&mut self, level: usize, name: &str, value: impl std::fmt::Display) {
        self.lines.push(vec![format!("{}{name}:", "  ".repeat(level)), value.to_string()]);
    }

    /// `Title:` and an indented table with underlined headers, or `Title:  <none>`.
    pub fn table(&mut self, title: &str, headers: &[&str], rows: Vec<Vec<String>>) {
        self.table_at(0, title, headers, rows);
    }

    /// The same below something, indented by `level`.
    pub fn table_at(&mut self, level: usize, title: &str, headers: &[&str], rows: Vec<Vec<String>>) {
        if rows.is_empty() {
            return self.field_at(level, title, "<none>");
        }
        self.line(level, &format!("{title}:"));
        let indent = "  ".repeat(level + 1);
        let indented = |cells: Vec<String>| {
            let mut cells = cells;
            if let Some(first) = cells.first_mut() {
                first.insert_str(0, &indent);
            }
            cells
        };
        self.lines.push(indented(headers.iter().map(ToString::to_string).collect()));
        self.lines.push(indented(headers.iter().map(|header| "-".repeat(header.chars().count())).collect()));
        self.lines.extend(rows.into_iter().map(indented));
    }

    /// Name, namespace, labels, annotations and the time of creation.
    pub fn metadata(&mut self, metadata: &ObjectMeta) {
        self.field("Name", metadata.name.as_deref().unwrap_or_default());
        self.field_if("Namespace", metadata.namespace.as_deref());
        self.field_if("CreationTimestamp", metadata.creation_timestamp.as_ref().map(date));
        self.map("Labels", metadata.labels.iter().flatten(), "=");
        self.map("Annotations", metadata.annotations.iter().flatten(), ": ");
        for owner in metadata.owner_references.iter().flatten() {
            self.field("Controlled By", format!("{}/{}", owner.kind, owner.name));
        }
        if let Some(deleted) = &metadata.deletion_timestamp {
            let finalizers = metadata.finalizers.clone().unwrap_or_default().join(", ");
            self.field("Status", format!("Terminating since {}, held by {finalizers}", date(deleted)));
        }
    }

    /// The first pair behind the name, the others below it.
    pub fn map<'a>(&mut self, name: &str, pairs: impl IntoIterator<Item = (&'a String, &'a String)>, between: &str) {
        let mut lines = pairs.into_iter().map(|(key, value)| format!("{key}{between}{value}"));
        self.field(name, lines.next().unwrap_or_else(|| "<none>".to_owned()));
        self.lines.extend(lines.map(|line| vec![String::new(), line]));
    }

    /// What is true of the object now.
    pub fn conditions(&mut self, conditions: &[Condition], now: jiff::Timestamp) {
        let rows = conditions.iter().map(|condition| {
            let age = duration::human(now.as_second() - condition.last_transition_time.0.as_second());
            vec![
                condition.type_.clone(),
                condition.status.clone(),
                age,
                condition.reason.clone(),
                one_line(&condition.message),
            ]
        });
        self.table("Conditions", &["Type", "Status", "Since", "Reason", "Message"], rows.collect());
    }

    /// The text: each column is as wide as its longest cell over neighbouring lines that have it.
    pub fn finish(mut self) -> String {
        for cell in self.lines.iter_mut().flatten() {
            if let Cow::Owned(fit) = terminal::line(cell) {
                *cell = fit;
            }
        }
        let mut widths: Vec<Vec<usize>> = self.lines.iter().map(|line| vec![0; line.len()]).collect();
        let n_columns = self.lines.iter().map(Vec::len).max().unwrap_or(0);
        for column in 0..n_columns.saturating_sub(1) {
            let ends_column = |line: &Vec<String>| line.len() > column + 1;
            let mut start = 0;
            while start < self.lines.len() {
                let block = self.lines[start..].iter().take_while(|line| ends_column(line)).count();
                let cells = self.lines[start..start + block].iter().map(|line| line[column].chars().count());
                let width = cells.max().unwrap_or(0) + PADDING;
                for line_widths in &mut widths[start..start + block] {
                    line_widths[column] = width;
                }
                start += block + 1;
            }
        }
        let mut text = String::new();
        for (line, widths) in self.lines.iter().zip(widths) {
            let mut padded = String::new();
            for (cell, width) in line.iter().zip(widths) {
                padded.push_str(cell);
                padded.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
            text.push_str(padded.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `Sun, 22 Nov 2026 10:41:58 +0000`, as kubectl writes times.
pub fn date(time: &Time) -> String {
    time.0.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// `99.3 MiB`: rounded up, so that no memory reads as none.
pub fn mebibytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// Text without line breaks, which would end a table's row.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_mebibytes() {
        for (bytes, expected) in [(0, "0.0 MiB"), (1, "0.1 MiB"), (2_216_448, "2.2 MiB"), (104_060_416, "99.3 MiB")] {
            assert_eq!(mebibytes(bytes), expected);
        }
    }

    #[test]
    fn columns_align_over_neighbouring_lines_only() {
        let mut layout = Layout::default();
        layout.field("Name", "a");
        layout.field("Namespace", "b");
        layout.table(
            "Conditions",
            &["Type", "Status"],
            vec![vec!["Available".into(), "True".into()], vec!["X".into(), "No".into()]],
        );
        layout.field("Events", "<none>");
        assert_eq!(
            layout.finish(),
            "Name:       a\n\
             Namespace:  b\n\
             Conditions:\n\
             \x20 Type       Status\n\
             \x20 ----       ------\n\
             \x20 Available  True\n\
             \x20 X          No\n\
             Events:      <none>\n"
        );
    }
}
