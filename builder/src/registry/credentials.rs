//! Names and passwords for registries, from where `docker login` keeps them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Context, Error, Result};

/// What to put into an `Authorization` header for a registry, if somebody has logged in there.
pub fn of(host: &str) -> Result<Option<String>> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let directory = set("DOCKER_CONFIG").map(PathBuf::from);
    let directory = directory.or_else(|| Some(PathBuf::from(set("HOME")?).join(".docker")));
    directory.map_or(Ok(None), |directory| read(&directory.join("config.json"), host))
}

/// Docker keeps `NAME:PASSWORD` in base64, which is what HTTP's basic authentication sends
/// (RFC 7617). Helper programs, which keep it elsewhere, are not asked.
fn read(path: &Path, host: &str) -> Result<Option<String>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.context(|| format!("cannot read {}", path.display()))?,
    };
    let document: Value =
        serde_json::from_slice(&text).context(|| format!("{} is damaged", path.display()))?;
    // Docker's own registry goes by the address of its first version.
    let names = match host {
        "docker.io" | "registry-1.docker.io" => vec![host, "https://index.docker.io/v1/"],
        _ => vec![host],
    };
    let found = names.iter().find_map(|name| document["auths"][*name]["auth"].as_str());
    let Some(base64) = found.filter(|text| !text.is_empty()) else { return Ok(None) };
    if !base64.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)) {
        return Err(Error::new(format!("{}: the login for {host} is damaged", path.display()))
            .hint(format!("docker login {host}")));
    }
    Ok(Some(format!("Basic {base64}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_taken_as_docker_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        assert_eq!(read(&path, "a.org").unwrap(), None);
        let text = r#"{ "auths": { "a.org": { "auth": "YTpi" }, "b.org": {},
            "https://index.docker.io/v1/": { "auth": "Yzpk" }, "c.org": { "auth": "x\ny" } } }"#;
        fs::write(&path, text).unwrap();
        assert_eq!(read(&path, "a.org").unwrap().as_deref(), Some("Basic YTpi"));
        assert_eq!(read(&path, "docker.io").unwrap().as_deref(), Some("Basic Yzpk"));
        assert_eq!(read(&path, "b.org").unwrap(), None);
        assert!(read(&path, "c.org").is_err());
    }
}
