//! Chat templates made to harm: each ends soon, with an error that says so, and takes little memory on the way.

use polyphony_model::{Chat, ChatMessage, ChatTemplate, TemplateError};

fn render(source: &str, content: &str) -> Result<String, TemplateError> {
    let template = ChatTemplate::new(source, "<s>".into(), "</s>".into(), &["<s>", "</s>"])?;
    template.render(&Chat::new(vec![ChatMessage::new("user", content)])).map(|prompt| prompt.text())
}

#[track_caller]
fn assert_is_stopped(source: &str) {
    match render(source, "hello") {
        Err(TemplateError::Exhausted(_)) => {}
        other => panic!("{source}: {:?}", other.map(|text| text.len())),
    }
}

/// Sixty times the same step, which doubles something: what all of it would make fits no machine.
fn sixty(step: &str) -> String {
    format!("{{% set ns = namespace(x='ab', l=[1]) %}}{{% for i in range(60) %}}{step}{{% endfor %}}")
}

#[test]
fn doublings_are_paid_for_before_they_are_made() {
    for step in [
        "{% set ns.x = ns.x ~ ns.x %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% set ns.x = ns.x * 2 %}",
        "{% set ns.x = ns.x | replace('ab', 'abab') %}",
        "{% set ns.x = ns.x.replace('ab', 'abab') %}",
        "{% set ns.x = [ns.x, ns.x] | join %}",
        "{% set ns.x = ''.join([ns.x, ns.x]) %}",
        "{% set ns.x = '%s%s' | format(ns.x, ns.x) %}",
        "{% set ns.x = '{}{}'.format(ns.x, ns.x) %}",
        "{% set ns.x = [ns.x, ns.x] | tojson %}",
        "{% set ns.x = [ns.x, ns.x] | string %}",
        "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}",
        "{% set ns.l = ns.l + ns.l %}",
        "{% set ns.l = ns.l * 2 %}",
        "{% set ns.l = [ns.l, ns.l] %}",
        "{% set ns.l = {'a': ns.l, 'b': ns.l} %}",
        "{% set ns.l = dict(a=ns.l, b=ns.l) %}",
        "{% set ns.x = ns.x | list | join('abcd') %}",
        "{% set ns.x = ns.x.split('') | join('abcd') %}",
        "{% set ns.x = ns.x | indent(60000, true) ~ '\\n' %}",
    ] {
        assert_is_stopped(&sixty(step));
    }
}

#[test]
fn numbers_do_not_make_long_texts() {
    for expression in [
        "'a' * 100000000000",
        "[1] * 100000000000",
        "'a' | indent(100000000000, true)",
        "[1, 2] | tojson(indent=100000000000) ~ 'a' * 1000000000",
    ] {
        assert_is_stopped(&format!("{{{{ {expression} }}}}"));
    }
    for expression in ["'%1000000000d' | format(1)", "'{:>1000000000}'.format(1)", "'%*d' | format(1000000000, 1)"] {
        let error = render(&format!("{{{{ {expression} }}}}"), "").unwrap_err().to_string();
        assert!(error.contains("at most 9999 characters wide"), "{expression}: {error}");
    }
}

#[test]
fn loops_and_macros_end() {
    assert_is_stopped("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}");
    assert_is_stopped(
        "{% set x %}{% for a in range(100000) %}{% for b in range(9000) %}a rather long text that is written on and on and on{% endfor %}{% endfor %}{% endset %}",
    );
    assert_is_stopped(
        "{% set x = messages[0].content * 3000000 %}{% for a in range(100000) %}{% if 'z' in x %}{% endif %}{% endfor %}",
    );
    let recursion = "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    let error = render(recursion, "").unwrap_err();
    assert!(matches!(&error, TemplateError::Render(_) | TemplateError::Exhausted(_)), "{error}");
}

#[test]
fn what_lies_too_deep_or_holds_itself_is_refused() {
    let deep = "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}";
    assert!(render(deep, "").unwrap_err().to_string().contains("too deep"));
    let straight = format!("{{% set x = [] %}}{}", "{% set x = [x] %}".repeat(5000));
    assert!(render(&straight, "").unwrap_err().to_string().contains("too deep"));
    for cycle in ["ns", "[ns]", "{'a': ns}", "namespace(a=ns)"] {
        let source = format!("{{% set ns = namespace(a=1) %}}{{% set ns.a = {cycle} %}}{{{{ ns.a }}}}");
        assert!(render(&source, "").unwrap_err().to_string().contains("cannot be kept"), "{cycle}");
    }
    let deep_source = |n: usize| format!("{{{{ {}1{} }}}}", "[".repeat(n), "]".repeat(n));
    assert!(matches!(render(&deep_source(200), ""), Err(TemplateError::Compile { .. })));
    assert!(matches!(render(&deep_source(50_000), ""), Err(TemplateError::TooDeep { .. })));
    let arguments = format!("{{{{ messages | default({}1) }}}}", "1,".repeat(70_000));
    assert!(matches!(render(&arguments, ""), Err(TemplateError::Unsupported { .. } | TemplateError::Compile { .. })));
    assert!(matches!(render(&" ".repeat(2 << 20), ""), Err(TemplateError::TooLong { .. })));
}

#[test]
fn chains_and_branches_of_any_length_overflow_no_stack() {
    for piece in ["-1", ".b", "~'a'", "|trim", "[0]", "()", " and 1", " is none", " == 1", " if 1", "**1"] {
        let source = format!("{{{{ 1{} }}}}", piece.repeat(100_000));
        let error = render(&source, "").unwrap_err();
        assert!(matches!(error, TemplateError::TooDeep { .. }), "{piece}: {error}");
    }
    let branches = format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(80_000));
    assert!(matches!(render(&branches, "").unwrap_err(), TemplateError::TooDeep { .. }));
    // As many as may be do not.
    let within = format!("{{{{ 'a'{} }}}}", "~'a'".repeat(390));
    assert_eq!(render(&within, "").unwrap(), "a".repeat(391));
    render(&format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(390)), "").unwrap();
}

#[test]
fn pieces_of_names_are_not_looked_for_through_all_that_follows() {
    let n_pieces = 200_000;
    let source = format!("{{{{ '<|' * {n_pieces} }}}}");
    let template = ChatTemplate::new(&source, String::new(), String::new(), &["<|user|>"]).unwrap();
    let prompt = template.render(&Chat::default()).unwrap();
    assert_eq!(prompt.text(), "<|".repeat(n_pieces));
}

#[test]
fn a_name_as_long_as_a_template_is_not_looked_for_in_pieces() {
    let name = "<".repeat(20_000);
    let source = "<".repeat(name.len() - 1);
    let template = ChatTemplate::new(&source, String::new(), String::new(), &[&name]).unwrap();
    let prompt = template.render(&Chat::default()).unwrap();
    assert_eq!(prompt.text(), source);
}

#[test]
fn comparing_and_looking_up_is_paid_for() {
    let doubled = "{% set ns = namespace(l=[1]) %}{% for i in range(25) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
    for expression in ["ns.l == ns.l", "ns.l in [ns.l]", "{ns.l: 1}", "ns.l | sort", "ns.l is eq(ns.l)"] {
        assert_is_stopped(&format!("{doubled}{{{{ {expression} }}}}"));
    }
}

/// A long chat through the template of a real family, with much that templates do.
const REAL: &str = r#"{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '\n\n' }}{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1, seen=[]) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
{%- if ns.multi_step and message.role == "user" and not(message.content.startswith('<tool_response>')) %}
{%- set ns.multi_step = false %}{%- set ns.last = index %}{%- endif %}{%- endfor %}
{%- for message in messages %}{%- set ns.seen = ns.seen + [message.role] %}
{%- set content = message.content %}
{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}
{{- '<|im_start|>' + message.role + '\n' + content | trim + '<|im_end|>\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"#;

#[test]
fn a_long_honest_chat_is_far_from_the_bounds() {
    let names = ["<|im_start|>", "<|im_end|>"];
    let template = ChatTemplate::new(REAL, String::new(), String::new(), &names).unwrap();
    template.try_out().unwrap();
    let contents = ["x".repeat(40_000), "<think>a</think>\n\nb ".repeat(2_000)];
    let messages = (0..100).map(|idx| ChatMessage::new(["user", "assistant"][idx % 2], contents[idx % 2].as_str()));
    let prompt = template.render(&Chat::new(messages.collect())).unwrap();
    let n_controls =
        prompt.parts().iter().filter(|part| matches!(part, polyphony_model::PromptPart::Control(_))).count();
    assert_eq!(n_controls, 201);
    assert!(prompt.text().len() > 2_000_000);
    // And many short messages.
    let messages = (0..1_500).map(|idx| ChatMessage::new(["user", "assistant"][idx % 2], "ok"));
    template.render(&Chat::new(messages.collect())).unwrap();
}

/// Found by the fuzz target: the engine divides without a look.
#[test]
fn what_is_divided_by_nothing_is_an_error() {
    let least = "(-170141183460469231731687303715884105727 - 1)";
    for source in
        ["{{ 4 is divisibleby 0 }}", "{{ 4 % 0 }}", "{{ 4 // 0 }}", "{{ [1] | batch(0) }}", "{{ range(1, 9, 0) }}"]
    {
        assert!(render(source, "").is_err(), "{source}");
    }
    assert_eq!(
        render("{{ 4 is divisibleby 2 }} {{ 4 is divisibleby 3 }} {{ 4.5 is divisibleby 1.5 }}", "").unwrap(),
        "True False True"
    );
    assert_eq!(render(&format!("{{{{ {least} is divisibleby -1 }}}}"), "").unwrap(), "True");
}

/// Overflows are panics in what is built for tests, and the engine negates without a look.
#[test]
fn a_fault_of_the_engine_is_an_error_and_ends_no_thread() {
    let error = render(&format!("{{{{ 'abc'[::{}] }}}}", i64::MIN), "").unwrap_err();
    assert!(matches!(error, TemplateError::BrokeDown { .. }), "{error}");
    assert!(error.to_string().contains("breaks down the template engine (attempt to negate"), "{error}");
}
