//! Pieces of C.

/// Text under construction.
#[derive(Debug, Default)]
pub(super) struct Text(pub String);

impl Text {
    pub fn add(&mut self, text: &str) {
        self.0.push_str(text);
    }
}

/// A name inside a comment, which it must not end.
pub(super) fn comment(name: &str) -> String {
    let printable = name.chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
    printable
        .collect::<String>()
        .replace("*/", "* /")
        .replace("/*", "/ *")
}

/// A constant array, some twenty numbers to a line.
pub(super) fn array(name: &str, kind: &str, values: &[i64]) -> String {
    use std::fmt::Write;
    let mut text = format!("static const {kind} {name}[{}] = {{", values.len());
    for (i, value) in values.iter().enumerate() {
        text.push_str(if i % 20 == 0 { "\n    " } else { " " });
        // (The least numbers are no literals: a minus and a number beyond the largest.)
        let _ = match (*value, i32::try_from(*value)) {
            (i64::MIN, _) => write!(text, "INT64_MIN,"),
            (_, Ok(i32::MIN)) => write!(text, "INT32_MIN,"),
            (_, Ok(narrow)) => write!(text, "{narrow},"),
            (wide, Err(_)) => write!(text, "INT64_C({wide}),"),
        };
    }
    text.push_str("\n};\n\n");
    text
}
