//! Labels of which there are only so many, whatever is sent.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use axum::http::Method;
use cortex_core::PolicyName;
use metrics::SharedString;

/// The most policies that one process tells apart: a library may hold a hundred thousand, and a series is kept for each.
const MOST: usize = 1_000;
/// What stands for every further one.
const OTHERS: &str = "(others)";
/// What stands where there is no policy, or none that exists.
pub(crate) const NO_POLICY: &str = "(none)";

static SEEN: LazyLock<RwLock<HashSet<Arc<str>>>> = LazyLock::new(RwLock::default);

/// A policy's label. The policy has to be in the library: what a caller writes is no label.
pub(crate) fn policy(name: &PolicyName) -> SharedString {
    bounded(&SEEN, name.as_str(), MOST)
}

fn bounded(seen: &RwLock<HashSet<Arc<str>>>, name: &str, most: usize) -> SharedString {
    if let Some(known) = seen.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return SharedString::from(Arc::clone(known));
    }
    let mut seen = seen.write().unwrap_or_else(PoisonError::into_inner);
    if seen.len() >= most && !seen.contains(name) {
        return SharedString::const_str(OTHERS);
    }
    let name = Arc::<str>::from(name);
    seen.insert(Arc::clone(&name));
    SharedString::from(name)
}

/// A method's label: anybody can make methods up.
pub(crate) fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_policies() {
        let seen = RwLock::default();
        let label = |name: &str| bounded(&seen, name, 2).to_string();
        assert_eq!(["a", "b", "a", "c", "b"].map(label), ["a", "b", "a", OTHERS, "b"]);
    }

    #[test]
    fn a_method_that_was_made_up_is_no_label() {
        let made_up = Method::from_bytes(b"BREW").unwrap();
        assert_eq!((method(&Method::POST), method(&made_up)), ("POST", "other"));
    }
}
