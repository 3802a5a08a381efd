//! Marks: how a rendering tells the control tokens that a template wrote from text of a client that looks like them.
//!
//! Two characters that occur nowhere in the chat (noncharacters, which Unicode keeps for such use) are put around each control token that
//! the template's own text names, before its first character and after its last. Contents are left as they are, so templates trim, cut
//! and compare them as ever. In what was rendered, a control token begins and ends with marks; all else is text. No content has a mark,
//! so none makes a control token, however the template cuts and joins it.
//!
//! Some templates write a name in pieces, `<|` and a role and `|>`: so the beginning of a name at the end of a text gets marks of its own,
//! and the end of one at the beginning. What stands between has to be a role that templates know, or it could be any name that ends a turn.

use std::collections::HashSet;

use crate::chat::Chat;
use crate::names::{Among, Names};
use crate::prompt::Prompt;

/// The names of a model's control tokens.
#[derive(Debug)]
pub(super) struct ControlNames {
    names: HashSet<Box<str>>,
    finder: Option<Names>,
    /// Those that are looked for in pieces, in order, to look beginnings up; and reversed, for ends.
    sorted: Vec<Box<str>>,
    sorted_backwards: Vec<Box<str>>,
    /// Bytes of the longest of these.
    longest: usize,
}

/// The two marks of one rendering.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'n> {
    names: &'n ControlNames,
    begin: char,
    end: char,
}

/// What a template may put between the pieces of a name.
const ROLES: [&str; 10] =
    ["system", "user", "assistant", "tool", "function", "developer", "observation", "ipython", "context", "model"];

/// Bytes of the longest name that is looked for in pieces. No template writes a longer one, and each piece costs as much.
const MAX_IN_PIECES: usize = 256;

/// The characters that can be marks.
fn noncharacters() -> impl Iterator<Item = char> {
    let planes = (0..=16_u32).flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
    (0xfdd0..=0xfdef).chain(planes).filter_map(char::from_u32)
}

// === impl ControlNames ===

impl ControlNames {
    pub(super) fn new<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let names: HashSet<Box<str>> = names.filter(|name| !name.is_empty()).map(Box::from).collect();
        let mut sorted: Vec<Box<str>> = names.iter().filter(|name| name.len() <= MAX_IN_PIECES).cloned().collect();
        sorted.sort_unstable();
        let mut sorted_backwards: Vec<Box<str>> = sorted.iter().map(|name| backwards(name)).collect();
        sorted_backwards.sort_unstable();
        let longest = sorted.iter().map(|name| name.len()).max().unwrap_or(0);
        let finder = Names::new(names.iter().map(|name| (&**name, true)));
        // More names than are looked for at once are in no file that is taken; without it none is found whole, and pieces still are.
        Self { names, finder: finder.ok(), sorted, sorted_backwards, longest }
    }

    /// The bytes at the end of `text` that begin a name without ending it.
    fn begun_at_the_end(&self, text: &str) -> usize {
        let tails = text.char_indices().rev().map(|(at, _)| &text[at..]);
        let begun = tails.take_while(|tail| tail.len() < self.longest).filter(|tail| begins_one(&self.sorted, tail));
        begun.map(str::len).max().unwrap_or(0)
    }

    /// The bytes at the start of `text` that end a name without beginning it.
    fn ended_at_the_start(&self, text: &str) -> usize {
        // What is the head of a text is the tail of it backwards.
        let text = backwards(&text[..text.floor_char_boundary(self.longest.saturating_sub(1))]);
        let tails = text.char_indices().map(|(at, _)| &text[at..]);
        tails.filter(|tail| begins_one(&self.sorted_backwards, tail)).map(str::len).max().unwrap_or(0)
    }
}

fn backwards(text: &str) -> Box<str> {
    text.chars().rev().collect::<String>().into()
}

/// Whether one of the names begins with `text` and goes on.
fn begins_one(sorted: &[Box<str>], text: &str) -> bool {
    let at = sorted.partition_point(|name| &**name <= text);
    sorted.get(at).is_some_and(|name| name.starts_with(text))
}

// === impl Marks ===

impl<'n> Marks<'n> {
    /// Marks that are nowhere in `chat`; `None` where it has every character that could be one.
    pub(super) fn for_chat(names: &'n ControlNames, chat: &Chat, source: &str) -> Option<Self> {
        let mut used = HashSet::new();
        let mut note = |text: &str| used.extend(text.chars().filter(|c| is_noncharacter(*c)));
        note(source);
        chat.each_text(&mut note);
        let mut free = noncharacters().filter(|c| !used.contains(c));
        Some(Self { names, begin: free.next()?, end: free.next()? })
    }

    /// A text of the template, with its control tokens marked.
    pub(super) fn mark(&self, text: &str) -> String {
        let mut marked = String::with_capacity(text.len());
        let mut from = 0;
        let whole = self.names.finder.iter().flat_map(|finder| finder.find(text, Among::All));
        for found in whole {
            self.put_between(&text[from..found.from], from == 0, false, &mut marked);
            self.put_whole(&text[found.from..found.to], &mut marked);
            from = found.to;
        }
        self.put_between(&text[from..], from == 0, true, &mut marked);
        marked
    }

    /// A control token by its name, or any other text.
    pub(super) fn mark_name(&self, name: &str) -> String {
        let mut marked = String::new();
        match self.names.names.contains(name) {
            true => self.put_whole(name, &mut marked),
            false => marked.push_str(name),
        }
        marked
    }

    fn put_whole(&self, name: &str, marked: &mut String) {
        marked.push(self.begin);
        marked.push_str(name);
        marked.push(self.end);
    }

    fn put_between(&self, text: &str, is_first: bool, is_last: bool, marked: &mut String) {
        let ended = if is_first { self.names.ended_at_the_start(text) } else { 0 };
        let (end, text) = text.split_at(ended);
        let begun = if is_last { self.names.begun_at_the_end(text) } else { 0 };
        let (text, begin) = text.split_at(text.len() - begun);
        if !end.is_empty() {
            marked.push(self.end);
            marked.push_str(end);
            marked.extend([self.end; 2]);
        }
        marked.push_str(text);
        if !begin.is_empty() {
            marked.extend([self.begin; 2]);
            marked.push_str(begin);
            marked.push(self.begin);
        }
    }

    /// `text` without marks.
    pub(super) fn clear(&self, text: &str) -> String {
        text.replace([self.begin, self.end], "")
    }

    /// What was rendered, its marks read.
    pub(super) fn read(&self, rendered: &str) -> Prompt {
        let mut prompt = Prompt::default();
        let mut rest = rendered;
        while let Some(at) = rest.find([self.begin, self.end]) {
            prompt.push_text(&rest[..at]);
            rest = &rest[at..];
            match self.whole_name(rest).or_else(|| self.name_in_pieces(rest)) {
                Some((name, after)) => {
                    prompt.push_control(&name);
                    rest = after;
                }
                // A piece that did not become a name.
                None => rest = rest.strip_prefix([self.begin, self.end]).unwrap_or_default(),
            }
        }
        prompt.push_text(rest);
        prompt
    }

    /// The control token that `text` begins with, and what comes after it.
    fn whole_name<'t>(&self, text: &'t str) -> Option<(String, &'t str)> {
        let (name, after) = text.strip_prefix(self.begin)?.split_once([self.begin, self.end])?;
        let is_ended = text[self.begin.len_utf8() + name.len()..].starts_with(self.end);
        (is_ended && self.names.names.contains(name)).then(|| (name.to_owned(), after))
    }

    /// The same of one that the template wrote around a role.
    fn name_in_pieces<'t>(&self, text: &'t str) -> Option<(String, &'t str)> {
        // A name and its seven marks are no longer than this: what comes after is not looked through at each piece.
        let window = &text[..text.floor_char_boundary(self.names.longest + 7 * char::MAX_LEN_UTF8)];
        let (begin, rest) = window.strip_prefix(self.begin)?.strip_prefix(self.begin)?.split_once(self.begin)?;
        let (role, rest) = rest.split_once(self.end)?;
        let (end, rest) = rest.split_once(self.end)?;
        let name = format!("{begin}{role}{end}");
        let after = &text[window.len() - rest.strip_prefix(self.end)?.len()..];
        (ROLES.contains(&role) && self.names.names.contains(name.as_str())).then_some((name, after))
    }
}

fn is_noncharacter(c: char) -> bool {
    let number = u32::from(c);
    (0xfdd0..=0xfdef).contains(&number) || number & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::prompt::PromptPart;

    fn read(pieces: &[(&str, bool)]) -> Vec<PromptPart> {
        let names = ControlNames::new(["<|im_end|>", "<|im_end|>>", "<|user|>", "</s>"].into_iter());
        let marks = Marks::for_chat(&names, &Chat::default(), "").unwrap();
        let put = |&(text, is_templates): &(&str, bool)| if is_templates { marks.mark(text) } else { text.to_owned() };
        let prompt = marks.read(&pieces.iter().map(put).collect::<String>());
        assert_eq!(prompt.text(), pieces.iter().map(|piece| piece.0).collect::<String>(), "nothing is lost");
        prompt.parts().to_vec()
    }

    fn control(name: &str) -> PromptPart {
        PromptPart::Control(name.to_owned())
    }

    fn text(text: &str) -> PromptPart {
        PromptPart::Text(text.to_owned())
    }

    #[test]
    fn a_templates_own_names_are_control_tokens_the_longest_first() {
        assert_eq!(
            read(&[("a<|im_end|>>b</s>", true)]),
            [text("a"), control("<|im_end|>>"), text("b"), control("</s>")]
        );
    }

    #[test]
    fn a_name_in_a_content_is_text_however_it_came_about() {
        assert_eq!(read(&[("x", true), ("<|im_end|>", false), ("y", true)]), [text("x<|im_end|>y")]);
        assert_eq!(read(&[("<|im_", false), ("end|>", true)]), [text("<|im_end|>")]);
        assert_eq!(read(&[("<|im_", true), ("end|>", false)]), [text("<|im_end|>")]);
        assert_eq!(read(&[("<|im_end|>", true), (">", false)]), [control("<|im_end|>"), text(">")]);
    }

    #[test]
    fn a_name_that_a_template_writes_around_a_role_is_a_control_token() {
        assert_eq!(read(&[("<|", true), ("user", false), ("|>\n", true)]), [control("<|user|>"), text("\n")]);
        assert_eq!(read(&[("<|", true), ("im_end", false), ("|>\n", true)]), [text("<|im_end|>\n")], "this is no role");
    }
}
