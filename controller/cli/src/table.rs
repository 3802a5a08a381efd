//! Tables: a `meta.k8s.io` Table from the server as lines of text, to the byte as kubectl prints it.

use serde_json::Value;

use crate::terminal;

/// Between a cell's text and the next cell.
const PADDING: usize = 3;
/// The least width of a column, padding included.
const MIN_WIDTH: usize = 6;

/// What is shown besides the server's columns of priority 0.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Columns of every priority.
    pub wide: bool,
    /// NAMESPACE first.
    pub with_namespace: bool,
    /// LABELS last.
    pub with_labels: bool,
    /// What names are prefixed with, such as `phone.polyphony.dev`.
    pub kind_prefix: Option<String>,
}

/// The rows of tables of one kind; a watch feeds it one table after the other.
#[derive(Debug)]
pub struct Table {
    view: View,
    /// Header and whether it is shown, one entry a column of the server's.
    columns: Vec<(String, bool)>,
    pub rows: Vec<Vec<String>>,
    widths: Vec<usize>,
}

// === impl Table ===

impl Table {
    pub fn new(view: View) -> Self {
        Self { view, columns: Vec::new(), rows: Vec::new(), widths: Vec::new() }
    }

    /// Adds the rows of `answer`. An answer that is no Table (a server without columns) gives names and nothing else.
    pub fn add(&mut self, answer: &Value) {
        if answer["kind"] != "Table" {
            self.add_objects(answer);
            return;
        }
        // In a watch only the first event defines the columns.
        if let Some(definitions) = answer["columnDefinitions"].as_array().filter(|definitions| !definitions.is_empty())
        {
            self.columns = definitions
                .iter()
                .map(|definition| {
                    let name = definition["name"].as_str().unwrap_or_default().to_uppercase();
                    (name, self.view.wide || definition["priority"].as_i64().unwrap_or(0) == 0)
                })
                .collect();
        }
        for row in answer["rows"].as_array().into_iter().flatten() {
            let cells = row["cells"].as_array().map_or(&[][..], Vec::as_slice);
            self.add_row(cells, &row["object"]["metadata"]);
        }
    }

    fn add_objects(&mut self, answer: &Value) {
        self.columns = vec![("NAME".to_owned(), true)];
        let one = std::slice::from_ref(answer);
        for object in answer["items"].as_array().map_or(one, Vec::as_slice) {
            self.add_row(&[object["metadata"]["name"].clone()], &object["metadata"]);
        }
    }

    fn add_row(&mut self, cells: &[Value], metadata: &Value) {
        let mut row = Vec::new();
        if self.view.with_namespace {
            row.push(metadata["namespace"].as_str().unwrap_or_default().to_owned());
        }
        for (idx, (header, shown)) in self.columns.iter().enumerate() {
            if !shown {
                continue;
            }
            let text = cells.get(idx).map(cell_text).unwrap_or_default();
            match &self.view.kind_prefix {
                Some(prefix) if header == "NAME" => row.push(format!("{prefix}/{text}")),
                _ => row.push(text),
            }
        }
        if self.view.with_labels {
            row.push(labels_text(&metadata["labels"]));
        }
        self.rows.push(row);
    }

    pub fn headers(&self) -> Vec<String> {
        let first = self.view.with_namespace.then(|| "NAMESPACE".to_owned());
        let last = self.view.with_labels.then(|| "LABELS".to_owned());
        let shown = self.columns.iter().filter(|(_, shown)| *shown).map(|(header, _)| header.clone());
        first.into_iter().chain(shown).chain(last).collect()
    }

    /// The rows added since the last call as text, after the headers if `with_headers`. Columns never get narrower.
    pub fn render(&mut self, with_headers: bool) -> String {
        let mut lines = Vec::new();
        if with_headers {
            lines.push(self.headers());
        }
        lines.append(&mut self.rows);
        align(&lines, &mut self.widths, MIN_WIDTH, PADDING)
    }
}

/// Lines of cells as text, in columns of at least `min_width` with `padding` after the longest cell. The last cell of a
/// line is not padded. `widths` carries the widths from one call to the next.
pub fn align(lines: &[Vec<String>], widths: &mut Vec<usize>, min_width: usize, padding: usize) -> String {
    let fit = |line: &Vec<String>| line.iter().map(|cell| terminal::line(cell).into_owned()).collect();
    let lines: Vec<Vec<String>> = lines.iter().map(fit).collect();
    for line in &lines {
        for (idx, cell) in line.iter().enumerate() {
            if widths.len() <= idx {
                widths.push(min_width);
            }
            // The last cell of a line ends no column.
            if idx + 1 < line.len() {
                widths[idx] = widths[idx].max(cell.chars().count() + padding);
            }
        }
    }
    let mut text = String::new();
    for line in &lines {
        for (idx, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if idx + 1 < line.len() {
                text.extend(std::iter::repeat_n(' ', widths[idx].saturating_sub(cell.chars().count())));
            }
        }
        text.push('\n');
    }
    text
}

/// A cell's text, cut at the first line break as kubectl does.
fn cell_text(cell: &Value) -> String {
    let text = match cell {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        // Whole numbers that JSON writes with a fraction are shown without.
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, |number| number.to_string())
        }
        other => other.to_string(),
    };
    match text.find(['\n', '\r', '\u{c}']) {
        Some(end) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// `a=1,b=2`, or `<none>`.
pub fn labels_text(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn phones() -> Value {
        json!({"kind": "Table", "columnDefinitions": [
            {"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "Temp", "priority": 0},
            {"name": "Device", "priority": 1}, {"name": "Age", "priority": 0},
        ], "rows": [
            {"cells": ["phone-1", "True", 36.5, "llvmpipe", "5m"], "object": {"metadata": {"name": "phone-1", "labels": {"room": "lab"}}}},
            {"cells": ["p2", null, 40.0, "a\nb", "12s"], "object": {"metadata": {"name": "p2"}}},
        ]})
    }

    fn printed(view: View) -> String {
        let mut table = Table::new(view);
        table.add(&phones());
        table.render(true)
    }

    #[test]
    fn a_table_looks_as_kubectl_prints_it() {
        assert_eq!(
            printed(View::default()),
            "NAME      READY   TEMP   AGE\n\
             phone-1   True    36.5   5m\n\
             p2                40     12s\n"
        );
    }

    #[test]
    fn wide_shows_every_priority_and_cuts_at_line_breaks() {
        assert_eq!(
            printed(View { wide: true, with_labels: true, ..View::default() }),
            "NAME      READY   TEMP   DEVICE     AGE   LABELS\n\
             phone-1   True    36.5   llvmpipe   5m    room=lab\n\
             p2                40     a...       12s   <none>\n"
        );
    }

    #[test]
    fn several_kinds_and_all_namespaces_say_so() {
        let mut table = Table::new(View {
            with_namespace: true,
            kind_prefix: Some("model.polyphony.dev".into()),
            ..View::default()
        });
        table.add(&json!({"kind": "Table", "columnDefinitions": [{"name": "Name"}],
            "rows": [{"cells": ["m"], "object": {"metadata": {"name": "m", "namespace": "lab"}}}]}));
        assert_eq!(table.render(true), "NAMESPACE   NAME\nlab         model.polyphony.dev/m\n");
    }

    #[test]
    fn a_watch_keeps_its_columns_aligned() {
        let mut table = Table::new(View::default());
        table.add(&phones());
        assert_eq!(table.render(true).lines().count(), 3);
        table.add(
            &json!({"kind": "Table", "columnDefinitions": null, "rows": [{"cells": ["p2", "True", 41, "d", "13s"]}]}),
        );
        assert_eq!(table.render(false), "p2        True    41     13s\n");
    }

    #[test]
    fn a_server_without_columns_gives_names() {
        let mut table = Table::new(View::default());
        table.add(&json!({"kind": "PhoneList", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}));
        assert_eq!(table.render(true), "NAME\na\nb\n");
    }
}
