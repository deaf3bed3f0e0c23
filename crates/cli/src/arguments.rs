//! Arguments that many commands read.

use std::time::Duration;

use jiff::SignedDuration;

/// A length of time as people write it: `90s`, `10m`, `1h 30m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let duration: SignedDuration =
        text.parse().map_err(|_| "write a length of time such as 90s or 10m".to_owned())?;
    Duration::try_from(duration).map_err(|_| "a length of time is not negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("1h 30m", 5_400), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "-1m", "-5"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
