//! Tokens: the words and signs of a label selector.

use std::fmt;

/// One word or sign. The last one of every text is [`Token::End`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Word(String),
    Bang,
    Comma,
    Open,
    Close,
    Equal,
    DoubleEqual,
    NotEqual,
    Greater,
    Less,
    End,
}

const SIGNS: [(&str, Token); 9] = [
    ("==", Token::DoubleEqual),
    ("!=", Token::NotEqual),
    ("=", Token::Equal),
    ("!", Token::Bang),
    (",", Token::Comma),
    ("(", Token::Open),
    (")", Token::Close),
    (">", Token::Greater),
    ("<", Token::Less),
];

pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let is_sign = |c: char| "=!(),><".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let sign = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign));
        let (token, length) = match sign {
            Some((sign, token)) => (token.clone(), sign.len()),
            None => {
                let length = rest.find(|c| is_space(c) || is_sign(c)).unwrap_or(rest.len());
                (Token::Word(rest[..length].to_owned()), length)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start_matches(is_space);
    }
    tokens.push(Token::End);
    tokens
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = SIGNS.iter().find(|(_, token)| token == self);
        match self {
            Token::Word(word) => f.write_str(word),
            _ => f.write_str(sign.map_or("", |(sign, _)| *sign)),
        }
    }
}
