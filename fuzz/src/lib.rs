//! What the fuzz targets share.

/// Makes a text of the fuzzer's bytes: the bytes themselves, or one of `seeds` with a piece replaced by them, so
/// that the fuzzer starts deep inside what is accepted.
pub fn text(data: &[u8], seeds: &[&str]) -> String {
    let [choice, high, low, cut, rest @ ..] = data else {
        return String::from_utf8_lossy(data).into_owned();
    };
    let rest = String::from_utf8_lossy(rest).into_owned();
    let chosen = usize::from(*choice) % (seeds.len() + 1);
    let Some(seed) = seeds.get(chosen) else { return rest };
    let boundary =
        |at: usize| (0..=at.min(seed.len())).rev().find(|at| seed.is_char_boundary(*at)).unwrap_or(0);
    let start = boundary(usize::from(u16::from_be_bytes([*high, *low])) % (seed.len() + 1));
    let end = boundary(start + usize::from(*cut));
    format!("{}{rest}{}", &seed[..start], &seed[end.max(start)..])
}
