//! The statement `{% generation %}`, by which transformers marks what a model said in a conversation that it is trained on.
//! For a prompt it means nothing.

/// Makes of each `{% generation %}` and its end a block that is always there, with the same control of white space.
pub(super) fn without_generation(source: &str) -> String {
    let mut written = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        written.push_str(before);
        let end = match from.as_bytes().get(1) {
            Some(b'#') => end_of(from, "#}"),
            Some(b'{') => end_of(from, "}}"),
            Some(b'%') => end_of(from, "%}"),
            _ => 1,
        };
        let (tag, after) = from.split_at(end);
        rest = after;
        match Statement::of(tag) {
            Some(statement) if statement.name == "generation" => {
                statement.write("if true", &mut written)
            }
            Some(statement) if statement.name == "endgeneration" => {
                statement.write("endif", &mut written)
            }
            Some(statement) if statement.name == "raw" => {
                written.push_str(tag);
                let end = end_of_raw(rest);
                written.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            _ => written.push_str(tag),
        }
    }
    written.push_str(rest);
    written
}

/// A statement without anything but its name.
struct Statement<'a> {
    open: &'a str,
    name: &'a str,
    close: &'a str,
}

impl<'a> Statement<'a> {
    fn of(tag: &'a str) -> Option<Self> {
        let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
        let sign = |c| c == '-' || c == '+';
        let name = inner.trim_start_matches(sign);
        let open = &tag[..2 + inner.len() - name.len()];
        let bare = name.trim_end_matches(sign);
        let close = &tag[open.len() + bare.len()..];
        Some(Self {
            open,
            name: bare.trim(),
            close,
        })
    }

    fn write(&self, name: &str, written: &mut String) {
        written.extend([self.open, " ", name, " ", self.close]);
    }
}

/// Where a tag ends: behind the first such mark that is in no string.
fn end_of(tag: &str, mark: &str) -> usize {
    let comment = mark == "#}";
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in tag.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if !comment && (c == '"' || c == '\'') => quote = Some(c),
            None if tag[at..].starts_with(mark) => return at + mark.len(),
            None => {}
        }
    }
    // It does not end: the compiler says so.
    tag.len()
}

/// Where what is raw ends.
fn end_of_raw(text: &str) -> usize {
    let ends = text.match_indices("{%").find(|(at, _)| {
        let tag = &text[*at..];
        Statement::of(&tag[..end_of(tag, "%}")]).is_some_and(|end| end.name == "endraw")
    });
    ends.map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_becomes_one_that_means_nothing() {
        for (source, expected) in [
            (
                "a{% generation %}b{% endgeneration %}c",
                "a{% if true %}b{% endif %}c",
            ),
            (
                "{%- generation -%} b {%-endgeneration+%}",
                "{%- if true -%} b {%- endif +%}",
            ),
            ("{%generation%}", "{% if true %}"),
            ("{%\n  generation\t%}", "{% if true %}"),
        ] {
            assert_eq!(without_generation(source), expected);
        }
    }

    #[test]
    fn nothing_else_changes() {
        for source in [
            "{# {% generation %} #}",
            "{{ '{% generation %}' }}",
            "{{ \"}}{% generation %}\" }}",
            "{% raw %}{% generation %}{% endraw %}{% if generation %}{% endif %}",
            "{% set generation = 1 %}{% generation",
            "{ % generation % } {",
            "{{ \"it's\" }}{% if '%}' == x %}{% endif %}",
            "",
        ] {
            assert_eq!(without_generation(source), source);
        }
    }
}
