//! An authority of one's own, as a house has it: a root that devices are told, one in between that
//! it vouches for, and a server that this one vouches for.

use std::fs;
use std::path::Path;

use qemu_tests::web_server::Identity;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// Makes all three, and files for a server of this name in a directory; the root as text.
pub(crate) fn make(directory: &Path, name: &str) -> (String, Identity) {
    let (root, own) = authority("a root of the test", None);
    let (between, second) = authority("an authority of the test", Some(&own));
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = params.signed_by(&key, &second).unwrap();
    let identity = Identity { chain: directory.join("chain.pem"), key: directory.join("key.pem") };
    // The root is not sent: whoever trusts it has it.
    fs::write(&identity.chain, server.pem() + &between.pem()).unwrap();
    fs::write(&identity.key, key.serialize_pem()).unwrap();
    (root.pem(), identity)
}

fn authority(
    name: &str,
    above: Option<&Issuer<'static, KeyPair>>,
) -> (Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = match above {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    (certificate.unwrap(), Issuer::new(params, key))
}
