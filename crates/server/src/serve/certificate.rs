//! What a certificate says about itself, as far as operators want to know: whose it is and when it ends.
//!
//! Nothing is decided by what is read here; rustls verifies certificates.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The end and the subject of an X.509 certificate (RFC 5280, section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// When it begins to be valid.
    pub(super) not_before: Timestamp,
    /// When it ends.
    pub(super) not_after: Timestamp,
    /// Its subject's attributes of text, such as `CN=worker-1, O=Acme`; at most 256 characters.
    pub(super) subject: String,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The explicit tag of a certificate's version.
const VERSION: u8 = 0xa0;

/// The attributes of a name that are shown (2.5.4.x), by their last number.
const ATTRIBUTES: [(u8, &str); 4] = [(3, "CN"), (10, "O"), (11, "OU"), (6, "C")];

impl Certificate {
    /// Reads a certificate's DER; none where it is not shaped like one.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let mut outer = Der(der);
        let mut certificate = Der(outer.value(SEQUENCE)?);
        let mut body = Der(certificate.value(SEQUENCE)?);
        if body.tag() == Some(VERSION) {
            body.any()?;
        }
        // The serial number, the signature's algorithm, the issuer.
        for _ in 0..3 {
            body.any()?;
        }
        let mut validity = Der(body.value(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        Some(Self { not_before, not_after, subject: subject(Der(body.value(SEQUENCE)?)) })
    }
}

/// The name as one line. What is no text in it is left out.
fn subject(mut names: Der<'_>) -> String {
    let mut shown = Vec::new();
    while let Some(mut set) = names.value(SET).map(Der) {
        while let Some(mut attribute) = set.value(SEQUENCE).map(Der) {
            let kind = attribute.value(OID).and_then(|oid| match oid {
                [0x55, 0x04, last] => ATTRIBUTES.iter().find(|(number, _)| number == last),
                _ => None,
            });
            let text = attribute.any().and_then(|(_, value)| std::str::from_utf8(value).ok());
            if let (Some((_, name)), Some(text)) = (kind, text) {
                shown.push(format!("{name}={text}"));
            }
        }
    }
    shown.join(", ").chars().filter(|c| !c.is_control()).take(256).collect()
}

/// The rest of a DER encoding, read from its front.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element: its tag and its value.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// The next element's value, if it has this tag.
    fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.tag() != Some(tag) {
            return None;
        }
        self.any().map(|(_, value)| value)
    }

    /// A time (RFC 5280, section 4.1.2.5): years of two digits below 50 are of this century.
    fn time(&mut self) -> Option<Timestamp> {
        let (tag, value) = self.any()?;
        let text = std::str::from_utf8(value).ok()?;
        let text = match tag {
            UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
            UTC_TIME => format!("19{text}"),
            GENERALIZED_TIME => text.to_owned(),
            _ => return None,
        };
        let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
        time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn made(end: (i32, u8)) -> Vec<u8> {
        let mut parameters = CertificateParams::new(["cortex.example".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "worker-1");
        parameters.distinguished_name.push(DnType::OrganizationName, "Acme");
        parameters.not_before = date_time_ymd(2026, 1, 2);
        parameters.not_after = date_time_ymd(end.0, end.1, 3);
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_says_whose_it_is_and_when_it_ends() {
        // From 2050 on the time is written in another way.
        for (end, text) in [((2027, 2), "2027-02-03T00:00:00Z"), ((2051, 2), "2051-02-03T00:00:00Z")] {
            let read = Certificate::read(&made(end)).unwrap();
            assert_eq!(read.not_before.to_string(), "2026-01-02T00:00:00Z");
            assert_eq!(read.not_after.to_string(), text);
            assert!(read.subject.contains("CN=worker-1") && read.subject.contains("O=Acme"), "{read:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Certificate::read(&bytes);
        }

        #[test]
        fn a_certificate_that_is_cut_or_changed_makes_nothing_fail(at in 0..400_usize, byte in any::<u8>()) {
            let mut der = made((2027, 2));
            let _ = Certificate::read(der.get(..at).unwrap_or_default());
            if let Some(place) = der.get_mut(at) {
                *place = byte;
            }
            let _ = Certificate::read(&der);
        }
    }
}
