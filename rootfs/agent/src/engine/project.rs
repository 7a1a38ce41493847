//! Compose projects: what Compose writes into the labels of their containers.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::docker::{Docker, found, senseless, text};
use super::{Inside, Member};
use crate::client::{Content, Result, escape};

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
/// Of containers of `docker compose run`, which belong to whoever started them.
const ONE_OFF: &str = "com.docker.compose.oneoff";

impl Docker {
    pub(super) fn members_of(&self, project: &str) -> Result<Vec<Member>> {
        let containers = self.containers_with(&[format!("{PROJECT}={project}")])?;
        containers.iter().map(read_member).collect()
    }

    pub(super) fn inside_of(&self, project: &str, service: &str) -> Result<Option<Inside>> {
        let labels = [format!("{PROJECT}={project}"), format!("{SERVICE}={service}")];
        self.containers_with(&labels)?.first().map(read_inside).transpose()
    }

    /// What the engine knows of each container with all of these labels.
    fn containers_with(&self, labels: &[String]) -> Result<Vec<Value>> {
        let filters = json!({ "label": labels }).to_string();
        let list = self.get(&format!("/containers/json?all=1&filters={}", escape(&filters)))?;
        let list = list.as_array().ok_or_else(|| senseless("no list of containers"))?;
        let mut containers = Vec::new();
        for listed in list.iter().filter(|it| it["Labels"][ONE_OFF] != json!("True")) {
            let id = text(listed, "Id")?;
            // One that has gone meanwhile is not there.
            containers.extend(found(self.get(&format!("/containers/{}/json", escape(&id))))?);
        }
        Ok(containers)
    }

    pub(super) fn tag_image(&self, id: &str, name: &str) -> Result<()> {
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (name, "latest"),
        };
        let (id, repository, tag) = (escape(id), escape(repository), escape(tag));
        self.post(&format!("/images/{id}/tag?repo={repository}&tag={tag}"), Content::None)
    }

    pub(super) fn layers_of_images(&self) -> Result<Vec<(String, Vec<String>)>> {
        let images = self.get("/images/json?all=1")?;
        let images = images.as_array().ok_or_else(|| senseless("no list of images"))?;
        let mut stacks = Vec::new();
        for image in images {
            let id = text(image, "Id")?;
            if self.is_podman {
                // It takes whole archives alone: no layer may be left out of one.
                stacks.push((id, Vec::new()));
                continue;
            }
            let Some(image) = found(self.get(&format!("/images/{}/json", escape(&id))))? else {
                continue;
            };
            let layers = image["RootFS"]["Layers"].as_array().into_iter().flatten();
            stacks.push((id, layers.filter_map(|it| it.as_str().map(str::to_owned)).collect()));
        }
        Ok(stacks)
    }
}

fn read_member(container: &Value) -> Result<Member> {
    let state = &container["State"];
    let policy = container["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap_or_default();
    let health = state["Health"]["Status"].as_str().filter(|word| *word != "none");
    Ok(Member {
        service: text(&container["Config"]["Labels"], SERVICE)?,
        state: text(state, "Status")?,
        health: health.map(str::to_owned),
        exit_code: state["ExitCode"].as_i64().unwrap_or_default(),
        restarts: container["RestartCount"].as_u64().unwrap_or_default(),
        restarts_always: matches!(policy, "always" | "unless-stopped"),
    })
}

fn read_inside(container: &Value) -> Result<Inside> {
    let state = &container["State"];
    let networks = container["NetworkSettings"]["Networks"].as_object();
    let networks: Vec<&Value> = networks.into_iter().flat_map(|it| it.values()).collect();
    let of = |key: &str| -> Vec<IpAddr> {
        let addresses = networks.iter().filter_map(|network| network[key].as_str());
        addresses.filter_map(|text| text.parse().ok()).collect()
    };
    let runs = state["Running"] == json!(true);
    let process = state["Pid"].as_i64().and_then(|id| i32::try_from(id).ok());
    Ok(Inside {
        id: text(container, "Id")?,
        process: process.filter(|id| runs && *id > 0),
        addresses: [of("IPAddress"), of("GlobalIPv6Address")].concat(),
        exit_code: state["ExitCode"].as_i64().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_container_is_for_the_host_is_read() {
        let mut container = json!({
            "Id": "a1",
            "State": { "Running": true, "Pid": 70, "ExitCode": 0 },
            "NetworkSettings": { "Networks": {
                "a": { "IPAddress": "", "GlobalIPv6Address": "fd00::2" },
                "b": { "IPAddress": "172.18.0.2", "GlobalIPv6Address": "" },
            } },
        });
        let inside = read_inside(&container).unwrap();
        let addresses = ["172.18.0.2", "fd00::2"].map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!((inside.process, &inside.addresses[..]), (Some(70), &addresses[..]));
        container["State"] = json!({ "Running": false, "Pid": 0, "ExitCode": 3 });
        let inside = read_inside(&container).unwrap();
        assert_eq!((inside.process, inside.exit_code), (None, 3));
    }

    #[test]
    fn a_container_of_a_project_is_read() {
        let mut container = json!({
            "Config": { "Labels": { SERVICE: "web" } },
            "State": { "Status": "running", "ExitCode": 0, "Health": { "Status": "starting" } },
            "RestartCount": 4,
            "HostConfig": { "RestartPolicy": { "Name": "unless-stopped" } },
        });
        let member = read_member(&container).unwrap();
        assert_eq!((member.service.as_str(), member.restarts), ("web", 4));
        assert_eq!((member.health.as_deref(), member.restarts_always), (Some("starting"), true));
        container["State"]["Health"]["Status"] = json!("none");
        assert_eq!(read_member(&container).unwrap().health, None);
        container["Config"]["Labels"] = json!({});
        assert!(read_member(&container).is_err());
    }
}
