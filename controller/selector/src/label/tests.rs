//! Tests of label selectors. The refusals are those of kubectl 1.35's own parser, word by word.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::LabelSelector;

#[test]
fn labels_are_selected_by_every_operator() {
    let object = json!({"metadata": {"labels": {"app": "a", "tier": "3", "in": "in", "empty": ""}}});
    let cases = [
        ("app=a", true),
        ("app==b", false),
        (" app = a ", true),
        ("app!=b", true),
        ("other!=b", true),
        ("app", true),
        ("!app", false),
        ("!other", true),
        ("! other", true),
        ("app in (a, b),tier", true),
        ("app in(a)", true),
        ("app notin (a,b)", false),
        ("other notin (a)", true),
        ("tier>2", true),
        ("tier<3", false),
        ("other<3", false),
        ("app>0", false),
        ("app=a,tier in (4)", false),
        ("app=a,app=b", false),
        // Words of the grammar are names, too.
        ("in", true),
        ("in=in", true),
        ("in in (in)", true),
        ("!notin", true),
        // No value is the empty one.
        ("empty=", true),
        ("empty=,app", true),
        ("app=", false),
        ("empty in ()", true),
        ("app in ()", false),
        ("empty in (x,,y)", true),
        ("empty in (,)", true),
        ("", true),
        (" \t\r\n", true),
    ];
    for (selector, expected) in cases {
        assert_eq!(selector.parse::<LabelSelector>().unwrap().matches(&object), expected, "{selector}");
    }
    assert!(" ".parse::<LabelSelector>().unwrap().is_empty());
    assert!(!"a".parse::<LabelSelector>().unwrap().is_empty());
}

const NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
     must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

#[test]
fn what_is_no_label_selector_is_refused_in_kubernetes_words() {
    let end = "',' or 'end of string'";
    let operators = "in, notin, =, ==, !=, gt, lt";
    let key = |key: &str, fault: &str| format!("unable to parse requirement: <nil>: Invalid value: {key:?}: {fault}");
    let value = |value: &str, fault: &str| {
        format!("unable to parse requirement: values[0][a]: Invalid value: {value:?}: {fault}")
    };
    let found = |found: &str, expected: &str| format!("found '{found}', expected: {expected}");
    let requirement = |it: &str, expected: &str| format!("unable to parse requirement: {}", found(it, expected));
    let integer = "for 'Gt', 'Lt' operators, the value must be an integer";
    for (selector, expected) in [
        (",", found(",", "!, identifier, or 'end of string'")),
        (",a", found(",", "!, identifier, or 'end of string'")),
        (")", found(")", "!, identifier, or 'end of string'")),
        ("=a", found("=", "!, identifier, or 'end of string'")),
        ("a,", found("", "identifier after ','")),
        ("a,,b", found(",", "identifier after ','")),
        ("!!!!", requirement("!", "identifier")),
        ("a,!", requirement("", "identifier")),
        ("a=b=c", found("=", end)),
        ("a=b c", found("c", end)),
        ("a=b)", found(")", end)),
        ("!a=b", found("=", end)),
        ("!a b", found("b", end)),
        ("a in (b)c", found("c", end)),
        ("a b", requirement("b", operators)),
        ("a!b", requirement("!", operators)),
        ("a gt 1", requirement("gt", operators)),
        ("a within (b)", requirement("within", operators)),
        ("a=!b", requirement("!", "identifier")),
        ("a=(b)", requirement("(", "identifier")),
        ("a===b", requirement("=", "identifier")),
        ("a=>b", requirement(">", "identifier")),
        ("a in", "unable to parse requirement: found '' expected: '('".to_owned()),
        ("a in b", "unable to parse requirement: found 'b' expected: '('".to_owned()),
        ("a in (", requirement("", "',', ')' or identifier")),
        ("a in (!b)", requirement("!", "',', ')' or identifier")),
        ("a in (b", requirement("", "',' or ')'")),
        ("a in (b c)", requirement("c", "',' or ')'")),
        ("a in (b=c)", requirement("=", "',' or ')'")),
        ("a in (b,!c)", requirement("!", "',', or identifier")),
        ("-a=b", key("-a", NAME)),
        ("é=b", key("é", NAME)),
        ("/a", key("/a", "prefix part must be non-empty")),
        ("a/", key("a/", &format!("name part must be non-empty; {NAME}"))),
        (LONG, key(LONG, "name part must be no more than 63 bytes")),
        ("a=b-", value("b-", VALUE)),
        (&format!("a={LONG}"), value(LONG, "must be no more than 63 bytes")),
        ("a>b", format!("unable to parse requirement: values[0]: Invalid value: \"b\": {integer}")),
        ("a>", format!("unable to parse requirement: values[0]: Invalid value: \"\": {integer}")),
        (
            "a in (b-,c_)",
            format!(
                "unable to parse requirement: [values[0][a]: Invalid value: \"b-\": {VALUE}, \
                 values[1][a]: Invalid value: \"c_\": {VALUE}]"
            ),
        ),
    ] {
        assert_eq!(selector.parse::<LabelSelector>().unwrap_err().to_string(), expected, "{selector}");
    }
    assert!(
        "a/b/c".parse::<LabelSelector>().unwrap_err().to_string().contains("with an optional DNS subdomain prefix")
    );
    assert!("UP.io/a".parse::<LabelSelector>().unwrap_err().to_string().contains("prefix part a lowercase RFC 1123"));
}
