//! Source: the text of one template, and the instructions that it compiles to. A file may have several templates.

use std::collections::BTreeMap;

use minijinja::machinery::ast::Stmt;
use minijinja::machinery::{CodeGenerator, Instructions, Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::TemplateError;
use super::marks::Marks;
use super::rewrite::Rewriter;
use super::wall;

/// A template's text, as it is parsed for each rendering: marks are written into it.
#[derive(Debug)]
pub(super) struct Source {
    /// The field that it comes from.
    field: String,
    pub(super) text: String,
    syntax: SyntaxConfig,
}

/// The instructions of a template, and those of its blocks, of which there are none.
pub(super) type Compiled<'s> = (Instructions<'s>, BTreeMap<&'s str, Instructions<'s>>);

/// The longest known have some 20,000 bytes.
pub(super) const MAX_SOURCE_BYTES: usize = 1 << 20;

/// What may be chained in one tag, and branches of one kind in a template: each lies within the one before, and every step through the
/// tree goes as deep. The longest known tags have some 30. The parser itself bounds only brackets and blocks.
pub(super) const MAX_CHAINED: usize = 400;

// === impl Source ===

impl Source {
    /// # Errors
    /// [`TemplateError::TooLong`], [`TemplateError::Compile`], [`TemplateError::Unsupported`], [`TemplateError::BrokeDown`].
    pub(super) fn new(field: &str, text: &str) -> Result<Self, TemplateError> {
        let field = field.to_owned();
        if text.len() > MAX_SOURCE_BYTES {
            return Err(TemplateError::TooLong { field, found: text.len() });
        }
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.map_err(|source| TemplateError::Compile { field: field.clone(), source })?;
        let template = Self { field, text: without_training_marks(text), syntax };
        let longest = wall::within(|| longest_chain(&template.text, &template.syntax));
        if longest.map_err(|words| template.broke_down(words))? > MAX_CHAINED {
            return Err(TemplateError::TooDeep { field: template.field });
        }
        template.compile(None)?;
        Ok(template)
    }

    pub(super) fn compile<'s>(&'s self, marks: Option<&Marks<'s>>) -> Result<Compiled<'s>, TemplateError> {
        wall::within(|| self.compiled(marks)).map_err(|words| self.broke_down(words))?
    }

    /// What is told of a text that finds a fault in the engine.
    pub(super) fn broke_down(&self, words: String) -> TemplateError {
        TemplateError::BrokeDown { field: self.field.clone(), words }
    }

    fn compiled<'s>(&'s self, marks: Option<&Marks<'s>>) -> Result<Compiled<'s>, TemplateError> {
        let tree = parse(&self.text, &self.field, self.syntax.clone());
        let tree = tree.map_err(|source| TemplateError::Compile { field: self.field.clone(), source })?;
        let rewritten = Rewriter { marks, is_within: false }.statement(&tree);
        let tree: Stmt<'s> =
            rewritten.map_err(|source| TemplateError::Unsupported { field: self.field.clone(), source })?;
        let mut generator = CodeGenerator::new(&self.field, &self.text);
        generator.compile_stmt(&tree);
        Ok(generator.finish())
    }
}

/// The most operators, look-ups and calls of one tag, or `elif` branches of all. What cannot be cut into tokens the parser refuses.
fn longest_chain(text: &str, syntax: &SyntaxConfig) -> usize {
    let (mut longest, mut of_tag, mut branches) = (0, 0_usize, 0_usize);
    for (token, _) in tokenize(text, false, syntax.clone()).map_while(Result::ok) {
        match token {
            Token::VariableStart | Token::BlockStart => of_tag = 0,
            Token::Ident("elif") => branches += 1,
            Token::Ident("and" | "or" | "not" | "if" | "is" | "in") => of_tag += 1,
            Token::TemplateData(_)
            | Token::VariableEnd
            | Token::BlockEnd
            | Token::Ident(_)
            | Token::Str(_)
            | Token::String(_)
            | Token::Int(_)
            | Token::Int128(_)
            | Token::Float(_)
            | Token::Comma
            | Token::Colon
            | Token::Assign
            | Token::BracketClose
            | Token::ParenClose
            | Token::BraceClose => {}
            _ => of_tag += 1,
        }
        longest = longest.max(of_tag).max(branches);
    }
    longest
}

/// `{% generation %}` tells trainers which text is the model's own, and nothing to anyone else.
fn without_training_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let control = tag.len() - tag.trim_start_matches(['-', '+']).trim_start().len();
        let word = &tag[control..];
        for (name, stands_for) in [("generation", "if true"), ("endgeneration", "endif")] {
            let Some(after) = word.strip_prefix(name) else { continue };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                out.push_str(&tag[..control]);
                out.push_str(stands_for);
                rest = after;
                break;
            }
        }
    }
    out.push_str(rest);
    out
}
