//! Compose projects: what Compose writes into the labels of their containers.

use serde_json::{Value, json};

use super::Member;
use super::docker::{Docker, found, senseless, text};
use crate::client::{Content, Result, escape};

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
/// Of containers of `docker compose run`, which belong to whoever started them.
const ONE_OFF: &str = "com.docker.compose.oneoff";

impl Docker {
    pub(super) fn members_of(&self, project: &str) -> Result<Vec<Member>> {
        let filters = json!({ "label": [format!("{PROJECT}={project}")] }).to_string();
        let list = self.get(&format!("/containers/json?all=1&filters={}", escape(&filters)))?;
        let list = list.as_array().ok_or_else(|| senseless("no list of containers"))?;
        let mut members = Vec::new();
        for listed in list.iter().filter(|it| it["Labels"][ONE_OFF] != json!("True")) {
            let id = text(listed, "Id")?;
            // One that has gone meanwhile is not there.
            let container = found(self.get(&format!("/containers/{}/json", escape(&id))))?;
            members.extend(container.as_ref().map(read_member).transpose()?);
        }
        Ok(members)
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

#[cfg(test)]
mod tests {
    use super::*;

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
