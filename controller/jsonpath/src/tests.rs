//! Tests of paths and templates; what kubectl 1.35 prints for the same text is what is expected, but for the gaps of `lib.rs`.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{Fault, Path, Template};

fn object() -> Value {
    json!({
        "a": {"b": [1, 2, 3], "s": "x y"},
        "labels": {"app.io/x": "y", "plain/z": "w"},
        "f": 0.5, "n": null, "t": true,
        "c": [
            {"type": "Ready", "status": "True", "n": 1, "m": 1},
            {"type": "Old", "status": "False", "m": 2, "k": 1.5, "deep": {"v": 4}},
        ],
        "deep": {"v": 1, "x": {"v": 2, "list": [{"v": 3}]}},
    })
}

fn found(path: &str) -> Value {
    let path: Path = path.parse().unwrap_or_else(|error| panic!("{error}"));
    json!(path.find(&object()))
}

#[test]
fn paths_lead_where_kubectl_says() {
    for (path, expected) in [
        // Braces, the root and the first dot may be left out.
        ("{.a.b[1]}", json!([2])),
        (".a.b[1]", json!([2])),
        ("a.b[1]", json!([2])),
        ("$.a.b[1]", json!([2])),
        ("{$.a.b[1]}", json!([2])),
        ("{a.b[1]}", json!([2])),
        ("{ .a .b[ 1 ] }", json!([2])),
        ("{@.a.s}", json!(["x y"])),
        // Elements, slices and unions.
        (".a.b[-1]", json!([3])),
        (".a.b[*]", json!([1, 2, 3])),
        (".a.b.*", json!([1, 2, 3])),
        (".a.b[1:]", json!([2, 3])),
        (".a.b[0:2]", json!([1, 2])),
        (".a.b[-2:-1]", json!([2])),
        (".a.b[::2]", json!([1, 3])),
        (".a.b[1:1]", json!([])),
        (".a.b[:]", json!([1, 2, 3])),
        (".a.b[0,2]", json!([1, 3])),
        (".a['b','s']", json!([[1, 2, 3], "x y"])),
        (".c[*]['type','status']", json!(["Ready", "Old", "True", "False"])),
        (".c[0,?(@.k)].type", json!(["Ready", "Old"])),
        // Names with dots.
        (".labels.app\\.io/x", json!(["y"])),
        (".labels.plain/z", json!(["w"])),
        (".labels['app.io/x']", json!(["y"])),
        (".labels['app\\.io/x']", json!(["y"])),
        ("['labels'][\"app.io/x\"]", json!(["y"])),
        // Filters.
        (".c[?(@.type==\"Ready\")].status", json!(["True"])),
        (".c[?(@.type == 'Ready')].status", json!(["True"])),
        (".c[?(@.type != 'Ready')].status", json!(["False"])),
        (".c[?( @.m >= 2 )].type", json!(["Old"])),
        (".c[?(@.m<2)].type", json!(["Ready"])),
        (".c[?(@.m==2.0)].type", json!(["Old"])),
        (".c[?(@.k>1)].type", json!(["Old"])),
        (".c[?(@.n)].type", json!(["Ready"])),
        (".c[?(@.n==@.m)].type", json!(["Ready"])),
        (".c[?(@.deep.v<5)].type", json!(["Old"])),
        (".c[?(@.nothing!='x')].type", json!([])),
        (".c[?(@.type=='Re)ady')].type", json!([])),
        (".a.b[?(@>1)]", json!([2, 3])),
        (".c[?(@.type<1)].type", json!([])),
        // Any depth.
        ("..v", json!([1, 2, 3, 4])),
        (".deep..v", json!([1, 2, 3])),
        (".deep..[0].v", json!([3])),
        // What is not there is nothing.
        (".a.missing.deep", json!([])),
        (".a.b[9]", json!([])),
        (".a.b[-9]", json!([])),
        (".a.b[2:1]", json!([])),
        (".a.b[0:99]", json!([1, 2, 3])),
        (".a[0]", json!([])),
        (".a[?(@.x)]", json!([])),
        (".a.s.deeper", json!([])),
    ] {
        let mut found = found(path);
        if path.starts_with("..") {
            // Kubernetes promises no order among depths.
            found.as_array_mut().unwrap().sort_by_key(Value::to_string);
        }
        assert_eq!(found, expected, "{path}");
    }
    assert_eq!(found("{.}"), json!([object()]));
    assert_eq!(found("{$}"), json!([object()]));
}

#[test]
fn what_is_not_a_path_is_refused_with_its_place() {
    let deep = format!(".a{}", "[?(@.a".repeat(100));
    for (path, at, fault) in [
        ("{.a[}", 4, Fault::NoElement),
        (".a[", 3, Fault::NoElement),
        (".a[x]", 3, Fault::NoElement),
        (".a[0", 4, Fault::OpenBracket),
        (".a['x", 3, Fault::OpenQuote),
        (".a['x\\", 3, Fault::OpenQuote),
        (".a[99999999999999999999]", 3, Fault::NoNumber),
        (".a[1-2]", 3, Fault::NoNumber),
        (".a[::0]", 6, Fault::NoStride),
        (".a[::-1]", 7, Fault::NoStride),
        (".a.", 3, Fault::NoName),
        (".a\\", 3, Fault::NoName),
        ("..", 2, Fault::NoName),
        ("..*", 2, Fault::NoName),
        ("{.a", 3, Fault::OpenBrace),
        ("{.a b}", 4, Fault::NoStep),
        (".a]b", 2, Fault::NoStep),
        ("{.a}x", 4, Fault::NoStep),
        (".a[?(b)]", 5, Fault::NoElementInFilter),
        (".a[?(@.b=1)]", 8, Fault::NoOperator),
        (".a[?(@.b==)]", 10, Fault::NoOperand),
        (".a[?(@.b==x)]", 10, Fault::NoOperand),
        (".a[?(@.b=='x]", 10, Fault::OpenQuote),
        (".a[?(@.b==\"x\"]", 13, Fault::NoOperator),
        (&deep, 101, Fault::TooLong),
        (&".a".repeat(100), 130, Fault::TooLong),
    ] {
        let error = path.parse::<Path>().err().unwrap_or_else(|| panic!("{path} was read"));
        assert_eq!((error.at, error.fault), (at, fault), "{path}");
    }
    let error = ".a[x]".parse::<Path>().unwrap_err().to_string();
    assert!(error.starts_with("jsonpath \".a[x]\" cannot be read at byte 3: an index, a slice"), "{error}");
}

#[test]
fn a_template_mixes_text_paths_and_loops() {
    for (template, expected) in [
        (".a.s", "x y"),
        ("{.a.s}!", "x y!"),
        ("{.a.b[*]}{\"\\n\"}", "1 2 3\n"),
        ("{.f} {.n} {.t}", "0.5  true"),
        ("{.a}", "{\"b\":[1,2,3],\"s\":\"x y\"}"),
        ("{\"a}b\"}{'it\\'s'}", "a}bit's"),
        ("{range .c[*]}{.type}={.status}{\"\\n\"}{end}z", "Ready=True\nOld=False\nz"),
        ("{range .c[?(@.type=='Ready')]}{@.status}{end}", "True"),
        ("{range .c[*]}{range $.deep}{.v};{end}{.type} {end}", "Ready 4;Old "),
        ("{range .nothing[*]}x{end}y", "y"),
        ("{range .c[*]}{.type}", "ReadyOld"),
        ("{range['c'][0]}{.type}{end}", "Ready"),
        ("{.ending}{.ranger}", ""),
    ] {
        let read: Template = template.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.render(&object()), expected, "{template}");
    }
    let ranges = "{range .a}".repeat(20);
    for (template, fault) in [
        ("{end}", Fault::NothingToEnd),
        ("{range .a}{end}{end}", Fault::NothingToEnd),
        ("{.a", Fault::OpenBrace),
        ("{.a}{\"x}", Fault::OpenQuote),
        ("{.a \"x\"}", Fault::NoStep),
        ("{range .a", Fault::OpenBrace),
        (&ranges, Fault::TooLong),
    ] {
        assert_eq!(template.parse::<Template>().unwrap_err().fault, fault, "{template}");
    }
}

#[test]
fn a_path_that_multiplies_ends_within_its_bound() {
    let path: Path = "[*,*]".repeat(60).parse().unwrap();
    let mut value = json!(1);
    for _ in 0..60 {
        value = json!([value, 1]);
    }
    assert!(path.find(&value).len() <= 65_536);
    let path: Path = "..a".repeat(30).parse().unwrap();
    let deep = (0..60).fold(json!(1), |inner, _| json!({"a": inner}));
    assert!(path.find(&deep).len() <= 65_536);
}
