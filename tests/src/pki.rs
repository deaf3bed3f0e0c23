//! Certificates of a private authority, made for one test.

use std::path::Path;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// The same, as a client trusts it.
    pub fn root(&self) -> reqwest::Certificate {
        reqwest::Certificate::from_pem(self.pem().as_bytes()).expect("a certificate")
    }

    /// A certificate of a server at 127.0.0.1 that ends with the year `until`.
    pub fn server(&self, until: i32) -> Certified {
        self.certify("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth, until)
    }

    /// A certificate of a client of this name that ends with the year `until`.
    pub fn client(&self, name: &str, until: i32) -> Certified {
        self.certify(name, ExtendedKeyUsagePurpose::ClientAuth, until)
    }

    fn certify(&self, name: &str, usage: ExtendedKeyUsagePurpose, until: i32) -> Certified {
        let mut parameters = CertificateParams::new([name.to_owned()]).expect("a name");
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages = vec![usage];
        parameters.not_before = date_time_ymd(2020, 1, 1);
        parameters.not_after = date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Certified { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Certified {
    /// Writes `tls.crt` and `tls.key` into `folder`.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("tls.crt"), &self.certificate).expect("a file");
        std::fs::write(folder.join("tls.key"), &self.key).expect("a file");
    }

    /// What a client shows.
    pub fn identity(&self) -> reqwest::Identity {
        let both = format!("{}{}", self.certificate, self.key);
        reqwest::Identity::from_pem(both.as_bytes()).expect("an identity")
    }
}
