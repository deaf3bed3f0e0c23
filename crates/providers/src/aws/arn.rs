//! Names of AWS things: roles, resources, regions, partitions.

use std::fmt;

use crate::target::Fault;

/// The partitions of AWS that have public regions: prefix of their ARNs, prefix of their regions.
const PARTITIONS: [(&str, &str); 8] = [
    ("aws-cn", "cn-"),
    ("aws-us-gov", "us-gov-"),
    ("aws-iso", "us-iso-"),
    ("aws-iso-b", "us-isob-"),
    ("aws-iso-e", "eu-isoe-"),
    ("aws-iso-f", "us-isof-"),
    ("aws-eusc", "eusc-"),
    ("aws", ""),
];

/// The partition that `region` is in.
pub(crate) fn partition_of(region: &str) -> &'static str {
    let found = PARTITIONS.iter().find(|(_, prefix)| region.starts_with(prefix));
    found.map_or("aws", |(partition, _)| *partition)
}

/// A region's name: lower-case words and a number, joined with hyphens.
pub(crate) fn is_region(region: &str) -> bool {
    let word =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    region.len() <= 32 && region.contains('-') && region.split('-').all(word)
}

/// An IAM role: `arn:<partition>:iam::<account>:role/<path><name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleArn {
    text: String,
    partition: &'static str,
    account: String,
    name: String,
}

impl RoleArn {
    /// Parses a role's ARN. Holes and wildcards are refused: a policy names the roles that it opens.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let bad = |why: &str| {
            let remedy = "write one role, such as arn:aws:iam::123456789012:role/finance-publish";
            Fault::new(format!("{text:?} {why}"), remedy)
        };
        if text.contains(['{', '}', '*', '?']) {
            return Err(bad("has a hole or a wildcard; a role is named in full"));
        }
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (arn, partition, service, region) = (next(), next(), next(), next());
        let (account, resource) = (next(), next());
        let known = PARTITIONS.iter().find(|(known, _)| *known == partition);
        let (Some((partition, _)), "arn", "iam", "") = (known, arn, service, region) else {
            return Err(bad("is not an IAM role's ARN"));
        };
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad("has no account of 12 digits"));
        }
        let path = resource.strip_prefix("role/").ok_or_else(|| bad("is not a role"))?;
        let name = path.rsplit('/').next().unwrap_or_default();
        let allowed = |b: u8| is_word(b) || b"+=,.@-/".contains(&b);
        if name.is_empty() || name.len() > 64 || path.len() > 576 || !path.bytes().all(allowed) {
            return Err(bad("has a name that IAM does not allow"));
        }
        let (account, name) = (account.to_owned(), name.to_owned());
        Ok(Self { text: text.to_owned(), partition, account, name })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn partition(&self) -> &'static str {
        self.partition
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// The role's name, without its path: what IAM calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The ARN of a session of this role; a role's path is no part of it.
    pub(crate) fn session_arn(&self, session_name: &str) -> String {
        let Self { partition, account, name, .. } = self;
        format!("arn:{partition}:sts::{account}:assumed-role/{name}/{session_name}")
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What STS's patterns call `\w`.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// An external id: `[\w+=,.@:/-]{2,1224}` (`AssumeRole`).
pub(crate) fn is_external_id(text: &str) -> bool {
    (2..=1224).contains(&text.len()) && text.bytes().all(|b| is_word(b) || b"+=,.@:/-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_in_full() {
        let fine = [
            "arn:aws:iam::123456789012:role/finance-publish",
            "arn:aws-cn:iam::123456789012:role/team/a/Role_1",
            "arn:aws-us-gov:iam::123456789012:role/x",
        ];
        for text in fine {
            assert_eq!(RoleArn::parse(text).unwrap().as_str(), text);
        }
        let refused = [
            "",
            "finance-publish",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/{dag_id}",
            "arn:aws:iam::123456789012:role/*",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:iam::12345678901:role/x",
            "arn:aws:iam::12345678901a:role/x",
            "arn:aws:iam:eu-west-1:123456789012:role/x",
            "arn:aws:sts::123456789012:assumed-role/x/y",
            "arn:azure:iam::123456789012:role/x",
            "arn:aws:iam::123456789012:role/x\n",
            "arn:aws:iam::123456789012:role/x:y",
            " arn:aws:iam::123456789012:role/x",
        ];
        for text in refused {
            assert!(RoleArn::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_sessions_arn_has_the_roles_name_without_its_path() {
        let role = RoleArn::parse("arn:aws-cn:iam::123456789012:role/team/a/publish").unwrap();
        assert_eq!(role.session_arn("s"), "arn:aws-cn:sts::123456789012:assumed-role/publish/s");
    }

    #[test]
    fn a_region_is_in_one_partition() {
        let cases = [
            ("eu-west-1", "aws"),
            ("us-gov-west-1", "aws-us-gov"),
            ("cn-north-1", "aws-cn"),
            ("us-isob-east-1", "aws-iso-b"),
            ("us-iso-east-1", "aws-iso"),
            ("eusc-de-east-1", "aws-eusc"),
        ];
        for (region, partition) in cases {
            assert!(is_region(region), "{region}");
            assert_eq!(partition_of(region), partition);
        }
        for text in ["", "eu", "eu-west-1/", "EU-west-1", "eu--1", "eu-west-1.evil.example", "{team}-1"] {
            assert!(!is_region(text), "{text}");
        }
    }
}
