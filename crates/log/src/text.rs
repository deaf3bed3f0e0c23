//! Reading the lines of notes strictly: one value has one text.

/// A decimal number without sign and leading zeros.
pub(crate) fn decimal<T: std::str::FromStr + std::fmt::Display>(text: &str) -> Option<T> {
    let canonical = !text.is_empty()
        && text.len() <= 20
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok())?
}

/// The lines of a text, each of which ends with a newline; exactly `N` of them.
pub(crate) fn lines<const N: usize>(text: &str) -> Option<[&str; N]> {
    let body = text.strip_suffix('\n')?;
    body.split('\n').collect::<Vec<_>>().try_into().ok()
}

/// The words of a line, with one space between two; exactly `N` of them.
pub(crate) fn words<const N: usize>(line: &str) -> Option<[&str; N]> {
    line.split(' ').collect::<Vec<_>>().try_into().ok()
}
