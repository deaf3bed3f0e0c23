//! Pages of a list, newest first, and the ids that continue them.

use std::str::FromStr;

use super::Problem;

/// How many a page has at the most: as many as are asked for, 50 unless told, 200 at the most.
pub(super) fn size(asked: Option<i64>) -> Result<i64, Problem> {
    let size = asked.unwrap_or(50);
    if (1..=200).contains(&size) { Ok(size) } else { Err(Problem::bad_request("limit is 1 to 200")) }
}

/// What continues after `found`: the last one's id, where there may be more.
pub(super) fn next<T, Id>(found: &[T], size: i64, id: impl FnOnce(&T) -> Id) -> Option<Id> {
    let full = i64::try_from(found.len()).is_ok_and(|count| count == size);
    found.last().filter(|_| full).map(id)
}

/// The id of `what`, as a caller wrote it.
pub(crate) fn id<Id: FromStr>(what: &str, text: &str) -> Result<Id, Problem> {
    text.parse().map_err(|_| Problem::bad_request(format!("the id of {what} is a UUID")))
}
