//! Places: on which line of a document a field is written. Knows block style; in any other the nearest line above is told.

/// A line's key or dash, and how far it is indented.
struct Line<'a> {
    idx: usize,
    indent: usize,
    content: &'a str,
}

/// The index of the line where `field` is written in block style, or the nearest field above it.
pub(super) fn locate(text: &str, field: &str) -> usize {
    let lines = lines_of(text);
    let mut found = lines.first().map_or(0, |line| line.idx);
    let (mut from, mut parent_indent) = (0, None);
    for step in field.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
        let is_child = |line: &Line| {
            parent_indent.is_none_or(|indent| line.indent > indent || (line.indent == indent && line.content == "-"))
        };
        let block = lines[from..].iter().take_while(|line| is_child(line)).count();
        let children = &lines[from..from + block];
        let Some(level) = children.first().map(|line| line.indent) else { return found };
        let mut of_level = children.iter().enumerate().filter(|(_, line)| line.indent == level);
        let child = match step.parse::<usize>() {
            Ok(index) => of_level.filter(|(_, line)| line.content == "-").nth(index),
            Err(_) => of_level.find(|(_, line)| is_key(line.content, step)),
        };
        let Some((offset, line)) = child else { return found };
        found = line.idx;
        parent_indent = Some(line.indent);
        from += offset + 1;
    }
    found
}

fn lines_of(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for (idx, line) in text.lines().enumerate() {
        let mut content = line.trim_start();
        let mut indent = line.len() - content.len();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        while let Some(rest) = content.strip_prefix("- ") {
            lines.push(Line { idx, indent, content: "-" });
            content = rest.trim_start();
            indent = line.len() - content.len();
        }
        lines.push(Line { idx, indent, content: content.trim_end() });
    }
    lines
}

fn is_key(content: &str, name: &str) -> bool {
    let bare = content.strip_prefix(['"', '\'']).unwrap_or(content);
    bare.strip_prefix(name).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
}
